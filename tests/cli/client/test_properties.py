"""From flags and a client.properties to an address and a TLS context."""

from __future__ import annotations

import ssl

import pytest
import trustme

from kbroker.cli.client.connection import Address
from kbroker.cli.client.errors import ClientError
from kbroker.cli.client.properties import load_properties, parse_servers, reach


def made(properties=None, **flags):
    flags = {"bootstrap": None, "tls": False, "ca": None, "cert": None, "key": None, **flags}
    return reach(properties=properties or {}, **flags)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("broker", [("broker", 9092)]),
        ("broker:1", [("broker", 1)]),
        (" a:1 , b:2,", [("a", 1), ("b", 2)]),
        ("[::1]:9093", [("::1", 9093)]),
        ("[::1]", [("::1", 9092)]),
        ("::1", [("::1", 9092)]),
    ],
)
def test_servers(text, expected):
    assert tuple(Address(*each) for each in expected) == parse_servers(text)


@pytest.mark.parametrize("text", ["", ",", "broker:", "broker:x", "broker:0", "broker:65536", ":9092"])
def test_what_is_no_server(text):
    with pytest.raises(ClientError):
        parse_servers(text)


def test_without_anything_it_is_plain_text_on_this_machine():
    found = made()

    assert ((Address("localhost", 9092),), None) == (found.bootstrap, found.context())


def test_flags_stand_above_the_file():
    found = made({"bootstrap.servers": "there:1", "client.id": "me"}, bootstrap="here:2")

    assert ((Address("here", 2),), "me") == (found.bootstrap, found.client_id)
    assert (Address("there", 1),) == made({"bootstrap.servers": "there:1"}).bootstrap


@pytest.mark.parametrize("empty", ["", " "])
def test_servers_that_were_given_empty_are_not_the_default(empty):
    """A shell makes it of "$UNSET": what was meant for another cluster must not go to this machine's."""
    with pytest.raises(ClientError, match="--bootstrap-server is empty: give HOST:PORT, or leave it out"):
        made({"bootstrap.servers": "there:1"}, bootstrap=empty)


@pytest.mark.parametrize("protocol", ["SASL_SSL", "SASL_PLAINTEXT", "TLS"])
def test_protocols_that_are_not_spoken_are_named(protocol):
    with pytest.raises(ClientError, match=f"security.protocol={protocol}"):
        made({"security.protocol": protocol})


@pytest.fixture
def files(tmp_path):
    authority = trustme.CA()
    identity = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    identity.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    identity.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    identity.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    return tmp_path


def test_a_client_properties_of_kafkas(files):
    (files / "client.properties").write_text(
        "bootstrap.servers=localhost:9093\nsecurity.protocol=SSL\nssl.truststore.type=PEM\n"
        f"ssl.truststore.location={files}/ca.pem\nssl.keystore.type=PEM\nssl.keystore.location={files}/both.pem\n"
        "ssl.endpoint.identification.algorithm=\n"
    )

    found = made(load_properties(files / "client.properties"))
    context = found.context()

    assert (True, False) == (found.tls, found.check_host)
    assert (False, 1) == (context.check_hostname, len(context.get_ca_certs()))


@pytest.mark.parametrize("flags", [("cert", "key"), ("both", "both"), ("both", None)])
def test_flags_with_files(files, flags):
    cert, key = (None if name is None else files / f"{name}.pem" for name in flags)

    context = made(ca=files / "ca.pem", cert=cert, key=key).context()

    assert (True, 1) == (context.check_hostname, len(context.get_ca_certs()))


def said(**flags):
    with pytest.raises(ClientError) as error:
        made(**flags).context()
    return str(error.value)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"ca": "nowhere.pem"}, "--ca {}/nowhere.pem cannot be read: No such file or directory"),
        (
            {"ca": "key.pem"},
            "--ca {}/key.pem holds no certificate in PEM: give the file of the authority's certificate",
        ),
        ({"cert": "nowhere.pem"}, "--cert {}/nowhere.pem cannot be read: No such file or directory"),
        ({"cert": "cert.pem"}, "--cert {}/cert.pem holds no private key in PEM: give its file as --key FILE"),
        ({"key": "key.pem"}, "--key {}/key.pem holds no certificate in PEM: give its file as --cert FILE"),
        ({"cert": "cert.pem", "key": "ca.pem"}, "--key {}/ca.pem holds no private key in PEM"),
        ({"cert": "key.pem", "key": "key.pem"}, "--cert {}/key.pem holds no certificate in PEM"),
    ],
)
def test_files_that_do_not_fit_are_one_sentence(files, flags, words):
    assert words.format(files) == said(**{name: files / value for name, value in flags.items()})


@pytest.mark.parametrize(
    ("flags", "blamed"),
    [
        ({"ca": "broken.pem"}, "--ca {0}/broken.pem does not load"),
        (
            {"cert": "broken.pem", "key": "key.pem"},
            "--cert {0}/broken.pem and --key {0}/key.pem does not load",
        ),
        ({"cert": "ca.pem", "key": "key.pem"}, "the private key of --cert {0}/ca.pem and --key {0}/key.pem "),
        (
            {"cert": "sealed.pem"},
            "the private key of --cert {0}/sealed.pem is encrypted; set ssl.key.password in a file for --command-config.",
        ),
    ],
)
def test_what_the_flags_gave_is_called_by_them(files, flags, blamed):
    whole = (files / "cert.pem").read_text()
    (files / "broken.pem").write_text(whole[: len(whole) // 2] + "-----END CERTIFICATE-----\n")
    (files / "sealed.pem").write_text(
        (files / "both.pem").read_text().replace("EC PRIVATE", "ENCRYPTED PRIVATE")
    )

    sentence = said(**{name: files / value for name, value in flags.items()})

    assert sentence.startswith(blamed.format(files)), sentence
    assert "ssl.truststore" not in sentence
    assert "ssl.keystore" not in sentence


def test_an_authority_in_another_form_is_told_how_it_becomes_pem(files):
    (files / "ca.der").write_bytes(ssl.PEM_cert_to_DER_cert((files / "ca.pem").read_text()))

    sentence = said(ca=files / "ca.der")

    assert sentence.startswith(
        f"--ca {files}/ca.der holds no certificate in PEM: `openssl x509 -in {files}/ca.der"
    )


def test_the_flag_stands_above_the_authorities_of_the_file(files):
    given = {"security.protocol": "SSL", "ssl.truststore.location": "nowhere.jks"}

    assert 1 == len(made(given, ca=files / "ca.pem").context().get_ca_certs())


def test_what_the_file_gave_is_called_by_kafkas_names(files):
    given = {
        "security.protocol": "SSL",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": "nowhere.pem",
    }

    with pytest.raises(ClientError, match=r"^ssl\.truststore\.location=nowhere\.pem cannot be read"):
        made(given).context()


def test_a_password_is_in_no_repr(files):
    assert "swordfish" not in repr(made({"security.protocol": "SSL", "ssl.key.password": "swordfish"}))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ClientError, match=r"^--command-config .*none\.properties cannot be read"):
        load_properties(tmp_path / "none.properties")
