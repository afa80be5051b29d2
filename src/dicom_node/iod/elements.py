"""The data elements of a data set, found without decoding a value (PS3.5 §7).

What is read here came from outside: every length is checked against the end, nesting is limited,
and nothing is ever copied or allocated because a length says so.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dicom_node.domain.errors import NotDicom

Buffer = bytes | mmap.mmap

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
UNCOMPRESSED = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED})

MAX_DEPTH = 64  # sequences within sequences; honest objects stay below ten
MAX_HEADER_BYTES = 1 << 20
PIXEL_DATA = 0x7FE00010

_FIRST_READ_BYTES = 1 << 16
_PREAMBLE_BYTES = 128
UNDEFINED = 0xFFFFFFFF
NO_TAG = 1 << 32  # above all
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
# PS3.5 Table 7.1-1: these have a length of 32 bits; a VR that is not two capitals has none at all
LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR"}) | {
    b"UT",
    b"UV",
}
BLANK = b"  "  # in place of a VR: met in the field, with a length of 16 bits
_HEADER = {big: struct.Struct(">HH2sH" if big else "<HH2sH") for big in (False, True)}
_TAG_AND_LENGTH = {big: struct.Struct(">HHI" if big else "<HHI") for big in (False, True)}
_LENGTH = {big: struct.Struct(">I" if big else "<I") for big in (False, True)}


class Malformed(NotDicom):
    """The data set cannot be walked: it ends early, or a length or a tag is impossible."""


class TooDeep(Malformed):
    """Sequences are nested deeper than MAX_DEPTH."""


class Coding(NamedTuple):
    """How element headers are coded."""

    explicit: bool
    big: bool = False


class Element(NamedTuple):
    """One data element; vr is b"" where it is implicit.

    The value is data[start:stop], without the delimitation item of an undefined length; the next
    element begins at `next`.
    """

    tag: int
    vr: bytes
    start: int
    stop: int
    next: int
    undefined: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where the data set begins in `data`, and how it is coded."""

    data: Buffer
    start: int
    transfer_syntax: str
    coding: Coding


def read_head(source: Path | bytes, limit: int = _FIRST_READ_BYTES) -> tuple[bytes, bool]:
    """The first `limit` bytes, and whether there are more."""
    if isinstance(source, bytes):
        return source[:limit], len(source) > limit
    with source.open("rb") as file:
        head = file.read(limit)
        return head, len(head) == limit and bool(file.read(1))


@contextmanager
def mapped(path: Path) -> Iterator[Buffer]:
    """All bytes of a file, of which only those that are looked at are read. Raises NotDicom."""
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise NotDicom("the file is empty") from None
        with data:
            yield data


def locate(data: Buffer, transfer_syntax: str | None = None) -> Located:
    """Find the data set: after preamble and file meta information, or at once where those lack.

    transfer_syntax: what `data` is coded in, where it is a bare data set. A deflated one is
    inflated, up to MAX_HEADER_BYTES. Raises NotDicom for anything else (PS3.10 §7.1).
    """
    start = 0
    if transfer_syntax is None:
        if data[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == b"DICM":
            start, transfer_syntax = _file_meta(data, _PREAMBLE_BYTES + 4)
        elif data[:2] == b"\x02\x00":
            start, transfer_syntax = _file_meta(data, 0)
        elif data[:2] != b"\x08\x00":
            raise NotDicom("neither a DICOM file nor a bare data set")
    if transfer_syntax is None:
        explicit = _is_vr(data[start + 4 : start + 6])
        transfer_syntax = EXPLICIT_LITTLE if explicit else IMPLICIT_LITTLE
    if transfer_syntax == DEFLATED:
        data, start = _inflated(data[start : start + MAX_HEADER_BYTES]), 0
    coding = coding_of(transfer_syntax)
    return Located(data=data, start=start, transfer_syntax=transfer_syntax, coding=coding)


def coding_of(transfer_syntax: str) -> Coding:
    """How the element headers of a data set in that transfer syntax are coded."""
    return Coding(transfer_syntax != IMPLICIT_LITTLE, transfer_syntax == EXPLICIT_BIG)


def elements(located: Located, before: int = NO_TAG) -> Iterator[Element]:
    """The top-level elements in stored order, until the first tag that is `before` or above.

    Raises Malformed where the walk cannot go on.
    """
    position, end = located.start, len(located.data)
    while position < end:
        element = _element(located.data, position, located.coding, 0, before)
        if element.tag >= before:
            return
        yield element
        position = element.next


def header_at(located: Located, position: int) -> tuple[int, int, int | None]:
    """Tag, start of the value, its length (None: undefined), without a look at the value.

    All zero at the end of the data. Raises Malformed inside a header.
    """
    if position >= len(located.data):
        return 0, 0, 0
    try:
        tag, _, start, length = _header(located.data, position, located.coding)
    except struct.error:
        raise Malformed(f"ends inside an element header at byte {position}") from None
    return tag, start, None if length == UNDEFINED else length


def check_depth(data: Buffer, element: Element, coding: Coding) -> None:
    """Raises TooDeep if sequences are nested too deep inside a value of defined length.

    What looks like a sequence there and then is not, is left alone: it may be a private value.
    """
    if data[element.start : element.start + 4] == _word(ITEM, big=coding.big):
        inner = Coding(explicit=False) if element.vr == b"UN" else coding
        try:
            _descend(data, element.start, element.stop, inner, 1)
        except TooDeep:
            raise
        except Malformed:
            return


def items(data: Buffer, element: Element, coding: Coding) -> Iterator[Iterator[Element]]:
    """The items of a sequence, each as its elements. Raises Malformed."""
    if element.vr == b"UN":
        coding = Coding(explicit=False)  # PS3.5 §6.2.2
    position = element.start
    while position < element.stop:
        tag, length = _item_header(data, position, coding)
        if tag != ITEM:
            raise Malformed("a sequence holds something that is not an item")
        position += 8
        stop, following = _item_extent(data, position, length, coding, 1)
        yield _elements_between(data, position, stop, coding)
        position = following


def _elements_between(data: Buffer, position: int, stop: int, coding: Coding) -> Iterator[Element]:
    while position < stop:
        element = _element(data, position, coding, 1)
        yield element
        position = element.next


def _file_meta(data: Buffer, position: int) -> tuple[int, str | None]:
    """The end of the file meta information and the Transfer Syntax UID in it (PS3.10 §7.1)."""
    syntax = None
    coding = Coding(explicit=True)
    while data[position : position + 2] == b"\x02\x00":
        element = _element(data, position, coding, 0)
        if element.tag == 0x00020010:
            syntax = data[element.start : element.stop].strip(b"\0 ").decode("ascii", "replace")
        position = element.next
    return position, syntax or None


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, MAX_HEADER_BYTES)
    except zlib.error as error:
        raise NotDicom(f"the deflated data set is damaged: {error}") from error


