"""Encoding a large message in slices, for whoever must serve others in between: as `codec.encode_body`, with pauses."""

from __future__ import annotations

from collections.abc import Generator
from struct import error as struct_error
from typing import Any

from kbroker.protocol.encoder import compile_sliced_encoder
from kbroker.protocol.layout import same_layout
from kbroker.protocol.wire import Message

# Elements of arrays that are encoded in one go: one to three milliseconds.
ELEMENTS_PER_SLICE = 2000

_encoders: dict[tuple[type[Message], int], Any] = {}  # by class and layout; compiled on first use


def encode_in_slices(message: Message, version: int) -> Generator[None, None, Any]:
    """What `codec.encode_body` returns (a message with records may have more parts of the same bytes), and raises. The
    message stays as it is meanwhile."""
    cls = type(message)
    key = cls, same_layout(cls, version)
    encoder = _encoders.get(key)
    if encoder is None:
        encoder = _encoders[key] = compile_sliced_encoder(*key, ELEMENTS_PER_SLICE)
    try:
        return (yield from encoder(message))
    except (struct_error, AttributeError, TypeError) as error:
        raise ValueError(f"{cls.__name__} v{version}: {error}") from error
