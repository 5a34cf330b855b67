"""Reader of Kafka's `server.properties`: Java's properties format. Knows no option."""

from __future__ import annotations

from collections.abc import Iterator

from kbroker.errors import StartError

_BLANK = " \t\f"
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def parse_properties(data: bytes, path: str) -> dict[str, str]:
    """Keys and values, the last of a repeated key. UTF-8; bytes that are not are read as Latin-1, as Java does."""
    return {key: value for key, (value, _) in parse_lines(data, path).items()}


def parse_lines(data: bytes, path: str) -> dict[str, tuple[str, int]]:
    """As `parse_properties`, each value with the number of its line."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    values = {}
    for number, line in _logical_lines(text):
        key, value = _split(line)
        try:
            values[_unescaped(key)] = _unescaped(value), number
        except ValueError:
            raise StartError(
                f"{path} line {number}: \\u is not followed by four hexadecimal digits; write the character itself, "
                "or \\\\u for a backslash"
            ) from None
    return values


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments and blanks, continued ones joined, each with the number of its first."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    joined, first = "", 0
    for number, line in enumerate(lines, 1):
        line = line.lstrip(_BLANK)
        if not first and (not line or line[0] in "#!"):
            continue
        first = first or number
        if _continues(line):
            joined += line[:-1]
            continue
        yield first, joined + line
        joined, first = "", 0
    if first:
        yield first, joined


def _continues(line: str) -> bool:
    """Whether it ends in an odd number of backslashes: an even one is escaped backslashes."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _split(line: str) -> tuple[str, str]:
    """Key and value: the key ends at the first '=', ':' or blank that is not escaped."""
    at = 0
    while at < len(line) and line[at] not in "=:" + _BLANK:
        at += 2 if line[at] == "\\" else 1
    key, rest = line[:at], line[at:].lstrip(_BLANK)
    if rest[:1] in ("=", ":"):
        rest = rest[1:].lstrip(_BLANK)
    return key, rest


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    out = []
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "\\" and at < len(text):
            char = text[at]
            at += 1
            if char == "u":
                digits = text[at : at + 4]
                if len(digits) < 4 or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
                    raise ValueError(digits)
                char = chr(int(digits, 16))
                at += 4
            else:
                char = _ESCAPES.get(char, char)
        out.append(char)
    # pairs of \\u escapes that stand for one character beyond the first 65,536
    return "".join(out).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
