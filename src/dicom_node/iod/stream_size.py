"""What a code stream says of its picture, read from its first bytes: nothing is decoded.

A decoder allocates what the stream asks for, whatever the header of the object says. So the two
are compared before a decoder sees a byte. What is read here came from outside: the work is bounded,
and nothing is allocated because a number says so.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise

_SEGMENTS = 4096  # looked at before the frame header; honest streams have a few
_BOXES = 64
_TILES = 65535  # a tile is numbered by 16 bits
_JP2 = b"\x00\x00\x00\x0cjP  "  # no part of a code stream (PS3.5 §8.2.4), and met in the field
_RLE_OFFSETS = 15

_SOI, _EOI, _SOS, _LOSSLESS_LS = 0xD8, 0xD9, 0xDA, 0xF7
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # tables, and a reserved one
_BARE = frozenset({0x01, *range(0xD0, 0xD8), _SOI})  # markers without a length


class Family(Enum):
    """How a code stream begins."""

    JPEG = auto()  # ISO/IEC 10918-1
    JPEG_LS = auto()  # ISO/IEC 14495-1
    JPEG_2000 = auto()  # ISO/IEC 15444-1, and 15444-15 (HTJ2K)
    RLE = auto()  # PS3.5 Annex G


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of a picture. bits: of a sample."""

    rows: int
    columns: int
    components: int
    bits: int


class Unclear(Exception):
    """The code stream does not say its size; the text goes on after "is damaged: "."""


def misfit(frame: bytes, family: Family, header: Size) -> str:
    """What of a code stream contradicts the header of its object, as a predicate; "" if nothing.

    header: its bits are those allocated; a stream may have fewer.
    """
    try:
        if family is Family.RLE:
            return _rle_misfit(frame, header)
        found = _READ[family](frame)
    except Unclear as unclear:
        return f"is damaged: {unclear}"
    except (struct.error, IndexError):
        return "is damaged: it ends inside its header"
    if (found.rows, found.columns) != (header.rows, header.columns):
        return (
            f"has {found.rows} rows and {found.columns} columns, "
            f"not {header.rows} and {header.columns} as its header says"
        )
    if found.components != header.components:
        return f"has {found.components} components, not {header.components}"
    if not 0 < found.bits <= header.bits:
        return f"has {found.bits} bits a sample, and {header.bits} are allocated"
    return ""


def _jpeg(frame: bytes) -> Size:
    return _from_segments(frame, _FRAME_HEADERS)


def _jpeg_ls(frame: bytes) -> Size:
    return _from_segments(frame, {_LOSSLESS_LS})


def _from_segments(frame: bytes, wanted: frozenset[int] | set[int]) -> Size:
    """Of the first frame header (ISO/IEC 10918-1 B.2.2; JPEG-LS has the same one)."""
    if frame[:2] != bytes((0xFF, _SOI)):
        raise Unclear("it does not begin as one")
    position = 2
    for _ in range(_SEGMENTS):
        if frame[position] != 0xFF:
            raise Unclear("a marker is missing in its header")
        marker = frame[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in _BARE:
            position += 2
        elif marker in wanted:
            bits, rows, columns, components = struct.unpack_from(">BHHB", frame, position + 4)
            return Size(rows=rows, columns=columns, components=components, bits=bits)
        elif marker in (_SOS, _EOI):
            break
        else:
            (length,) = struct.unpack_from(">H", frame, position + 2)
            position += 2 + length
    raise Unclear("it has no frame header")


def _jpeg_2000(frame: bytes) -> Size:
    """Of the SIZ segment, which comes first (ISO/IEC 15444-1 A.5.1)."""
    start = _code_stream(frame) if frame.startswith(_JP2) else 0
    if frame[start : start + 4] != b"\xff\x4f\xff\x51":
        raise Unclear("it does not begin as one")
    right, bottom, left, top, *tile, components = struct.unpack_from(">8IH", frame, start + 8)
    step_x, step_y, tile_left, tile_top = tile
    if not components or not step_x or not step_y or right <= left or bottom <= top:
        raise Unclear("its picture or its tiles have no size")
    if not (tile_left <= left < tile_left + step_x and tile_top <= top < tile_top + step_y):
        raise Unclear("its tiles do not begin where its picture does")
    if _steps(tile_left, right, step_x) * _steps(tile_top, bottom, step_y) > _TILES:
        raise Unclear(f"it has more than {_TILES} tiles")
    bits, apart_x, apart_y = struct.unpack_from(">3B", frame, start + 42)
    if not apart_x or not apart_y:
        raise Unclear("its samples have no distance")
    return Size(
        rows=_steps(0, bottom, apart_y) - _steps(0, top, apart_y),
        columns=_steps(0, right, apart_x) - _steps(0, left, apart_x),
        components=components,
        bits=(bits & 0x7F) + 1,
    )


def _code_stream(frame: bytes) -> int:
    """Where it begins in a JP2 file (ISO/IEC 15444-1 I.4)."""
    position = 0
    for _ in range(_BOXES):
        length, kind = struct.unpack_from(">I4s", frame, position)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", frame, position + 8)
            head = 16
        if kind == b"jp2c":
            return position + head
        if length < head:
            break
        position += length
    raise Unclear("there is no code stream in it")


def _steps(start: int, stop: int, step: int) -> int:
    """How many steps reach from one to the other."""
    return -(-(stop - start) // step)


def _rle_misfit(frame: bytes, header: Size) -> str:
    """Its header has no size, only where the segments are: one for each byte of a sample."""
    count, *offsets = struct.unpack_from(f"<{1 + _RLE_OFFSETS}I", frame)
    wanted = header.components * -(-header.bits // 8)
    if count != wanted:
        return f"has {count} segments, not {wanted}"
    begins = [*offsets[:count], len(frame)]
    first = 4 * (1 + _RLE_OFFSETS)
    if begins[0] < first or any(a >= b for a, b in pairwise(begins)):
        return "is damaged: its segments do not lie one behind the other inside it"
    return ""


_READ = {Family.JPEG: _jpeg, Family.JPEG_LS: _jpeg_ls, Family.JPEG_2000: _jpeg_2000}
