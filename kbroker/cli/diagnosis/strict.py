"""Whether a certificate that we accept is accepted by Python's own clients too: since 3.13 they look at it strictly.

Strictly is as RFC 5280 wants it: an authority made with `openssl req -x509` alone lacks what that asks for, and everybody
but them takes it. Blocking, for a thread.
"""

from __future__ import annotations

import socket
import ssl

from kbroker.cli.client.connection import Address
from kbroker.cli.diagnosis import probe
from kbroker.cli.diagnosis.findings import Finding, warning

# What helps, by OpenSSL's codes.
_CA_WITHOUT_KEY_USAGE = 92
_CURES = (
    (
        (_CA_WITHOUT_KEY_USAGE, 81),
        "make the authority's certificate anew with keyUsage=critical,keyCertSign,cRLSign (openssl req -addext)",
    ),
    (
        (89,),
        "make the authority's certificate anew with basicConstraints=critical,CA:TRUE (openssl req -addext)",
    ),
    ((85,), "sign the certificate anew with authorityKeyIdentifier=keyid"),
    ((86,), "make the authority's certificate anew with subjectKeyIdentifier=hash"),
)
_OTHERWISE = (
    "make the certificates anew as RFC 5280 wants them, or clear ssl.VERIFY_X509_STRICT in such clients"
)


def look_strictly(address: Address, context: ssl.SSLContext) -> Finding | None:
    """A warning where a strict look refuses the certificate that was accepted; `context` is nobody else's."""
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        _shake_hands(address, context)
    except ssl.SSLCertVerificationError as error:
        cures = (cure for codes, cure in _CURES if error.verify_code in codes)
        return warning(
            "bootstrap: strict TLS",
            f"clients on Python 3.13 and newer do not accept the certificate of {address} "
            f"({error.verify_message.rstrip('.')})",
            next(cures, _OTHERWISE),
        )
    except (OSError, ValueError):
        pass  # it was accepted a moment ago: what is wrong now the next step tells
    return None


def _shake_hands(address: Address, context: ssl.SSLContext) -> None:
    """Up to the verdict on the certificate. Nothing of it is told to the broker, whose log would take it for a failure."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=address.host)
    with socket.create_connection(address, timeout=probe.STEP_SECONDS_MAX) as sock:
        while True:
            try:
                return tls.do_handshake()
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                received = sock.recv(1 << 16)
                if not received:
                    return
                incoming.write(received)
