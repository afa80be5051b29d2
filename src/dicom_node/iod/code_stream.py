"""The code stream of one compressed image: cut out of its fragments, looked at, and decoded."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from pydicom.pixels import get_decoder

from dicom_node.domain.errors import PixelsUndecodable
from dicom_node.iod.elements import ITEM, SEQUENCE_END, Malformed
from dicom_node.iod.stream_size import Family, Size, misfit

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

MAX_FRAME_BYTES = 128 << 20
"""Of the pixels of one image, and of its code stream: far more than any slice has."""
_MAX_FRAGMENTS = 100_000
_HEADER = struct.Struct("<HHI")


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """What a compressed transfer syntax is called, how its code streams begin, and who decodes."""

    name: str
    family: Family
    plugin: str


_J = "1.2.840.10008.1.2.4."
_JPEG, _LS, _2000 = Family.JPEG, Family.JPEG_LS, Family.JPEG_2000
CODECS = {
    uid: Codec(name=name, family=family, plugin=plugin)
    for uid, name, family, plugin in (
        ("1.2.840.10008.1.2.5", "RLE Lossless", Family.RLE, "pylibjpeg"),
        (_J + "50", "JPEG Baseline", _JPEG, "gdcm"),
        (_J + "51", "JPEG Extended", _JPEG, "gdcm"),
        (_J + "57", "JPEG Lossless", _JPEG, "gdcm"),
        (_J + "70", "JPEG Lossless SV1", _JPEG, "gdcm"),
        (_J + "80", "JPEG-LS Lossless", _LS, "pyjpegls"),
        (_J + "81", "JPEG-LS Near-lossless", _LS, "pyjpegls"),
        (_J + "90", "JPEG 2000 Lossless", _2000, "pylibjpeg"),
        (_J + "91", "JPEG 2000", _2000, "pylibjpeg"),
        (_J + "201", "High-Throughput JPEG 2000 Lossless", _2000, "pylibjpeg"),
        (_J + "202", "High-Throughput JPEG 2000 RPCL", _2000, "pylibjpeg"),
        (_J + "203", "High-Throughput JPEG 2000", _2000, "pylibjpeg"),
    )
}
"""Compressed transfer syntaxes, each with the fastest decoder that is there for it."""

INTEGERS = {(8, 0): "u1", (8, 1): "i1", (16, 0): "u2", (16, 1): "i2", (32, 0): "u4", (32, 1): "i4"}
"""(Bits Allocated, Pixel Representation) -> type of stored values."""

# what pydicom and the decoders raise for a damaged code stream
_DECODER_ERRORS = (
    *(RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(OSError, EOFError, struct.error),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeStream:
    """One image as it was compressed, and what its header says of it. name: for messages."""

    name: str
    transfer_syntax: str
    frame: bytes
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    pixel_representation: int

    @property
    def codec(self) -> Codec:
        """That of its transfer syntax. Raises PixelsUndecodable where there is none."""
        known = CODECS.get(self.transfer_syntax)
        if known is None:
            raise PixelsUndecodable(
                f"{self.name}: transfer syntax {self.transfer_syntax} is not supported"
            )
        return known

    def check(self) -> None:
        """Raise PixelsUndecodable where the code stream is not what the header says."""
        codec = self.codec
        if (self.bits_allocated, self.pixel_representation) not in INTEGERS:
            raise PixelsUndecodable(
                f"{self.name}: Bits Allocated is {self.bits_allocated}, not 8, 16 or 32"
            )
        if self.rows * self.columns * self.bits_allocated // 8 > MAX_FRAME_BYTES:
            raise PixelsUndecodable(
                f"{self.name}: {self.rows} rows and {self.columns} columns are more than is decoded"
            )
        header = Size(rows=self.rows, columns=self.columns, components=1, bits=self.bits_allocated)
        found = misfit(self.frame, codec.family, header)
        if found:
            raise PixelsUndecodable(f"{self.name}: its {codec.name} code stream {found}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Stored values [row, column] as bytes. dtype: one of INTEGERS, little endian."""

    dtype: str
    data: memoryview | bytearray

    def array(self, rows: int, columns: int) -> NDArray[np.integer]:
        """The values themselves, in the memory of `data`."""
        return np.frombuffer(self.data, np.dtype("<" + self.dtype)).reshape(rows, columns)


