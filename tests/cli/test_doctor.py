"""`kbroker doctor`: every typical fault is named, with its cure."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import threading

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from kbroker.cli.client.connection import Address
from kbroker.cli.diagnosis import probe, walk
from kbroker.protocol.frames import encode_response
from kbroker.protocol.messages.api_versions import ApiVersion, ApiVersionsResponse
from kbroker.testing import Broker

LIMIT_S = 60


def checks(done):
    """Status and detail by check."""
    return {row[1]: (row[0], *row[2:]) for row in done.rows}


def failure(done):
    """What failed, and the cure: it must be one thing."""
    [row] = [row for row in done.rows if row[0] == "failed"]
    return row[1:]


# -- all is well


def test_a_cluster_that_is_well(cli, broker):
    found = checks(cli("doctor"))

    assert {"ok"} == {row[0] for row in found.values()}
    assert {"bootstrap: connection", "bootstrap: Kafka", "metadata", "partitions", "coordinator"} <= set(
        found
    )
    assert {"create topic", "produce", "clock", "consume", "delete topic"} <= set(found)
    assert not [name for name in broker.topics() if name.startswith(walk.TOPIC_PREFIX)]


def test_a_topic_that_is_there_already(cli, broker, topic):
    found = checks(cli("doctor", "--topic", topic))

    assert ("ok", True) == (found["consume"][0], "create topic" not in found)
    assert 1 == len(broker.records(topic, 0))


def test_json_is_one_document(cli):
    told = cli("doctor", "-o", "json").json

    assert (True, {"check", "status", "detail", "cure"}) == (told["ok"], set(told["checks"][0]))


# -- what is wrong with the address


def test_nobody_listens(cli, nobody):
    done = cli("doctor", "-b", nobody, code=1)

    cure = "start the broker, or give the port of its listener"
    assert ["bootstrap: connection", f"nobody listens at {nobody}", cure] == failure(done)


@pytest.mark.parametrize(
    ("port", "cure"),
    [
        (9092, "start the broker, or give the port of its listener (9092 where none is given)"),
        (9093, "start the broker, or give the port of its listener"),
    ],
)
def test_the_port_that_may_not_have_been_given_is_said(port, cure, monkeypatch):
    def refuse(address, timeout):
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "create_connection", refuse)

    found = probe.probe(Address("localhost", port), probe.Way("bootstrap", False), None, None)

    assert cure == found.findings[-1].cure


def test_json_tells_of_failures_too(cli, nobody):
    told = cli("doctor", "-b", nobody, "-o", "json", code=1).json

    assert (False, "failed") == (told["ok"], told["checks"][-1]["status"])


def test_a_name_that_does_not_resolve(cli):
    check, detail, cure = failure(cli("doctor", "-b", "nowhere.invalid:9092", code=1))

    assert ("bootstrap: name", True) == (check, detail.startswith("nowhere.invalid has no address"))
    assert "--bootstrap-server" in cure


@pytest.mark.parametrize(
    ("advertised", "check"),
    [("nowhere.invalid:9092", "broker 7: name"), ("127.0.0.1:1", "broker 7: connection")],
)
def test_an_advertised_address_that_clients_cannot_use(cli, advertised, check):
    options = {"node.id": 7, "advertised.listeners": f"PLAINTEXT://{advertised}"}
    with Broker(options) as wrong:
        found = failure(cli("doctor", "-b", wrong.bootstrap_servers, code=1))

    assert check == found[0]
    assert "advertised.listeners of broker 7" in found[2]


# -- TLS


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def identity_of(authority, tmp_path, *names, **options):
    path = tmp_path / f"{'-'.join(names)}.pem"
    authority.issue_cert(*names, **options).private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


@contextlib.contextmanager
def tls_broker(keystore, **options):
    settings = {
        "listeners": "SSL://127.0.0.1:0",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keystore),
    }
    with Broker({**settings, **options}) as broker:
        yield broker


@pytest.fixture
def ca(authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def test_tls_that_is_well(cli, authority, ca, tmp_path):
    with tls_broker(identity_of(authority, tmp_path, "127.0.0.1")) as broker:
        found = checks(cli("doctor", "-b", broker.bootstrap_servers, "--ca", ca))

    status, detail = found["bootstrap: TLS"]
    assert ("ok", True) == (status, detail.startswith("TLSv1.3, certificate accepted, valid for "))
    assert ("ok", False) == (found["consume"][0], "bootstrap: strict TLS" in found)


@pytest.fixture
def plain_authority(tmp_path):
    """As `openssl req -x509` makes one: without keyUsage. Files of its certificate, and of a broker's that it signed."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("ca", "broker")]
    now = datetime.datetime.now(datetime.UTC)
    own = x509.SubjectKeyIdentifier.from_public_key(keys[0].public_key())
    extensions = [
        [(own, False), (x509.BasicConstraints(ca=True, path_length=None), True)],
        [
            (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), False),
            (x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False),
        ],
    ]
    pems = []
    for key, name, added in zip(keys, names, extensions, strict=True):
        builder = (
            x509.CertificateBuilder(names[0], name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=100))
        )
        for extension, critical in added:
            builder = builder.add_extension(extension, critical)
        pems.append(builder.sign(keys[0], hashes.SHA256()).public_bytes(Encoding.PEM))
    key = keys[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    paths = tmp_path / "plain-ca.pem", tmp_path / "plain-broker.pem"
    for path, content in zip(paths, (pems[0], key + pems[1]), strict=True):
        path.write_bytes(content)
    return paths


def test_an_authority_that_new_pythons_do_not_accept_is_a_warning(cli, plain_authority, caplog):
    ca, keystore = plain_authority
    with tls_broker(keystore) as broker:
        found = checks(cli("doctor", "-b", broker.bootstrap_servers, "--ca", ca))

    status, detail, cure = found["bootstrap: strict TLS"]
    assert ("warning", "ok") == (status, found["consume"][0])
    assert detail.startswith("clients on Python 3.13 and newer do not accept the certificate of 127.0.0.1:")
    assert "keyUsage=critical,keyCertSign,cRLSign" in cure
    assert "connection closed" not in caplog.text  # the broker has no reason to wonder


def test_plain_text_to_a_tls_port(cli, authority, tmp_path):
    with tls_broker(identity_of(authority, tmp_path, "127.0.0.1")) as broker:
        check, detail, cure = failure(cli("doctor", "-b", broker.bootstrap_servers, code=1))
        other = cli("topic", "list", "-b", broker.bootstrap_servers, code=1)

    assert ("bootstrap: Kafka", f"{broker_at(detail)} speaks TLS, not plain text") == (check, detail)
    assert cure.startswith("say --tls")
    assert "if it is a TLS listener, say --tls" in other.err


def broker_at(detail):
    return detail.split()[0]


def test_tls_to_a_plain_port(cli, broker):
    check, detail, cure = failure(cli("doctor", "--tls", code=1))
    other = cli("topic", "list", "--tls", code=1)

    assert ("bootstrap: TLS", f"{broker.bootstrap_servers} speaks plain text, not TLS") == (check, detail)
    assert cure.startswith("leave out --tls")
    assert "if it is a listener without TLS, leave out --tls, and --ca, --cert and --key" in other.err


@pytest.mark.parametrize(
    ("names", "expires", "trusted", "said", "cured"),
    [
        (["elsewhere.example"], None, True, "is for other names", "subjectAltName"),
        (["127.0.0.1"], None, False, "that is not known here|no authority that is trusted", "--ca FILE"),
        (["127.0.0.1"], -1, True, "has expired", "renew it"),
    ],
)
def test_certificates_that_are_not_accepted(
    cli, authority, ca, tmp_path, names, expires, trusted, said, cured
):
    import re

    day = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=expires or 90)
    keystore = identity_of(authority, tmp_path, *names, not_after=day)
    flags = ["--ca", ca] if trusted else ["--tls"]
    with tls_broker(keystore) as broker:
        check, detail, cure = failure(cli("doctor", "-b", broker.bootstrap_servers, *flags, code=1))
        other = cli("topic", "list", "-b", broker.bootstrap_servers, *flags, code=1)

    assert "bootstrap: TLS" == check
    assert re.search(said, detail), detail
    assert cured in cure
    assert re.search(said, other.err), other.err
    assert cured in other.err


