"""What a SOP Instance must be before the node answers for it: the contract of a C-STORE.

The bytes are scanned once, as they came (`iod.scan`); no value but the header's is decoded, nothing
is inflated, no pixel is touched.
"""

from __future__ import annotations

import re
import struct
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from dicom_node.domain.errors import NotDicom
from dicom_node.iod import checks
from dicom_node.iod.checks import CANNOT_UNDERSTAND, PIXELS, UIDS, Problem, problem
from dicom_node.iod.elements import (
    DEFLATED,
    PIXEL_DATA,
    UNCOMPRESSED,
    Buffer,
    Located,
    Malformed,
    TooDeep,
    coding_of,
    mapped,
    read_head,
)
from dicom_node.iod.header import LAST, WANTED, decoded, header_of, read_attributes
from dicom_node.iod.scan import LIGHT, Bounds, Repeated, Scan, TooMany, scan

DATA_SET_DIFFERS = 0xB007  # a warning (PS3.4 Table B.2-1): it is stored all the same

_CHARACTER_SET, _MODALITY, _PATIENT_ID = 0x00080005, 0x00080060, 0x00100020
_DESCRIPTION = {
    checks.SAMPLES: "Samples per Pixel",
    checks.ROWS: "Rows",
    checks.COLUMNS: "Columns",
    checks.BITS_ALLOCATED: "Bits Allocated",
}
_ANY_CODING = (b"", b"UN")  # implicit; and unknown to who made it explicit (PS3.5 §6.2.2)
_CODED_AS = {
    **dict.fromkeys(UIDS, (b"UI", *_ANY_CODING)),
    **dict.fromkeys(_DESCRIPTION, (b"US", b"SS", *_ANY_CODING)),
    checks.FRAMES: (b"IS", *_ANY_CODING),
    checks.PHOTOMETRIC: (b"CS", *_ANY_CODING),
    PIXEL_DATA: (b"OB", b"OW", *_ANY_CODING),
    _CHARACTER_SET: (b"CS", *_ANY_CODING),
}
_NAMES = {
    **UIDS,
    **_DESCRIPTION,
    checks.FRAMES: "Number of Frames",
    checks.PHOTOMETRIC: "Photometric Interpretation",
    PIXEL_DATA: "Pixel Data",
    _CHARACTER_SET: "Specific Character Set",
}
_WANTED = frozenset({*WANTED, *PIXELS, *_DESCRIPTION, checks.FRAMES, checks.PHOTOMETRIC})
_POSITIVE = re.compile(r"\+?0*[1-9][0-9]*(\.0*)?")  # an Integer String; some write 1.0
_FILE_META = 128 + 4
_GROUP_LENGTH = struct.Struct("<HH2sHI")
_ENCAPSULATED = ("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.8.1")
_ENCAPSULATED_BELOW = "1.2.840.10008.1.2.4."
_FRAMES_SHARE = re.compile(r"1\.2\.840\.10008\.1\.2\.4\.(9[23]|10[0-8](\.1)?)")
"""Where a fragment may hold several frames: JPEG 2000 Part 2, and video (PS3.5 §A.4.4 to §A.4.7,
§A.4.10). Elsewhere each frame has a fragment of its own at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A data set as it came. attributes: as of `read_attributes`, as far as they can be read.

    problem: why it is refused. warning: it is stored, and this is answered.
    """

    attributes: dict[str, object]
    problem: Problem | None = None
    warning: Problem | None = None


def check_received(
    path: Path,
    *,
    expected_class: str,
    expected_instance: str,
    transfer_syntax: str,
    heavy: AbstractContextManager[object],
    head: bytes = b"",
    size: int = 0,
) -> Received:
    """Hold a file, with the file meta information that the node wrote, against its command.

    Refused is what is cut, what contradicts its transfer syntax or its command, what lacks a UID,
    has an element twice, or has fewer pixels, or fragments, than it says. heavy: entered while more
    is scanned than takes some milliseconds, so that a few such objects do not keep all others
    waiting. head: as many of its first bytes as are at hand, of a file of that size: of most images
    they tell all, and the file is not opened.
    """
    if transfer_syntax == DEFLATED:
        why = problem(CANNOT_UNDERSTAND, "deflated data sets are not accepted")
        return Received(attributes={}, problem=why)
    beginning = _scanned_head(head, size, transfer_syntax)
    if beginning is not None:
        return _judged(beginning, expected_class, expected_instance)
    try:
        with mapped(path) as data:
            scanned = _scanned(_located(data, transfer_syntax), heavy)
            return _judged(scanned, expected_class, expected_instance)
    except TooDeep as error:
        why = problem(CANNOT_UNDERSTAND, str(error))
    except Repeated as error:
        why = problem(CANNOT_UNDERSTAND, f"data set {error}", error.tag)
    except Malformed as error:
        why = problem(CANNOT_UNDERSTAND, f"data set {error}")
    except NotDicom:
        why = problem(CANNOT_UNDERSTAND, "not a DICOM data set")
    return Received(attributes=_beginning(path, transfer_syntax), problem=why)


