"""Bytes to messages and back. Decoders and encoders are compiled on first use, one per class and layout.

`decode` raises ProtocolError and nothing else, whatever the bytes. `records` fields of a decoded message are views of
the buffer it came from; everything else is copied.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import error as struct_error
from typing import Any, TypeVar

from kbroker.errors import ProtocolError
from kbroker.protocol.decoder import compile_decoder
from kbroker.protocol.encoder import compile_encoder
from kbroker.protocol.layout import same_layout
from kbroker.protocol.wire import Message, Part

M = TypeVar("M", bound=Message)


def decode(
    cls: type[M], version: int, buf: memoryview | bytes | bytearray, start: int = 0, end: int | None = None
) -> M:
    """The message in `buf[start:end]`. A response fills it exactly; bytes after a request are ignored, as in Kafka."""
    decoder = cls.DECODERS.get(version) or _decoder(cls, version)
    view = buf if type(buf) is memoryview else memoryview(buf)
    message: M = decoder(view[start:end])
    return message


def decoder_of(cls: type[M], version: int) -> Callable[[memoryview], M]:
    """What `decode` uses: takes a view that the message fills exactly."""
    decoder: Callable[[memoryview], M] = cls.DECODERS.get(version) or _decoder(cls, version)
    return decoder


def encode(message: Message, version: int) -> list[Part]:
    """The message as parts to send in order; the first is bytes. Records of 1 KiB and more, and whatever is not
    plain bytes, are parts of their own.

    ValueError: a field is set that this version does not have, or a value does not fit its type.
    """
    body = encode_body(message, version)
    return body if type(body) is list else [body]


def encode_body(message: Message, version: int) -> Any:
    """As `encode`, but plain `bytes` for a message that has no records."""
    encoder = message.ENCODERS.get(version) or _encoder(type(message), version)
    try:
        return encoder(message)
    except (struct_error, AttributeError, TypeError) as error:
        raise ValueError(f"{type(message).__name__} v{version}: {error}") from error


def _decoder(cls: type[Message], version: int) -> Any:
    first, last = cls.VALID
    if not first <= version <= last:
        raise ProtocolError(f"{cls.__name__} has versions {first}-{last}, not {version}")
    same = same_layout(cls, version)
    if same not in cls.DECODERS:
        cls.DECODERS[same] = compile_decoder(cls, same)
    decoder = cls.DECODERS[version] = cls.DECODERS[same]
    return decoder


def _encoder(cls: type[Message], version: int) -> Any:
    first, last = cls.VALID
    if not first <= version <= last:
        raise ValueError(f"{cls.__name__} has versions {first}-{last}, not {version}")
    same = same_layout(cls, version)
    if same not in cls.ENCODERS:
        cls.ENCODERS[same] = compile_encoder(cls, same)
    encoder = cls.ENCODERS[version] = cls.ENCODERS[same]
    return encoder
