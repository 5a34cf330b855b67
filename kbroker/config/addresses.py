"""Addresses in options: `max.connections.per.ip.overrides`. Asks no name service; localhost is both loopbacks."""

from __future__ import annotations

LOOPBACKS = ("127.0.0.1", "::1")


def check_per_ip(text: str) -> str | None:
    """Why a list of limits by address is refused."""
    try:
        per_ip(text)
    except ValueError as error:
        return str(error)
    return None


def per_ip(text: str) -> dict[str, int]:
    """The limits by address, as sockets write it; ValueError says what is wrong."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        host, separator, number = part.rpartition(":")
        if not (separator and number.isascii() and number.isdigit() and len(number) < 10):
            raise ValueError(f"{part} is not address:number")
        for address in LOOPBACKS if host == "localhost" else (_address(host),):
            found[address] = int(number)
    return found


def _address(host: str) -> str:
    from ipaddress import ip_address  # few have this option

    try:
        return str(ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise ValueError(f"{host} is not an address: names of hosts are not looked up") from None