def _scanned_head(head: bytes, size: int, transfer_syntax: str) -> Scan | None:
    """A scan that took no more than the head; None if there is none, or anything is the matter:
    what is wrong is said after a look at the whole."""
    try:
        located = _located(head, transfer_syntax)
        return scan(located, _WANTED, last=LAST, bounds=LIGHT, size=size)
    except NotDicom:
        return None


def _located(data: Buffer, transfer_syntax: str) -> Located:
    return Located(
        data=data,
        start=_start(data),
        transfer_syntax=transfer_syntax,
        coding=coding_of(transfer_syntax),
    )


def _beginning(path: Path, transfer_syntax: str) -> dict[str, object]:
    """What the first bytes of a data set that cannot be walked say of where it belongs."""
    head, _ = read_head(path)
    try:
        return read_attributes(head[_start(head) :], transfer_syntax)
    except NotDicom:
        return {}


def _start(data: Buffer) -> int:
    """Where the data set begins: behind the file meta information that the node wrote.

    Elements of the same group that the sender wrote are not taken for a part of it.
    """
    try:
        group, number, _, _, length = _GROUP_LENGTH.unpack_from(data, _FILE_META)
    except struct.error:
        raise NotDicom("there is no file meta information") from None
    if data[_FILE_META - 4 : _FILE_META] != b"DICM" or (group, number) != (2, 0):
        raise NotDicom("there is no file meta information")
    return _FILE_META + _GROUP_LENGTH.size + int(length)


def _scanned(located: Located, heavy: AbstractContextManager[object]) -> Scan:
    try:
        return scan(located, _WANTED, last=LAST, bounds=LIGHT)
    except TooMany:
        with heavy:
            return scan(located, _WANTED, last=LAST, bounds=Bounds())


def _judged(scanned: Scan, expected_class: str, expected_instance: str) -> Received:
    located, found = scanned.located, scanned.found
    attributes = decoded(header_of(found.values(), scanned.header), located)
    uids = {tag: checks.ascii_of(located, found.get(tag)) for tag in UIDS}
    wrong = checks.check_uids(uids, expected_class, expected_instance)
    for tag, name in UIDS.items():
        if wrong is None and attributes.get(name.replace(" ", "")) != uids[tag]:
            wrong = problem(CANNOT_UNDERSTAND, f"{name} cannot be read as a UID", tag)
    wrong = wrong or _misnamed(scanned) or _contradiction(scanned)
    if wrong is not None:
        return Received(attributes=attributes, problem=wrong)
    expected = _expected(scanned)
    if isinstance(expected, Problem):
        return Received(attributes=attributes, problem=expected)
    length, needed = expected
    if length < needed:
        return Received(attributes=attributes, problem=checks.too_short(length, needed))
    return Received(attributes=attributes, warning=_missing(scanned) or _too_long(length, needed))


def _misnamed(scanned: Scan) -> Problem | None:
    """What the object is judged by has its own VR: readers go by that, each in its way."""
    for tag, allowed in _CODED_AS.items():
        element = scanned.found.get(tag)
        if element is not None and element.vr not in allowed:
            said = element.vr.decode("ascii", "replace")
            return problem(CANNOT_UNDERSTAND, f"{_NAMES[tag]} has the VR {said}", tag)
    return None