def _element(
    data: Buffer, position: int, coding: Coding, depth: int, before: int = NO_TAG
) -> Element:
    """The element at `position`; only its tag is looked at where that is not below `before`."""
    try:
        tag, vr, start, length = _header(data, position, coding)
    except struct.error:
        raise Malformed(f"ends inside an element header at byte {position}") from None
    if tag >= before:
        return Element(tag, vr, start, start, start, length == UNDEFINED)
    if length == UNDEFINED:
        inner = Coding(explicit=False) if vr == b"UN" else coding
        following = _end_of_sequence(data, start, inner, depth + 1)
        return Element(tag, vr, start, following - 8, following, True)
    stop = start + length
    if stop > len(data):
        raise Malformed(f"ends inside element ({tag >> 16:04X},{tag & 0xFFFF:04X})")
    return Element(tag, vr, start, stop, stop, False)


def _header(data: Buffer, position: int, coding: Coding) -> tuple[int, bytes, int, int]:
    """Tag, VR, start of the value, length."""
    big = coding.big
    if coding.explicit:
        group, number, vr, short = _HEADER[big].unpack_from(data, position)
        if vr in LONG:
            (length,) = _LENGTH[big].unpack_from(data, position + 8)
            return group << 16 | number, vr, position + 12, length
        if vr == BLANK or _is_vr(vr):
            return group << 16 | number, vr.strip(), position + 8, short
    # also an element of an explicit data set that has no VR where one should be: met in the field
    group, number, length = _TAG_AND_LENGTH[big].unpack_from(data, position)
    return group << 16 | number, b"", position + 8, length


def _is_vr(code: bytes) -> bool:
    return len(code) == 2 and code.isalpha() and code.isupper()


def _item_header(data: Buffer, position: int, coding: Coding) -> tuple[int, int]:
    try:
        group, number, length = _TAG_AND_LENGTH[coding.big].unpack_from(data, position)
    except struct.error:
        raise Malformed(f"ends inside a sequence at byte {position}") from None
    return group << 16 | number, length


def _end_of_sequence(data: Buffer, position: int, coding: Coding, depth: int) -> int:
    """Where the element after a sequence of undefined length begins."""
    while True:
        tag, length = _item_header(data, position, coding)
        position += 8
        if tag == SEQUENCE_END:
            return position
        if tag != ITEM:
            raise Malformed(f"a sequence holds something that is not an item at byte {position}")
        _, position = _item_extent(data, position, length, coding, depth)


def _item_extent(
    data: Buffer, position: int, length: int, coding: Coding, depth: int
) -> tuple[int, int]:
    """End of the item that begins at `position`, and where the next one begins."""
    if depth > MAX_DEPTH:
        raise TooDeep(f"sequences are nested deeper than {MAX_DEPTH} levels")
    if length != UNDEFINED:
        if position + length > len(data):
            raise Malformed("ends inside an item")
        return position + length, position + length
    while True:
        tag, _ = _item_header(data, position, coding)
        if tag == ITEM_END:
            return position, position + 8
        position = _element(data, position, coding, depth).next


def _descend(data: Buffer, position: int, stop: int, coding: Coding, depth: int) -> None:
    """Walk all items between, and theirs, as deep as allowed."""
    while position < stop:
        tag, length = _item_header(data, position, coding)
        if tag != ITEM:
            return
        position += 8
        end, following = _item_extent(data, position, length, coding, depth)
        mark = _word(ITEM, big=coding.big)
        while position < end:
            element = _element(data, position, coding, depth)
            if data[element.start : element.start + 4] == mark:
                _descend(data, element.start, element.stop, coding, depth + 1)
            position = element.next
        position = following


def _word(tag: int, *, big: bool) -> bytes:
    return struct.pack(">HH" if big else "<HH", tag >> 16, tag & 0xFFFF)
