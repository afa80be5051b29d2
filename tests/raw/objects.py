"""Data sets as bytes, made of elements by hand: whole ones, and whatever else a test may send."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from raw.wire import CT

Elements = dict[int, tuple[str, bytes]]
"""Tag -> VR and value."""

IMPLICIT, EXPLICIT_BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
RLE, JPEG_LOSSLESS = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.70"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
DEFLATED = "1.2.840.10008.1.2.1.99"
MR = "1.2.840.10008.5.1.4.1.1.4"
STUDY, SERIES = "1.2.826.0.1.3680043.2.98.1", "1.2.826.0.1.3680043.2.98.2"

SOP_CLASS, SOP_INSTANCE, CHARACTER_SET = 0x00080016, 0x00080018, 0x00080005
STUDY_UID, SERIES_UID = 0x0020000D, 0x0020000E
ROWS, COLUMNS, BITS, FRAMES, SPACING = 0x00280010, 0x00280011, 0x00280100, 0x00280008, 0x00280030
ANY_SEQUENCE = 0x0040A730  # Content Sequence
PIXELS = 0x7FE00010
UNDEFINED = 0xFFFFFFFF

_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UC", "UN", "UR", "UT", "SV", "UV"})
SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)


def text(value: str) -> bytes:
    """Padded to an even length, by a blank."""
    raw = value.encode("latin-1")
    return raw + b" " * (len(raw) % 2)


def uid(value: str) -> bytes:
    """Padded to an even length, by a zero."""
    raw = value.encode("latin-1")
    return raw + b"\0" * (len(raw) % 2)


def number(value: int) -> bytes:
    """A US."""
    return struct.pack("<H", value)


def ct(instance: str, *, size: int = 16, study: str = STUDY, series: str = SERIES) -> Elements:
    """A small CT image in black, with everything that the node asks for."""
    return {
        SOP_CLASS: ("UI", uid(CT)),
        SOP_INSTANCE: ("UI", uid(instance)),
        0x00080020: ("DA", b"20240101"),
        0x00080060: ("CS", b"CT"),
        0x00081140: ("SQ", b"".join((sequence_item(referenced()), sequence_item(b"")))),
        0x00100010: ("PN", text("Phantom^Hostile")),
        0x00100020: ("LO", text("HOSTILE")),
        STUDY_UID: ("UI", uid(study)),
        SERIES_UID: ("UI", uid(series)),
        0x00200013: ("IS", text("1")),
        0x00280002: ("US", number(1)),
        0x00280004: ("CS", text("MONOCHROME2")),
        ROWS: ("US", number(size)),
        COLUMNS: ("US", number(size)),
        BITS: ("US", number(16)),
        0x00280101: ("US", number(16)),
        0x00280102: ("US", number(15)),
        0x00280103: ("US", number(0)),
        PIXELS: ("OW", bytes(2 * size * size)),
    }


def referenced() -> bytes:
    """What an item of the Referenced Image Sequence holds, in explicit VR."""
    return encoded({0x00081150: ("UI", uid(CT)), 0x00081155: ("UI", uid("1.2.3.4"))})


def header(tag: int, vr: str, length: int, *, explicit: bool = True) -> bytes:
    """What stands before a value; the length may be any."""
    group, element = tag >> 16, tag & 0xFFFF
    if not explicit:
        return struct.pack("<HHI", group, element, length)
    if vr in _LONG:
        return struct.pack("<HH2sHI", group, element, vr.encode(), 0, length)
    return struct.pack("<HH2sH", group, element, vr.encode(), length)


def encoded(
    elements: Mapping[int, tuple[str, bytes]] | Iterable[tuple[int, tuple[str, bytes]]],
    *,
    explicit: bool = True,
) -> bytes:
    """The bytes of a data set; a mapping in ascending order, anything else as it comes.

    What stands in sequences is in explicit VR: with explicit=False leave them out.
    """
    pairs = sorted(elements.items()) if isinstance(elements, Mapping) else elements
    return b"".join(
        header(tag, vr, len(value), explicit=explicit) + value for tag, (vr, value) in pairs
    )


def sequence_item(content: bytes, *, length: int | None = None) -> bytes:
    """An item; of undefined length it must be ended by ITEM_END."""
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content) if length is None else length) + content


def nested(depth: int, *, defined: bool = False) -> bytes:
    """A sequence with one item, with a sequence ..., as deep as that."""
    if not defined:
        opening = header(ANY_SEQUENCE, "SQ", UNDEFINED) + sequence_item(b"", length=UNDEFINED)
        return opening * depth + (ITEM_END + SEQUENCE_END) * depth
    inner = b""
    for _ in range(depth):
        item = sequence_item(inner)
        inner = header(ANY_SEQUENCE, "SQ", len(item)) + item
    return inner


def empty_items(count: int) -> bytes:
    """A sequence of so many."""
    return header(ANY_SEQUENCE, "SQ", 8 * count) + sequence_item(b"") * count


def tiny_elements(count: int) -> bytes:
    """So many private elements without a value."""
    per_group = 0xE000
    return b"".join(
        struct.pack("<HH2sH", 0x0041 + 2 * (n // per_group), 0x1000 + n % per_group, b"LO", 0)
        for n in range(count)
    )


def encapsulated(*fragments: bytes) -> bytes:
    """Pixel Data of undefined length, with an empty offset table (PS3.5 §A.4)."""
    items = b"".join(sequence_item(fragment) for fragment in (b"", *fragments))
    return header(PIXELS, "OB", UNDEFINED) + items + SEQUENCE_END


def before_pixels(data: bytes, extra: bytes) -> bytes:
    """A data set in explicit VR, with something more before its native Pixel Data."""
    at = data.rindex(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW"))
    return data[:at] + extra + data[at:]


def with_pixels(data: bytes, pixels: bytes) -> bytes:
    """A data set in explicit VR, with other Pixel Data in place of its own."""
    return data[: data.rindex(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW"))] + pixels