def test_a_certificate_that_ends_soon_is_a_warning(cli, authority, ca, tmp_path):
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=5)
    with tls_broker(identity_of(authority, tmp_path, "127.0.0.1", not_after=soon)) as broker:
        status, detail, cure = checks(cli("doctor", "-b", broker.bootstrap_servers, "--ca", ca))[
            "bootstrap: TLS"
        ]

    assert ("warning", True, True) == (
        status,
        "valid for 4 days" in detail,
        cure.startswith("renew the certificate"),
    )


@pytest.fixture(params=["TLSv1.2", "TLSv1.3"])
def strict(request, authority, ca, tmp_path):
    """`with strict() as flags`: a broker that lets nobody in without a certificate, and how to reach it."""
    options = {
        "ssl.client.auth": "required",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(ca),
        "ssl.enabled.protocols": request.param,
    }

    @contextlib.contextmanager
    def running():
        with tls_broker(identity_of(authority, tmp_path, "127.0.0.1"), **options) as broker:
            yield ["-b", broker.bootstrap_servers, "--ca", ca]

    return running


@pytest.fixture
def asking(strict):
    """That broker, while the test runs."""
    with strict() as flags:
        yield flags


def test_a_client_certificate_that_is_wanted(cli, asking, authority, tmp_path):
    _, detail, cure = failure(cli("doctor", *asking, code=1))
    other = cli("topic", "list", *asking, code=1)
    well = cli("doctor", *asking, "--cert", identity_of(authority, tmp_path, "client"))

    assert "ask" in detail
    assert "for a client certificate" in detail
    assert cure.startswith("give one by --cert FILE")
    assert "for a client certificate; give one by --cert FILE" in other.err
    assert "failed" not in well.out
    assert ["ok", "our certificate"] == well.rows[0][:2]


