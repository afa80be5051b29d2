"""The stored values of one single-frame image, from any of the usual transfer syntaxes."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydicom.pixels import get_decoder

from dicom_node.domain.errors import NotDicom, PixelsUndecodable
from dicom_node.iod.elements import (
    DEFLATED,
    EXPLICIT_BIG,
    PIXEL_DATA,
    UNCOMPRESSED,
    Element,
    Malformed,
    elements,
    header_at,
    locate,
    read_head,
)
from dicom_node.iod.header import decoded, tags_of, wanted

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

_READ_BYTES = (1 << 16, 1 << 20, 1 << 26)  # how much of a file is read to find the pixel data

_NEEDED = tags_of(
    (
        *("SOPInstanceUID", "Modality", "SliceThickness", "ImagePositionPatient"),
        *("ImageOrientationPatient", "FrameOfReferenceUID", "SamplesPerPixel"),
        *("PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "PixelSpacing"),
        *("BitsAllocated", "BitsStored", "PixelRepresentation", "PixelPaddingValue"),
        *("PixelPaddingRangeLimit", "RescaleIntercept", "RescaleSlope"),
    )
)

PLUGINS = {
    "1.2.840.10008.1.2.5": ("RLE Lossless", "pylibjpeg"),
    "1.2.840.10008.1.2.4.50": ("JPEG Baseline", "gdcm"),
    "1.2.840.10008.1.2.4.51": ("JPEG Extended", "gdcm"),
    "1.2.840.10008.1.2.4.57": ("JPEG Lossless", "gdcm"),
    "1.2.840.10008.1.2.4.70": ("JPEG Lossless SV1", "gdcm"),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS Lossless", "pyjpegls"),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS Near-lossless", "pyjpegls"),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000 Lossless", "pylibjpeg"),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", "pylibjpeg"),
    "1.2.840.10008.1.2.4.201": ("High-Throughput JPEG 2000 Lossless", "pylibjpeg"),
    "1.2.840.10008.1.2.4.202": ("High-Throughput JPEG 2000 RPCL", "pylibjpeg"),
    "1.2.840.10008.1.2.4.203": ("High-Throughput JPEG 2000", "pylibjpeg"),
}
"""Compressed transfer syntaxes: name, and the decoder, the fastest that is there for each."""

_INTEGERS = {(8, 0): "u1", (8, 1): "i1", (16, 0): "u2", (16, 1): "i2", (32, 0): "u4", (32, 1): "i4"}

# what pydicom and the decoders raise for a damaged code stream
_DECODER_ERRORS = (
    *(RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(MemoryError, OSError, EOFError, struct.error),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Where a file keeps its pixels, and its header. length is None where it is encapsulated."""

    path: Path
    attributes: dict[str, object]
    transfer_syntax: str
    start: int
    length: int | None

    def number(self, keyword: str, default: int = 0) -> int:
        """An integer attribute."""
        value = self.attributes.get(keyword, default)
        return value if isinstance(value, int) else default

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"SOP Instance {self.attributes.get('SOPInstanceUID', 'without a UID')}"

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.number("Rows"), self.number("Columns")

    @property
    def dtype(self) -> np.dtype[np.integer]:
        """Of the stored values, little endian. Raises PixelsUndecodable for odd widths."""
        key = self.number("BitsAllocated"), self.number("PixelRepresentation")
        if key not in _INTEGERS:
            raise PixelsUndecodable(f"{self.name}: Bits Allocated is {key[0]}, not 8, 16 or 32")
        return np.dtype("<" + _INTEGERS[key])

    @property
    def is_plain(self) -> bool:
        """Whether the file holds 16-bit little endian values that need no decoding."""
        native = self.transfer_syntax in UNCOMPRESSED and self.transfer_syntax != EXPLICIT_BIG
        return native and self.number("BitsAllocated") == 16


class _Decoding:
    """Turns what decoders raise into PixelsUndecodable.

    A decoder written in Rust panics with an exception that is no Exception and has no public name:
    a context sees it, an except clause could only catch it together with everything else.
    """

    def __init__(self, sentence: str) -> None:
        self._sentence = sentence

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            return
        if issubclass(kind, _DECODER_ERRORS) or kind.__name__ == "PanicException":
            raise PixelsUndecodable(self._sentence) from error


