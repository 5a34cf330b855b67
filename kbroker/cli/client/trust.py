"""Why we do not accept the certificate of a broker: OpenSSL's code as a sentence and a cure."""

from __future__ import annotations

import ssl

# OpenSSL's codes of certificates that are not accepted.
_NOT_YET, _EXPIRED, _SELF_SIGNED = 9, 10, (18, 19)
_UNKNOWN_ISSUER, _WRONG_NAME = (2, 20, 21), (62, 64)


def why_not_accepted(address: object, error: ssl.SSLCertVerificationError, *, rename: str) -> tuple[str, str]:
    """The sentence and the cure. `rename` says what to do to come to `address` by a name that is in the certificate."""
    code, said = error.verify_code, error.verify_message.rstrip(".")
    if code == _EXPIRED:
        return (
            f"the certificate of {address} has expired",
            "renew it on the broker, or set this machine's clock right",
        )
    if code == _NOT_YET:
        return f"the certificate of {address} is not valid yet", "set the clocks of both machines right"
    if code in _SELF_SIGNED:
        return (
            f"the certificate of {address} is signed by itself or by an authority that is not known here ({said})",
            "give that authority's certificate (or the broker's own, if it signed itself) as --ca FILE",
        )
    if code in _UNKNOWN_ISSUER:
        return (
            f"the certificate of {address} leads to no authority that is trusted here ({said})",
            "give the authority's certificate as --ca FILE, and have the broker send its whole chain",
        )
    if code in _WRONG_NAME:
        return (
            f"the certificate of {address} is for other names ({said})",
            f"{rename}, or have this one put into its subjectAltName",
        )
    return (
        f"the certificate of {address} is not accepted ({said})",
        "mend the certificate, or trust its authority by --ca",
    )
