"""One address, step by step: its name, the connection, TLS, and whether Kafka speaks there. Blocking, for a thread.

A step that fails is looked into: a plain listener asked for TLS, a TLS listener asked in plain text, a web server.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from typing import NamedTuple

from kbroker.cli.client import alerts
from kbroker.cli.client.connection import CLIENT_ID, Address, words
from kbroker.cli.client.properties import DEFAULT_PORT
from kbroker.cli.client.trust import why_not_accepted
from kbroker.cli.diagnosis.findings import Finding, failed, ok, warning
from kbroker.errors import ProtocolError
from kbroker.protocol.frames import decode_response, encode_request
from kbroker.protocol.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse

STEP_SECONDS_MAX = 5.0
ANSWER_BYTES_MAX = 1 << 20
EXPIRES_SOON_DAYS = 30
DAY_SECONDS = 86_400

# What clients need, by api key: the oldest of its versions that they may be left with, and since when Kafka has it.
NEEDED = {
    0: ("Produce", 3, "0.11"),
    1: ("Fetch", 4, "0.11"),
    3: ("Metadata", 4, "0.11"),
    19: ("CreateTopics", 4, "2.4"),
}


class Probe(NamedTuple):
    """What was found at an address, and whether a client can use it."""

    findings: list[Finding]
    usable: bool


class Way(NamedTuple):
    """How an address came to us, and what to do when it is wrong."""

    name: str  # bootstrap, or the broker that advertises it
    advertised: bool

    def mend(self, what: str) -> str:
        """Where the address is to be mended."""
        if self.advertised:
            return f"set advertised.listeners of {self.name} to {what}"
        return f"give {what} as --bootstrap-server"


class Findings(list[Finding]):
    """What was found so far; each is told at once, since the next step may take its time."""

    def __init__(self, tell: Callable[[Finding], None]) -> None:
        super().__init__()
        self._tell = tell

    def append(self, finding: Finding) -> None:
        """Keep it, and tell it."""
        super().append(finding)
        self._tell(finding)


def probe(
    address: Address,
    way: Way,
    tls: ssl.SSLContext | None,
    any_tls: ssl.SSLContext,
    tell: Callable[[Finding], None] = lambda finding: None,
) -> Probe:
    """All steps, up to the first that fails. `any_tls` is for finding out whether TLS is spoken at all."""
    findings = Findings(tell)
    try:
        hosts = _resolve(address, way, findings)
        sock = _connect(address, way, hosts, findings)
        with sock:
            stream = _secure(address, way, sock, tls, findings) if tls else sock
            with stream:
                _speak(address, way, stream, tls, any_tls, findings)
    except _Stop as stop:
        findings.append(stop.finding)
        return Probe(findings, False)
    return Probe(findings, True)


class _Stop(Exception):
    """No step after this one makes sense."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding)
        self.finding = finding


def _resolve(address: Address, way: Way, findings: list[Finding]) -> list[str]:
    check = f"{way.name}: name"
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        cure = way.mend("a host name that this machine can resolve")
        raise _Stop(failed(check, f"{address.host} has no address ({words(error)})", cure)) from None
    hosts = list(dict.fromkeys(str(each[4][0]) for each in found))
    if hosts != [address.host]:
        findings.append(ok(check, f"{address.host} is {', '.join(hosts)}"))
    return hosts


def _connect(address: Address, way: Way, hosts: list[str], findings: list[Finding]) -> socket.socket:
    check = f"{way.name}: connection"
    refused: list[tuple[str, OSError]] = []
    for host in hosts:
        try:
            sock = socket.create_connection((host, address.port), timeout=STEP_SECONDS_MAX)
        except OSError as error:
            refused.append((host, error))
            continue
        detail = f"{address} takes connections"
        if refused:
            lost = refused[0][0]
            cure = f"listen on {lost} too, or {way.mend('the address itself')}: clients that try {lost} first lose time"
            findings.append(
                warning(check, f"{detail} on {host}, not on {lost} ({words(refused[0][1])})", cure)
            )
        else:
            findings.append(ok(check, detail))
        return sock
    raise _Stop(failed(check, *_why_no_connection(address, way, refused[0][1])))


