"""The frames of a BINARY segmentation as bytes: what takes long where each is a Dataset.

highdicom makes the object once, with one frame, and its item of the Per-frame Functional Groups
Sequence (PS3.3 C.7.6.16) is the pattern of all: only four values differ between frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from struct import pack
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataelem import DataElement

PER_FRAME, PIXELS = 0x52009230, 0x7FE00010
_SOURCES, _SERIES, _INSTANCES = 0x00082112, 0x00081115, 0x0008114A
_CLASS, _UID, _POSITION = 0x00081150, 0x00081155, 0x00200032
_INDEX, _SEGMENT = 0x00209157, 0x0062000B
_VARIABLE = {_CLASS: b"UI", _UID: b"UI", _INDEX: b"UL", _POSITION: b"DS", _SEGMENT: b"US"}

Place = tuple[str, str, str]
"""SOP Class UID, SOP Instance UID and Image Position (Patient), as text, of a source."""
_ITEM = pack("<HH", 0xFFFE, 0xE000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """number: of frames. per_frame, pixels: the values of (5200,9230) and (7FE0,0010)."""

    number: int
    per_frame: bytes
    pixels: bytes

    def elements(self) -> bytes:
        """Both elements in Explicit VR Little Endian: they end the data set."""
        return b"".join(
            (_long(PER_FRAME, b"SQ", self.per_frame), _long(PIXELS, b"OB", self.pixels))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sequence:
    """A sequence of one item in the pattern; parts as in `_pattern`."""

    tag: int
    parts: tuple[bytes | int | _Sequence, ...]


def frames_of(
    pattern: Dataset,
    labels: NDArray[np.uint8],
    sources: Sequence[Place],
    *,
    segments: int,
    omit_empty: bool,
) -> Frames | None:
    """All frames of `labels` (uint8 [slice, row, column]; 0 = background, 1..segments).

    pattern: an item of the Per-frame Functional Groups Sequence of the same object. sources: of
    each slice, along the normal. omit_empty: leave out the frames in which a segment has no pixel.
    None where the pattern is not the expected one, as another highdicom might make it.
    """
    parts = _pattern(pattern)
    if _variables(parts) != sorted(_VARIABLE):
        return None
    # highdicom counts planes against the normal along which ours are sorted
    planes = [z for z in reversed(range(len(labels))) if not omit_empty or labels[z].any()]
    items: list[list[bytes]] = [[] for _ in range(segments)]
    bits: list[list[NDArray[np.uint8]]] = [[] for _ in range(segments)]
    whole = labels[0].size % 8 == 0
    for rank, z in enumerate(planes, start=1):
        values = _reference(sources[z])
        values[_POSITION] = _padded(sources[z][2].encode("ascii"), b" ")
        for n in range(segments):
            mask = labels[z] == n + 1
            if omit_empty and not mask.any():
                continue
            values[_INDEX], values[_SEGMENT] = pack("<II", n + 1, rank), pack("<H", n + 1)
            items[n].append(_item(_rendered(parts, values)))
            bits[n].append(np.packbits(mask, bitorder="little") if whole else mask.ravel())
    frames = [frame for segment in bits for frame in segment]
    pixels = np.concatenate(frames) if frames else np.zeros(0, np.uint8)
    if not whole:
        pixels = np.packbits(pixels, bitorder="little")
    return Frames(
        number=len(frames),
        per_frame=b"".join(item for segment in items for item in segment),
        pixels=_padded(pixels.tobytes(), b"\0"),
    )


def references(encoded: Dataset, sources: Sequence[Place]) -> dict[int, bytes]:
    """The elements of the object that name every source, whichever of them highdicom was shown."""
    pattern = _pattern(encoded.SourceImageSequence[0])
    items = [_rendered(pattern, _reference(source)) for source in sources]
    series = encoded.ReferencedSeriesSequence[0]
    pattern = _pattern(series.ReferencedInstanceSequence[0])
    instances = [_rendered(pattern, _reference(source)) for source in sources]
    parts = [
        _sequence(_INSTANCES, instances) if int(element.tag) == _INSTANCES else _encoded(element)
        for element in series
    ]
    return {_SOURCES: _sequence(_SOURCES, items), _SERIES: _sequence(_SERIES, [b"".join(parts)])}


def _reference(source: Place) -> dict[int, bytes]:
    class_uid, instance_uid = (_padded(uid.encode("ascii"), b"\0") for uid in source[:2])
    return {_CLASS: class_uid, _UID: instance_uid}


def _pattern(item: Dataset) -> tuple[bytes | int | _Sequence, ...]:
    """Constant runs as bytes, variable elements as their tag, sequences of one item."""
    parts: list[bytes | int | _Sequence] = []
    for element in item:
        tag = int(element.tag)
        if tag in _VARIABLE:
            parts.append(tag)
        elif element.VR == "SQ" and len(element.value) == 1:
            inner = _pattern(element.value[0])
            if _variables(inner):
                parts.append(_Sequence(tag=tag, parts=inner))
            else:
                parts.append(_encoded(element))
        else:
            parts.append(_encoded(element))
    return tuple(parts)


def _variables(parts: tuple[bytes | int | _Sequence, ...]) -> list[int]:
    found: list[int] = []
    for part in parts:
        if isinstance(part, int):
            found.append(part)
        elif isinstance(part, _Sequence):
            found += _variables(part.parts)
    return sorted(found)


def _encoded(element: DataElement) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element)
    return bytes(buffer.getvalue())


def _rendered(parts: tuple[bytes | int | _Sequence, ...], values: dict[int, bytes]) -> bytes:
    out = BytesIO()
    for part in parts:
        if isinstance(part, bytes):
            out.write(part)
        elif isinstance(part, int):
            value = values[part]
            out.write(pack("<HH2sH", part >> 16, part & 0xFFFF, _VARIABLE[part], len(value)))
            out.write(value)
        else:
            out.write(_sequence(part.tag, [_rendered(part.parts, values)]))
    return out.getvalue()


def _sequence(tag: int, items: Sequence[bytes]) -> bytes:
    return _long(tag, b"SQ", b"".join(_item(item) for item in items))


def _item(content: bytes) -> bytes:
    return _ITEM + pack("<I", len(content)) + content


def _long(tag: int, vr: bytes, value: bytes) -> bytes:
    return pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, len(value)) + value


def _padded(value: bytes, by: bytes) -> bytes:
    return value + by if len(value) % 2 else value
