"""The header of a SOP Instance as plain values: what judgments and people need of it."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicom_node.domain.errors import NotDicom
from dicom_node.iod import text
from dicom_node.iod.elements import (
    NO_TAG,
    Buffer,
    Element,
    Located,
    Malformed,
    elements,
    locate,
    mapped,
    read_head,
)

KEYWORDS = (
    *("SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID"),
    *("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "AcquisitionDateTime"),
    *("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime", "TimezoneOffsetFromUTC"),
    *("AccessionNumber", "Modality", "Manufacturer", "InstitutionName", "StationName"),
    *("ReferringPhysicianName", "StudyDescription", "SeriesDescription"),
    *("ManufacturerModelName", "PatientName", "PatientID", "IssuerOfPatientID"),
    *("PatientBirthDate", "PatientSex", "PatientAge", "ContrastBolusAgent", "BodyPartExamined"),
    *("ScanOptions", "SliceThickness", "KVP", "SpacingBetweenSlices", "DataCollectionDiameter"),
    *("SoftwareVersions", "ProtocolName", "ReconstructionDiameter", "GantryDetectorTilt"),
    *("ConvolutionKernel", "PatientPosition", "StudyInstanceUID", "SeriesInstanceUID"),
    *("StudyID", "SeriesNumber", "AcquisitionNumber", "InstanceNumber"),
    *("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "Laterality"),
    *("TemporalPositionIdentifier", "NumberOfTemporalPositions", "ImagesInAcquisition"),
    *("PositionReferenceIndicator", "SliceLocation", "SamplesPerPixel"),
    *("PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "PixelSpacing"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue"),
    *("PixelPaddingRangeLimit", "BurnedInAnnotation", "RescaleIntercept", "RescaleSlope"),
    *("RescaleType", "LossyImageCompression", "LossyImageCompressionRatio"),
    *("LossyImageCompressionMethod", "RequestedProcedureDescription", "NumberOfSlices"),
)
"""What `read_attributes` reads, where the top level of the data set has it."""

MAX_VALUE_BYTES = 10240  # PS3.5 §6.2: no text here may be longer


def _wanted(keywords: Iterable[str]) -> dict[int, tuple[str, str]]:
    """Tag -> (keyword, VR of the dictionary), in the order of tags."""
    tags = {tag_for_keyword(k): k for k in keywords}
    return {t: (k, dictionary_VR(t)) for t, k in sorted(tags.items()) if t is not None}


_WANTED = _wanted(KEYWORDS)
WANTED = frozenset(_WANTED)
"""The tags of KEYWORDS."""
LAST = max(_WANTED)
"""The highest of WANTED."""
_UIDS = frozenset({0x00080016, 0x00080018, 0x0020000D, 0x0020000E})
_CHARACTER_SET = 0x00080005
_PIXEL_REPRESENTATION = 0x00280103

_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})  # in the specific character set
_ASCII = frozenset({"AE", "AS", "CS", "DA", "DT", "TM", "UI", "UR"})
_ONE_VALUE = frozenset({"LT", "ST", "UR", "UT"})  # a backslash is a character
_BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}


def read_attributes(source: Path | bytes, transfer_syntax: str | None = None) -> dict[str, object]:
    """Header attributes (KEYWORDS) of one SOP Instance.

    source: a file, its bytes, or (with transfer_syntax) a bare data set; nothing is read from the
    pixel data on, unless one of the four UIDs is still missing there. One value is a str, int or
    float, more are a tuple of them; what is empty, absent or not readable as its VR is left out,
    never an exception. Text is decoded by Specific Character Set. Raises NotDicom where there is no
    data set at all.
    """
    head, more = read_head(source)
    located = locate(head, transfer_syntax)
    raw, complete = _collect(located)
    if not more or complete:
        return _decoded_or_none(raw, located)
    if isinstance(source, bytes):
        return _whole(source, transfer_syntax)
    with mapped(source) as data:
        return _whole(data, transfer_syntax)


def _whole(data: Buffer, transfer_syntax: str | None) -> dict[str, object]:
    located = locate(data, transfer_syntax)
    return _decoded_or_none(_collect(located)[0], located)


def _decoded_or_none(raw: dict[int, Element], located: Located) -> dict[str, object]:
    if not raw:
        raise NotDicom("there is no data element in it that a SOP Instance has")
    return decoded(raw, located)


def transfer_syntax(source: Path | bytes) -> str:
    """The Transfer Syntax UID of a file; guessed where the file meta information lacks it."""
    head, _ = read_head(source)
    return locate(head).transfer_syntax


def decoded(raw: dict[int, Element], located: Located) -> dict[str, object]:
    """The wanted among `raw` (tag -> element) as keyword -> value."""
    character_set = raw.get(_CHARACTER_SET)
    codecs: Sequence[str] = ()
    if character_set is not None:
        codecs = text.codecs_of(located.data[character_set.start : character_set.stop])
    signed = _is_signed(raw.get(_PIXEL_REPRESENTATION), located)
    attributes: dict[str, object] = {}
    for tag, element in raw.items():
        keyword, dictionary_vr = _WANTED[tag]
        value = located.data[element.start : element.stop]
        vr = _vr(element.vr, dictionary_vr, signed=signed)
        values = _values(value, vr, codecs, big=located.coding.big)
        if values:
            attributes[keyword] = values[0] if len(values) == 1 else values
    return attributes


def tags_of(keywords: Iterable[str]) -> frozenset[int]:
    """The tags of some of KEYWORDS."""
    return frozenset(_wanted(keywords))


def wanted(element: Element) -> bool:
    """Whether `decoded` knows the element, and its value has a credible length."""
    return (
        element.tag in _WANTED
        and not element.undefined
        and element.stop - element.start <= MAX_VALUE_BYTES
    )


def header_of(found: Iterable[Element], first: int) -> dict[int, Element]:
    """The wanted among `found` by tag: of the `first` alone, unless a UID is missing there.

    So the header is the same whether the rest of the data set was looked at or not.
    """
    those = list(found)
    raw = {e.tag: e for e in those[:first] if wanted(e)}
    if raw.keys() >= _UIDS:
        return raw
    for element in those[first:]:
        if wanted(element):
            raw.setdefault(element.tag, element)
    return raw


def _collect(located: Located) -> tuple[dict[int, Element], bool]:
    """The wanted elements that can be reached, the first of each; and whether they are all."""
    raw: dict[int, Element] = {}
    try:
        for before in (LAST + 1, NO_TAG):
            for element in elements(located, before):
                if wanted(element):
                    raw.setdefault(element.tag, element)
            if raw.keys() >= _UIDS:
                break
    except Malformed:
        return raw, False
    return raw, True


def _is_signed(element: Element | None, located: Located) -> bool:
    if element is None:
        return False
    return any(located.data[element.start : element.stop])


def _vr(stored: bytes, dictionary: str, *, signed: bool) -> str:
    """The VR to read by: the stored one, unless it says nothing (PS3.5 §6.2.2 for UN)."""
    if dictionary == "US or SS":
        return "SS" if signed else "US"
    if stored in (b"", b"UN", b"OB", b"OW"):
        return dictionary
    return stored.decode("ascii")


def _values(value: bytes, vr: str, codecs: Sequence[str], *, big: bool) -> tuple[object, ...]:
    """All values, or () where one of them is bad."""
    if vr in _BINARY:
        return _numbers(value, _BINARY[vr], big=big)
    if vr not in _TEXT and vr not in _ASCII and vr not in ("DS", "IS"):
        return ()
    string = text.decode(value, codecs if vr in _TEXT else ())
    parts = [string] if vr in _ONE_VALUE else string.split("\\")
    stripped = [p.strip(" \0") for p in parts]
    if not any(stripped):
        return ()
    if vr == "PN":
        return tuple(p.rstrip("=") for p in stripped)  # empty component groups
    if vr not in ("DS", "IS"):
        return tuple(stripped)
    try:
        return tuple(_number(p, whole=vr == "IS") for p in stripped)
    except (ValueError, OverflowError):
        return ()


def _numbers(value: bytes, code: str, *, big: bool) -> tuple[object, ...]:
    count, rest = divmod(len(value), struct.calcsize(code))
    if rest or not count:
        return ()
    numbers = struct.unpack(f"{'>' if big else '<'}{count}{code}", value)
    return numbers if all(math.isfinite(n) for n in numbers) else ()


def _number(string: str, *, whole: bool) -> float | int:
    if "_" in string:  # Python's digit separator is not DICOM's
        raise ValueError
    number = float(string)
    if not math.isfinite(number):
        raise ValueError
    if not whole:
        return number
    if number != int(number):
        raise ValueError
    return int(number)
