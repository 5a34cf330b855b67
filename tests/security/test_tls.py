"""TLS contexts from Kafka's options: what handshakes, and which sentence a wrong option gets."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import replace

import pytest
import trustme

from kbroker.config import Settings, TlsOptions
from kbroker.errors import StartError
from kbroker.security.tls import build_client_context, build_server_context, openssl_suite


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def identity(authority):
    return authority.issue_cert("localhost")


@pytest.fixture
def keystore(identity, tmp_path):
    path = tmp_path / "broker.pem"
    identity.private_key_and_cert_chain_pem.write_to_path(path)
    return str(path)


@pytest.fixture
def truststore(authority, tmp_path):
    path = tmp_path / "trusted.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


NOTHING_SET = TlsOptions(
    client_auth="none",
    enabled_protocols=("TLSv1.2", "TLSv1.3"),
    cipher_suites=(),
    keystore_type="JKS",
    keystore_location=None,
    truststore_type="JKS",
    truststore_location=None,
    truststore_certificates=None,
    keystore_password=None,
    keystore_key=None,
    keystore_certificate_chain=None,
    key_password=None,
    truststore_password=None,
)


def pem(keystore, **options):
    return replace(
        NOTHING_SET, keystore_type="PEM", keystore_location=keystore, truststore_type="PEM", **options
    )


def client_context(authority, identity=None, *, versions=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    if identity is not None:
        identity.configure_cert(context)
    if versions is not None:
        context.minimum_version = context.maximum_version = versions
    return context


def shaken(side):
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def handshake(server, client):
    """Both ends in memory; the client's session, after the server has seen everything the client sent."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = server.wrap_bio(to_server, to_client, server_side=True)
    client_side = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(10):
        if shaken(server_side) & shaken(client_side):
            return client_side
    raise AssertionError("no handshake after 10 rounds")


def test_a_client_that_trusts_the_authority_gets_tls_13(authority, keystore):
    session = handshake(build_server_context(pem(keystore)), client_context(authority))

    assert "TLSv1.3" == session.version()


def test_the_enabled_protocols_bound_the_version(authority, keystore):
    server = build_server_context(pem(keystore, enabled_protocols=("TLSv1.2",)))

    assert "TLSv1.2" == handshake(server, client_context(authority)).version()


def test_javas_names_of_suites_are_understood(authority, keystore):
    server = build_server_context(pem(keystore, cipher_suites=("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",)))

    session = handshake(server, client_context(authority))

    assert ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLSv1.2") == session.cipher()[:2]


@pytest.mark.parametrize(
    ("iana", "openssl"),
    [
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
        ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305"),
        ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384", "ECDHE-ECDSA-AES256-SHA384"),
        ("TLS_DHE_RSA_WITH_AES_256_GCM_SHA384", "DHE-RSA-AES256-GCM-SHA384"),
        ("TLS_RSA_WITH_AES_128_CBC_SHA", "AES128-SHA"),
        ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
    ],
)
def test_suites_have_two_names(iana, openssl):
    assert openssl == openssl_suite(iana)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(openssl)


def test_required_refuses_a_client_without_a_certificate(authority, keystore, truststore):
    server = build_server_context(pem(keystore, truststore_location=truststore, client_auth="required"))
    client = client_context(authority, versions=ssl.TLSVersion.TLSv1_2)

    with pytest.raises(ssl.SSLError):
        handshake(server, client)


def test_required_lets_a_client_with_a_trusted_certificate_in(authority, keystore, truststore):
    server = build_server_context(pem(keystore, truststore_location=truststore, client_auth="required"))
    client = client_context(authority, authority.issue_cert("somebody"))

    assert "TLSv1.3" == handshake(server, client).version()


def test_requested_lets_a_client_without_a_certificate_in_but_not_a_strangers(
    authority, keystore, truststore
):
    server = build_server_context(pem(keystore, truststore_location=truststore, client_auth="requested"))
    stranger = client_context(authority, trustme.CA().issue_cert("stranger"), versions=ssl.TLSVersion.TLSv1_2)

    assert "TLSv1.3" == handshake(server, client_context(authority)).version()
    with pytest.raises(ssl.SSLError):
        handshake(server, stranger)


def test_key_and_chain_may_stand_in_the_configuration_on_one_line(authority, identity):
    """A properties file joins the lines of a continued value."""
    options = replace(
        NOTHING_SET,
        keystore_type="PEM",
        keystore_key=identity.private_key_pem.bytes().decode().replace("\n", " "),
        keystore_certificate_chain="".join(pem.bytes().decode() for pem in identity.cert_chain_pems).replace(
            "\n", " "
        ),
    )

    assert "TLSv1.3" == handshake(build_server_context(options), client_context(authority)).version()


@pytest.fixture
def encrypted(identity, tmp_path):
    plain, path = tmp_path / "plain.pem", tmp_path / "encrypted.pem"
    identity.private_key_pem.write_to_path(plain)
    command = ["openssl", "pkcs8", "-topk8", "-in", plain, "-passout", "pass:secret"]
    key = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    path.write_bytes(key + b"".join(pem.bytes() for pem in identity.cert_chain_pems))
    return str(path)


