"""What is wrong with a stored object is found before it is answered for."""

from __future__ import annotations

import struct
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from dicom_node.iod.checks import MAX_COMMENT, Problem, check_stored
from dicom_node.iod.elements import MAX_DEPTH
from dicom_node.testing.series import Pixels, a_series, changed, file_of

IMPLICIT, BIG, RLE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5"
ITEM, ITEM_END, SEQUENCE_END = (
    struct.pack("<HHI", 0xFFFE, element, 0) for element in (0xE000, 0xE00D, 0xE0DD)
)
UNDEFINED_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)


def an_image(**changes: object) -> Dataset:
    return changed(a_series(1)[0], changes)


@pytest.fixture
def check(tmp_path: Path):
    """Check bytes as if the command had named the UIDs of `an_image`."""
    expected = a_series(1)[0].SOPInstanceUID

    def run(content: bytes) -> Problem | None:
        path = tmp_path / "received"
        path.write_bytes(content)
        problem = check_stored(path, CTImageStorage, expected)
        return problem and replace(problem, offending=())  # what is said is enough here

    return run


@pytest.mark.parametrize("syntax", [None, IMPLICIT, BIG])
def test_a_sound_image_has_no_problem(check, syntax: str | None) -> None:
    dataset = an_image()
    if syntax:
        dataset.file_meta.TransferSyntaxUID = syntax
    assert check(file_of(dataset)) is None


def test_a_sound_compressed_image_has_no_problem(check) -> None:
    assert check(file_of(a_series(1, pixels=Pixels(transfer_syntax=RLE))[0])) is None


@pytest.mark.parametrize("lost", [1, 2, 7, 500, 2048])
def test_pixels_cut_short_cannot_be_understood(check, lost: int) -> None:
    problem = check(file_of(an_image())[:-lost])
    assert problem is not None
    assert problem.status == 0xC000


@pytest.mark.parametrize("lost", [1, 4, 8, 9, 60])
def test_fragments_cut_short_cannot_be_understood(check, lost: int) -> None:
    content = file_of(a_series(1, pixels=Pixels(transfer_syntax=RLE))[0])
    problem = check(content[:-lost])
    assert problem is not None
    assert problem.status == 0xC000


def test_a_cut_inside_an_element_header_cannot_be_understood(check) -> None:
    content = file_of(an_image())
    start = content.index(struct.pack("<HH", 0x7FE0, 0x0010))
    problem = check(content[: start + 5])
    assert problem == Problem(
        status=0xC000, comment=f"data set ends inside an element header at byte {start}"
    )


def test_a_length_past_the_end_names_its_element(check) -> None:
    content = file_of(an_image())
    start = content.index(b"Phantom^Chest")
    lying = content[: start - 2] + struct.pack("<H", 0xFFF0) + content[start:]
    problem = check(lying)
    assert problem == Problem(status=0xC000, comment="data set ends inside element (0010,0010)")


@pytest.mark.parametrize("content", [b"", b"\0", bytes(3000), b"GIF89a" * 100])
def test_junk_is_no_data_set(check, content: bytes) -> None:
    assert check(content) == Problem(status=0xC000, comment="not a DICOM data set")


@pytest.mark.parametrize(
    ("changes", "comment"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "SOP Class UID differs from the command"),
        ({"SOPInstanceUID": "1.2.3"}, "SOP Instance UID differs from the command"),
        ({"SOPClassUID": None}, "SOP Class UID is missing"),
        ({"SOPInstanceUID": None}, "SOP Instance UID is missing"),
        ({"StudyInstanceUID": None}, "Study Instance UID is missing"),
        ({"SeriesInstanceUID": ""}, "Series Instance UID is missing"),
    ],
)
def test_uids_that_do_not_match_are_refused(check, changes, comment: str) -> None:
    dataset = an_image()
    meta = dict.fromkeys(("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID"))
    for keyword in meta:
        meta[keyword] = getattr(dataset.file_meta, keyword)
    buffer = BytesIO()
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(buffer, enforce_file_format=False)
    assert check(bytes(buffer.getvalue())) == Problem(status=0xA900, comment=comment)


@pytest.mark.parametrize("uid", [b"../../etc/passwd", b"1.2.3\n4", b"/tmp/x", b".", b"1" * 66])
def test_what_is_no_uid_is_refused(check, uid: bytes) -> None:
    content = file_of(an_image())
    study = an_image().StudyInstanceUID.encode()
    start = content.index(study)
    old = len(study) + len(study) % 2
    new = uid + b"\0" * (len(uid) % 2)
    changed = content[: start - 2] + struct.pack("<H", len(new)) + new + content[start + old :]
    assert check(changed) == Problem(status=0xA900, comment="Study Instance UID is not a UID")


@pytest.mark.parametrize(
    "changes", [{"Rows": 33}, {"Columns": 65535}, {"BitsAllocated": 32}, {"NumberOfFrames": 2}]
)
def test_fewer_pixels_than_announced_cannot_be_understood(check, changes) -> None:
    problem = check(file_of(an_image(**changes)))
    assert problem is not None
    assert problem.status == 0xC000
    assert problem.comment.startswith("Pixel Data has 2048 bytes, not ")


