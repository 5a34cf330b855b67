"""Listeners: from the texts of `listeners`, `advertised.listeners` and `listener.security.protocol.map` to Endpoints.

Pure: knows neither sockets nor where the texts came from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from kbroker.config.broker import PROTOCOLS
from kbroker.errors import StartError
from kbroker.model import Endpoint

_ADDRESS = re.compile(r"([^:/]+)://(?:\[([^\]]*)\]|([^:\[\]]*)):(-?\d{1,9})")
_LOOPBACK_V4 = re.compile(r"127(\.\d{1,3}){3}")
EVERY_ADDRESS = ("", "0.0.0.0", "::")
PREFIX = "listener.name."  # before "<listener>." and an option of that listener alone


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine only."""
    return host == "localhost" or host == "::1" or _LOOPBACK_V4.fullmatch(host) is not None


def parse_protocol_map(text: str) -> dict[str, str]:
    """Security protocol of each listener name."""
    protocols = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, separator, protocol = (piece.strip() for piece in part.partition(":"))
        if not separator or protocol.upper() not in PROTOCOLS:
            raise StartError(
                f"listener.security.protocol.map: '{part}' is not NAME:PROTOCOL with a protocol of {', '.join(PROTOCOLS)}"
            )
        protocols[name.upper()] = protocol.upper()
    return protocols


def parse_listeners(
    texts: Sequence[str], protocols: Mapping[str, str], ignored: Sequence[str]
) -> tuple[Endpoint, ...]:
    """Endpoints to listen on; those named in `ignored` (Kafka's controllers') are left out."""
    without = {name.upper() for name in ignored}
    endpoints: list[Endpoint] = []
    for text in texts:
        name, host, port = _address("listeners", text)
        if name in without:
            continue
        endpoint = Endpoint(name, host, port, _protocol(name, protocols))
        _check_apart(endpoint, endpoints)
        endpoints.append(endpoint)
    if not endpoints:
        raise StartError(
            "listeners names no listener for clients: add one, for example listeners=PLAINTEXT://localhost:9092"
        )
    return tuple(endpoints)


def advertised(
    texts: Sequence[str] | None,
    listeners: Sequence[Endpoint],
    ignored: Sequence[str],
    host_name: Callable[[], str],
) -> tuple[Endpoint, ...]:
    """One endpoint per listener name, as clients are told: from `texts`, else where it listens."""
    bound: dict[str, Endpoint] = {}
    for endpoint in listeners:
        bound.setdefault(endpoint.listener, endpoint)
    told = _told(texts or (), bound, ignored)
    for name, endpoint in bound.items():
        if name not in told:
            host = host_name() if endpoint.host in EVERY_ADDRESS else endpoint.host
            told[name] = Endpoint(name, host, endpoint.port, endpoint.protocol)
    return tuple(told[name] for name in bound)


def _told(texts: Sequence[str], bound: Mapping[str, Endpoint], ignored: Sequence[str]) -> dict[str, Endpoint]:
    without = {name.upper() for name in ignored}
    told: dict[str, Endpoint] = {}
    for text in texts:
        name, host, port = _address("advertised.listeners", text)
        if name in without:
            continue
        if name not in bound:
            raise StartError(f"advertised.listeners names {name}, which listeners does not: add it there")
        if name in told:
            raise StartError(f"advertised.listeners names {name} twice: leave one")
        if host in EVERY_ADDRESS:
            raise StartError(
                f"advertised.listeners: '{text}' is an address to listen on, not one to connect to: name a host"
            )
        told[name] = Endpoint(name, host, port, bound[name].protocol)
    return told


def _address(option: str, text: str) -> tuple[str, str, int]:
    found = _ADDRESS.fullmatch(text.strip())
    if found is None:
        raise StartError(
            f"{option}: '{text}' is not NAME://host:port, for example PLAINTEXT://localhost:9092"
        )
    name, v6, host, port = found.groups()
    if not 0 <= int(port) <= 65535:
        raise StartError(f"{option}: the port of '{text}' is not 0 to 65535")
    return name.upper(), v6 if v6 is not None else host, int(port)


def _protocol(name: str, protocols: Mapping[str, str]) -> str:
    protocol = protocols.get(name)
    if protocol is None:
        raise StartError(
            f"listener {name} has no security protocol: add it to listener.security.protocol.map, "
            f"for example {name}:PLAINTEXT"
        )
    return protocol


def _check_apart(endpoint: Endpoint, before: Sequence[Endpoint]) -> None:
    """Two listeners have two ports and two names, but that one may stand for an IPv4 and an IPv6 address."""
    for other in before:
        both_families = (":" in other.host) != (":" in endpoint.host)
        if other.listener == endpoint.listener and not both_families:
            raise StartError(f"listeners names {endpoint.listener} twice: give each its own name")
        if endpoint.port and other.port == endpoint.port and not both_families:
            raise StartError(
                f"listeners: {other.listener} and {endpoint.listener} both have port {endpoint.port}: give each its own"
            )
