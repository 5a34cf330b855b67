"""Random messages from their declarations, the same for the same seed."""

from __future__ import annotations

from random import Random
from typing import Any

from kbroker.protocol.layout import is_flexible
from kbroker.protocol.wire import (
    ARRAY,
    BOOL,
    BYTES,
    FLOAT64,
    INT8,
    INT16,
    INT32,
    INT64,
    RECORDS,
    STRING,
    STRUCT,
    UINT16,
    UUID,
    Field,
    Message,
    Struct,
)

BITS = {INT8: 8, INT16: 16, INT32: 32, INT64: 64}
LETTERS = "abcXYZ09._-äß€漢🙂 "


class RandomMessages:
    """`unknown_tags`: give structs of flexible versions tagged fields that nobody declared."""

    def __init__(self, seed: object, *, unknown_tags: bool = False) -> None:
        self.rng = Random(str(seed))
        self.unknown_tags = unknown_tags

    def message(self, cls: type[Message], version: int) -> Any:
        return self.struct(cls, version, flexible=is_flexible(cls, version))

    def struct(self, cls: type[Struct], version: int, *, flexible: bool) -> Any:
        made = cls()
        for field in cls.FIELDS:
            if field.is_in(version):
                setattr(made, field.name, self.value(field, version, flexible=flexible))
        if flexible and self.unknown_tags and self.rng.random() < 0.3:
            tags = self.rng.sample(range(50, 400), self.rng.randrange(1, 4))
            made.unknown_tags = {tag: self.rng.randbytes(self.rng.randrange(200)) for tag in tags}
        return made

    def value(self, field: Field, version: int, *, flexible: bool) -> Any:
        absent = field.is_nullable(version) or (field.type == STRUCT and field.tag is not None)
        if absent and self.rng.random() < 0.3:
            return None
        if field.type == STRUCT:
            return self.struct(field.of, version, flexible=flexible)
        if field.type == ARRAY:
            return self.array(field, version, flexible=flexible)
        return self.plain(field.type, field.name)

    def array(self, field: Field, version: int, *, flexible: bool) -> Any:
        if isinstance(field.of, type):
            count = self.rng.choice((0, 1, 1, 2, 3))
            return [self.struct(field.of, version, flexible=flexible) for _ in range(count)]
        count = self.rng.choice((0, 1, 2, 3, 140))
        return [self.plain(field.of, field.name) for _ in range(count)]

    def plain(self, kind: str, name: str) -> Any:
        rng = self.rng
        if kind == STRING:
            return "".join(rng.choices(LETTERS, k=rng.choice((0, 1, 5, 12, 12, 150))))
        if kind in (BYTES, RECORDS):
            return rng.randbytes(rng.choice((0, 1, 20, 200)))
        if kind == BOOL:
            return rng.random() < 0.5
        if kind == UUID:
            return rng.randbytes(16)
        if kind == FLOAT64:
            return rng.uniform(-1e9, 1e9)
        if kind == UINT16:
            return rng.randrange(1 << 16)
        if name.endswith("error_code"):
            return rng.randrange(-1, 100)
        if kind == INT64 and ("time" in name):
            return rng.randrange(-1, 2_000_000_000_000)  # what a clock may say; kio makes dates of it
        return rng.getrandbits(BITS[kind]) - (1 << (BITS[kind] - 1))
