"""What a broker says of our certificate when it ends a TLS handshake: an alert, as a sentence and a cure."""

from __future__ import annotations

ASKS = "it asks for a client certificate"
GIVE = "give one by --cert FILE, and --key FILE where the key is in a file of its own"

# By the end of OpenSSL's reasons.
_ALERTS = (
    ("CERTIFICATE_REQUIRED", ASKS, GIVE),
    ("CERTIFICATE_EXPIRED", "our certificate has expired, it says", "renew the certificate in --cert"),
    (
        "UNKNOWN_CA",
        "it does not trust the authority of our certificate",
        "give one by --cert that an authority in its ssl.truststore has signed, with the whole chain",
    ),
    ("CERTIFICATE_REVOKED", "our certificate is revoked, it says", "give another by --cert"),
    ("BAD_CERTIFICATE", "it does not accept our certificate, or there is none", GIVE),
    (
        "CERTIFICATE_UNKNOWN",
        "it does not accept our certificate",
        "see the broker's log, and give another by --cert",
    ),
    ("ALERT_HANDSHAKE_FAILURE", "it ends the handshake; it may ask for a client certificate", GIVE),
)


def of(error: Exception) -> tuple[str, str] | None:
    """The sentence and the cure; None: the error is no alert about a certificate of ours."""
    reason = getattr(error, "reason", None) or ""
    if "ALERT" not in reason:
        return None
    return next(((said, cure) for end, said, cure in _ALERTS if reason.endswith(end)), None)
