"""Which listeners strangers could reach, and whether that was asked for. Pure; knows no sockets."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

from kbroker.errors import StartError
from kbroker.model import Endpoint


def check_exposure(
    listeners: Iterable[Endpoint], client_auth: Callable[[str], str], *, insecure: bool
) -> None:
    """Every listener is on loopback, or asks for TLS and a client's proof of who it is, or `insecure` was said.

    `client_auth(listener)` is its ssl.client.auth.
    """
    if insecure:
        return
    for listener in listeners:
        if is_loopback(listener.host) or _is_guarded(listener, client_auth):
            continue
        raise StartError(
            f"listener {listener.listener} on {listener.host or 'all addresses'}:{listener.port} is reachable from "
            "other machines without TLS and client authentication; use SSL with ssl.client.auth=required, listen on "
            "127.0.0.1, or accept it with --insecure."
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False  # a name, or empty: all addresses


def _is_guarded(listener: Endpoint, client_auth: Callable[[str], str]) -> bool:
    return listener.protocol == "SSL" and client_auth(listener.listener).lower() == "required"