def _contradiction(scanned: Scan) -> Problem | None:
    """Pixel Data is encapsulated where its transfer syntax says so, and has a fragment."""
    pixels = scanned.found.get(PIXEL_DATA)
    syntax = scanned.located.transfer_syntax
    if pixels is None:
        return None
    wrong = ""
    if pixels.undefined and syntax in UNCOMPRESSED:
        wrong = "Pixel Data is encapsulated, unlike its transfer syntax"
    elif pixels.undefined and not scanned.fragments:
        wrong = "Pixel Data has no fragment"
    elif not pixels.undefined and _is_encapsulated(syntax):
        wrong = "Pixel Data is not encapsulated, as its transfer syntax is"
    return problem(CANNOT_UNDERSTAND, wrong, PIXEL_DATA) if wrong else None


def _is_encapsulated(transfer_syntax: str) -> bool:
    return transfer_syntax.startswith(_ENCAPSULATED_BELOW) or transfer_syntax in _ENCAPSULATED


def _expected(scanned: Scan) -> tuple[int, int] | Problem:
    """As of `_pixel_bytes`, or what is wrong with the description of the pixels, or that those of
    some frames are not there."""
    located, found = scanned.located, scanned.found
    rows, columns, bits = (
        checks.short_of(located, found.get(tag))
        for tag in (checks.ROWS, checks.COLUMNS, checks.BITS_ALLOCATED)
    )
    for tag, name in _DESCRIPTION.items():
        element = found.get(tag)
        if element is not None and element.stop - element.start not in (0, 2):
            return problem(CANNOT_UNDERSTAND, f"{name} is not one number of 16 bits", tag)
    if not found.keys() & set(PIXELS):
        if not (rows and columns and bits):
            return 0, 0
        comment = f"no Pixel Data, but {rows} rows, {columns} columns"
        return problem(CANNOT_UNDERSTAND, comment, PIXEL_DATA)
    frames = checks.ascii_of(located, found.get(checks.FRAMES)) or "1"
    if not _POSITIVE.fullmatch(frames):
        return problem(CANNOT_UNDERSTAND, "Number of Frames is no positive number", checks.FRAMES)
    count = int(frames.partition(".")[0])
    return _frames_missing(scanned, count) or _pixel_bytes(scanned, rows, columns, bits, count)


def _frames_missing(scanned: Scan, count: int) -> Problem | None:
    """Of encapsulated Pixel Data: whether it cannot hold as many frames."""
    pixels, syntax = scanned.found.get(PIXEL_DATA), scanned.located.transfer_syntax
    if pixels is None or not pixels.undefined or scanned.fragments >= count:
        return None
    if not _is_encapsulated(syntax) or _FRAMES_SHARE.fullmatch(syntax):
        return None
    comment = f"Pixel Data has fewer fragments ({scanned.fragments}) than frames ({count})"
    return problem(CANNOT_UNDERSTAND, comment, PIXEL_DATA)


def _pixel_bytes(scanned: Scan, rows: int, columns: int, bits: int, count: int) -> tuple[int, int]:
    """How long native pixels are, and how long they are to be; (0, 0) if there is nothing to say.

    Counted in whole numbers of any size: nothing here can overflow (PS3.5 §8.1.1).
    """
    located, found = scanned.located, scanned.found
    for tag, width in ((PIXEL_DATA, bits), *checks.FLOAT_BITS.items()):
        element = found.get(tag)
        if element is not None and not element.undefined and rows and columns and bits:
            samples = checks.samples_of(located, found)
            return element.stop - element.start, (rows * columns * samples * width * count + 7) // 8
    return 0, 0


def _missing(scanned: Scan) -> Problem | None:
    """What the node itself will need of it, and what is not there (of Type 1, or 2)."""
    located, found = scanned.located, scanned.found
    if not checks.ascii_of(located, found.get(_MODALITY)):
        return problem(DATA_SET_DIFFERS, "Modality is missing", _MODALITY)
    if _PATIENT_ID not in found:  # it may be empty
        return problem(DATA_SET_DIFFERS, "Patient ID is missing", _PATIENT_ID)
    if found.keys() & set(PIXELS):
        for tag, name in _DESCRIPTION.items():
            if not checks.short_of(located, found.get(tag)):
                return problem(DATA_SET_DIFFERS, f"{name} is missing", tag)
    return None


def _too_long(length: int, needed: int) -> Problem | None:
    """A byte may fill up an odd length."""
    if length <= needed + needed % 2:
        return None
    comment = f"Pixel Data has {length} bytes, not {needed}"
    return problem(DATA_SET_DIFFERS, comment, PIXEL_DATA)
