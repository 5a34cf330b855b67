"""How a client reaches a cluster: addresses and TLS, from flags and from a client.properties of Kafka's.

Reads the files that the user names. A value that may be secret is never in a sentence.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kbroker.cli.client.connection import CLIENT_ID, Address
from kbroker.cli.client.errors import ClientError

if TYPE_CHECKING:
    from kbroker.config.tls import TlsOptions
    from kbroker.security.certificates import Validity

DEFAULT_PORT = 9092
PROTOCOLS = ("PLAINTEXT", "SSL")
PEM = "PEM"
# How the first lines of these end in PEM: there are several kinds of each.
PRIVATE_KEY, CERTIFICATE = "PRIVATE KEY-----", "CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Reach:
    """Where to, and how."""

    bootstrap: tuple[Address, ...]
    client_id: str = CLIENT_ID
    tls: bool = False
    check_host: bool = True
    ssl_options: Mapping[str, str] = field(
        default_factory=dict, repr=False
    )  # by Kafka's names; there may be a password
    # Names in sentences about the options -> what the user typed in their place: a flag and its file.
    typed: Mapping[str, str] = field(default_factory=dict)

    def context(self) -> ssl.SSLContext | None:
        """The TLS context, or None for plain text. ClientError where the files do not make one."""
        if not self.tls:
            return None
        from kbroker.errors import StartError
        from kbroker.security.tls import build_client_context

        try:
            return build_client_context(self.tls_options(), check_host=self.check_host)
        except StartError as error:
            sentence = str(error)
            for name, typed in self.typed.items():
                sentence = sentence.replace(name, typed)
            raise ClientError(sentence) from None

    def own_certificate(self) -> Validity | None:
        """From when to when our own is valid; None where there is none."""
        from kbroker.security.certificates import validity_of

        return validity_of(self.tls_options())

    def tls_options(self) -> TlsOptions:
        """Kafka's options as a listener has them too."""
        from kbroker.config.tls import TlsOptions

        get = self.ssl_options.get
        protocols = get("ssl.enabled.protocols", "TLSv1.2,TLSv1.3")
        return TlsOptions(
            client_auth="none",
            enabled_protocols=tuple(word.strip() for word in protocols.split(",") if word.strip()),
            cipher_suites=tuple(word for word in get("ssl.cipher.suites", "").split(",") if word),
            keystore_type=get("ssl.keystore.type", "JKS"),
            keystore_location=get("ssl.keystore.location"),
            truststore_type=get("ssl.truststore.type", "JKS"),
            truststore_location=get("ssl.truststore.location"),
            truststore_certificates=get("ssl.truststore.certificates"),
            keystore_password=get("ssl.keystore.password"),
            keystore_key=get("ssl.keystore.key"),
            keystore_certificate_chain=get("ssl.keystore.certificate.chain"),
            key_password=get("ssl.key.password"),
            truststore_password=get("ssl.truststore.password"),
        )


def reach(
    *,
    bootstrap: str | None,
    properties: Mapping[str, str],
    tls: bool,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
) -> Reach:
    """Flags above the properties."""
    protocol = properties.get("security.protocol", "PLAINTEXT").upper()
    if protocol.startswith("SASL"):
        raise ClientError(
            f"security.protocol={protocol}: this command line does not speak SASL yet; use PLAINTEXT or SSL"
        )
    if protocol not in PROTOCOLS:
        raise ClientError(f"security.protocol={protocol}: choose PLAINTEXT or SSL")
    options = {name: value for name, value in properties.items() if name.startswith("ssl.")}
    typed: dict[str, str] = {}
    if ca is not None:
        options.pop("ssl.truststore.location", None)
        options |= {"ssl.truststore.type": PEM, "ssl.truststore.certificates": _authorities(ca)}
        typed["ssl.truststore.certificates"] = f"--ca {ca}"
    own = [(flag, path) for flag, path in (("--cert", cert), ("--key", key)) if path is not None]
    if own:
        options.pop("ssl.keystore.location", None)
        options |= _own_pair(own)
        typed["ssl.keystore.key and ssl.keystore.certificate.chain"] = " and ".join(
            f"{flag} {path}" for flag, path in own
        )
        typed["ssl.key.password"] = "ssl.key.password in a file for --command-config"
    identification = options.get("ssl.endpoint.identification.algorithm", "https")
    return Reach(
        bootstrap=_servers(bootstrap, properties),
        client_id=properties.get("client.id", CLIENT_ID),
        tls=tls or protocol == "SSL" or any(path is not None for path in (ca, cert, key)),
        check_host=bool(identification.strip()),
        ssl_options=options,
        typed=typed,
    )


def _servers(given: str | None, properties: Mapping[str, str]) -> tuple[Address, ...]:
    if given is None:
        return parse_servers(properties.get("bootstrap.servers") or "localhost")
    if not given.strip():  # what a shell makes of "$UNSET": it must not mean the broker of this machine
        raise ClientError("--bootstrap-server is empty: give HOST:PORT, or leave it out for localhost:9092")
    return parse_servers(given)


def _authorities(ca: Path) -> str:
    """The certificates to trust."""
    text = _read(ca, "--ca")
    if CERTIFICATE in text:
        return text
    cure = "give the file of the authority's certificate"
    if "-----BEGIN " not in text:  # bytes, of one of the other two forms
        cure = (
            f"`openssl x509 -in {ca} -out {ca}.pem` makes it from a certificate in DER, "
            f"`keytool -list -rfc -keystore {ca} > {ca}.pem` from a store of Java's"
        )
    raise ClientError(f"--ca {ca} holds no certificate in PEM: {cure}")


def _own_pair(given: Sequence[tuple[str, Path]]) -> dict[str, str]:
    """The options of a certificate of our own and its key: flags and their files, or one that holds both."""
    (chain_flag, chain_path), (key_flag, key_path) = given[0], given[-1]
    chain, key = _read(chain_path, chain_flag), _read(key_path, key_flag)
    alone = len(given) == 1
    if PRIVATE_KEY not in key:
        cure = ": give its file as --key FILE" if alone and key_flag == "--cert" else ""
        raise ClientError(f"{key_flag} {key_path} holds no private key in PEM{cure}")
    if CERTIFICATE not in chain:
        cure = ": give its file as --cert FILE" if alone and chain_flag == "--key" else ""
        raise ClientError(f"{chain_flag} {chain_path} holds no certificate in PEM{cure}")
    return {
        "ssl.keystore.type": PEM,
        "ssl.keystore.certificate.chain": chain,
        "ssl.keystore.key": key,
    }


def load_properties(path: Path | None) -> dict[str, str]:
    """What stands in a client.properties."""
    if path is None:
        return {}
    from kbroker.config.properties import parse_properties
    from kbroker.errors import StartError

    try:
        return parse_properties(path.read_bytes(), str(path))
    except OSError as error:
        raise ClientError(f"--command-config {path} cannot be read: {error.strerror}") from None
    except StartError as error:
        raise ClientError(str(error)) from None


def parse_servers(text: str) -> tuple[Address, ...]:
    """host:port, several with commas; without a port it is 9092."""
    found = tuple(_address(each.strip()) for each in text.split(",") if each.strip())
    if not found:
        raise ClientError("the bootstrap servers are empty: give HOST:PORT")
    return found


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):  # a name, or a bare IPv6 address
        host, port = text, str(DEFAULT_PORT)
    if text.startswith("[") and text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ClientError(f"{text!r} is not HOST:PORT")
    return Address(host.strip("[]"), int(port))


def _read(path: Path, flag: str) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError as error:
        raise ClientError(f"{flag} {path} cannot be read: {error.strerror}") from None
