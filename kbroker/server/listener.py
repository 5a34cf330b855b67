"""Listeners: where clients come in, how many may, and how long a silent one stays. Knows sockets, not requests."""

from __future__ import annotations

import errno
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from kbroker.errors import ProtocolError, StartError
from kbroker.model import Endpoint
from kbroker.net.buffers import Buffers
from kbroker.net.connection import (
    FRAME_BYTES_PER_SECOND_MIN,
    FRAME_LOOK_SECONDS,
    FRAME_SECONDS_MAX,
    Connection,
)
from kbroker.net.listening import SYSTEMS_CHOICE, SocketBuffers, bind
from kbroker.observe import logs
from kbroker.seams import Clock, Net, Threads, Timer
from kbroker.server.dispatch import Peer, Serves
from kbroker.turn import Turn

log = logs.get_logger("server")

# Idle connections are looked for this many times per `connections.max.idle.ms`: one is closed at most that fraction late.
IDLE_LOOKS = 4
# Refused or broken connections of one kind are told about once in this time, with their number: a flood of them must
# not become a flood of lines.
TELL_SECONDS = 10.0

# Connections of addresses that open more than their quota are kept for the time they should wait, then closed: whoever is
# closed at once comes again at once. So many at a time, with those that read a TLS alert; further ones are closed at once.
HELD_MAX = 256
# A client whose TLS handshake failed has so long to read why, before its connection ends altogether.
ALERT_SECONDS = 2.0

# Lines of one kind within TELL_SECONDS.
TOLD_AT_ONCE_MAX = 20
# Descriptors that are neither clients' nor data files': listeners, the loop's, the journal, files that are being read at a
# start or renamed, one for whoever is told that there is no room.
DESCRIPTORS_RESERVED = 64
# What `bind` says where a machine has no IPv6.
NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

# Puts TLS on an accepted socket: the socket to watch, and the stream that reads and writes it.
Secure = Callable[[Any], tuple[Any, Any]]

# What helps after a TLS handshake that failed, by the ends of OpenSSL's reasons.
TLS_CURES = (
    (
        ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"),
        "a plaintext client on a TLS port needs security.protocol=SSL",
    ),
    (
        ("PEER_DID_NOT_RETURN_A_CERTIFICATE",),
        "the client needs a certificate (ssl.keystore.*), or set ssl.client.auth to requested or none",
    ),
    (
        ("ALERT_UNKNOWN_CA", "ALERT_CERTIFICATE_UNKNOWN"),
        "the client does not trust this broker's certificate: give it the CA (ssl.ca.location, ssl.truststore.*)",
    ),
    (
        ("ALERT_BAD_CERTIFICATE",),
        "the client does not accept this broker's certificate, most often for its names: the host that it connects to, or "
        "advertised.listeners, must be in subjectAltName",
    ),
    (
        ("ALERT_CERTIFICATE_EXPIRED",),
        "the client says that this broker's certificate has expired: renew ssl.keystore.location, or see to its clock",
    ),
)
# What helps where a client's certificate is not accepted, by OpenSSL's codes.
CERTIFICATE_CURES = (
    ((10,), "renew the client's certificate, or set this machine's clock right"),
    ((9,), "set the clocks of both machines right"),
    (
        (2, 18, 19, 20, 21),
        "give the client a certificate of an authority in ssl.truststore.*, with its chain, or put its authority there",
    ),
)

ANONYMOUS = "User:ANONYMOUS"


class Limits:
    """How many connections there may be, and how large and how silent they may be."""

    __slots__ = (
        "connections_max",
        "frame_size_max",
        "idle_seconds",
        "per_ip_max",
        "per_ip_overrides",
        "sockets_max",
    )

    def __init__(
        self,
        *,
        connections_max: int,
        per_ip_max: int,
        frame_size_max: int,
        idle_seconds: float,
        sockets_max: int | None = None,
        per_ip_overrides: Mapping[str, int] | None = None,
    ) -> None:
        self.connections_max = connections_max
        self.sockets_max = sockets_max  # what the process's descriptors allow; None: nobody has looked
        self.per_ip_max = per_ip_max
        self.per_ip_overrides = per_ip_overrides or {}  # of certain addresses
        self.frame_size_max = frame_size_max
        self.idle_seconds = idle_seconds  # not above 0: for ever


def sockets_of(descriptors: int, open_files: int) -> int:
    """How many connections a process that may have so many descriptors serves, beside its data files."""
    return max(1, descriptors - open_files - DESCRIPTORS_RESERVED)


