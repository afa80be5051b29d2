"""Data elements of little endian data sets, cut in place (PS3.5 §7.1, §7.5). Pure.

Only what the small data sets of DIMSE-N messages need: nothing is decoded, nothing is copied, and
no depth of nesting can exhaust the stack.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

DEPTH_MAX = 16  # of sequences of undefined length; those of defined length are stepped over

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # PS3.5 Table 7.1-1


class Malformed(Exception):
    """The bytes are no data set."""


def elements(data: memoryview, *, explicit: bool) -> Iterator[tuple[int, memoryview]]:
    """The elements of a data set or item, tag and value; raises Malformed.

    The value of a sequence is its items, without the delimitation of an undefined length.
    """
    offset = 0
    while offset < len(data):
        tag, value, offset = _element(data, offset, explicit, 0)
        yield tag, value


def items(value: memoryview, *, explicit: bool) -> Iterator[memoryview]:
    """The items of a sequence's value; raises Malformed."""
    offset = 0
    while offset < len(value):
        item, offset = _item(value, offset, explicit, 1)
        if item is None:
            raise Malformed
        yield item


def _element(
    data: memoryview, offset: int, explicit: bool, depth: int
) -> tuple[int, memoryview, int]:
    """The element at the offset, and the offset behind it."""
    tag, _ = _head(data, offset)
    if tag >> 16 == 0xFFFE:
        raise Malformed
    within = explicit
    if explicit:
        vr = bytes(data[offset + 4 : offset + 6])
        if not vr.isalpha():
            raise Malformed
        if vr in _LONG:
            length, start = _number(data, offset + 8), offset + 12
        else:
            length, start = int.from_bytes(data[offset + 6 : offset + 8], "little"), offset + 8
        within = vr != b"UN"  # PS3.5 §6.2.2: unknown and of undefined length is implicit inside
    else:
        length, start = _number(data, offset + 4), offset + 8
    if length != _UNDEFINED:
        return tag, _cut(data, start, length), start + length
    if explicit and vr not in (b"SQ", b"UN"):
        raise Malformed
    end, behind = _sequence_end(data, start, within, depth + 1)
    return tag, data[start:end], behind


def _sequence_end(data: memoryview, offset: int, explicit: bool, depth: int) -> tuple[int, int]:
    """Where the items of a sequence of undefined length end, and its delimitation."""
    if depth > DEPTH_MAX:
        raise Malformed
    while True:
        item, behind = _item(data, offset, explicit, depth)
        if item is None:
            return offset, behind
        offset = behind


def _item(
    data: memoryview, offset: int, explicit: bool, depth: int
) -> tuple[memoryview | None, int]:
    """The item at the offset, None for the end of the sequence; and the offset behind it."""
    tag, length = _head(data, offset)
    start = offset + 8
    if tag == _SEQUENCE_END and length == 0:
        return None, start
    if tag != _ITEM:
        raise Malformed
    if length != _UNDEFINED:
        return _cut(data, start, length), start + length
    inside = start
    while _head(data, inside) != (_ITEM_END, 0):
        inside = _element(data, inside, explicit, depth)[2]
    return data[start:inside], inside + 8


def _head(data: memoryview, offset: int) -> tuple[int, int]:
    """Tag and 32-bit length; the length means nothing for an explicit VR."""
    if len(data) - offset < 8:
        raise Malformed
    group, element, length = struct.unpack_from("<HHI", data, offset)
    return group << 16 | element, length


def _number(data: memoryview, offset: int) -> int:
    return int.from_bytes(_cut(data, offset, 4), "little")


def _cut(data: memoryview, start: int, length: int) -> memoryview:
    if length > len(data) - start:
        raise Malformed
    return data[start : start + length]


def encode_uid(tag: int, uid: str, *, explicit: bool) -> bytes:
    """An element with VR UI."""
    value = uid.encode("ascii")
    return _encoded(tag, b"UI", value + b"\0" * (len(value) % 2), explicit)


def encode_number(tag: int, number: int, *, explicit: bool) -> bytes:
    """An element with VR US."""
    return _encoded(tag, b"US", struct.pack("<H", number), explicit)


def encode_sequence(tag: int, contents: list[bytes], *, explicit: bool) -> bytes:
    """A sequence of defined length with these items."""
    value = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(c)) + c for c in contents)
    return _encoded(tag, b"SQ", value, explicit)


def _encoded(tag: int, vr: bytes, value: bytes, explicit: bool) -> bytes:
    group, element = tag >> 16, tag & 0xFFFF
    if not explicit:
        return struct.pack("<HHI", group, element, len(value)) + value
    if vr in _LONG:
        return struct.pack("<HH2sxxI", group, element, vr, len(value)) + value
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value