def find_picture(path: Path) -> Picture:
    """Read the header and find the pixels. Raises NotDicom, or PixelsUndecodable if none are."""
    for limit in _READ_BYTES:
        head, more = read_head(path, limit)
        try:
            return _picture(path, head, more=more)
        except Malformed:
            if not more:
                break
    raise NotDicom("the data set ends before its pixel data")


def stored_values(picture: Picture, out: NDArray[np.int16] | None = None) -> NDArray[np.integer]:
    """Stored values [row, column]; a picture that `is_plain` is read into `out` without a copy.

    Raises PixelsUndecodable with a sentence.
    """
    if picture.transfer_syntax == DEFLATED:
        raise PixelsUndecodable(f"{picture.name}: deflated data sets are not decoded")
    if picture.transfer_syntax in UNCOMPRESSED:
        return _native(picture, out)
    return _compressed(picture)


def _picture(path: Path, head: bytes, *, more: bool) -> Picture:
    located = locate(head)
    raw: dict[int, Element] = {}
    end = located.start
    for element in elements(located, before=PIXEL_DATA):
        if element.tag in _NEEDED and wanted(element):
            raw[element.tag] = element
        end = element.next
    attributes = decoded(raw, located)
    name = f"SOP Instance {attributes.get('SOPInstanceUID', 'without a UID')}"
    if more and end >= len(located.data):
        raise Malformed("ends before the pixel data")
    tag, start, length = header_at(located, end)
    if tag != PIXEL_DATA:
        raise PixelsUndecodable(f"{name} has no Pixel Data")
    return Picture(
        path=path,
        attributes=attributes,
        transfer_syntax=located.transfer_syntax,
        start=start,
        length=length,
    )


def _native(picture: Picture, out: NDArray[np.int16] | None) -> NDArray[np.integer]:
    rows, columns = picture.shape
    dtype = picture.dtype
    size = rows * columns * dtype.itemsize
    if picture.length is None or picture.length < size:
        raise PixelsUndecodable(f"{picture.name}: Pixel Data is shorter than Rows x Columns")
    if out is None or not picture.is_plain:
        out_bytes = np.empty(size, np.uint8)
    else:
        out_bytes = out.reshape(-1).view(np.uint8)
    with picture.path.open("rb", buffering=0) as file:
        file.seek(picture.start)
        if file.readinto(out_bytes.data) != size:
            raise PixelsUndecodable(f"{picture.name}: the file ends inside Pixel Data")
    values = out_bytes.view(dtype).reshape(rows, columns)
    if picture.transfer_syntax == EXPLICIT_BIG:
        return values.view(dtype.newbyteorder(">")).astype(dtype)
    return values


def _compressed(picture: Picture) -> NDArray[np.integer]:
    if picture.transfer_syntax not in PLUGINS:
        raise PixelsUndecodable(
            f"{picture.name}: transfer syntax {picture.transfer_syntax} is not supported"
        )
    syntax, plugin = PLUGINS[picture.transfer_syntax]
    with picture.path.open("rb") as file:
        file.seek(picture.start)
        encapsulated = file.read()
    rows, columns = picture.shape
    damaged = f"{picture.name}: its {syntax} code stream is damaged"
    with _Decoding(damaged):
        values, _ = get_decoder(picture.transfer_syntax).as_array(
            encapsulated,
            index=0,
            raw=True,
            decoding_plugin=plugin,
            rows=rows,
            columns=columns,
            samples_per_pixel=1,
            photometric_interpretation="MONOCHROME2",
            bits_allocated=picture.number("BitsAllocated"),
            bits_stored=picture.number("BitsStored"),
            pixel_representation=picture.number("PixelRepresentation"),
            number_of_frames=1,
            pixel_keyword="PixelData",
        )
    decoded_values: NDArray[np.integer] = values
    if decoded_values.shape != (rows, columns):
        raise PixelsUndecodable(f"{picture.name}: its {syntax} code stream has another size")
    return decoded_values
