"""The stored values of one single-frame image, from any of the usual transfer syntaxes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dicom_node.domain.errors import NotDicom, PixelsUndecodable
from dicom_node.iod.code_stream import (
    INTEGERS,
    MAX_FRAME_BYTES,
    CodeStream,
    Decode,
    decoded,
    joined,
)
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
from dicom_node.iod.header import decoded as attributes_of
from dicom_node.iod.header import tags_of, wanted

if TYPE_CHECKING:
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
        if key not in INTEGERS:
            raise PixelsUndecodable(f"{self.name}: Bits Allocated is {key[0]}, not 8, 16 or 32")
        return np.dtype("<" + INTEGERS[key])

    @property
    def is_plain(self) -> bool:
        """Whether the file holds 16-bit little endian values that need no decoding."""
        native = self.transfer_syntax in UNCOMPRESSED and self.transfer_syntax != EXPLICIT_BIG
        return native and self.number("BitsAllocated") == 16


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


def stored_values(
    picture: Picture, out: NDArray[np.int16] | None = None, decode: Decode = decoded
) -> NDArray[np.integer]:
    """Stored values [row, column]; a picture that `is_plain` is read into `out` without a copy.

    decode: is given what is compressed, once it was looked at. Raises PixelsUndecodable with a
    sentence.
    """
    if picture.transfer_syntax == DEFLATED:
        raise PixelsUndecodable(f"{picture.name}: deflated data sets are not decoded")
    if picture.transfer_syntax in UNCOMPRESSED:
        return _native(picture, out)
    return _compressed(picture, decode)


def _picture(path: Path, head: bytes, *, more: bool) -> Picture:
    located = locate(head)
    raw: dict[int, Element] = {}
    end = located.start
    for element in elements(located, before=PIXEL_DATA):
        if element.tag in _NEEDED and wanted(element):
            raw[element.tag] = element
        end = element.next
    attributes = attributes_of(raw, located)
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


def _compressed(picture: Picture, decode: Decode) -> NDArray[np.integer]:
    with picture.path.open("rb") as file:
        file.seek(picture.start)
        encapsulated = file.read(MAX_FRAME_BYTES + 1)
    if len(encapsulated) > MAX_FRAME_BYTES:
        raise PixelsUndecodable(f"{picture.name}: its Pixel Data are longer than what is decoded")
    try:
        frame = joined(encapsulated)
    except Malformed as error:
        raise PixelsUndecodable(f"{picture.name}: {error}") from error
    rows, columns = picture.shape
    stream = CodeStream(
        name=picture.name,
        transfer_syntax=picture.transfer_syntax,
        frame=frame,
        rows=rows,
        columns=columns,
        bits_allocated=picture.number("BitsAllocated"),
        bits_stored=picture.number("BitsStored"),
        pixel_representation=picture.number("PixelRepresentation"),
    )
    stream.check()
    return decode(stream).array(rows, columns)
