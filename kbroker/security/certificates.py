"""From when to when a certificate in PEM is valid: the two times are read out of its DER. Knows no TLS and no clock.

Python's ssl tells them of the peer's certificate alone, not of one's own.
"""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from kbroker.config import TlsOptions

DAY_SECONDS = 86_400
# From here on a certificate's end is worth a word.
SOON_DAYS = 30

_FIRST = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
# DER's tags: X.690, and RFC 5280 4.1 for where they stand.
_SEQUENCE, _VERSION, _UTC_TIME = 0x30, 0xA0, 0x17


class Validity(NamedTuple):
    """Seconds since 1970."""

    begins: float
    ends: float

    def fault(self, now: float) -> str | None:
        """What is wrong with it now, or soon: after "the certificate"."""
        if now > self.ends:
            return f"has expired on {_day(self.ends)}"
        if now < self.begins:
            return f"is not valid before {_day(self.begins)}"
        if self.ends - now < SOON_DAYS * DAY_SECONDS:
            return f"expires on {_day(self.ends)}, in {self.days(now)} days"
        return None

    def days(self, now: float) -> int:
        """Whole days that are left."""
        return int((self.ends - now) // DAY_SECONDS)

    def holds(self, now: float) -> bool:
        """Whether it is valid now."""
        return self.begins <= now <= self.ends


def validity_of(options: TlsOptions) -> Validity | None:
    """Of the certificate that a keystore's options name."""
    if not options.keystore_location:
        return validity(options.keystore_certificate_chain or "")
    try:
        return validity(Path(options.keystore_location).read_text("ascii", "replace"))
    except OSError:
        return None  # whoever loads it says why


def validity(pem: str) -> Validity | None:
    """Of the first certificate in the text; None where there is none that can be read."""
    found = _FIRST.search(pem)
    if found is None:
        return None
    try:
        return _validity(ssl.PEM_cert_to_DER_cert(found[0]))
    except (ValueError, IndexError):
        return None  # whoever loads it says more about it


def _validity(der: bytes) -> Validity:
    certificate = _inside(der, 0)[1]
    at = _inside(der, certificate)[1]  # of what is signed
    tag, _, end = _inside(der, at)
    if tag == _VERSION:
        at = end
    for _ in range(3):  # the serial number, the signature's algorithm, the issuer
        at = _inside(der, at)[2]
    tag, at, _ = _inside(der, at)
    if tag != _SEQUENCE:
        raise ValueError("no validity where it should be")
    begins, at = _time(der, at)
    ends, _ = _time(der, at)
    return Validity(begins, ends)


def _inside(der: bytes, at: int) -> tuple[int, int, int]:
    """An element's tag, where its content begins, and where it ends."""
    size, begin = der[at + 1], at + 2
    if size & 0x80:
        count = size & 0x7F
        size, begin = int.from_bytes(der[begin : begin + count], "big"), begin + count
    return der[at], begin, begin + size


def _time(der: bytes, at: int) -> tuple[float, int]:
    tag, begin, end = _inside(der, at)
    text = der[begin:end].decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year: from 1950 to 2049
        text = f"{'19' if text[:2] >= '50' else '20'}{text}"
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp(), end


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