class Connections:
    """Every client connection of this broker, whatever listener it came by."""

    def __init__(
        self, limits: Limits, *, net: Net, turn: Turn, threads: Threads, buffers: Buffers, clock: Clock
    ) -> None:
        self.limits = limits
        self._net = net
        self._turn = turn
        self._threads = threads
        self._buffers = buffers
        self._clock = clock
        self._open: set[Connection] = set()
        self._per_ip: Counter[str] = Counter()
        self._told: dict[str, tuple[float, int]] = {}  # event -> since when it is counted, and how often
        # the seconds for which an address is kept waiting and then refused, where addresses have quotas
        self.hold_of: Callable[[str], float] | None = None
        self._held: dict[Any, Timer] = {}  # sockets that wait for their end
        self._look: Timer | None = None
        self._frame_look: Timer | None = None

    def __len__(self) -> int:
        return len(self._open)

    def add(self, sock: Any, address: Any, listener: str, dispatcher: Serves, secure: Secure | None) -> None:
        """Serve an accepted socket, or close it where a limit says so."""
        ip = str(address[0])
        peer = f"[{ip}]:{address[1]}" if ":" in ip else f"{ip}:{address[1]}"
        limits = self.limits
        if self.hold_of is not None and (seconds := self.hold_of(ip)) > 0.0:
            return self._hold(sock, seconds)
        if len(self._open) >= limits.connections_max:
            self._tell("connection refused", peer, f"max.connections={limits.connections_max} are open")
            return sock.close()  # type: ignore[no-any-return]  # sockets of simulations are Any
        if limits.sockets_max is not None and len(self._open) + len(self._held) >= limits.sockets_max:
            self._tell(
                "connection refused",
                peer,
                f"{limits.sockets_max} are open, as many as the process's file descriptors allow",
                "raise the limit of open files: ulimit -n, or LimitNOFILE= of a systemd unit",
            )
            return sock.close()  # type: ignore[no-any-return]
        allowed = limits.per_ip_overrides.get(ip, limits.per_ip_max)
        if self._per_ip[ip] >= allowed:
            self._tell("connection refused", peer, f"max.connections.per.ip={allowed} are open")
            return sock.close()  # type: ignore[no-any-return]
        stream = None
        if secure is not None:
            try:
                sock, stream = secure(sock)
                stream.hold = self._hold_for_alert
            except (OSError, ValueError) as error:
                # the client went before we looked at it: Python asks the socket
                self._tell("connection closed: TLS", peer, str(error))
                return sock.close()  # type: ignore[no-any-return]
        try:
            connection = Connection(
                sock,
                peer,
                net=self._net,
                turn=self._turn,
                threads=self._threads,
                buffers=self._buffers,
                frame_size_max=limits.frame_size_max,
                on_frame=dispatcher.on_frame,
                on_close=self._closed,
                stream=stream,
            )
        except OSError as error:  # the system watches no more sockets
            self._tell("connection refused", peer, str(error))
            return sock.close()  # type: ignore[no-any-return]
        self._per_ip[ip] += 1
        connection.context = Peer(listener, ANONYMOUS, ip=ip, dispatcher=dispatcher)
        self._open.add(connection)
        if self._look is None and limits.idle_seconds > 0:
            self._look_later()
        if self._frame_look is None:
            self._look_at_frames_later()

    def _hold_for_alert(self, sock: Any) -> None:
        self._hold(sock, ALERT_SECONDS)

    def _hold(self, sock: Any, seconds: float) -> None:
        """Close a socket later, unserved."""
        if len(self._held) >= HELD_MAX:
            return sock.close()  # type: ignore[no-any-return]

        def over() -> None:
            del self._held[sock]
            sock.close()

        self._held[sock] = self._clock.call_at(self._clock.monotonic() + seconds, over)

    def _closed(self, connection: Connection, error: BaseException | None) -> None:
        peer: Peer = connection.context
        self._open.discard(connection)
        self._per_ip[peer.ip] -= 1
        if not self._per_ip[peer.ip]:
            del self._per_ip[peer.ip]
        if peer.dispatcher is not None:
            peer.dispatcher.on_close(connection)
        if error is not None:
            self._tell_closed(connection, error)

    def _look_later(self) -> None:
        self._look = self._clock.call_at(
            self._clock.monotonic() + self.limits.idle_seconds / IDLE_LOOKS, self._close_idle
        )

    def _close_idle(self) -> None:
        """Close whoever was silent at IDLE_LOOKS looks in a row and has no answer to wait for."""
        self._look = None
        for connection in list(self._open):
            if connection.active:
                connection.active = False
                connection.silent_looks = 0
            elif connection.waits_for_us():
                connection.silent_looks = 0
            else:
                connection.silent_looks += 1
                if connection.silent_looks >= IDLE_LOOKS:
                    connection.close(None)
        if self._open:
            self._look_later()

    def _look_at_frames_later(self) -> None:
        self._frame_look = self._clock.call_at(
            self._clock.monotonic() + FRAME_LOOK_SECONDS, self._close_slow_frames
        )

    def _close_slow_frames(self) -> None:
        """Close whoever sends a request so slowly that it only holds its memory."""
        self._frame_look = None
        for connection in list(self._open):
            if connection.is_too_slow():
                why = (
                    f"a request in pieces comes at less than {FRAME_BYTES_PER_SECOND_MIN} bytes/s "
                    f"for {FRAME_SECONDS_MAX} s"
                )
                self._tell("connection closed: request too slow", connection.peer, why)
                connection.close(None)
        if self._open:
            self._look_at_frames_later()

    def _tell_closed(self, connection: Connection, error: BaseException) -> None:
        if isinstance(error, ConnectionError | TimeoutError | ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return  # the client went, as clients do; in a handshake those that look only whether the port is open
        if isinstance(error, ssl.SSLError):
            if isinstance(error, ssl.SSLCertVerificationError):
                return self._tell_refused(connection.peer, error)
            reason = getattr(error, "reason", None) or str(error)
            cures = (cure for ends, cure in TLS_CURES if str(reason).endswith(ends))
            return self._tell("connection closed: TLS", connection.peer, str(reason), next(cures, ""))
        if isinstance(error, ProtocolError):
            return self._tell("connection closed: not the Kafka protocol", connection.peer, str(error))
        self._tell("connection closed", connection.peer, f"{type(error).__name__}: {error}")

    def _tell_refused(self, peer: str, error: ssl.SSLCertVerificationError) -> None:
        """The client showed a certificate that is not accepted."""
        cures = (cure for codes, cure in CERTIFICATE_CURES if error.verify_code in codes)
        why = f"the client's certificate is not accepted: {error.verify_message.rstrip('.')}"
        self._tell(
            "connection closed: TLS",
            peer,
            why,
            next(cures, "see ssl.truststore.* and the client's ssl.keystore.*"),
        )

    def _tell(self, event: str, peer: str, why: str, cure: str = "") -> None:
        """One line, and no more than one of its kind in a while: then the number that was left out."""
        now = self._clock.monotonic()
        last, left_out = self._told.get(event, (-TELL_SECONDS, 0))
        if now - last < TELL_SECONDS:
            self._told[event] = (last, left_out + 1)
            if left_out >= TOLD_AT_ONCE_MAX:
                return
        else:
            if left_out > TOLD_AT_ONCE_MAX:
                log.warning(f"{event}: more like it", left_out=left_out - TOLD_AT_ONCE_MAX)
            self._told[event] = (now, 0)
        log.warning(event, peer=peer, why=why, **({"cure": cure} if cure else {}))

    def leave_lanes(self) -> None:
        """Every request goes the common way, until lanes are opened again: quotas have changed."""
        for connection in self._open:
            connection.context.lane = None

    def pause_all(self) -> None:
        """Read no more requests; answers still leave."""
        for connection in list(self._open):
            connection.pause()

    def close_all(self) -> None:
        """End every connection now."""
        for look in (self._look, self._frame_look):
            if look is not None:
                look.cancel()
        self._look = self._frame_look = None
        for sock, timer in self._held.items():
            timer.cancel()
            sock.close()
        self._held.clear()
        for connection in list(self._open):
            connection.close(None)


def bind_all(endpoint: Endpoint, buffers: SocketBuffers = SYSTEMS_CHOICE) -> list[Any]:
    """Listening sockets for an endpoint: localhost is both loopbacks, no host is every address of both families."""
    try:
        if endpoint.host == "localhost":
            first = bind("127.0.0.1", endpoint.port, buffers)
            return [first, *_also("::1", first.getsockname()[1], first, buffers)]
        if endpoint.host in ("", "0.0.0.0", "::"):
            try:
                return [bind("0.0.0.0" if endpoint.host == "0.0.0.0" else "::", endpoint.port, buffers)]
            except OSError as error:
                if error.errno not in NO_IPV6 or endpoint.host == "::":
                    raise
                return [bind("0.0.0.0", endpoint.port, buffers)]
        return [bind(_numeric(endpoint.host), endpoint.port, buffers)]
    except OSError as error:
        raise StartError(_why_not(endpoint, error)) from None


def _also(host: str, port: int, first: Any, buffers: SocketBuffers) -> list[Any]:
    """The same port on the IPv6 loopback, where there is one: clients resolve localhost to it first."""
    try:
        return [bind(host, port, buffers)]
    except OSError as error:
        if error.errno in NO_IPV6:
            return []
        first.close()
        raise


def _numeric(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except socket.gaierror as error:
        raise StartError(
            f"listeners: the host {host} has no address here ({error.strerror}): name one that has"
        ) from None


def _why_not(endpoint: Endpoint, error: OSError) -> str:
    where = f"{endpoint.listener}://{endpoint.host}:{endpoint.port}"
    if error.errno == errno.EADDRINUSE:
        return f"port {endpoint.port} of {where} is taken: stop who has it (ss -ltnp), or choose another (--port)"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"listener {where} names an address that this machine does not have: use localhost, or one of `ip address`"
    if error.errno == errno.EACCES:
        return f"listener {where} needs a port above 1023, or the right to use lower ones"
    return f"listener {where} cannot be opened: {error.strerror}"
