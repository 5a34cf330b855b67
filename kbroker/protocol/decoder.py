"""Compiles decoders: for one message class at one version, straight-line Python that reads it from bytes.

Every read is bounded by the bytes that are there: a fixed-width run by its `struct.Struct`, a length or a count by
comparison with what is left. Whatever the bytes, the function returns a message or raises ProtocolError.
"""

from __future__ import annotations

from struct import error as struct_error
from struct import unpack_from
from typing import Any

from kbroker.errors import ProtocolError
from kbroker.protocol.layout import (
    Source,
    default_source,
    fields_at,
    is_fixed,
    is_flexible,
    layout,
    size_min,
    struct_of,
    tagged_at,
    type_size_min,
)
from kbroker.protocol.wire import (
    ARRAY,
    ARRAY_ELEMENTS_MAX,
    BYTES,
    FIXED,
    RECORDS,
    STRING,
    STRING_BYTES_MAX,
    STRUCT,
    TAGGED_FIELDS_MAX,
    Field,
    Message,
    Struct,
)

UVARINT_MAX = 2**32 - 1

# Frames with records are copied as a whole below this size, never above.
COPIED_BYTES_MAX = 4096


def read_uvarint(buf: bytes | memoryview, at: int) -> tuple[int, int]:
    """An unsigned varint and the position after it."""
    value = shift = 0
    while True:
        byte = buf[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 28:
            raise ProtocolError("varint of more than 5 bytes")
    if value > UVARINT_MAX:
        raise ProtocolError(f"varint {value} does not fit 32 bits")
    return value, at


def read_string_size(buf: bytes | memoryview, at: int) -> tuple[int, int]:
    """The size + 1 of a compact string of more than 126 bytes, and the position after it."""
    size, at = read_uvarint(buf, at)
    if size > STRING_BYTES_MAX + 1:
        raise ProtocolError(f"string of {size - 1} bytes, {STRING_BYTES_MAX} are allowed")
    return size, at


def too_short(name: str, size: int, left: int) -> ProtocolError:
    return ProtocolError(f"{name} of {size} bytes, {left} bytes left")


def too_many(name: str, count: int, left: int) -> ProtocolError:
    return ProtocolError(f"{name} of {count} elements, {left} bytes left")


def is_null(name: str) -> ProtocolError:
    return ProtocolError(f"{name} is null")


def check_tag_count(count: int, left: int) -> None:
    if count > TAGGED_FIELDS_MAX or 2 * count > left:
        raise too_many("tagged fields", count, left)


def read_unknown_tags(buf: bytes | memoryview, at: int, message: Struct) -> tuple[int, int]:
    """Keep the tagged fields of a struct that has none of its own: their number, and the position after them."""
    end = len(buf)
    count, at = read_uvarint(buf, at)
    check_tag_count(count, end - at)
    for _ in range(count):
        tag, at = read_uvarint(buf, at)
        size, at = read_uvarint(buf, at)
        if at + size > end:
            raise too_short("tagged field", size, end - at)
        keep_unknown(message, tag, bytes(buf[at : at + size]))
        at += size
    return count, at


def keep_unknown(message: Struct, tag: int, value: bytes) -> None:
    if message.unknown_tags is None:
        message.unknown_tags = {}
    message.unknown_tags[tag] = value


def has_records(cls: type[Struct]) -> bool:
    return any(
        field.type == RECORDS or (isinstance(field.of, type) and has_records(field.of))
        for field in cls.FIELDS
    )


def compile_decoder(cls: type[Message], version: int) -> Any:
    """`decode(buf) -> message`, of all the bytes in the memoryview `buf`."""
    return _Decoder(cls, version).compile()


class _Decoder:
    def __init__(self, cls: type[Message], version: int) -> None:
        self.cls = cls
        self.version = version
        self.flexible = is_flexible(cls, version)
        self.views = has_records(cls)
        self.source = Source()
        self.run: list[tuple[str, str]] = []  # fixed-width reads in waiting: (target, letter)
        self.source.scope.update(
            new=object.__new__,
            error=struct_error,
            ProtocolError=ProtocolError,
            read_uvarint=read_uvarint,
            read_string_size=read_string_size,
            read_unknown_tags=read_unknown_tags,
            keep_unknown=keep_unknown,
            check_tag_count=check_tag_count,
            too_short=too_short,
            too_many=too_many,
            is_null=is_null,
        )

    def compile(self) -> Any:
        source = self.source
        what = self.cls.__name__  # without a version: several share this function
        source.add("e = len(b)", "p = k = 0")
        # Items and slices of bytes cost half of a memoryview's: a copy pays, unless large records would be copied too.
        source.add(f"c = bytes(b) if e < {COPIED_BYTES_MAX} else b" if self.views else "c = bytes(b)")
        source.add("try:")
        source.depth += 1
        self.read_struct(self.cls, "m")
        if what.endswith("Request"):
            # Kafka ignores what follows a request, and librdkafka 2.16 sends three bytes too many (Metadata v13, all
            # topics)
            source.add("if p > e:", f" raise ProtocolError('{what}: ends too early')")
        else:
            source.add("if p != e:", f" raise ProtocolError(f'{what}: {{e - p}} bytes left over')")
        source.add("return m")
        source.depth -= 1
        source.add("except (IndexError, error):", f" raise ProtocolError('{what}: ends too early') from None")
        source.add(
            "except UnicodeDecodeError:", f" raise ProtocolError('{what}: text is not UTF-8') from None"
        )
        return source.compile("decode(b)", f"<{what} decoder>")

    def read_struct(self, cls: type[Struct], target: str) -> None:
        self.flush()
        self.source.add(f"{target} = new({self.source.name(cls, 'C')})")
        present = fields_at(cls, self.version)
        for field in present:
            self.read_field(field, f"{target}.{field.name}")
        if self.flexible:
            self.read_count("B")
        else:
            self.flush()
        absent = [field for field in cls.FIELDS if field not in present]
        for field in absent:
            self.source.add(f"{target}.{field.name} = {default_source(field, self.constant)}")
        self.source.add(f"{target}.unknown_tags = None")
        if self.flexible:
            self.read_tags(cls, target)

    def constant(self, value: Any) -> str:
        return self.source.name(value, "K")

    def read_field(self, field: Field, target: str) -> None:
        nullable = field.is_nullable(self.version)
        if is_fixed(field.type):
            self.run.append((target, FIXED[field.type]))
        elif field.type == STRUCT:
            self.read_struct_field(field, target, nullable=nullable)
        elif field.type == ARRAY:
            self.read_array(field, target, nullable=nullable)
        else:
            self.read_sized(field.type, field.name, target, nullable=nullable)

    def flush(self) -> None:
        """Emit the fixed-width run in waiting, as one unpack."""
        if not self.run:
            return
        targets = ", ".join(target for target, _ in self.run)
        whole = layout("".join(letter for _, letter in self.run))
        unpack = self.source.name(whole.unpack_from, "u")
        comma = "," if len(self.run) == 1 else ""
        self.source.add(f"{targets}{comma} = {unpack}(c, p)", f"p += {whole.size}")
        self.run.clear()

    def read_count(self, letter: str) -> None:
        """A length, count or one-byte varint into `n`, together with the run before it."""
        if not self.run and letter == "B":
            self.source.add("n = c[p]", "p += 1")
        else:
            self.run.append(("n", letter))
            self.flush()

    def read_sized(self, kind: str, name: str, target: str, *, nullable: bool) -> None:
        """A string, bytes or records: its size, then a slice."""
        source = self.source
        if self.flexible:
            self.read_count("B")
            wide = "read_string_size" if kind == STRING else "read_uvarint"
            source.add("if n > 127:", f" n, p = {wide}(c, p - 1)")
            null, end = "not n", "p + n - 1"
        else:
            self.read_count("h" if kind == STRING else "i")
            null, end = "n < 0", "p + n"
        source.add(f"if {null}:")
        if nullable:
            source.add(f" {target} = None", "else:")
            source.depth += 1
        else:
            source.add(f" raise is_null({name!r})")
        source.add(f"q = {end}", "if q > e:", f" raise too_short({name!r}, q - p, e - p)")
        source.add(f"{target} = {self.slice(kind)}", "p = q")
        if nullable:
            source.depth -= 1

    def slice(self, kind: str) -> str:
        if kind == STRING:
            return "str(c[p:q], 'utf-8')" if self.views else "c[p:q].decode()"
        if kind == BYTES and self.views:
            return "bytes(c[p:q])"
        return "b[p:q]" if kind == RECORDS else "c[p:q]"

    def read_struct_field(self, field: Field, target: str, *, nullable: bool) -> None:
        source = self.source
        local = source.fresh("x")
        if nullable:
            # KIP-893: a marker says whether a struct follows; negative is null
            self.run.append(("n", "b"))
            self.flush()
            source.add("if n < 0:", f" {target} = None", "else:")
            source.depth += 1
        self.read_struct(struct_of(field), local)
        source.add(f"{target} = {local}")
        if nullable:
            source.depth -= 1

    def read_array(self, field: Field, target: str, *, nullable: bool) -> None:
        source = self.source
        of = field.of
        if isinstance(of, type):
            least = size_min(of, self.version, flexible=self.flexible)
        else:
            least = type_size_min(str(of), flexible=self.flexible)
        if self.flexible:
            self.read_count("B")
            source.add("if n > 127:", " n, p = read_uvarint(c, p - 1)", "n -= 1")
        else:
            self.read_count("i")
        source.add("if n < 0:")
        if nullable:
            source.add(f" {target} = None", "else:")
            source.depth += 1
        else:
            source.add(f" raise is_null({field.name!r})")
        total = "n"
        if not (isinstance(of, str) and is_fixed(of)):
            # An object takes far more memory than the three bytes that an empty one may take on the wire, so their
            # number is bounded for the message as a whole: arrays of arrays multiply.
            total = "k"
            source.add("k += n")
        source.add(f"if {total} > {ARRAY_ELEMENTS_MAX} or n * {least} > e - p:")
        source.add(f" raise too_many({field.name!r}, {total}, e - p)")
        self.read_elements(field, target)
        if nullable:
            source.depth -= 1

    def read_elements(self, field: Field, target: str) -> None:
        source = self.source
        of = field.of
        if isinstance(of, str) and is_fixed(of):
            letter = FIXED[of]
            source.scope["unpack_from"] = unpack_from
            source.add(
                f"{target} = list(unpack_from('>%d{letter}' % n, c, p))", f"p += n * {layout(letter).size}"
            )
            return
        items, item = source.fresh("a"), source.fresh("x")
        source.add(f"{items} = {target} = []", "for _ in range(n):")
        source.depth += 1
        if isinstance(of, type):
            self.read_struct(of, item)
        else:
            self.read_sized(str(of), field.name, item, nullable=False)
        source.add(f"{items}.append({item})")
        source.depth -= 1

    def read_tags(self, cls: type[Struct], target: str) -> None:
        """Tagged fields, rare: `n` holds their count, or the first byte of it."""
        source = self.source
        known = tagged_at(cls, self.version, flexible=True)
        source.add("if n:")
        source.depth += 1
        if known:
            self.read_known_tags(known, target)
        else:
            source.add(f"n, p = read_unknown_tags(c, p - 1, {target})", "k += n")
            source.add(f"if k > {ARRAY_ELEMENTS_MAX}:", " raise too_many('tagged fields', k, e - p)")
        source.depth -= 1

    def read_known_tags(self, known: list[Field], target: str) -> None:
        source = self.source
        tag, end = source.fresh("t"), source.fresh("z")
        source.add("n, p = read_uvarint(c, p - 1)", "check_tag_count(n, e - p)", "k += n")
        source.add(f"if k > {ARRAY_ELEMENTS_MAX}:", " raise too_many('tagged fields', k, e - p)")
        source.add("for _ in range(n):")
        source.depth += 1
        source.add(f"{tag}, p = read_uvarint(c, p)", "n, p = read_uvarint(c, p)", f"{end} = p + n")
        source.add(f"if {end} > e:", " raise too_short('tagged field', n, e - p)")
        for branch, field in zip(("if", *("elif",) * len(known)), known, strict=False):
            source.add(f"{branch} {tag} == {field.tag}:")
            source.depth += 1
            self.read_field(field, f"{target}.{field.name}")
            self.flush()
            message = f"tagged field {field.name} has another size than its content"
            source.add(f"if p != {end}:", f" raise ProtocolError({message!r})")
            source.depth -= 1
        source.add("else:", f" keep_unknown({target}, {tag}, bytes(c[p:{end}]))", f" p = {end}")
        source.depth -= 1