def _why_no_connection(address: Address, way: Way, error: OSError) -> tuple[str, str]:
    if isinstance(error, ConnectionRefusedError):
        if way.advertised:
            return f"nobody listens at {address}", way.mend("an address and port where clients reach it")
        assumed = f" ({DEFAULT_PORT} where none is given)" if address.port == DEFAULT_PORT else ""
        return f"nobody listens at {address}", f"start the broker, or give the port of its listener{assumed}"
    if isinstance(error, TimeoutError):
        return (
            f"{address} does not answer within {STEP_SECONDS_MAX:.0f} s",
            f"let the firewall between here and there pass port {address.port}, or {way.mend('another address')}",
        )
    return (
        f"{address}: {words(error)}",
        f"see that this machine has a route there, or {way.mend('another address')}",
    )


# -- TLS


def _secure(
    address: Address, way: Way, sock: socket.socket, tls: ssl.SSLContext, findings: list[Finding]
) -> ssl.SSLSocket:
    check = f"{way.name}: TLS"
    try:
        stream = tls.wrap_socket(sock, server_hostname=address.host)
    except ssl.SSLCertVerificationError as error:
        told = why_not_accepted(address, error, rename=way.mend("a name that is in it"))
        raise _Stop(failed(check, *told)) from None
    except (OSError, ValueError) as error:
        raise _Stop(failed(check, *_why_no_tls(address, error))) from None
    certificate = stream.getpeercert() or {}
    said = f"{stream.version()}, certificate accepted"
    ends = certificate.get("notAfter")
    if not isinstance(ends, str):
        findings.append(ok(check, said))
        return stream
    days = int((ssl.cert_time_to_seconds(ends) - time.time()) // DAY_SECONDS)
    said = f"{said}, valid for {days} days"
    soon = days < EXPIRES_SOON_DAYS
    findings.append(
        warning(check, said, f"renew the certificate of {address} before {ends}") if soon else ok(check, said)
    )
    return stream


def _why_no_tls(address: Address, error: Exception) -> tuple[str, str]:
    alert = alerts.of(error)
    if alert is not None:
        return f"{address} ends the TLS connection: {alert[0]}", alert[1]
    if isinstance(error, TimeoutError):
        return f"{address} takes connections and says nothing within {STEP_SECONDS_MAX:.0f} s", _SILENT
    if _speaks_plain(address):
        return (
            f"{address} speaks plain text, not TLS",
            "leave out --tls (security.protocol=PLAINTEXT), or use its TLS port",
        )
    reason = (getattr(error, "reason", None) or words(error)).replace("_", " ").lower()
    if "protocol version" in reason or "unsupported protocol" in reason:
        return (
            f"{address} has no TLS version in common with us",
            "allow TLSv1.2 or TLSv1.3 in its ssl.enabled.protocols",
        )
    return f"no TLS with {address}: {reason}", "see that this port is one of the broker's SSL listeners"


# -- Kafka


def _speak(
    address: Address,
    way: Way,
    stream: socket.socket,
    tls: ssl.SSLContext | None,
    any_tls: ssl.SSLContext,
    findings: list[Finding],
) -> None:
    check = f"{way.name}: Kafka"
    try:
        first, answer = _ask_versions(stream)
    except TimeoutError:
        said = f"{address} takes connections and says nothing within {STEP_SECONDS_MAX:.0f} s"
        raise _Stop(failed(check, said, _SILENT)) from None
    except OSError as error:
        raise _Stop(failed(check, *_why_no_answer(address, error, tls, any_tls))) from None
    except ProtocolError as error:
        raise _Stop(failed(check, f"{address} answers what is no Kafka: {error}", _WRONG_PORT)) from None
    if answer is None:
        raise _Stop(failed(check, *_what_it_is(address, first, tls, any_tls)))
    judged = _judge(check, answer)
    if judged.status == "failed":
        raise _Stop(judged)
    findings.append(judged)


_SILENT = "see what listens there, and in the broker's log why it is stuck"
_WRONG_PORT = "give the address of one of the broker's listeners"


def _ask_versions(stream: socket.socket) -> tuple[bytes, ApiVersionsResponse | None]:
    """The first bytes of the answer, and the answer where it is one. ApiVersions v0 is known by all since 0.10."""
    stream.settimeout(STEP_SECONDS_MAX)
    stream.sendall(b"".join(map(bytes, encode_request(ApiVersionsRequest(), 0, 1, CLIENT_ID))))  # type: ignore[arg-type]
    first = _exactly(stream, 4)
    size = int.from_bytes(first, "big")
    if not 10 <= size <= ANSWER_BYTES_MAX:
        return first, None
    _, answer = decode_response(ApiVersionsResponse, 0, memoryview(_exactly(stream, size)))
    return first, answer


def _exactly(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = stream.recv(size - len(data))
        if not more:
            raise ConnectionError("it closed the connection")
        data += more
    return data


def _why_no_answer(
    address: Address, error: OSError, tls: ssl.SSLContext | None, any_tls: ssl.SSLContext
) -> tuple[str, str]:
    if tls is None and _speaks_tls(address, any_tls):
        return _is_tls(address)
    reason = (getattr(error, "reason", None) or words(error)).replace("_", " ").lower()
    alert = alerts.of(error)
    if (
        alert is not None
    ):  # under TLS 1.3 that is when a client learns that its certificate is missed or not liked
        return f"{address} ends the TLS connection: {alert[0]}", alert[1]
    if tls is not None:
        return (
            f"{address} ends the connection after the handshake ({reason}): it may not take our certificate",
            "give a client certificate that its ssl.truststore trusts, by --cert and --key; its log says what it missed",
        )
    return (
        f"{address} closes the connection at the first request ({reason})",
        "see the broker's log; it may want SASL, which this command line does not speak, or be older than Kafka 0.10",
    )


def _is_tls(address: Address) -> tuple[str, str]:
    return (
        f"{address} speaks TLS, not plain text",
        "say --tls, and --ca FILE unless its authority is a public one",
    )


def _what_it_is(
    address: Address, first: bytes, tls: ssl.SSLContext | None, any_tls: ssl.SSLContext
) -> tuple[str, str]:
    if tls is None and (first[:2] == b"\x15\x03" or _speaks_tls(address, any_tls)):
        return _is_tls(address)
    if first == b"HTTP":
        return f"a web server listens at {address}", _WRONG_PORT
    return f"what listens at {address} is not Kafka: it answers {first!r}", _WRONG_PORT


def _judge(check: str, answer: ApiVersionsResponse) -> Finding:
    known = {api.api_key: api for api in answer.api_keys}
    for key, (name, oldest, since) in NEEDED.items():
        newest = known[key].max_version if key in known else None
        if newest is None or newest < oldest:
            has = "not at all" if newest is None else f"up to version {newest}"
            return failed(
                check, f"it speaks {name} {has}, {oldest} is needed", f"use a Kafka of at least {since}"
            )
    return ok(
        check,
        f"{len(known)} APIs; Produce to version {known[0].max_version}, Fetch to {known[1].max_version}",
    )


def _speaks_plain(address: Address) -> bool:
    try:
        with socket.create_connection(address, timeout=STEP_SECONDS_MAX) as sock:
            return _ask_versions(sock)[1] is not None
    except (OSError, ProtocolError):
        return False


def _speaks_tls(address: Address, any_tls: ssl.SSLContext) -> bool:
    try:
        with (
            socket.create_connection(address, timeout=STEP_SECONDS_MAX) as sock,
            any_tls.wrap_socket(sock, server_hostname=address.host),
        ):
            return True
    except ssl.SSLCertVerificationError:
        return True
    except (OSError, ValueError) as error:
        # an alert is TLS too; bytes that are not, or an end, are something else
        return "ALERT" in (getattr(error, "reason", None) or "")
