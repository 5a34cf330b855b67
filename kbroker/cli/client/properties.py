"""How a client reaches a cluster: addresses and TLS, from flags and from a client.properties of Kafka's.

Reads the files that the user names. A value that may be secret is never in a sentence.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
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

    def context(self) -> ssl.SSLContext | None:
        """The TLS context, or None for plain text. ClientError where the files do not make one."""
        if not self.tls:
            return None
        from kbroker.errors import StartError
        from kbroker.security.tls import build_client_context

        try:
            return build_client_context(self.tls_options(), check_host=self.check_host)
        except StartError as error:
            raise ClientError(str(error)) from None

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
    if ca is not None:
        options |= {"ssl.truststore.type": PEM, "ssl.truststore.location": str(ca)}
        options.pop("ssl.truststore.certificates", None)
    given_cert, given_key = "--cert" if cert else "--key", "--key" if key else "--cert"
    if (cert is None) != (key is None):
        # one file may hold both, as a broker's does
        cert = key = cert or key
    if cert is not None and key is not None:
        options.pop("ssl.keystore.location", None)
        options |= {
            "ssl.keystore.type": PEM,
            "ssl.keystore.certificate.chain": _read(cert, given_cert),
            "ssl.keystore.key": _read(key, given_key),
        }
        if "PRIVATE KEY-----" not in options["ssl.keystore.key"]:
            missing = ": give its file as --key FILE" if given_key == "--cert" else ""
            raise ClientError(f"{given_key} {key} holds no private key in PEM{missing}")
        if "CERTIFICATE-----" not in options["ssl.keystore.certificate.chain"]:
            missing = ": give its file as --cert FILE" if given_cert == "--key" else ""
            raise ClientError(f"{given_cert} {cert} holds no certificate in PEM{missing}")
    identification = options.get("ssl.endpoint.identification.algorithm", "https")
    return Reach(
        bootstrap=parse_servers(bootstrap or properties.get("bootstrap.servers") or "localhost"),
        client_id=properties.get("client.id", CLIENT_ID),
        tls=tls or protocol == "SSL" or any(path is not None for path in (ca, cert, key)),
        check_host=bool(identification.strip()),
        ssl_options=options,
    )


def load_properties(path: Path | None) -> dict[str, str]:
    """What stands in a client.properties."""
    if path is None:
        return {}
    from kbroker.config.properties import parse_properties
    from kbroker.errors import StartError

    try:
        return parse_properties(path.read_bytes(), str(path))
    except OSError as error:
        raise ClientError(f"{path} cannot be read: {error.strerror}") from None
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
