"""Compiles encoders: for one message class at one version, straight-line Python that writes it to bytes.

Fixed-width runs, and the short length after them, are one pack. Records become parts of their own and are never
looked into. Our messages are trusted: a value that does not fit raises whatever Python raises.
"""

from __future__ import annotations

from struct import Struct as Layout
from struct import pack
from typing import Any

from kbroker.protocol.decoder import has_records
from kbroker.protocol.layout import (
    Source,
    fields_at,
    is_fixed,
    is_flexible,
    layout,
    struct_of,
    tagged_at,
)
from kbroker.protocol.wire import (
    ARRAY,
    FIXED,
    RECORDS,
    STRING,
    STRING_BYTES_MAX,
    STRUCT,
    Field,
    Message,
    Struct,
)

# Records below this size are copied into the bytes around them: cheaper than one more buffer for the kernel.
JOINED_BYTES_MAX = 1024
PLAIN = frozenset({bytes, bytearray, memoryview})

BYTE = tuple(bytes((value,)) for value in range(128))


def uvarint(value: int) -> bytes:
    if value < 0x80:
        return BYTE[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def string_size(size: int) -> bytes:
    """The size + 1 of a compact string."""
    if size > STRING_BYTES_MAX + 1:
        raise ValueError(f"string of {size - 1} bytes, {STRING_BYTES_MAX} are allowed")
    return uvarint(size)


def tagged(tags: dict[int, bytes]) -> bytes:
    """All tagged fields of a struct, ascending."""
    parts = [uvarint(len(tags))]
    for tag in sorted(tags):
        value = tags[tag]
        parts += (uvarint(tag), uvarint(len(value)), value)
    return b"".join(parts)


class ArrayLayouts(dict[tuple[int, ...], tuple[Any, ...]]):
    """For one run with arrays of numbers: by their lengths, its pack function and the encoded lengths."""

    KEPT_MAX = 1_000  # replica lists have few lengths; whoever has more pays for new layouts

    def __init__(self, letters: list[str], *, flexible: bool) -> None:
        super().__init__()
        self.letters = letters
        self.flexible = flexible

    def __missing__(self, lengths: tuple[int, ...]) -> tuple[Any, ...]:
        counts = [uvarint(n + 1) if self.flexible else n.to_bytes(4, "big") for n in lengths]
        numbers = iter(zip(counts, lengths, strict=True))
        whole = ""
        for letter in self.letters:
            if letter.startswith("*"):
                count, length = next(numbers)
                whole += f"{len(count)}s{length}{letter[1:]}"
            else:
                whole += letter
        if len(self) >= self.KEPT_MAX:
            self.clear()
        found = self[lengths] = (Layout(">" + whole).pack, *counts)
        return found


def _shares(cls: type[Struct]) -> bool:
    """Whether somewhere in it several structs may hold the same list."""
    return any(
        field.shared or (isinstance(field.of, type) and _shares(struct_of(field))) for field in cls.FIELDS
    )


def compile_encoder(cls: type[Message], version: int) -> Any:
    """`encode(message) -> bytes`, or `-> list[Part]` where the class has records; its first part is bytes."""
    return _Encoder(cls, version).compile()


def compile_sliced_encoder(cls: type[Message], version: int, elements: int) -> Any:
    """As `compile_encoder`, but a generator that returns it, and pauses behind each so many elements of arrays."""
    return _Encoder(cls, version, slice_elements=elements).compile()


class _Encoder:
    def __init__(self, cls: type[Message], version: int, *, slice_elements: int = 0) -> None:
        self.cls = cls
        self.slice_elements = slice_elements  # 0: all at once
        self.version = version
        self.flexible = is_flexible(cls, version)
        self.parts = has_records(cls)
        self.writer = "w"
        self.source = Source()
        self.run: list[tuple[str, str]] = []  # fixed-width writes in waiting: (expression, letter)
        self.source.scope.update(
            BYTE=BYTE, PLAIN=PLAIN, uvarint=uvarint, string_size=string_size, tagged=tagged, pack=pack
        )

    def compile(self) -> Any:
        source = self.source
        source.add("o = []", "w = o.append")
        if self.parts:
            source.add("parts = []")
        if _shares(self.cls):
            source.add("known = {}")
        if self.slice_elements:
            source.add(f"k = {self.slice_elements}", "if not k:", " yield")
            if not self.parts:
                source.add("done = []")
        self.write_struct(self.cls, "m")
        if self.parts:
            source.add("if o:", " parts.append(b''.join(o))", "return parts")
        elif self.slice_elements:
            source.add("done.append(b''.join(o))", "return b''.join(done)")
        else:
            source.add("return b''.join(o)")
        return source.compile("encode(m)", f"<{self.cls.__name__} v{self.version} encoder>")

    def write_struct(self, cls: type[Struct], target: str) -> None:
        for field in cls.FIELDS:
            if not field.is_in(self.version) or (field.tag is not None and not self.flexible):
                self.check_absent(cls, field, target)
        for field in fields_at(cls, self.version):
            self.write_field(field, f"{target}.{field.name}")
        if self.flexible:
            self.write_tags(cls, target)
        else:
            self.flush()

    def check_absent(self, cls: type[Struct], field: Field, target: str) -> None:
        """A field this version lacks must be ignorable or have its default: what it says would be lost."""
        if field.ignorable:
            return
        self.source.add(f"if {self.is_set(field, f'{target}.{field.name}')}:")
        what = f"{cls.__name__}.{field.name} is set, and this version of {self.cls.__name__} lacks it"
        self.source.add(f" raise ValueError({what!r})")

    def is_set(self, field: Field, value: str) -> str:
        """Source of: has it another value than its default?"""
        if field.default is None:
            return f"{value} is not None"
        if field.default == ():
            return value
        return f"{value} != {self.source.name(field.default, 'K')}"

    def write_field(self, field: Field, value: str) -> None:
        nullable = field.is_nullable(self.version)
        if is_fixed(field.type):
            self.run.append((value, FIXED[field.type]))
        elif field.type == STRUCT:
            self.write_struct_field(field, value, nullable=nullable)
        elif field.type == ARRAY:
            self.write_array(field, value, nullable=nullable)
        elif field.type == RECORDS:
            self.write_records(value, nullable=nullable)
        else:
            self.write_sized(field.type, value, nullable=nullable)

    def flush(self, *more: tuple[str, str]) -> None:
        """Write the run in waiting, and `more` behind it."""
        run = [*self.run, *more]
        self.run.clear()
        if any(letter.startswith("*") for _, letter in run):
            self.write_run_with_arrays(run)
        elif run == [("0", "B")]:
            self.source.add(f"{self.writer}(BYTE[0])")
        elif run:
            pack_run = self.source.name(layout("".join(letter for _, letter in run)).pack, "p")
            self.source.add(f"{self.writer}({pack_run}({', '.join(value for value, _ in run)}))")

    def write_run_with_arrays(self, run: list[tuple[str, str]]) -> None:
        """A run with arrays of numbers in it (letter "*i"): still one pack, of a layout kept by the arrays' lengths."""
        source = self.source
        arrays = [value for value, letter in run if letter.startswith("*")]
        layouts = source.fresh("l")
        source.scope[layouts] = ArrayLayouts([letter for _, letter in run], flexible=self.flexible)
        pack_run = source.fresh("p")
        counts = iter([source.fresh("c") for _ in arrays])
        values, named = [], []
        for value, letter in run:
            if letter.startswith("*"):
                named.append(next(counts))
                values.append(named[-1])
            values.append(f"*{value}" if letter.startswith("*") else value)
        lengths = "".join(f"len({array}), " for array in arrays)
        source.add(f"{pack_run}, {', '.join(named)} = {layouts}[({lengths})]")
        source.add(f"{self.writer}({pack_run}({', '.join(values)}))")

    def write_count(self, wide: str, letter: str) -> None:
        """The length or count in `n` (already + 1 where compact), together with the run before it."""
        source = self.source
        if not self.flexible:
            self.flush(("n", letter))
        elif self.run:
            run = list(self.run)
            source.add("if n < 128:")
            source.depth += 1
            self.flush(("n", "B"))
            source.depth -= 1
            source.add("else:")
            source.depth += 1
            self.run = run
            self.flush()
            source.add(f"{self.writer}({wide}(n))")
            source.depth -= 1
        else:
            source.add(f"{self.writer}(BYTE[n] if n < 128 else {wide}(n))")

    def write_sized(self, kind: str, value: str, *, nullable: bool) -> None:
        source = self.source
        encoded = f"{value}.encode()" if kind == STRING else value
        size = "len(s) + 1" if self.flexible else "len(s)"
        if nullable:
            null = "0" if self.flexible else "-1"
            source.add(f"if {value} is None:", " s = b''", f" n = {null}")
            source.add("else:", f" s = {encoded}", f" n = {size}")
        else:
            source.add(f"s = {encoded}", f"n = {size}")
        self.write_count("string_size" if kind == STRING else "uvarint", "h" if kind == STRING else "i")
        source.add(f"{self.writer}(s)")

    def write_records(self, value: str, *, nullable: bool) -> None:
        source = self.source
        size = "len(s) + 1" if self.flexible else "len(s)"
        source.add(f"s = {value}")
        if nullable:
            source.add("if s is None:", f" n = {0 if self.flexible else -1}", "else:", f" n = {size}")
        else:
            source.add(f"n = {size}")
        self.write_count("uvarint", "i")
        empty = 1 if self.flexible else 0
        source.add(f"if n > {JOINED_BYTES_MAX} or (n > {empty} and type(s) not in PLAIN):")
        source.add(" parts.append(b''.join(o))", " o.clear()", " parts.append(s)")
        source.add(f"elif n > {empty}:", " w(s)")

    def write_struct_field(self, field: Field, value: str, *, nullable: bool) -> None:
        source = self.source
        local = source.fresh("x")
        source.add(f"{local} = {value}")
        if nullable:
            self.flush()
            source.add(f"if {local} is None:", f" {self.writer}(b'\\xff')", "else:")
            source.depth += 1
            self.run.append(("1", "b"))
        self.write_struct(struct_of(field), local)
        if nullable:
            source.depth -= 1

    def write_array(self, field: Field, value: str, *, nullable: bool) -> None:
        source = self.source
        items = source.fresh("a")
        if isinstance(field.of, str) and is_fixed(field.of) and not nullable:
            source.add(f"{items} = {value}")
            self.run.append((items, "*" + FIXED[field.of]))
            return
        size = f"len({items}) + 1" if self.flexible else f"len({items})"
        source.add(f"{items} = {value}")
        if nullable:
            null = "0" if self.flexible else "-1"
            source.add(f"n = {null} if {items} is None else {size}")
        else:
            source.add(f"n = {size}")
        self.write_count("uvarint", "i")
        if nullable:
            source.add(f"if {items}:")
            source.depth += 1
        self.write_elements(field, items)
        if nullable:
            source.depth -= 1

    def write_elements(self, field: Field, items: str) -> None:
        source = self.source
        of = field.of
        if isinstance(of, str) and is_fixed(of):
            source.add(f"{self.writer}(pack('>%d{FIXED[of]}' % len({items}), *{items}))")
            return
        if field.shared:
            self.write_shared(field, items)
        else:
            self.write_each(field, items)

    def write_shared(self, field: Field, items: str) -> None:
        """Elements that are written once for each list, however many structs of this message hold it."""
        source, outer = self.source, self.writer
        done, out, self.writer = source.fresh("s"), source.fresh("o"), source.fresh("w")
        source.add(f"{done} = known.get(id({items}))", f"if {done} is None:")
        source.depth += 1
        source.add(f"{out} = []", f"{self.writer} = {out}.append")
        self.write_each(field, items)
        source.add(f"{done} = known[id({items})] = b''.join({out})")
        source.depth -= 1
        self.writer = outer
        source.add(f"{outer}({done})")

    def write_each(self, field: Field, items: str) -> None:
        source, of = self.source, field.of
        item = source.fresh("x")
        source.add(f"for {item} in {items}:")
        source.depth += 1
        if self.slice_elements:
            done = "parts" if self.parts else "done"
            source.add("k -= 1", "if not k:", f" {done}.append(b''.join(o))", " o.clear()")
            source.add(f" k = {self.slice_elements}", " yield")
        if isinstance(of, type):
            self.write_struct(of, item)
        else:
            self.write_sized(str(of), item, nullable=False)
        source.depth -= 1

    def write_tags(self, cls: type[Struct], target: str) -> None:
        """The count of tagged fields ends a struct; it is 0 but for rare ones, and then part of the last run."""
        source = self.source
        known = tagged_at(cls, self.version, flexible=True)
        conditions = [f"{target}.unknown_tags is not None"]
        conditions += [self.is_set(field, f"{target}.{field.name}") for field in known]
        source.add(f"if {' or '.join(conditions)}:")
        run = list(self.run)
        source.depth += 1
        self.flush()
        self.write_known_tags(known, target)
        source.depth -= 1
        source.add("else:")
        source.depth += 1
        self.run = run
        self.flush(("0", "B"))
        source.depth -= 1

    def write_known_tags(self, known: list[Field], target: str) -> None:
        source = self.source
        if not known:
            source.add(f"{self.writer}(tagged({target}.unknown_tags))")
            return
        tags = source.fresh("t")
        source.add(f"{tags} = dict({target}.unknown_tags or ())")
        outer = self.writer
        for field in known:
            value = f"{target}.{field.name}"
            condition = self.is_set(field, value)
            if field.type == STRUCT:
                condition += f" and {value} != {source.name(struct_of(field), 'C')}()"
            source.add(f"if {condition}:")
            source.depth += 1
            out, self.writer = source.fresh("o"), source.fresh("w")
            source.add(f"{out} = []", f"{self.writer} = {out}.append")
            self.write_field(field, value)
            self.flush()
            source.add(f"{tags}[{field.tag}] = b''.join({out})")
            source.depth -= 1
            self.writer = outer
        source.add(f"{outer}(tagged({tags}))")
