"""What the two compilers share: reading a declaration at one version, and writing Python source line by line.

Knows the declarations of `wire`; nothing of bytes.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct as Layout
from typing import Any

from kbroker.protocol.wire import ARRAY, FIXED, STRUCT, UUID, Field, Message, Struct


def fields_at(cls: type[Struct], version: int) -> list[Field]:
    """Fields in their place, without the tagged ones."""
    return [field for field in cls.FIELDS if field.tag is None and field.is_in(version)]


def tagged_at(cls: type[Struct], version: int, *, flexible: bool) -> list[Field]:
    """Tagged fields by ascending tag."""
    if not flexible:
        return []
    tagged = [field for field in cls.FIELDS if field.tag is not None and field.is_in(version)]
    return sorted(tagged, key=lambda field: field.tag or 0)


def is_flexible(cls: type[Message], version: int) -> bool:
    return cls.FLEXIBLE is not None and version >= cls.FLEXIBLE


def struct_of(field: Field) -> type[Struct]:
    assert isinstance(field.of, type)
    return field.of


def same_layout(cls: type[Message], version: int) -> int:
    """The first version from which on nothing changed up to `version`: both share their compiled functions."""
    changes = {cls.VALID[0], cls.FLEXIBLE or 0}
    _collect_changes(cls, changes)
    return max(change for change in changes if cls.VALID[0] <= change <= version)


def _collect_changes(cls: type[Struct], changes: set[int]) -> None:
    for field in cls.FIELDS:
        changes.update((field.versions[0], field.versions[1] + 1))
        if field.nullable is not None:
            changes.update((field.nullable[0], field.nullable[1] + 1))
        if isinstance(field.of, type):
            _collect_changes(field.of, changes)


def size_min(cls: type[Struct], version: int, *, flexible: bool) -> int:
    """The fewest bytes that a struct takes: what a hostile array count is measured against."""
    size = sum(field_size_min(field, version, flexible=flexible) for field in fields_at(cls, version))
    return size + 1 if flexible else size


def field_size_min(field: Field, version: int, *, flexible: bool) -> int:
    if field.type == STRUCT:
        if field.is_nullable(version):
            return 1
        return size_min(struct_of(field), version, flexible=flexible)
    return type_size_min(field.type, flexible=flexible)


def type_size_min(kind: str, *, flexible: bool) -> int:
    if kind in FIXED:
        return layout(FIXED[kind]).size
    if flexible:
        return 1
    return 2 if kind == "string" else 4


@lru_cache(maxsize=512)
def layout(letters: str) -> Layout:
    """One `struct.Struct` per run of letters, shared by all messages."""
    return Layout(">" + letters)


def is_fixed(kind: str) -> bool:
    return kind in FIXED


def default_source(field: Field, name_of: Any) -> str:
    """The default of a field as an expression; a fresh list each time."""
    if field.type == ARRAY:
        return "None" if field.default is None else "[]"
    if field.type == UUID:
        return str(name_of(field.default))
    return repr(field.default)


class Source:
    """Python source in the making: indented lines, and the objects that they name."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.depth = 1
        self.scope: dict[str, Any] = {}
        self._names: dict[Any, str] = {}
        self._count = 0

    def add(self, *lines: str) -> None:
        indent = " " * self.depth
        self.lines.extend(indent + line for line in lines)

    def fresh(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def name(self, value: Any, prefix: str) -> str:
        """A name under which the compiled function finds `value`."""
        key = (prefix, value)
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = self.fresh(prefix)
            self.scope[name] = value
        return name

    def compile(self, signature: str, filename: str) -> Any:
        """The function; its global names are those of `scope`."""
        text = "\n".join([f"def {signature}:", *self.lines, ""])
        exec(compile(text, filename, "exec"), self.scope)
        return self.scope[signature.partition("(")[0]]
