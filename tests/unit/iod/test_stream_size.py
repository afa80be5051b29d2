"""What a code stream says of its picture is held against the header before anything is decoded."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate

from dicom_node.domain.errors import PixelsUndecodable
from dicom_node.iod.code_stream import CODECS, CodeStream, decoded, joined
from dicom_node.iod.elements import Malformed
from dicom_node.iod.stream_size import Family, Size, misfit
from dicom_node.testing.series import UNSIGNED_12, Pixels, a_series

HEADER = Size(rows=34, columns=42, components=1, bits=16)
RLE, J2K, JPEG_LS = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80"


def jpeg(size: Size, marker: int = 0xC3, before: bytes = b"") -> bytes:
    """The beginning of a JPEG or JPEG-LS stream, up to its frame header."""
    head = struct.pack(">HBHHB", 17, size.bits, size.rows, size.columns, size.components)
    return b"\xff\xd8" + before + bytes((0xFF, marker)) + head


def jpeg_2000(
    size: Size, offset: int = 0, apart: int = 1, tile: tuple[int, int] | None = None
) -> bytes:
    """The beginning of a JPEG 2000 stream, up to its SIZ segment."""
    right, bottom = offset + size.columns * apart, offset + size.rows * apart
    grid = (right, bottom, offset, offset, *(tile or (right, bottom)), 0, 0)
    siz = struct.pack(">HH8IH", 41, 0, *grid, size.components)
    parts = bytes((size.bits - 1, apart, apart)) * min(size.components, 3)
    return b"\xff\x4f\xff\x51" + siz + parts


def jp2(stream: bytes, long: bool = False) -> bytes:
    """As a file of its own kind, which some put into a fragment."""
    length = struct.pack(">I4sQ", 1, b"jp2c", 0) if long else struct.pack(">I4s", 0, b"jp2c")
    return (
        b"\x00\x00\x00\x0cjP  \r\n\x87\n" + struct.pack(">I4s", 12, b"ftyp") + bytes(4)
        + length + stream
    )  # fmt: skip


def rle(*offsets: int, count: int | None = None, size: int = 1000) -> bytes:
    head = (len(offsets) if count is None else count, *offsets, *[0] * (15 - len(offsets)))
    return struct.pack("<16I", *head) + bytes(size - 64)


def sized(**changes: int) -> Size:
    return replace(HEADER, **changes)


STREAMS = {
    Family.JPEG: jpeg,
    Family.JPEG_LS: lambda size: jpeg(size, 0xF7),
    Family.JPEG_2000: jpeg_2000,
}
FITTING: dict[str, tuple[Family, bytes]] = {
    **{f"{family.name}": (family, make(HEADER)) for family, make in STREAMS.items()},
    "fewer bits": (Family.JPEG, jpeg(sized(bits=12), 0xC1)),
    "baseline": (Family.JPEG, jpeg(sized(bits=8), 0xC0)),
    "segments before": (
        Family.JPEG,
        jpeg(HEADER, before=b"\xff\xe0\x00\x06abcd\xff\xff\xfe\0\x02"),
    ),
    "a table before": (Family.JPEG, jpeg(HEADER, before=b"\xff\xc4\x00\x04ab\xff\x01")),
    "an offset": (Family.JPEG_2000, jpeg_2000(HEADER, offset=7)),
    "samples apart": (Family.JPEG_2000, jpeg_2000(HEADER, apart=2)),
    "tiles": (Family.JPEG_2000, jpeg_2000(HEADER, tile=(16, 16))),
    "JP2": (Family.JPEG_2000, jp2(jpeg_2000(HEADER))),
    "JP2 with a long box": (Family.JPEG_2000, jp2(jpeg_2000(HEADER), long=True)),
    "RLE": (Family.RLE, rle(64, 500)),
    "RLE with a gap": (Family.RLE, rle(72, 500)),
}


@pytest.mark.parametrize("case", FITTING)
def test_what_fits_its_header_is_not_objected_to(case: str) -> None:
    family, frame = FITTING[case]
    assert misfit(frame, family, HEADER) == ""


HUGE = sized(rows=65535, columns=65535)
SAID = "has 65535 rows and 65535 columns, not 34 and 42 as its header says"
OTHER = {
    **{f"{family.name}, huge": (family, make(HUGE), SAID) for family, make in STREAMS.items()},
    **{
        f"{family.name}, three components": (
            family, make(sized(components=3)), "has 3 components, not 1",
        )
        for family, make in STREAMS.items()
    },
    **{
        f"{family.name}, more bits": (
            family, make(sized(bits=17)), "has 17 bits a sample, and 16 are allocated",
        )
        for family, make in STREAMS.items()
    },
    "no bits": (Family.JPEG, jpeg(sized(bits=0)), "has 0 bits a sample"),
    "no lines yet": (Family.JPEG, jpeg(sized(rows=0)), "has 0 rows"),
    "four billion": (
        Family.JPEG_2000, jpeg_2000(sized(rows=2**32 - 1, columns=2**32 - 1)),
        "has 4294967295 rows and 4294967295 columns",
    ),
    "four billion in one row": (
        Family.JPEG_2000, jpeg_2000(sized(rows=1, columns=2**32 - 1)), "has 1 rows and 4294967295",
    ),
    "in JP2": (Family.JPEG_2000, jp2(jpeg_2000(HUGE)), SAID),
    "many tiles": (
        Family.JPEG_2000, jpeg_2000(HUGE, tile=(1, 1)), "is damaged: it has more than 65535 tiles",
    ),
    "no tiles": (Family.JPEG_2000, jpeg_2000(HEADER, tile=(0, 9)), "is damaged: its picture or"),
    "no distance": (
        Family.JPEG_2000, jpeg_2000(HEADER)[:-1] + b"\0",
        "is damaged: its samples have no distance",
    ),
    "no picture": (Family.JPEG_2000, jpeg_2000(sized(rows=0)), "is damaged: its picture or"),
    "a tile elsewhere": (
        Family.JPEG_2000, jpeg_2000(HEADER, offset=50, tile=(10, 10)),
        "is damaged: its tiles do not begin where its picture does",
    ),
    "JP2 without a code stream": (
        Family.JPEG_2000, jp2(b"")[:24] + struct.pack(">I4s", 0, b"free"),
        "is damaged: there is no code stream in it",
    ),
    "a JPEG as JPEG-LS": (Family.JPEG_LS, jpeg(HEADER) + b"\xff\xd9", "is damaged: it"),
    "a JPEG-LS as JPEG": (Family.JPEG, jpeg(HEADER, 0xF7) + b"\xff\xda", "is damaged: it"),
    "a JPEG as JPEG 2000": (Family.JPEG_2000, jpeg(HEADER), "is damaged: it does not begin as one"),
    "a scan at once": (Family.JPEG, b"\xff\xd8\xff\xda\x00\x04ab", "it has no frame header"),
    "no marker": (Family.JPEG, b"\xff\xd8\x00\x00\x00\x00", "a marker is missing in its header"),
    "fill without end": (Family.JPEG, b"\xff\xd8" + b"\xff" * 100_000, "it has no frame header"),
    "segments without end": (
        Family.JPEG, b"\xff\xd8" + b"\xff\xe0\x00\x02" * 100_000, "it has no frame header",
    ),
    "a segment of length 0": (Family.JPEG, b"\xff\xd8\xff\xe0\x00\x00" * 9, "is damaged"),
    "nothing": (Family.JPEG, b"", "is damaged: it does not begin as one"),
    "no RLE header": (Family.RLE, bytes(63), "is damaged: it ends inside its header"),
    "RLE of three": (Family.RLE, rle(64, 100, 200), "has 3 segments, not 2"),
    "RLE of none": (Family.RLE, rle(), "has 0 segments, not 2"),
    "RLE of many": (Family.RLE, rle(64, 500, count=2**32 - 1), "has 4294967295 segments, not 2"),
    "RLE in its header": (Family.RLE, rle(0, 500), "segments do not lie one behind the other"),
    "RLE backwards": (Family.RLE, rle(500, 64), "segments do not lie one behind the other"),
    "RLE at one place": (Family.RLE, rle(64, 64), "segments do not lie one behind the other"),
    "RLE beyond its end": (Family.RLE, rle(64, 1000), "segments do not lie one behind the other"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER)
def test_what_contradicts_its_header_is_said_in_words(case: str) -> None:
    family, frame, words = OTHER[case]
    assert words in misfit(frame, family, HEADER)


@pytest.mark.parametrize("family", Family)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_bytes_are_objected_to_in_words(family: Family, data: st.DataObject) -> None:
    begins = {
        Family.JPEG: b"\xff\xd8",
        Family.JPEG_LS: b"\xff\xd8",
        Family.JPEG_2000: data.draw(st.sampled_from([b"\xff\x4f\xff\x51", jp2(b"")[:20]])),
        Family.RLE: b"\2\0\0\0",
    }
    frame = data.draw(st.sampled_from([b"", begins[family]])) + data.draw(st.binary(max_size=120))
    assert len(misfit(frame, family, HEADER)) < 120


@pytest.mark.parametrize("family", STREAMS)
@settings(max_examples=100, deadline=None)
@given(
    found=st.builds(
        Size,
        rows=st.integers(1, 65535),
        columns=st.integers(1, 65535),
        components=st.integers(1, 255),
        bits=st.integers(1, 38),
    ),
    header=st.builds(
        Size,
        rows=st.integers(1, 65535),
        columns=st.integers(1, 65535),
        components=st.just(1),
        bits=st.sampled_from([8, 16, 32]),
    ),
    same=st.booleans(),
)
def test_only_a_stream_of_the_size_of_its_header_fits(
    family: Family, found: Size, header: Size, same: bool
) -> None:
    if same:
        header = replace(header, rows=found.rows, columns=found.columns)
    fits = (found.rows, found.columns, found.components) == (header.rows, header.columns, 1)
    told = misfit(STREAMS[family](found), family, header)
    assert (told == "") == (fits and found.bits <= header.bits)


@pytest.mark.parametrize("pixels", [Pixels(), UNSIGNED_12])
@pytest.mark.parametrize("syntax", [RLE, J2K, JPEG_LS])
def test_what_encoders_make_fits_and_is_decoded_as_it_was(syntax: str, pixels: Pixels) -> None:
    for size in (32, 47, 64):
        native = a_series(1, size=size, pixels=pixels)[0]
        made = a_series(1, size=size, pixels=replace(pixels, transfer_syntax=syntax))[0]
        stream = a_stream(joined(made.PixelData), syntax, size, pixels)
        stream.check()
        np.testing.assert_array_equal(decoded(stream).array(size, size), native.pixel_array)
        for other in (replace(stream, rows=size + 1), replace(stream, columns=size - 1)):
            if CODECS[syntax].family is not Family.RLE:  # which does not say
                with pytest.raises(PixelsUndecodable, match="as its header says"):
                    other.check()


def a_stream(frame: bytes, syntax: str, size: int, pixels: Pixels) -> CodeStream:
    return CodeStream(
        name="it",
        transfer_syntax=syntax,
        frame=frame,
        rows=size,
        columns=size,
        bits_allocated=16,
        bits_stored=pixels.bits_stored,
        pixel_representation=int(pixels.signed),
    )


# --- the fragments of a frame


@settings(max_examples=60, deadline=None)
@given(
    frame=st.binary(min_size=2, max_size=300).filter(lambda b: len(b) % 2 == 0),
    fragments=st.integers(1, 5),
    table=st.booleans(),
    after=st.binary(max_size=20),
)
def test_fragments_are_put_together(
    frame: bytes, fragments: int, table: bool, after: bytes
) -> None:
    fragments = min(fragments, len(frame) // 2)
    made = encapsulate([frame], fragments_per_frame=fragments, has_bot=table)
    ended = made + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    assert joined(ended + after).startswith(frame)
    assert len(joined(ended + after)) - len(frame) in (0, 1, 2)  # of padding
    assert joined(made).startswith(frame)  # without its delimiter


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_are_fragments_or_malformed(data: bytes, begun: bool) -> None:
    with suppress(Malformed):  # and nothing else
        found = joined((struct.pack("<HHI", 0xFFFE, 0xE000, 0) if begun else b"") + data)
        assert len(found) <= len(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (struct.pack("<HHI", 0xFFFE, 0xE000, 10) + bytes(9), "ends inside a fragment"),
        (struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + bytes(9), "ends inside a fragment"),
        (struct.pack("<HHI", 0xFFFE, 0xE000, 0)[:6], "ends inside a fragment"),
        (b"native pixels", "something else than fragments"),
        (struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 100_001, "more than 100000 fragments"),
    ],
)
def test_damaged_fragments_are_told(data: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        joined(data)


def test_a_picture_beyond_all_measure_is_not_given_to_a_decoder() -> None:
    stream = a_stream(jpeg_2000(HUGE), J2K, 65535, Pixels())
    with pytest.raises(PixelsUndecodable, match="65535 rows and 65535 columns are more than is"):
        stream.check()
