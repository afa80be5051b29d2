"""One lean pass over the raw bytes of a whole data set, before anything of it is believed.

Every element header is looked at, at every depth, and no value: lengths must add up, and nesting,
items and elements stay below limits (PS3.5 §7). Of what is wanted the position is kept.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pydicom.datadict import DicomDictionary

from dicom_node.iod.elements import (
    BLANK,
    ITEM,
    ITEM_END,
    LONG,
    MAX_DEPTH,
    PIXEL_DATA,
    SEQUENCE_END,
    UNDEFINED,
    Buffer,
    Element,
    Located,
    Malformed,
    TooDeep,
)

MAX_PADDING_BYTES = 1 << 20  # zeros after the last element: some writers fill a block

_SHORT = frozenset(
    (
        *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO"),
        *(b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
    )
)
_ENCAPSULATED = (b"OB", b"OW", b"")  # PS3.5 §A.4 has OB; some writers, and implicit VR, do not
_SEQUENCES = frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")
_BELONG_BEFORE = (0x0000, 0x0002)  # groups of the command set and of the file meta information


class TooMany(Malformed):
    """There are more elements or items in it than the bounds allow."""


class Beyond(Malformed):
    """The bytes that are at hand do not tell: the rest has to be looked at."""


class Repeated(Malformed):
    """An element is in the data set twice: readers differ in which of the two they believe."""

    def __init__(self, tag: int) -> None:
        super().__init__(f"has element {_name(tag)} twice")
        self.tag = tag


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much of it there may be.

    depth: sequences within sequences. elements: of one data set, the whole one or that of an item.
    items: in all, fragments of Pixel Data included. nested: elements of all items together.
    """

    depth: int = MAX_DEPTH
    elements: int = 100_000
    items: int = 1_000_000
    nested: int = 5_000_000


LIGHT = Bounds(elements=20_000, items=20_000, nested=50_000)
"""What is scanned in some milliseconds; honest objects beyond it are rare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What a scan has found. found: tag -> element, of what was wanted, in stored order.

    header: as many of the first of `found` as stand before the first tag above `last` of the scan.
    elements, items: counts at all depths. fragments: those of an encapsulated Pixel Data that hold
    anything, without the offset table.
    """

    located: Located
    found: Mapping[int, Element]
    header: int
    elements: int
    items: int
    fragments: int


def scan(
    located: Located,
    wanted: Collection[int],
    *,
    last: int = UNDEFINED,
    bounds: Bounds,
    size: int | None = None,
) -> Scan:
    """Walk the whole data set. Raises Malformed, TooDeep, TooMany or Repeated.

    Elements may stand in any order, but none twice. An explicit coding must begin with a VR; single
    elements after the first may lack it, if they are no sequences: whether what is in these lacks
    it, too, is anybody's guess. size: of the file, where `data` is only its beginning: beyond that
    may be the rest of native Pixel Data alone, else what is raised says only that.
    """
    data, position, at_hand = located.data, located.start, len(located.data)
    end = at_hand if size is None else size
    walk = _Walk(located, end, bounds)
    coding = located.coding
    _require_coding(data, position, explicit=coding.explicit, big=coding.big)
    found: dict[int, Element] = {}
    seen: set[int] = set()
    header = -1
    while position < end:
        if end - position < 8 and seen and _only_zeros(data, position, end):
            break
        tag, vr, start, length = walk.header(position, coding.explicit)
        if tag in seen:
            raise Repeated(tag)
        if tag == 0 and seen and _only_zeros(data, position, end):
            break
        if tag >> 16 in _BELONG_BEFORE or tag >> 16 == 0xFFFE:
            raise Malformed(f"has {_name(tag)} in it, which does not belong there")
        seen.add(tag)
        if len(seen) > bounds.elements:
            raise TooMany(f"has more than {bounds.elements} elements")
        if tag > last and header < 0:
            header = len(found)
        if vr in _SHORT:
            stop = position = start + length
        else:
            stop, position = walk.value(tag, vr, start, length, end, 1, explicit=coding.explicit)
        if position > at_hand:
            walk.look_beyond(tag, vr, length, position)
        if tag in wanted:
            found[tag] = Element(tag, vr, start, stop, position, length == UNDEFINED)
    if not seen:
        raise Malformed("is empty")
    return Scan(
        located=located,
        found=found,
        header=len(found) if header < 0 else header,
        elements=len(seen) + walk.elements,
        items=walk.items,
        fragments=walk.fragments,
    )