def test_our_own_certificate_that_has_expired(cli, asking, authority, tmp_path):
    gone = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)
    certificate = identity_of(authority, tmp_path, "client", not_after=gone)

    done = cli("doctor", *asking, "--cert", certificate, code=1)
    other = cli("topic", "list", *asking, "--cert", certificate, code=1)

    assert ["failed", "our certificate", f"it has expired on {gone:%Y-%m-%d}"] == done.rows[0][:3]
    assert "our certificate has expired, it says" in done.rows[-1][2]
    assert "our certificate has expired, it says; renew the certificate in --cert" in other.err


def test_a_certificate_of_ours_that_is_signed_by_somebody_else(cli, strict, tmp_path, caplog):
    certificate = identity_of(trustme.CA(), tmp_path, "client")

    with strict() as flags:
        _, detail, cure = failure(cli("doctor", *flags, "--cert", certificate, code=1))

    # the broker says it after the alert, and may do so after we have gone: it is stopped now
    assert "it does not trust the authority of our certificate" in detail
    assert "in its ssl.truststore" in cure
    assert "the client's certificate is not accepted: unable to get local issuer certificate" in caplog.text
    assert "or put its authority there" in caplog.text


def test_a_key_or_a_certificate_that_is_not_in_the_file(cli, authority, tmp_path):
    both = identity_of(authority, tmp_path, "client").read_text()
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    at = both.index("-----BEGIN CERTIFICATE")
    key.write_text(both[:at])
    certificate.write_text(both[at:])

    no_key = cli("topic", "list", "--cert", certificate, code=1)
    no_certificate = cli("topic", "list", "--key", key, code=1)

    assert f"--cert {certificate} holds no private key in PEM: give its file as --key FILE" in no_key.err
    assert f"--key {key} holds no certificate in PEM: give its file as --cert FILE" in no_certificate.err


