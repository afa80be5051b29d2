"""What a SOP Instance must be before the node answers for it: whole, and the one announced.

The top-level elements are walked and their lengths believed only as far as the file goes; no value
is decoded, no pixel touched.
"""

from __future__ import annotations

import mmap
import struct
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
)

CANNOT_UNDERSTAND = 0xC000  # PS3.4 Table B.2-1
DOES_NOT_MATCH = 0xA900

MAX_COMMENT = 64  # Error Comment (0000,0902) is an LO

_UIDS = {
    0x00080016: "SOP Class UID",
    0x00080018: "SOP Instance UID",
    0x0020000D: "Study Instance UID",
    0x0020000E: "Series Instance UID",
}
_SAMPLES, _PHOTOMETRIC, _FRAMES = 0x00280002, 0x00280004, 0x00280008
_ROWS, _COLUMNS, _BITS_ALLOCATED = 0x00280010, 0x00280011, 0x00280100
_PIXEL_ATTRIBUTES = (_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS, _BITS_ALLOCATED)
_PROVIDER_URL = 0x00287FE0
_PIXELS = (PIXEL_DATA, 0x7FE00008, 0x7FE00009, _PROVIDER_URL)  # the two are floats
_KEPT = frozenset({*_UIDS, *_PIXEL_ATTRIBUTES, *_PIXELS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a SOP Instance is refused: the C-STORE status and a comment of at most 64 characters."""

    status: int
    comment: str


def check_stored(path: Path, expected_class: str, expected_instance: str) -> Problem | None:
    """Check a file as received against the UIDs of its C-STORE command; None if nothing is wrong.

    The data set must end where the file ends, nest sequences no deeper than MAX_DEPTH, carry valid
    Study, Series and SOP Instance UIDs and those of the command (PS3.4 §B.2.3), and hold at least
    as much native Pixel Data as rows, columns, samples, bits and frames say (PS3.5 §8.1.1). What
    has rows, columns and bits and no pixels at all was cut between two elements.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _check(locate(data), expected_class, expected_instance)
    except TooDeep as error:
        return _problem(CANNOT_UNDERSTAND, str(error))
    except Malformed as error:
        return _problem(CANNOT_UNDERSTAND, f"data set {error}")
    except (NotDicom, ValueError):  # ValueError: an empty file cannot be mapped
        return _problem(CANNOT_UNDERSTAND, "not a DICOM data set")


def _check(located: Located, expected_class: str, expected_instance: str) -> Problem | None:
    if located.transfer_syntax == DEFLATED:
        return _problem(CANNOT_UNDERSTAND, "deflated data sets are not accepted")
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
    uids = {tag: _ascii(located, found.get(tag)) for tag in _UIDS}
    for tag, name in _UIDS.items():
        if not uids[tag]:
            return _problem(DOES_NOT_MATCH, f"{name} is missing")
        if not is_uid(uids[tag]):
            return _problem(DOES_NOT_MATCH, f"{name} is not a UID")
    if uids[0x00080016] != expected_class:
        return _problem(DOES_NOT_MATCH, "SOP Class UID differs from the command")
    if uids[0x00080018] != expected_instance:
        return _problem(DOES_NOT_MATCH, "SOP Instance UID differs from the command")
    return _check_pixels(located, found)


def _check_pixels(located: Located, found: dict[int, Element]) -> Problem | None:
    rows, columns, bits = (
        _short(located, found.get(t)) for t in (_ROWS, _COLUMNS, _BITS_ALLOCATED)
    )
    if not rows or not columns or not bits:
        return None  # nothing to hold it against
    if not found.keys() & set(_PIXELS):
        return _problem(CANNOT_UNDERSTAND, f"no Pixel Data, but {rows} rows, {columns} columns")
    pixels = found.get(PIXEL_DATA)
    if pixels is None or pixels.undefined:
        return None
    samples = _short(located, found.get(_SAMPLES)) or 1
    if _ascii(located, found.get(_PHOTOMETRIC)) == "YBR_FULL_422":
        samples = 2  # PS3.3 C.7.6.3.1.2: two samples a pixel on average
    frames = _ascii(located, found.get(_FRAMES)) or "1"
    count = int(frames) if frames.isascii() and frames.isdigit() else 1
    expected = (rows * columns * samples * bits * max(count, 1) + 7) // 8
    length = pixels.stop - pixels.start
    if length < expected:
        return _problem(CANNOT_UNDERSTAND, f"Pixel Data has {length} bytes, not {expected}")
    return None


def _ascii(located: Located, element: Element | None) -> str:
    if element is None:
        return ""
    value = located.data[element.start : min(element.stop, element.start + 128)]
    return value.decode("ascii", "replace").strip("\0 ")


def _short(located: Located, element: Element | None) -> int:
    if element is None or element.stop - element.start != 2:
        return 0
    order = ">H" if located.coding.big else "<H"
    return int(struct.unpack_from(order, located.data, element.start)[0])


def _problem(status: int, comment: str) -> Problem:
    return Problem(status=status, comment=comment[:MAX_COMMENT])
