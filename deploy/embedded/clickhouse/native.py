"""The Native format as clients of different ages want it.

The engine in process writes Native as for the oldest client. One that names its revision
(`client_protocol_version`) expects more: a header before each block, and from a later revision on a
byte in each column that says how it is serialized. To put that byte in its place, the end of every
column must be found, so this file knows how long a column of each type is.

It also writes the one block that the engine does not: a result without rows still has columns.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from deploy.embedded.clickhouse.errors import refusal

BLOCK_INFO_REVISION: Final = 51_903
CUSTOM_SERIALIZATION_REVISION: Final = 54_454
# Field 1, no overflows; field 2, bucket -1; the end.
BLOCK_INFO: Final = b"\x01\x00\x02\xff\xff\xff\xff\x00"
DEFAULT_SERIALIZATION: Final = b"\x00"

WIDTHS: Final = {
    "BFloat16": 2,
    "Bool": 1,
    "Date": 2,
    "Date32": 4,
    "DateTime": 4,
    "DateTime64": 8,
    "Enum8": 1,
    "Enum16": 2,
    "Float32": 4,
    "Float64": 8,
    "IPv4": 4,
    "IPv6": 16,
    "Int8": 1,
    "Int16": 2,
    "Int32": 4,
    "Int64": 8,
    "Int128": 16,
    "Int256": 32,
    "Nothing": 1,
    "Time": 4,
    "Time64": 8,
    "UInt8": 1,
    "UInt16": 2,
    "UInt32": 4,
    "UInt64": 8,
    "UInt128": 16,
    "UInt256": 32,
    "UUID": 16,
}
# Digits that fit, and the bytes they take.
DECIMAL_WIDTHS: Final = ((9, 4), (18, 8), (38, 16), (76, 32))
GEOMETRIES: Final = {
    "Point": "Tuple(Float64, Float64)",
    "Ring": "Array(Point)",
    "LineString": "Array(Point)",
    "MultiLineString": "Array(LineString)",
    "Polygon": "Array(Ring)",
    "MultiPolygon": "Array(Polygon)",
}
COUNT_BYTES: Final = 8
LOW_CARDINALITY_VERSION_BYTES: Final = 8
HAS_ADDITIONAL_KEYS: Final = 1 << 9
INDEX_WIDTHS: Final = (1, 2, 4, 8)

_ARGUMENT = re.compile(r"""(?:'(?:[^'\\]|\\.|'')*'|`(?:[^`\\]|\\.)*`|[^,()'`])+|[(),]""")
_NAMED = re.compile(r"^(?:`(?:[^`\\]|\\.)*`|[A-Za-z_]\w*)\s+(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class ColumnType:
    """`Array(Nullable(String))`, taken apart; of a Tuple's elements the names are dropped."""

    name: str
    arguments: tuple[str, ...]

    @property
    def inner(self) -> "ColumnType":
        return parse_type(self.arguments[0])

    @property
    def elements(self) -> Iterator["ColumnType"]:
        for argument in self.arguments:
            yield parse_type(_NAMED.sub("", argument))


def empty_block(columns: Sequence[tuple[str, str]]) -> bytes:
    """Names and types of a result without rows; a client must not believe there are no columns."""
    parts = [_varint(len(columns)), _varint(0)]
    for name, column_type in columns:
        parts += [_string(name), _string(column_type)]
    return b"".join(parts)


def for_revision(blocks: bytes, revision: int, *, is_one_block: bool = False) -> bytes:
    """Whole blocks as the engine writes them, as a client of this revision reads them.

    Refuses columns whose length cannot be known without knowing their content.
    """
    if revision < BLOCK_INFO_REVISION:
        return blocks
    if is_one_block and revision < CUSTOM_SERIALIZATION_REVISION:
        return BLOCK_INFO + blocks
    parts: list[bytes] = []
    position = 0
    while position < len(blocks):
        parts.append(BLOCK_INFO)
        start = position
        columns, position = _read_varint(blocks, position)
        rows, position = _read_varint(blocks, position)
        parts.append(blocks[start:position])
        for _ in range(columns):
            start = position
            _, position = _read_string(blocks, position)
            name, position = _read_string(blocks, position)
            parts.append(blocks[start:position])
            if revision >= CUSTOM_SERIALIZATION_REVISION:
                parts.append(DEFAULT_SERIALIZATION)
            start = position
            if rows:
                position = column_end(blocks, position, parse_type(name), rows)
            parts.append(blocks[start:position])
    return b"".join(parts)


def column_end(data: bytes, position: int, column: ColumnType, rows: int) -> int:
    """Where a column of so many rows ends that begins at `position`; it has at least one row."""
    return _content_end(data, _prefix_end(position, column), column, rows)


def parse_type(text: str) -> ColumnType:
    """A type's name and its arguments as text."""
    name, parenthesis, rest = text.strip().partition("(")
    if not parenthesis:
        return ColumnType(name, ())
    arguments, depth, current = [], 0, ""
    for piece in _ARGUMENT.findall(rest[: rest.rindex(")")]):
        depth += (piece == "(") - (piece == ")")
        if piece == "," and depth == 0:
            arguments.append(current.strip())
            current = ""
        else:
            current += piece
    if current.strip():
        arguments.append(current.strip())
    return ColumnType(name, tuple(arguments))


def _prefix_end(position: int, column: ColumnType) -> int:
    """Before the content of a whole column come the prefixes of all its parts."""
    match column.name:
        case "LowCardinality":
            return position + LOW_CARDINALITY_VERSION_BYTES
        case "Array" | "Nullable":
            return _prefix_end(position, column.inner)
        case "SimpleAggregateFunction":
            return _prefix_end(position, parse_type(column.arguments[-1]))
        case "Tuple" | "Map" | "Nested":
            for element in column.elements:
                position = _prefix_end(position, element)
            return position
        case _:
            return position


def _content_end(data: bytes, position: int, column: ColumnType, rows: int) -> int:  # noqa: C901 - one case a type
    if rows == 0:
        return position
    match column.name:
        case name if name in WIDTHS:
            return position + rows * WIDTHS[name]
        case name if name.startswith("Interval"):
            return position + rows * WIDTHS["Int64"]
        case "String":
            return _strings_end(data, position, rows)
        case "FixedString":
            return position + rows * int(column.arguments[0])
        case "Decimal":
            digits = int(column.arguments[0])
            return position + rows * next(width for most, width in DECIMAL_WIDTHS if digits <= most)
        case "Nullable":
            return _content_end(data, position + rows, column.inner, rows)
        case "Array":
            return _array_end(data, position, [column.inner], rows)
        case "Map" | "Nested":
            return _array_end(data, position, list(column.elements), rows)
        case "Tuple" if not column.arguments:
            return position + rows
        case "Tuple":
            for element in column.elements:
                position = _content_end(data, position, element, rows)
            return position
        case "LowCardinality":
            return _low_cardinality_end(data, position, column.inner)
        case "SimpleAggregateFunction":
            return _content_end(data, position, parse_type(column.arguments[-1]), rows)
        case name if name in GEOMETRIES:
            return _content_end(data, position, parse_type(GEOMETRIES[name]), rows)
        case name:
            raise refusal(
                48,
                f"The embedded engine cannot send a column of type {name} to this client in"
                " Native; convert it with toString, or ask for another format.",
            )


def _strings_end(data: bytes, position: int, rows: int) -> int:
    for _ in range(rows):
        length = data[position]
        position += 1
        if length > 0x7F:
            length, position = _read_varint(data, position - 1)
        position += length
    return position


def _array_end(data: bytes, position: int, elements: list[ColumnType], rows: int) -> int:
    """The ends of all rows, then the elements of all rows together."""
    position += rows * COUNT_BYTES
    total = _count(data, position - COUNT_BYTES)
    for element in elements:
        position = _content_end(data, position, element, total)
    return position


def _low_cardinality_end(data: bytes, position: int, inner: ColumnType) -> int:
    """The values that occur, then an index into them for every row."""
    flags = _count(data, position)
    position += COUNT_BYTES
    if flags & HAS_ADDITIONAL_KEYS:
        keys = _count(data, position)
        # Of a Nullable only the values are there: the first one stands for NULL.
        values = inner.inner if inner.name == "Nullable" else inner
        position = _content_end(data, position + COUNT_BYTES, values, keys)
    indexes = _count(data, position)
    return position + COUNT_BYTES + indexes * INDEX_WIDTHS[flags & 0xF]


def _count(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + COUNT_BYTES], "little")


def _read_string(data: bytes, position: int) -> tuple[str, int]:
    length, position = _read_varint(data, position)
    return data[position : position + length].decode("utf-8", "replace"), position + length


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte <= 0x7F:
            return number, position
        shift += 7


def _string(text: str) -> bytes:
    encoded = text.encode()
    return _varint(len(encoded)) + encoded


def _varint(number: int) -> bytes:
    """Little-endian groups of 7 bits, the top bit set on all but the last."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