Decode: TypeAlias = Callable[[CodeStream], Decoded]
"""Whoever decodes a code stream that was checked. Raises PixelsUndecodable with a sentence."""


class _Decoding:
    """Turns what decoders raise into PixelsUndecodable.

    A decoder written in Rust panics with an exception that is no Exception and has no public name:
    a context sees it, an except clause could only catch it together with everything else.
    """

    def __init__(self, codec: Codec, name: str) -> None:
        self._codec = codec
        self._name = name

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
        stream = f"{self._name}: its {self._codec.name} code stream"
        if issubclass(kind, MemoryError):
            raise PixelsUndecodable(f"{stream} takes more memory than is allowed") from error
        if issubclass(kind, _DECODER_ERRORS) or kind.__name__ == "PanicException":
            raise PixelsUndecodable(f"{stream} is damaged") from error


def joined(encapsulated: bytes) -> bytes:
    """The fragments of an object that has one frame, put together (PS3.5 §A.4). Raises Malformed.

    encapsulated: from the Basic Offset Table on; what follows the last fragment is passed over.
    """
    fragments: list[bytes] = []
    position, size = 0, len(encapsulated)
    while position + 4 <= size:  # some writers leave the delimiter out
        if position + _HEADER.size > size:
            raise Malformed("Pixel Data ends inside a fragment")
        group, number, length = _HEADER.unpack_from(encapsulated, position)
        tag = group << 16 | number
        if tag == SEQUENCE_END:
            break
        if tag != ITEM:
            raise Malformed("Pixel Data holds something else than fragments")
        position += _HEADER.size
        if length > size - position:
            raise Malformed("Pixel Data ends inside a fragment")
        fragments.append(encapsulated[position : position + length])
        if len(fragments) > _MAX_FRAGMENTS:
            raise Malformed(f"Pixel Data has more than {_MAX_FRAGMENTS} fragments")
        position += length
    return b"".join(fragments[1:])


def decoded(stream: CodeStream) -> Decoded:
    """Decode in this process. Raises PixelsUndecodable."""
    codec = stream.codec
    with _Decoding(codec, stream.name):
        values, _ = get_decoder(stream.transfer_syntax).as_array(
            _encapsulated(stream.frame),
            index=0,
            raw=True,
            decoding_plugin=codec.plugin,
            rows=stream.rows,
            columns=stream.columns,
            samples_per_pixel=1,
            photometric_interpretation="MONOCHROME2",
            bits_allocated=stream.bits_allocated,
            bits_stored=stream.bits_stored,
            pixel_representation=stream.pixel_representation,
            number_of_frames=1,
            pixel_keyword="PixelData",
        )
    if values.shape != (stream.rows, stream.columns):
        raise PixelsUndecodable(f"{stream.name}: its {codec.name} code stream has another size")
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return Decoded(dtype=little.dtype.str[1:], data=little.data.cast("B"))


def _encapsulated(frame: bytes) -> bytes:
    """As one fragment: the decoder is to see what was looked at, and nothing else."""
    even = len(frame) + len(frame) % 2
    return b"".join(
        (
            _HEADER.pack(ITEM >> 16, ITEM & 0xFFFF, 0),
            _HEADER.pack(ITEM >> 16, ITEM & 0xFFFF, even),
            frame,
            b"\0" * (even - len(frame)),
            _HEADER.pack(SEQUENCE_END >> 16, SEQUENCE_END & 0xFFFF, 0),
        )
    )
