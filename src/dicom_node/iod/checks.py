"""What a SOP Instance must be for the node to hold it: whole, and the one that it says it is.

No pixel is touched. What comes in is held to more (`iod.received`): what was acknowledged once,
perhaps by an older version, is never dropped because a check became stricter.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dicom_node.domain.errors import NotDicom
from dicom_node.domain.identifiers import is_uid
from dicom_node.iod.elements import (
    DEFLATED,
    PIXEL_DATA,
    Element,
    Located,
    Malformed,
    TooDeep,
    check_depth,
    elements,
    locate,
    mapped,
)

CANNOT_UNDERSTAND = 0xC000  # PS3.4 Table B.2-1
DOES_NOT_MATCH = 0xA900

MAX_COMMENT = 64  # Error Comment (0000,0902) is an LO

UIDS = {
    0x00080016: "SOP Class UID",
    0x00080018: "SOP Instance UID",
    0x0020000D: "Study Instance UID",
    0x0020000E: "Series Instance UID",
}
SAMPLES, PHOTOMETRIC, FRAMES = 0x00280002, 0x00280004, 0x00280008
ROWS, COLUMNS, BITS_ALLOCATED = 0x00280010, 0x00280011, 0x00280100
_PIXEL_ATTRIBUTES = (SAMPLES, PHOTOMETRIC, FRAMES, ROWS, COLUMNS, BITS_ALLOCATED)
FLOAT_BITS = {0x7FE00008: 32, 0x7FE00009: 64}
PIXELS = (PIXEL_DATA, *FLOAT_BITS, 0x00287FE0)  # the last says where else they are
_SUBSAMPLED = ("YBR_FULL_422", "YBR_PARTIAL_422")
_KEPT = frozenset({*UIDS, *_PIXEL_ATTRIBUTES, *PIXELS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong with a SOP Instance: the C-STORE status and a comment of at most 64 characters.

    offending: the tags of the elements that are at fault, where there are such.
    """

    status: int
    comment: str
    offending: tuple[int, ...] = ()


def check_stored(path: Path, expected_class: str, expected_instance: str) -> Problem | None:
    """Check a file that was stored against the UIDs that it is known by; None: nothing is wrong.

    The data set must end where the file ends, nest sequences no deeper than MAX_DEPTH, carry valid
    Study, Series and SOP Instance UIDs and those of the command (PS3.4 §B.2.3), and hold at least
    as much native Pixel Data as rows, columns, samples, bits and frames say (PS3.5 §8.1.1). What
    has rows, columns and bits and no pixels at all was cut between two elements.
    """
    try:
        with mapped(path) as data:
            return _check(locate(data), expected_class, expected_instance)
    except TooDeep as error:
        return problem(CANNOT_UNDERSTAND, str(error))
    except Malformed as error:
        return problem(CANNOT_UNDERSTAND, f"data set {error}")
    except NotDicom:
        return problem(CANNOT_UNDERSTAND, "not a DICOM data set")


def _check(located: Located, expected_class: str, expected_instance: str) -> Problem | None:
    if located.transfer_syntax == DEFLATED:
        return problem(CANNOT_UNDERSTAND, "deflated data sets are not accepted")
    found: dict[int, Element] = {}
    end = located.start
    try:
        for element in elements(located):
            if element.tag in _KEPT:
                found[element.tag] = element
            if not element.undefined and element.tag != PIXEL_DATA:
                check_depth(located.data, element, located.coding)
            end = element.next
    except TooDeep:
        raise
    except Malformed:
        # up to seven zeros after the last element are the padding of some writers
        if not found or any(located.data[end : end + 8]):
            raise
    return _check_found(located, found, expected_class, expected_instance)


def _check_found(
    located: Located, found: dict[int, Element], expected_class: str, expected_instance: str
) -> Problem | None:
    uids = {tag: ascii_of(located, found.get(tag)) for tag in UIDS}
    return check_uids(uids, expected_class, expected_instance) or _check_pixels(located, found)


def check_uids(
    uids: Mapping[int, str], expected_class: str, expected_instance: str
) -> Problem | None:
    """Whether the UIDS are there, are UIDs, and are the expected ones (PS3.4 §B.2.3)."""
    for tag, name in UIDS.items():
        if not uids[tag]:
            return problem(DOES_NOT_MATCH, f"{name} is missing", tag)
        if not is_uid(uids[tag]):
            return problem(DOES_NOT_MATCH, f"{name} is not a UID", tag)
    for tag, expected in ((0x00080016, expected_class), (0x00080018, expected_instance)):
        if uids[tag] != expected:
            return problem(DOES_NOT_MATCH, f"{UIDS[tag]} differs from the command", tag)
    return None


def _check_pixels(located: Located, found: dict[int, Element]) -> Problem | None:
    rows, columns, bits = (short_of(located, found.get(t)) for t in (ROWS, COLUMNS, BITS_ALLOCATED))
    if not rows or not columns or not bits:
        return None  # nothing to hold it against
    if not found.keys() & set(PIXELS):
        return problem(
            CANNOT_UNDERSTAND, f"no Pixel Data, but {rows} rows, {columns} columns", PIXEL_DATA
        )
    pixels = found.get(PIXEL_DATA)
    if pixels is None or pixels.undefined:
        return None
    frames = ascii_of(located, found.get(FRAMES)) or "1"
    count = int(frames) if frames.isascii() and frames.isdigit() else 1
    expected = (rows * columns * samples_of(located, found) * bits * max(count, 1) + 7) // 8
    length = pixels.stop - pixels.start
    return too_short(length, expected) if length < expected else None


def too_short(length: int, expected: int) -> Problem:
    """Of Pixel Data: both in bytes."""
    return problem(CANNOT_UNDERSTAND, f"Pixel Data has {length} bytes, not {expected}", PIXEL_DATA)


def samples_of(located: Located, found: Mapping[int, Element]) -> int:
    """Samples that a native pixel has; where chroma is subsampled, two on average (PS3.3
    C.7.6.3.1.2)."""
    if ascii_of(located, found.get(PHOTOMETRIC)) in _SUBSAMPLED:
        return 2
    return short_of(located, found.get(SAMPLES)) or 1


def ascii_of(located: Located, element: Element | None) -> str:
    """The value as text, without its padding; of a long one the beginning."""
    if element is None:
        return ""
    value = located.data[element.start : min(element.stop, element.start + 128)]
    return value.decode("ascii", "replace").strip("\0 ")


def short_of(located: Located, element: Element | None) -> int:
    """The value as one number of 16 bits; 0 where it is none."""
    if element is None or element.stop - element.start != 2:
        return 0
    order = ">H" if located.coding.big else "<H"
    return int(struct.unpack_from(order, located.data, element.start)[0])


def problem(status: int, comment: str, *offending: int) -> Problem:
    """With as much of the comment as is sent."""
    return Problem(status=status, comment=comment[:MAX_COMMENT], offending=offending)
