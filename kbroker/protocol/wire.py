"""The wire types of Kafka's protocol, and how a message is declared with them.

A message is a class; its fields carry wire type, versions, nullability, default and tag as in Kafka's own schemas
(KIP-482). One class serves all versions. Knows nothing of encoding: `codec` reads the declarations and compiles them.

    class Broker(Struct):
        node_id: int = int32()
        rack: str | None = string("1+", nullable="1+", default=None, ignorable=True)

Ids of topics and directories are plain `bytes` of 16 (building a `uuid.UUID` costs more than the rest of a topic);
`ZERO_UUID` means none. A struct in a field is None when it was not sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, dataclass_transform

ZERO_UUID = bytes(16)

# Elements in one array, and tagged fields in one struct: as Kafka 4.4. Both are also bounded by the bytes left, and
# structs, strings and tagged fields together may not be more than that in a whole message.
ARRAY_ELEMENTS_MAX = 1_000_000
TAGGED_FIELDS_MAX = 10_000
STRING_BYTES_MAX = 32_767

INT8 = "int8"
INT16 = "int16"
INT32 = "int32"
INT64 = "int64"
UINT16 = "uint16"
FLOAT64 = "float64"
BOOL = "bool"
UUID = "uuid"
STRING = "string"
BYTES = "bytes"
RECORDS = "records"
STRUCT = "struct"
ARRAY = "array"

# Types of fixed width, as letters of `struct`; runs of them are packed at once.
FIXED = {INT8: "b", INT16: "h", INT32: "i", INT64: "q", UINT16: "H", FLOAT64: "d", BOOL: "?", UUID: "16s"}


class Sized(Protocol):
    """Anything that will be sent later and knows its size: a stretch of a file."""

    def __len__(self) -> int: ...


Part: TypeAlias = bytes | bytearray | memoryview | Sized
Records: TypeAlias = Part  # decoded: a view of the frame; encoded: kept as its own part when large

ALWAYS = (0, 32_767)


def parse_versions(text: str) -> tuple[int, int]:
    """First and last version of "3+", "0-12" or "7"."""
    first, dash, last = text.partition("-")
    if dash:
        return int(first), int(last)
    if text.endswith("+"):
        return int(text[:-1]), ALWAYS[1]
    return int(text), int(text)


class Field:
    """One declared field. A tagged field is tagged in all its versions."""

    __slots__ = ("default", "ignorable", "name", "nullable", "of", "shared", "tag", "type", "versions")

    def __init__(
        self,
        kind: str,
        versions: str,
        default: Any,
        *,
        of: str | type[Struct] | None = None,
        nullable: str | None = None,
        ignorable: bool = False,
        tag: int | None = None,
        shared: bool = False,
    ) -> None:
        self.name = ""  # set by the class it is declared in
        self.type = kind
        self.of = of  # the struct of a STRUCT; the element of an ARRAY: a struct or the name of a type
        self.versions = parse_versions(versions)
        self.nullable = parse_versions(nullable) if nullable is not None else None
        self.default = default
        self.ignorable = ignorable  # left out silently in versions that lack it, whatever its value
        self.tag = tag
        self.shared = shared  # several structs of a message hold the same list: its elements are encoded once

    def is_in(self, version: int) -> bool:
        return self.versions[0] <= version <= self.versions[1]

    def is_nullable(self, version: int) -> bool:
        return self.nullable is not None and self.nullable[0] <= version <= self.nullable[1]


def int8(versions: str = "0+", *, default: int = 0, ignorable: bool = False, tag: int | None = None) -> Any:
    return Field(INT8, versions, default, ignorable=ignorable, tag=tag)


def int16(versions: str = "0+", *, default: int = 0, ignorable: bool = False, tag: int | None = None) -> Any:
    return Field(INT16, versions, default, ignorable=ignorable, tag=tag)


def int32(versions: str = "0+", *, default: int = 0, ignorable: bool = False, tag: int | None = None) -> Any:
    return Field(INT32, versions, default, ignorable=ignorable, tag=tag)


def int64(versions: str = "0+", *, default: int = 0, ignorable: bool = False, tag: int | None = None) -> Any:
    return Field(INT64, versions, default, ignorable=ignorable, tag=tag)


def uint16(versions: str = "0+", *, default: int = 0, ignorable: bool = False, tag: int | None = None) -> Any:
    return Field(UINT16, versions, default, ignorable=ignorable, tag=tag)


def float64(versions: str = "0+", *, default: float = 0.0, ignorable: bool = False) -> Any:
    return Field(FLOAT64, versions, default, ignorable=ignorable)


def boolean(
    versions: str = "0+", *, default: bool = False, ignorable: bool = False, tag: int | None = None
) -> Any:
    return Field(BOOL, versions, default, ignorable=ignorable, tag=tag)


def uuid(versions: str = "0+", *, ignorable: bool = False, tag: int | None = None) -> Any:
    """16 bytes; `ZERO_UUID` unless given."""
    return Field(UUID, versions, ZERO_UUID, ignorable=ignorable, tag=tag)


def string(
    versions: str = "0+",
    *,
    nullable: str | None = None,
    default: str | None = "",
    ignorable: bool = False,
    tag: int | None = None,
) -> Any:
    """UTF-8, at most 32,767 bytes."""
    return Field(STRING, versions, default, nullable=nullable, ignorable=ignorable, tag=tag)


def binary(versions: str = "0+", *, nullable: str | None = None, ignorable: bool = False) -> Any:
    """Bytes, copied out of the frame."""
    return Field(BYTES, versions, b"", nullable=nullable, ignorable=ignorable)


def records(versions: str = "0+", *, nullable: str | None = None) -> Any:
    """Record batches: a view of the frame when decoded, any part when encoded. None unless given."""
    return Field(RECORDS, versions, None, nullable=nullable)


def struct(
    of: type[Struct], versions: str = "0+", *, nullable: str | None = None, tag: int | None = None
) -> Any:
    """One struct, or None: it was not sent, or (where it is nullable) sent as null."""
    return Field(STRUCT, versions, None, of=of, nullable=nullable, tag=tag)


def array(
    of: str | type[Struct],
    versions: str = "0+",
    *,
    nullable: str | None = None,
    default: tuple[()] | None = (),
    ignorable: bool = False,
    tag: int | None = None,
    shared: bool = False,
) -> Any:
    """A list of structs, or of a type named by one of the constants above. An empty list unless given."""
    return Field(
        ARRAY, versions, default, of=of, nullable=nullable, ignorable=ignorable, tag=tag, shared=shared
    )


@dataclass_transform(kw_only_default=True)
class StructMeta(type):
    """Turns a class body of fields into a slotted class with `FIELDS` and a keyword constructor."""

    def __new__(
        mcs,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        key: int | None = None,
        valid: str | None = None,
        flexible: int | None = None,
    ) -> StructMeta:
        fields = []
        for attribute, field in namespace.items():
            if isinstance(field, Field):
                field.name = attribute
                fields.append(field)
        for field in fields:
            del namespace[field.name]
        namespace.setdefault("__slots__", tuple(field.name for field in fields))
        namespace["FIELDS"] = tuple(fields)
        if valid is not None:
            namespace.update(VALID=parse_versions(valid), FLEXIBLE=flexible, DECODERS={}, ENCODERS={})
        if key is not None:
            namespace.update(API_KEY=key)
        return super().__new__(mcs, name, bases, namespace)

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **_: Any) -> None:
        super().__init__(name, bases, namespace)


class Struct(metaclass=StructMeta):
    """What all messages and their parts are: fields by name, a keyword constructor, equality."""

    __slots__ = ("unknown_tags",)

    FIELDS: ClassVar[tuple[Field, ...]] = ()

    if TYPE_CHECKING:
        unknown_tags: dict[int, bytes] | None = None  # tagged fields we do not know: kept, and sent on
    else:

        def __init__(self, **values: Any) -> None:
            # the first instance of a class compiles its constructor; importing a family stays cheap
            cls = type(self)
            cls.__init__ = compile_constructor(cls)
            cls.__init__(self, **values)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        names = (*type(self).__slots__, "unknown_tags")
        return all(getattr(self, name) == getattr(other, name) for name in names)

    def __repr__(self) -> str:
        """Bytes are shown by their size: they may be large, or a password."""
        shown = []
        for field in self.FIELDS:
            value = getattr(self, field.name)
            if field.type in (BYTES, RECORDS) and value is not None:
                value = f"<{len(value)} bytes>"
            shown.append(
                f"{field.name}={value}" if field.type in (BYTES, RECORDS) else f"{field.name}={value!r}"
            )
        return f"{type(self).__name__}({', '.join(shown)})"


class Message(Struct):
    """A request or a response: `class XRequest(Message, key=0, valid="3-13", flexible=9)`.

    What has versions and no API (keys and values of records in internal topics) is declared without `key`.
    """

    __slots__ = ()

    API_KEY: ClassVar[int]
    VALID: ClassVar[tuple[int, int]]  # first and last version
    FLEXIBLE: ClassVar[int | None]  # first version with compact lengths and tagged fields
    DECODERS: ClassVar[dict[int, Any]]  # by version, filled by `codec` on first use
    ENCODERS: ClassVar[dict[int, Any]]


_FRESH_LIST = object()


def compile_constructor(cls: type[Struct]) -> Any:
    """An `__init__` with one keyword per field: as fast as one written by hand."""
    scope: dict[str, Any] = {"fresh": _FRESH_LIST}
    parameters, body = [], []
    for field in cls.FIELDS:
        name = field.name
        if field.default == ():
            parameters.append(f"{name}=fresh")
            body.append(f" self.{name} = {name} if {name} is not fresh else []\n")
        else:
            parameters.append(f"{name}={field.default!r}")
            body.append(f" self.{name} = {name}\n")
    star = ", *, " if parameters else ""
    source = f"def __init__(self{star}{', '.join(parameters)}):\n{''.join(body)} self.unknown_tags = None\n"
    exec(source, scope)
    constructor = scope["__init__"]
    constructor.__qualname__ = f"{cls.__qualname__}.__init__"
    return constructor