class _Walk:
    """The counts of one scan, and the ways into values; as deep as bounds.depth, and no deeper."""

    __slots__ = (
        "_at_hand",
        "_bounds",
        "_data",
        "_end",
        "_explicit",
        "_implicit",
        "_length",
        "elements",
        "fragments",
        "items",
    )

    def __init__(self, located: Located, end: int, bounds: Bounds) -> None:
        order = ">" if located.coding.big else "<"
        self._data, self._at_hand, self._end = located.data, len(located.data), end
        self._bounds = bounds
        self._explicit = struct.Struct(order + "HH2sH").unpack_from
        self._implicit = struct.Struct(order + "HHI").unpack_from
        self._length = struct.Struct(order + "I").unpack_from
        self.elements = self.items = self.fragments = 0

    def header(self, position: int, explicit: bool) -> tuple[int, bytes, int, int]:
        """Tag, VR (b"" if it has none), start of the value, length."""
        try:
            if explicit:
                group, number, vr, length = self._explicit(self._data, position)
                if vr in _SHORT:
                    return group << 16 | number, vr, position + 8, length
                if vr in LONG:
                    (length,) = self._length(self._data, position + 8)
                    return group << 16 | number, vr, position + 12, length
                if vr == BLANK or (vr.isalpha() and vr.isupper()):
                    return group << 16 | number, vr.strip(), position + 8, length
                if b"A" <= vr[:1] <= b"Z":  # readers differ in whether that is a VR, or a length
                    raise Malformed(f"has no sound VR in {_name(group << 16 | number)}")
            group, number, length = self._implicit(self._data, position)
        except struct.error:
            raise Malformed(f"ends inside an element header at byte {position}") from None
        return group << 16 | number, b"", position + 8, length

    def look_beyond(self, tag: int, vr: bytes, length: int, position: int) -> None:
        """An element ends behind what is at hand: so may native Pixel Data that are the last."""
        if position > self._end:
            raise Malformed(f"ends inside element {_name(tag)}")
        native = tag == PIXEL_DATA and vr in (b"OW", b"OB", b"") and length != UNDEFINED
        if not native or position < self._end:
            raise Beyond

    def value(
        self, tag: int, vr: bytes, start: int, length: int, end: int, depth: int, *, explicit: bool
    ) -> tuple[int, int]:
        """Where the value stops, and where the next element begins; all within `end`.

        depth: of a sequence that begins here.
        """
        if length == UNDEFINED:
            if explicit and not vr:
                raise Malformed(f"has a sequence without a VR: {_name(tag)}")
            if tag == PIXEL_DATA and vr not in _ENCAPSULATED:  # readers take it for a sequence
                raise Malformed(f"has encapsulated Pixel Data with the VR {vr.decode()}")
            if vr == b"SQ" or ((vr in (b"", b"UN")) and tag != PIXEL_DATA):
                inner = explicit and vr != b"UN"  # PS3.5 §6.2.2
                following = self._sequence(start, end, depth, explicit=inner, closed=False)
            else:
                following = self._fragments(start, end, counted=tag == PIXEL_DATA and depth == 1)
            return following - 8, following
        stop = start + length
        if stop > end:
            raise Malformed(f"ends inside element {_name(tag)}")
        if length >= 8:
            self._inside(tag, vr, start, stop, depth, explicit=explicit)
        elif length and (vr == b"SQ" or (not vr and tag in _SEQUENCES)):
            raise Malformed(f"ends inside element {_name(tag)}")
        return stop, stop

    def _inside(
        self, tag: int, vr: bytes, start: int, stop: int, depth: int, *, explicit: bool
    ) -> None:
        """Walk the items of a value of defined length, if it is a sequence.

        What is a sequence by its VR, or by the standard, must be one. What only looks like one may
        be anything (a private value): it is left alone where it turns out not to be.
        """
        if vr == b"SQ" or (not explicit and not tag >> 16 & 1 and tag in _SEQUENCES):
            self._sequence(start, stop, depth, explicit=explicit, closed=True)
            return
        items = self._looks_like_items(tag, start, stop - start)
        if explicit and not vr and (items or tag in _SEQUENCES):
            raise Malformed(f"has a sequence without a VR: {_name(tag)}")
        if not items:
            return
        try:
            self._sequence(start, stop, depth, explicit=explicit and vr != b"UN", closed=True)
        except (TooDeep, TooMany):
            raise
        except Malformed:
            return

    def _sequence(
        self, position: int, end: int, depth: int, *, explicit: bool, closed: bool
    ) -> int:
        """Walk items until the delimitation item, or exactly to `end` if the length is known."""
        if depth > self._bounds.depth:
            raise TooDeep(f"sequences are nested deeper than {self._bounds.depth} levels")
        while not closed or position < end:
            tag, length = self._item(position, end)
            position += 8
            if tag == SEQUENCE_END:
                if closed and position != end:
                    raise Malformed(f"a sequence ends too early at byte {position}")
                return position
            if length == UNDEFINED:
                position = self._data_set(position, end, depth, explicit=explicit, closed=False)
            elif length > end - position:
                raise Malformed("ends inside an item")
            else:
                stop = position + length
                if length:
                    self._data_set(position, stop, depth, explicit=explicit, closed=True)
                position = stop
        return position

    def _data_set(
        self, position: int, end: int, depth: int, *, explicit: bool, closed: bool
    ) -> int:
        """Walk the elements of an item until its delimitation item, or exactly to `end`.

        Some writers leave explicit VR in items: as other readers do, the first element is asked.
        """
        explicit = explicit and self._has_vr(position)
        count = 0
        while position < end:
            tag, vr, start, length = self.header(position, explicit)
            if tag >> 16 == 0xFFFE:
                if tag != ITEM_END or (closed and start != end):
                    raise Malformed(f"has {_name(tag)} in an item, which does not belong there")
                return start
            count += 1
            if vr in _SHORT:
                position = start + length
                if position > end:
                    raise Malformed(f"ends inside element {_name(tag)}")
            else:
                position = self.value(tag, vr, start, length, end, depth + 1, explicit=explicit)[1]
            if count > self._bounds.elements:
                raise TooMany(f"has more than {self._bounds.elements} elements in an item")
            self.elements += 1
            if self.elements > self._bounds.nested:
                raise TooMany(f"has more than {self._bounds.nested} elements in items")
        if not closed:
            raise Malformed("ends inside an item")
        return position

    def _looks_like_items(self, tag: int, start: int, length: int) -> bool:
        """Whether the value of defined length may be a sequence."""
        if length < 8 or tag == PIXEL_DATA or start + 8 > self._at_hand:
            return False
        group, number, _ = self._implicit(self._data, start)
        return bool((group << 16 | number) == ITEM)

    def _has_vr(self, position: int) -> bool:
        vr = bytes(self._data[position + 4 : position + 6])
        return vr == BLANK or (vr.isalpha() and vr.isupper())

    def _fragments(self, position: int, end: int, *, counted: bool) -> int:
        """Step over the fragments of an encapsulated value (PS3.5 §A.4)."""
        is_table = True
        while True:
            tag, length = self._item(position, end)
            position += 8
            if tag == SEQUENCE_END:
                return position
            if length > end - position:  # also if it is undefined: a fragment's must be known
                raise Malformed("ends inside a fragment")
            if counted and length and not is_table:
                self.fragments += 1
            is_table = False
            position += length

    def _item(self, position: int, end: int) -> tuple[int, int]:
        """Tag and length of the item, or of the delimitation of a sequence, that begins here."""
        if position + 8 > min(end, self._at_hand):
            raise Malformed(f"ends inside a sequence at byte {position}")
        group, number, length = self._implicit(self._data, position)
        tag = group << 16 | number
        if tag == ITEM:
            self.items += 1
            if self.items > self._bounds.items:
                raise TooMany(f"has more than {self._bounds.items} items")
        elif tag != SEQUENCE_END:
            raise Malformed(f"has something else than an item at byte {position}")
        return tag, length


def _require_coding(data: Buffer, start: int, *, explicit: bool, big: bool) -> None:
    """The first element is as the transfer syntax says: it has a VR, or has none."""
    vr = bytes(data[start + 4 : start + 6])
    known = vr in _SHORT or vr in LONG
    if explicit and not known and len(vr) == 2:
        raise Malformed("is not in explicit VR, as its transfer syntax says")
    if not explicit and known:
        raise Malformed("is not in implicit VR, as its transfer syntax says")
    group = bytes(data[start : start + 2])
    if group == (b"\x08\x00" if big else b"\x00\x08"):
        raise Malformed("is not in the byte order of its transfer syntax")


def _only_zeros(data: Buffer, position: int, end: int) -> bool:
    if end > len(data):
        raise Beyond
    return end - position <= MAX_PADDING_BYTES and not data[position:end].strip(b"\0")


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
