"""TLS listeners whose options change while they serve."""

from __future__ import annotations

import datetime
import socket
import ssl

import pytest
import trustme

from kbroker.config.alter import DELETE, SET
from kbroker.protocol.messages.configs import (
    IncrementalAlterableConfig,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource,
)
from kbroker.server.handlers.configs import handle_incremental_alter_configs
from kbroker.testing import Broker

KEYSTORE = "listener.name.ssl.ssl.keystore.location"


@pytest.fixture
def certificates(tmp_path):
    """An authority, and two certificates of it that the broker may show."""
    authority = trustme.CA()
    files = {}
    for name in ("one", "two"):
        files[name] = tmp_path / f"{name}.pem"
        identity = authority.issue_cert("localhost", organization_name=name)
        identity.private_key_and_cert_chain_pem.write_to_path(str(files[name]))
    return authority, files


def serving(keystore, **options):
    return Broker(
        {
            "node.id": 1,
            "listeners": "PLAINTEXT://127.0.0.1:0,SSL://127.0.0.1:0",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": keystore,
        },
        **options,
    )


def shown(broker, authority):
    """The organization in the certificate that the broker shows to a new connection."""
    port = broker.call(lambda node: node.endpoints[1].port)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        certificate = secured.getpeercert()
    assert certificate is not None
    return dict(pair for part in certificate["subject"] for pair in part)["organizationName"]


def alter(broker, name, value, *, operation=SET):
    return altering(broker, name, value, operation=operation).error_code


def altering(broker, name, value, *, operation=SET):
    request = IncrementalAlterConfigsRequest(
        resources=[
            IncrementalAlterConfigsResource(
                resource_type=4,
                resource_name="1",
                configs=[IncrementalAlterableConfig(name=name, config_operation=operation, value=value)],
            )
        ]
    )
    answer = broker.call(lambda node: handle_incremental_alter_configs(node.rooms, None, request))
    return answer.responses[0]


def test_a_changed_key_store_is_shown_to_the_next_connection_and_after_a_restart(certificates, tmp_path):
    authority, files = certificates
    with serving(files["one"], data_dir=tmp_path / "data") as broker:
        assert "one" == shown(broker, authority)

        assert 0 == alter(broker, KEYSTORE, str(files["two"]))
        assert "two" == shown(broker, authority)

        broker.restart()
        assert "two" == shown(broker, authority)


def test_the_same_name_set_again_reads_the_file_again(certificates):
    """How a certificate is renewed: the file is replaced, the option set to what it was."""
    authority, files = certificates
    with serving(files["one"]) as broker:
        assert 0 == alter(broker, KEYSTORE, str(files["one"]))
        files["one"].write_bytes(files["two"].read_bytes())

        assert 0 == alter(broker, KEYSTORE, str(files["one"]))

        assert "two" == shown(broker, authority)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (KEYSTORE, "/nowhere.pem", "ssl.keystore.location=/nowhere.pem cannot be read: No such file"),
        ("listener.name.ssl.ssl.client.auth", "required", "needs the certificates to trust"),
        ("ssl.cipher.suites", "NONSENSE", "this OpenSSL does not offer NONSENSE"),
    ],
)
def test_tls_options_that_cannot_be_used_are_refused_and_not_kept(certificates, tmp_path, name, value, said):
    authority, files = certificates
    with serving(files["one"], data_dir=tmp_path / "data") as broker:
        response = altering(broker, name, value)

        assert 42 == response.error_code
        assert response.error_message.startswith("Validation of dynamic config update failed: listener SSL: ")
        assert said in response.error_message
        assert 0 == alter(broker, "listener.name.plaintext.ssl.keystore.location", "/nowhere.pem")  # no TLS
        broker.restart()
        assert "one" == shown(broker, authority)


def test_options_are_tried_as_they_are_together_after_the_change(certificates, tmp_path):
    authority, files = certificates
    trust = tmp_path / "trust.pem"
    authority.cert_pem.write_to_path(str(trust))
    with serving(files["one"]) as broker:
        assert 0 == alter(broker, "listener.name.ssl.ssl.truststore.type", "PEM")
        assert 0 == alter(broker, "listener.name.ssl.ssl.truststore.location", str(trust))
        assert 0 == alter(broker, "listener.name.ssl.ssl.client.auth", "required")
        assert 42 == alter(broker, "listener.name.ssl.ssl.truststore.location", None, operation=DELETE)
        assert 0 == alter(broker, "listener.name.ssl.ssl.client.auth", None, operation=DELETE)
        assert 0 == alter(broker, "listener.name.ssl.ssl.truststore.location", None, operation=DELETE)


def test_a_key_store_that_is_gone_leaves_the_one_before(certificates, caplog):
    """Files are read again at each change of the broker's options."""
    authority, files = certificates
    with serving(files["one"]) as broker:
        files["one"].unlink()
        assert 0 == alter(broker, "max.connections.per.ip", "100")

        assert "one" == shown(broker, authority)
    assert f"{files['one']} cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("days", "said"),
    [(-1.5, "this broker's certificate has expired on"), (10.5, "in 10 days"), (40, None)],
)
def test_a_certificate_at_its_end_is_told_of_once(tmp_path, caplog, days, said):
    keystore = tmp_path / "broker.pem"
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    identity = trustme.CA().issue_cert("localhost", not_after=ends)
    identity.private_key_and_cert_chain_pem.write_to_path(str(keystore))

    with serving(keystore) as broker:
        alter(broker, "max.connections.per.ip", "100")

    warned = [
        record.getMessage() for record in caplog.records if "this broker's certificate" in record.getMessage()
    ]
    assert (said is not None) == len(warned)
    assert said is None or said in warned[0]


@pytest.mark.parametrize("shown", ["none", "foreign"])
def test_a_client_that_is_refused_reads_why_though_it_has_sent_a_request(certificates, tmp_path, shown):
    """Under TLS 1.3 clients are done with the handshake before the broker has looked at their certificate."""
    authority, files = certificates
    trust = tmp_path / "trust.pem"
    authority.cert_pem.write_to_path(str(trust))
    options = {
        "node.id": 1,
        "listeners": "SSL://127.0.0.1:0",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": files["one"],
        "ssl.client.auth": "required",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": trust,
    }
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    authority.configure_trust(context)
    if shown == "foreign":
        trustme.CA().issue_cert("client").configure_cert(context)
    with Broker(options) as broker:
        port = broker.call(lambda node: node.endpoints[0].port)
        for _ in range(5):
            with (
                socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as secured,
            ):
                secured.sendall(bytes(1000))
                secured.sendall(bytes(1000))

                with pytest.raises(ssl.SSLError) as refused:
                    secured.recv(1)

            expected = "TLSV13_ALERT_CERTIFICATE_REQUIRED" if shown == "none" else "TLSV1_ALERT_UNKNOWN_CA"
            assert expected == refused.value.reason


def test_limits_of_connections_follow_the_options():
    with Broker({"node.id": 1}) as broker:
        assert 0 == alter(broker, "max.connections.per.ip", "3")

        assert 3 == broker.call(lambda node: node.connections.limits.per_ip_max)
        assert 0 == alter(broker, "max.connections.per.ip.overrides", "10.0.0.1:7,localhost:5")
        expected = {"10.0.0.1": 7, "127.0.0.1": 5, "::1": 5}
        assert expected == broker.call(lambda node: node.connections.limits.per_ip_overrides)
        assert 42 == alter(broker, "max.connections.per.ip.overrides", "host.example:7")
