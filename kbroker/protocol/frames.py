"""Frames: the size prefix, and the headers of requests and responses. The connection finds frame borders, not this.

Request header v1 is api key, version, correlation id and client id; v2, for flexible versions, adds tagged fields, but
its client id keeps the old length (KIP-482). Response header v0 is the correlation id; v1 adds tagged fields.
ApiVersions answers always have header v0, since a client that asks does not know yet what we speak (KIP-511).
"""

from __future__ import annotations

from collections.abc import Generator
from struct import Struct as Layout
from typing import TypeVar

from kbroker.errors import ProtocolError
from kbroker.protocol.codec import decode, encode_body
from kbroker.protocol.decoder import check_tag_count, read_uvarint
from kbroker.protocol.messages import REQUESTS
from kbroker.protocol.sliced import encode_in_slices
from kbroker.protocol.wire import Message, Part

M = TypeVar("M", bound=Message)

SIZE_BYTES = 4
# The size of a frame does not count its own four bytes. Nothing shorter than a header without client id is a request.
FRAME_SIZE_MIN = 10

API_VERSIONS = 18
NEVER = 1 << 15  # no version is flexible

_REQUEST = Layout(">hhih")  # key, version, correlation id, size of the client id
_RESPONSE_V0 = Layout(">ii")  # size, correlation id
_RESPONSE_V1 = Layout(">iib")  # and no tagged fields

_flexible_from: dict[int, int] = {}  # first flexible version by api key, filled as keys are seen


class RequestHeader:
    """Who asks what. `body` is where the request itself starts in the buffer."""

    __slots__ = ("api_key", "api_version", "body", "client_id", "correlation_id")

    def __init__(
        self, api_key: int, api_version: int, correlation_id: int, client_id: str | None, body: int
    ) -> None:
        self.api_key = api_key
        self.api_version = api_version
        self.correlation_id = correlation_id
        self.client_id = client_id
        self.body = body


def flexible_from(api_key: int) -> int:
    """The first flexible version of an API; NEVER for one that we do not know."""
    known = _flexible_from.get(api_key)
    if known is None:
        if api_key not in REQUESTS:
            return NEVER
        known = REQUESTS[api_key].FLEXIBLE
        known = _flexible_from[api_key] = NEVER if known is None else known
    return known


def decode_request_header(buf: memoryview, start: int = 0, end: int | None = None) -> RequestHeader:
    """The header of the frame `buf[start:end]` (without its size).

    Unknown keys and versions are not this function's matter: their header is read all the same, so that somebody can
    say whose request it was.
    """
    if end is None:
        end = len(buf)
    if end - start < FRAME_SIZE_MIN:
        raise ProtocolError(f"request of {end - start} bytes has no header")
    api_key, version, correlation_id, size = _REQUEST.unpack_from(buf, start)
    at = start + FRAME_SIZE_MIN
    client_id = None
    if size >= 0:
        after = at + size
        if after > end:
            raise ProtocolError(f"client id of {size} bytes, {end - at} bytes left")
        try:
            client_id = str(buf[at:after], "utf-8")
        except UnicodeDecodeError:
            raise ProtocolError("client id is not UTF-8") from None
        at = after
    known = _flexible_from.get(api_key)
    if version >= (flexible_from(api_key) if known is None else known):
        at = _skip_tags(buf, at, end)
    return RequestHeader(api_key, version, correlation_id, client_id, at)


def _skip_tags(buf: memoryview, at: int, end: int) -> int:
    """The position after a header's tagged fields: none is defined."""
    if at < end and buf[at] == 0:
        return at + 1
    try:
        count, at = read_uvarint(buf, at)
        check_tag_count(count, end - at)
        for _ in range(count):
            _, at = read_uvarint(buf, at)
            size, at = read_uvarint(buf, at)
            at += size
    except IndexError:
        raise ProtocolError("request header ends too early") from None
    if at > end:
        raise ProtocolError("request header ends too early")
    return at


def encode_response(message: Message, version: int, correlation_id: int) -> bytes | list[Part]:
    """The answer's whole frame, size included: plain bytes unless it has records that are parts of their own."""
    body = encode_body(message, version)
    if type(body) is bytes:
        size = len(body)
    else:
        size = sum(map(len, body)) if len(body) > 1 else len(body[0])
    header = _response_header(message, version, correlation_id, size)
    if type(body) is bytes:
        return header + body
    body[0] = header + body[0]
    return body[0] if len(body) == 1 else body  # type: ignore[no-any-return]  # made by encode_body


def encode_response_in_slices(
    message: Message, version: int, correlation_id: int
) -> Generator[None, None, bytes | list[Part]]:
    """The same, with pauses."""
    body = yield from encode_in_slices(message, version)
    if type(body) is bytes:
        return _response_header(message, version, correlation_id, len(body)) + body
    body[0] = _response_header(message, version, correlation_id, sum(map(len, body))) + body[0]
    return body  # type: ignore[no-any-return]  # made by encode_in_slices


def _response_header(message: Message, version: int, correlation_id: int, size: int) -> bytes:
    """Size and header of an answer whose body has so many bytes."""
    if message.FLEXIBLE is not None and version >= message.FLEXIBLE and message.API_KEY != API_VERSIONS:
        return _RESPONSE_V1.pack(size + 5, correlation_id, 0)
    return _RESPONSE_V0.pack(size + 4, correlation_id)


def encode_request(message: Message, version: int, correlation_id: int, client_id: str | None) -> list[Part]:
    """A request's whole frame, size included, as parts; the first is bytes."""
    body = encode_body(message, version)
    parts: list[Part] = [body] if type(body) is bytes else body
    client = None if client_id is None else client_id.encode()
    header = _REQUEST.pack(message.API_KEY, version, correlation_id, -1 if client is None else len(client))
    header += client or b""
    if message.FLEXIBLE is not None and version >= message.FLEXIBLE:
        header += b"\0"
    size = len(header) + sum(map(len, parts))
    first = parts[0]
    assert isinstance(first, bytes)
    parts[0] = size.to_bytes(SIZE_BYTES, "big") + header + first
    return parts


def decode_response(cls: type[M], version: int, buf: memoryview) -> tuple[int, M]:
    """Correlation id and message of a response frame (without its size)."""
    if len(buf) < 4:
        raise ProtocolError(f"response of {len(buf)} bytes has no header")
    correlation_id = int.from_bytes(buf[:4], "big", signed=True)
    at = 4
    if cls.FLEXIBLE is not None and version >= cls.FLEXIBLE and cls.API_KEY != API_VERSIONS:
        at = _skip_tags(buf, at, len(buf))
    return correlation_id, decode(cls, version, buf, at)
