"""The TLS options of one listener, typed. Opens no file."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """As the options ssl.*: PEM files, or PEM texts in the configuration itself."""

    client_auth: str  # required | requested | none
    enabled_protocols: tuple[str, ...]
    cipher_suites: tuple[str, ...]
    keystore_type: str
    keystore_location: str | None
    truststore_type: str
    truststore_location: str | None
    truststore_certificates: str | None
    keystore_password: str | None = field(repr=False)
    keystore_key: str | None = field(repr=False)
    keystore_certificate_chain: str | None = field(repr=False)
    key_password: str | None = field(repr=False)
    truststore_password: str | None = field(repr=False)