@pytest.mark.parametrize("syntax", [None, IMPLICIT, BIG])
def test_an_image_without_pixels_cannot_be_understood(check, syntax: str | None) -> None:
    dataset = an_image(PixelData=None)
    if syntax:
        dataset.file_meta.TransferSyntaxUID = syntax
    assert check(file_of(dataset)) == Problem(
        status=0xC000, comment="no Pixel Data, but 32 rows, 32 columns"
    )


def test_a_cut_before_the_pixels_cannot_be_understood(check) -> None:
    content = file_of(an_image())
    assert check(content[: content.index(struct.pack("<HH", 0x7FE0, 0x0010))]) is not None


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("FloatPixelData", bytes(4096)),
        ("DoubleFloatPixelData", bytes(8192)),
        ("PixelDataProviderURL", "https://pacs/pixels"),
    ],
)
def test_pixels_may_stand_elsewhere(check, keyword: str, value: object) -> None:
    assert check(file_of(an_image(PixelData=None, **{keyword: value}))) is None


def test_an_object_that_is_no_image_needs_no_pixels(check) -> None:
    assert check(file_of(an_image(PixelData=None, Rows=None, Columns=None))) is None


def test_a_pad_byte_after_odd_pixels_is_allowed(check) -> None:
    dataset = an_image(Rows=3, Columns=3, BitsAllocated=8, BitsStored=8, HighBit=7)
    dataset.PixelData = bytes(10)
    assert check(file_of(dataset)) is None


def test_single_bits_are_counted_over_all_frames(check) -> None:
    dataset = an_image(Rows=3, Columns=3, BitsAllocated=1, BitsStored=1, HighBit=0)
    dataset.NumberOfFrames = 7
    dataset["PixelData"].VR = "OB"
    dataset.PixelData = bytes(8)  # 63 bits
    assert check(file_of(dataset)) is None
    dataset.NumberOfFrames = 8
    dataset.PixelData = bytes(8)  # 72 bits
    assert check(file_of(dataset)) is not None


def test_subsampled_colour_has_two_samples_a_pixel(check) -> None:
    dataset = an_image(SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL_422")
    dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = bytes(32 * 32 * 2)
    assert check(file_of(dataset)) is None


@pytest.mark.parametrize("zeros", [1, 2, 7, 8, 64])
def test_zeros_after_the_end_are_padding(check, zeros: int) -> None:
    assert check(file_of(an_image()) + bytes(zeros)) is None


def test_anything_else_after_the_end_is_not(check) -> None:
    problem = check(file_of(an_image()) + b"tail")
    assert problem is not None
    assert problem.status == 0xC000


def nested(depth: int, *, defined: bool, explicit: bool = True) -> bytes:
    """A private sequence, `depth` sequences deep."""
    inner = b""
    for _ in range(depth):
        if defined:
            item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
            length = len(item)
        else:
            item = UNDEFINED_ITEM + inner + ITEM_END + SEQUENCE_END
            length = 0xFFFFFFFF
        head = struct.pack("<HH2sxxI", 0x7FE1, 0x0010, b"SQ", length)
        if not explicit:
            head = struct.pack("<HHI", 0x7FE1, 0x0010, length)
        inner = head + item
    return inner


@pytest.mark.parametrize("defined", [True, False])
def test_sequences_nest_up_to_the_limit(check, defined: bool) -> None:
    content = file_of(an_image())
    assert check(content + nested(MAX_DEPTH, defined=defined)) is None
    too_deep = Problem(
        status=0xC000, comment=f"sequences are nested deeper than {MAX_DEPTH} levels"
    )
    assert check(content + nested(MAX_DEPTH + 1, defined=defined)) == too_deep


@pytest.mark.parametrize("defined", [True, False])
def test_nesting_without_end_is_refused_in_implicit_vr_too(check, defined: bool) -> None:
    dataset = an_image()
    dataset.file_meta.TransferSyntaxUID = IMPLICIT
    problem = check(file_of(dataset) + nested(2000, defined=defined, explicit=False))
    assert problem is not None
    assert problem.status == 0xC000


def test_private_bytes_that_only_look_like_a_sequence_are_left_alone(check) -> None:
    value = ITEM[:4] + struct.pack("<I", 0x7FFFFFFF) + b"opaque!!"
    element = struct.pack("<HH2sxxI", 0x7FE1, 0x0010, b"OB", len(value)) + value
    assert check(file_of(an_image()) + element) is None


def test_deflated_data_sets_are_refused(check) -> None:
    dataset = an_image()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    assert check(file_of(dataset)) == Problem(
        status=0xC000, comment="deflated data sets are not accepted"
    )


SOUND = file_of(a_series(1, size=8)[0])


@given(st.data())
def test_any_damage_is_a_verdict_and_not_an_exception(tmp_path_factory, data) -> None:
    content = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    problem = check_stored(path, CTImageStorage, "1.2.3")
    assert problem is not None  # the instance is another one, if nothing else
    assert 0 < len(problem.comment) <= MAX_COMMENT
    assert problem.status in (0xC000, 0xA900)