def test_an_encrypted_key_opens_with_its_password(authority, encrypted):
    server = build_server_context(pem(encrypted, key_password="secret"))

    assert "TLSv1.3" == handshake(server, client_context(authority)).version()


def refusal(options):
    with pytest.raises(StartError) as caught:
        build_server_context(options)
    return str(caught.value)


def test_a_listener_without_a_certificate_says_what_to_set():
    assert "ssl.keystore.location" in refusal(NOTHING_SET)


def test_a_missing_file_is_named(tmp_path):
    expected = f"ssl.keystore.location={tmp_path}/gone.pem cannot be read: No such file or directory; "
    assert refusal(pem(f"{tmp_path}/gone.pem")).startswith(expected)


def test_a_jks_store_names_the_conversion(tmp_path):
    store = tmp_path / "broker.jks"
    store.write_bytes(b"\xfe\xed\xfe\xed\x00\x00\x00\x02")

    sentence = refusal(replace(NOTHING_SET, keystore_location=str(store)))

    assert "is a JKS store, and kbroker reads PEM; convert it (`keytool -importkeystore" in sentence
    assert "openssl pkcs12" in sentence


def test_a_pem_file_without_its_type_asks_for_the_type(keystore):
    assert "set ssl.keystore.type=PEM" in refusal(replace(NOTHING_SET, keystore_location=keystore))


def test_an_encrypted_key_without_a_password_asks_for_it_and_not_on_the_terminal(encrypted):
    assert "is encrypted; set ssl.key.password." in refusal(pem(encrypted))


def test_a_wrong_password_says_so(encrypted):
    assert "check ssl.key.password" in refusal(pem(encrypted, key_password="wrong"))


def test_a_key_of_another_certificate_says_so(authority, identity, tmp_path):
    path = tmp_path / "mixed.pem"
    other = authority.issue_cert("localhost")
    path.write_bytes(other.private_key_pem.bytes() + identity.cert_chain_pems[0].bytes())

    assert "does not belong to its first certificate" in refusal(pem(str(path)))


@pytest.mark.parametrize("kept", ["PRIVATE KEY", "CERTIFICATE"])
def test_a_file_that_lacks_a_half_names_it(identity, tmp_path, kept):
    path = tmp_path / "half.pem"
    key = kept == "PRIVATE KEY"
    path.write_bytes(identity.private_key_pem.bytes() if key else identity.cert_chain_pems[0].bytes())

    assert f"holds no {'certificate' if key else 'private key'} in PEM" in refusal(pem(str(path)))


def test_damaged_pem_names_the_file(identity, tmp_path):
    path = tmp_path / "damaged.pem"
    path.write_bytes(identity.private_key_and_cert_chain_pem.bytes().replace(b"M", b"N"))

    assert f"ssl.keystore.location={path} does not load" in refusal(pem(str(path)))


def test_required_without_a_truststore_says_what_to_set(keystore):
    assert "needs the certificates to trust" in refusal(pem(keystore, client_auth="required"))


def test_an_empty_truststore_is_refused(keystore, tmp_path):
    empty = tmp_path / "empty.pem"
    empty.write_bytes(b"")

    assert "holds no certificate" in refusal(
        pem(keystore, truststore_location=str(empty), client_auth="required")
    )


@pytest.mark.parametrize("names", [("TLSv1.1",), ("SSLv3", "TLSv1.2"), ()])
def test_old_protocols_are_refused(keystore, names):
    assert "kbroker speaks TLSv1.2 and TLSv1.3" in refusal(pem(keystore, enabled_protocols=names))


def test_suites_of_no_enabled_version_are_refused(keystore):
    options = pem(keystore, enabled_protocols=("TLSv1.2",), cipher_suites=("TLS_AES_128_GCM_SHA256",))

    assert "belongs to a version in ssl.enabled.protocols" in refusal(options)


def test_unknown_suites_are_refused(keystore):
    suites = ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_MOON_WITH_CHEESE")

    assert "does not offer MOON-CHEESE; " in refusal(pem(keystore, cipher_suites=suites))


def test_a_listeners_own_options_stand_above_the_brokers(authority, keystore):
    settings = Settings.load(
        {
            "listeners": "INNER://localhost:9093",
            "listener.security.protocol.map": "INNER:SSL",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": "/nowhere",
            "listener.name.inner.ssl.keystore.location": keystore,
        }
    )

    session = handshake(build_server_context(settings.tls("INNER")), client_context(authority))

    assert "TLSv1.3" == session.version()


def test_a_client_trusts_its_truststore_alone(keystore, truststore):
    options = replace(NOTHING_SET, truststore_type="PEM", truststore_location=truststore)

    context = build_client_context(options)

    assert (ssl.CERT_REQUIRED, True, 1) == (
        context.verify_mode,
        context.check_hostname,
        len(context.get_ca_certs()),
    )


def test_a_client_without_a_truststore_trusts_the_systems_authorities(monkeypatch):
    loaded = []
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda self, *_: loaded.append(self))

    context = build_client_context(NOTHING_SET, check_host=False)

    assert ([context], ssl.CERT_REQUIRED, False) == (loaded, context.verify_mode, context.check_hostname)


def test_a_clients_own_certificate_must_have_its_key(truststore):
    with pytest.raises(StartError, match="holds no private key"):
        build_client_context(pem(truststore))