# -- what listens there is something else


@contextlib.contextmanager
def answering(reply):
    """A server that reads something and answers with these bytes, None: nothing at all; as often as it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(LIMIT_S)
        held = []

        def serve():
            while True:
                try:
                    one, _ = server.accept()
                except OSError:
                    return
                one.settimeout(LIMIT_S)
                held.append(one)
                if reply is not None:
                    with contextlib.suppress(OSError):
                        one.recv(65_536)
                        one.sendall(reply)
                        one.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(LIMIT_S)
        for one in held:
            one.close()


OLD = encode_response(
    ApiVersionsResponse(
        api_keys=[ApiVersion(api_key=key, min_version=0, max_version=2) for key in (0, 1, 3, 18, 19)]
    ),
    0,
    1,
)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a web server listens at"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is not Kafka"),
        (b"\x00\x00\x00\x10" + b"\xff" * 16, "answers what is no Kafka"),
        (b"", "closes the connection at the first request"),
        (OLD, "it speaks Produce up to version 2, 3 is needed"),
    ],
)
def test_what_is_no_kafka_or_an_old_one(cli, reply, said):
    with answering(reply) as address:
        check, detail, _ = failure(cli("doctor", "-b", address, code=1))

    assert ("bootstrap: Kafka", True) == (check, said in detail), detail


def test_a_listener_that_says_nothing(cli, monkeypatch):
    monkeypatch.setattr("kbroker.cli.diagnosis.probe.STEP_SECONDS_MAX", 0.2)
    with answering(None) as address:
        _, detail, _ = failure(cli("doctor", "-b", address, code=1))
        _, by_tls, _ = failure(cli("doctor", "-b", address, "--tls", code=1))

    assert f"{address} takes connections and says nothing within 0 s" == detail == by_tls


async def test_what_was_found_is_told_while_the_next_step_waits(monkeypatch):
    told = threading.Event()

    def probe(address, way, tls, any_tls, tell):
        tell(walk.ok("connection", "it takes connections"))
        assert told.wait(LIMIT_S)
        tell(walk.failed("Kafka", "it says nothing", "look there"))

    monkeypatch.setattr(walk, "probe", probe)
    found = []
    async for finding in walk._told(Address("host", 1), walk.Way("bootstrap", False), None, None):
        found.append(finding.check)
        told.set()

    assert ["connection", "Kafka"] == found


def test_a_broker_that_hangs_is_said_to_hang_first_of_all(cli, monkeypatch):
    monkeypatch.setattr("kbroker.cli.client.connection.CONNECT_SECONDS_MAX", 0.2)
    with answering(None) as address:
        failed = cli("topic", "list", "-b", address, code=1)

    assert failed.err.startswith(
        f"Error: {address} did not answer within 0 s, though it takes connections; is "
    )


# -- what only numbers show


@pytest.mark.parametrize(
    ("broker_s", "status", "said"),
    [
        (100.0, "ok", "agree"),
        (101.9, "ok", "agree"),
        (110.0, "warning", "9 s ahead of"),
        (40.0, "warning", "60 s behind"),
        (3700.0, "failed", "3599 s ahead of"),
        (0.0, "failed", "100 s behind"),
    ],
)
def test_clocks_that_differ(broker_s, status, said):
    found = walk._clock(broker_s, 100.0, 101.0)

    assert (status, True) == (found.status, said in found.detail), found.detail


def test_an_address_is_written_as_it_is_typed():
    assert ["host:1", "[::1]:2"] == [str(Address("host", 1)), str(Address("::1", 2))]
