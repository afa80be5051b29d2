"""What comes in is held against its command, its transfer syntax, and what it says of itself."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage

from dicom_node.iod.checks import MAX_COMMENT, Problem, check_stored
from dicom_node.iod.header import read_attributes
from dicom_node.iod.received import Received, check_received
from dicom_node.testing.series import Pixels, a_series, changed, file_of

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
RLE, JPEG = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.70"
PIXEL_DATA = 0x7FE00010


def an_image(syntax: str = EXPLICIT, **changes: object) -> Dataset:
    """Of 32 x 32 pixels. None takes an attribute away."""
    dataset = a_series(1)[0]
    dataset.file_meta.TransferSyntaxUID = syntax
    return changed(dataset, changes)


def start_of(content: bytes) -> int:
    """Of the data set in a file."""
    return 144 + int(struct.unpack_from("<I", content, 140)[0])


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    if vr in (b"OB", b"OW", b"UN", b"SQ"):
        return struct.pack("<HH2sxxI", tag >> 16, tag & 0xFFFF, vr, len(value)) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def before(content: bytes, tag: int, extra: bytes) -> bytes:
    """With `extra` in front of that element."""
    at = content.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF), start_of(content))
    return content[:at] + extra + content[at:]


class Turns:
    """How often it was entered."""

    def __init__(self) -> None:
        self.taken = 0

    def __enter__(self) -> None:
        self.taken += 1

    def __exit__(self, *what: object) -> None:
        return None


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Received]:
    expected = a_series(1)[0].SOPInstanceUID

    def run(
        content: bytes,
        syntax: str = EXPLICIT,
        heavy: contextlib.AbstractContextManager[object] | None = None,
    ) -> Received:
        path = tmp_path / "received"
        path.write_bytes(content)
        received = check_received(
            path,
            expected_class=CTImageStorage,
            expected_instance=expected,
            transfer_syntax=syntax,
            heavy=heavy or contextlib.nullcontext(),
        )
        for part in (300, len(content) - 1, len(content)):  # what is at hand changes nothing
            again = check_received(
                path,
                expected_class=CTImageStorage,
                expected_instance=expected,
                transfer_syntax=syntax,
                heavy=contextlib.nullcontext(),
                head=content[:part],
                size=len(content),
            )
            assert again == received
        if received.problem is None:  # what is taken in must be found again at the next start
            assert check_stored(path, CTImageStorage, expected) is None
            assert received.attributes == read_attributes(path)
        for found in (received.problem, received.warning):
            assert found is None or 0 < len(found.comment) <= MAX_COMMENT
        return received

    return run


def refusal(received: Received) -> Problem:
    assert received.problem is not None
    return received.problem


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_a_sound_image_is_taken_with_its_header(check, syntax: str) -> None:
    received = check(file_of(an_image(syntax)), syntax)
    assert (received.problem, received.warning) == (None, None)
    assert received.attributes["Modality"] == "CT"


def test_a_sound_compressed_image_is_taken(check) -> None:
    received = check(file_of(a_series(1, pixels=Pixels(transfer_syntax=RLE))[0]), RLE)
    assert (received.problem, received.warning) == (None, None)


def test_two_data_sets_in_one_object_are_refused(check) -> None:
    content = file_of(an_image())
    other = file_of(an_image(PatientName="Other", StudyInstanceUID="1.2.3"))
    found = refusal(check(content + other[start_of(other) :]))
    assert (found.status, found.offending[1:]) == (0xC000, ())
    assert found.comment.endswith("twice")


def test_elements_of_the_file_meta_information_are_not_the_senders_to_write(check) -> None:
    content = file_of(an_image())
    start = start_of(content)
    for tag in (0x00020010, 0x00000002):
        forged = content[:start] + element(tag, b"UI", IMPLICIT.encode() + b"\0") + content[start:]
        assert "does not belong" in refusal(check(forged)).comment


def test_a_file_in_place_of_a_data_set_is_refused(check) -> None:
    content = file_of(an_image())
    start = start_of(content)
    assert refusal(check(content[:start] + content)).status == 0xC000


@pytest.mark.parametrize(
    ("coded_as", "said"), [(IMPLICIT, EXPLICIT), (EXPLICIT, IMPLICIT), (BIG, EXPLICIT)]
)
def test_bytes_that_contradict_their_transfer_syntax_are_refused(check, coded_as, said) -> None:
    found = refusal(check(file_of(an_image(coded_as)), said))
    assert found.status == 0xC000
    assert "its transfer syntax" in found.comment


def with_fragments(fragments: list[bytes]) -> Dataset:
    dataset = an_image(JPEG)
    dataset.PixelData = encapsulate(fragments)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def test_encapsulated_pixels_under_an_uncompressed_syntax_are_refused(check) -> None:
    content = file_of(with_fragments([b"\xff\xd8\xff\xd9"]))
    assert check(content, JPEG).problem is None
    found = refusal(check(content, EXPLICIT))
    assert found.comment == "Pixel Data is encapsulated, unlike its transfer syntax"
    assert found.offending == (PIXEL_DATA,)


@pytest.mark.parametrize("syntax", [RLE, JPEG, "1.2.840.10008.1.2.4.201"])
def test_native_pixels_under_a_compressed_syntax_are_refused(check, syntax: str) -> None:
    found = refusal(check(file_of(an_image()), syntax))
    assert found.comment == "Pixel Data is not encapsulated, as its transfer syntax is"


def test_a_private_syntax_may_have_either(check) -> None:
    assert check(file_of(an_image()), "1.2.3.4").problem is None
    assert check(file_of(with_fragments([b"ab"])), "1.2.3.4").problem is None


@pytest.mark.parametrize(
    "items", [b"", bytes.fromhex("feff00e000000000"), 2 * bytes.fromhex("feff00e000000000")]
)
def test_encapsulated_pixels_have_a_fragment(check, items: bytes) -> None:
    content = file_of(with_fragments([b"ab"]))
    start = content.index(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OB")) + 12
    found = refusal(check(content[:start] + items + bytes.fromhex("feffdde000000000"), JPEG))
    assert (found.status, found.comment) == (0xC000, "Pixel Data has no fragment")


ONE_EACH = (
    *("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.8.1"),
    *(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91)),
    *(f"1.2.840.10008.1.2.4.{n}" for n in (110, 111, 112, 201, 202, 203)),
)
SHARED = tuple(
    f"1.2.840.10008.1.2.4.{n}"
    for n in (92, 93, 100, "100.1", 101, 102, "103.1", 104, "106.1", 107, 108)
)


@pytest.mark.parametrize("syntax", ONE_EACH)
def test_a_frame_has_a_fragment_of_its_own(check, syntax: str) -> None:
    frames = element(0x00280008, b"IS", b"3 ")
    two, empty = file_of(with_fragments([b"ab"] * 2)), bytes.fromhex("feff00e000000000")
    for content in (two, two[:-8] + empty + two[-8:]):  # before the end of the sequence
        found = refusal(check(before(content, 0x00280010, frames), syntax))
        expected = "Pixel Data has fewer fragments (2) than frames (3)"
        assert (found.status, found.comment) == (0xC000, expected)
        assert found.offending == (PIXEL_DATA,)
    for many in (3, 7):
        whole = before(file_of(with_fragments([b"ab"] * many)), 0x00280010, frames)
        assert check(whole, syntax).problem is None


@pytest.mark.parametrize("syntax", [*SHARED, "1.2.3.4"])
def test_frames_of_a_video_or_a_component_collection_share_one(check, syntax: str) -> None:
    frames = element(0x00280008, b"IS", b"300 ")
    content = before(file_of(with_fragments([b"ab"])), 0x00280010, frames)
    assert check(content, syntax).problem is None


@pytest.mark.parametrize("lost", [1, 2, 7, 500, 2048, 2054, 2060])
def test_a_cut_object_is_refused(check, lost: int) -> None:
    assert refusal(check(file_of(an_image())[:-lost])).status == 0xC000
    compressed = file_of(a_series(1, pixels=Pixels(transfer_syntax=RLE))[0])
    assert refusal(check(compressed[: -min(lost, 60)], RLE)).status == 0xC000


@pytest.mark.parametrize(
    "changes", [{"Rows": 33}, {"Columns": 65535}, {"BitsAllocated": 32}, {"SamplesPerPixel": 3}]
)
def test_fewer_pixels_than_announced_are_refused(check, changes) -> None:
    found = refusal(check(file_of(an_image(**changes))))
    assert found.status == 0xC000
    assert found.comment.startswith("Pixel Data has 2048 bytes, not ")
    assert found.offending == (PIXEL_DATA,)


def with_frames(text: bytes) -> bytes:
    value = text + b" " * (len(text) % 2)
    return before(file_of(an_image()), 0x00280010, element(0x00280008, b"IS", value))


@pytest.mark.parametrize("frames", [b"2", b"2147483647", b"9" * 40])
def test_frames_count_in_whole_numbers_of_any_size(check, frames: bytes) -> None:
    expected = f"Pixel Data has 2048 bytes, not {2048 * int(frames)}"
    assert refusal(check(with_frames(frames))).comment == expected[:MAX_COMMENT]


@pytest.mark.parametrize("frames", [b"0", b"-5", b"2.5", b"1e9", b"x", b"1\\1", b"nan"])
def test_frames_that_are_no_positive_number_are_refused(check, frames: bytes) -> None:
    found = refusal(check(with_frames(frames)))
    assert (found.status, found.offending) == (0xC000, (0x00280008,))


@pytest.mark.parametrize("frames", [b"", b"1", b"1 ", b"+1", b"01", b"1.0"])
def test_one_frame_may_be_written_in_several_ways(check, frames: bytes) -> None:
    assert check(with_frames(frames)).problem is None


@pytest.mark.parametrize("extra", [1, 2, 2048])
def test_more_pixels_than_announced_are_stored_with_a_warning(check, extra: int) -> None:
    dataset = an_image()
    dataset.PixelData = dataset.PixelData + bytes(extra + extra % 2)
    received = check(file_of(dataset))
    assert received.problem is None
    assert received.warning.status == 0xB007
    assert received.warning.comment == f"Pixel Data has {2048 + extra + extra % 2} bytes, not 2048"


def test_a_byte_that_fills_up_an_odd_length_is_none_too_many(check) -> None:
    dataset = an_image(Rows=3, Columns=3, BitsAllocated=8, BitsStored=8, HighBit=7)
    dataset.PixelData = bytes(10)
    assert check(file_of(dataset)).warning is None
    dataset.PixelData = bytes(12)
    assert check(file_of(dataset)).warning is not None


@pytest.mark.parametrize(("keyword", "width"), [("FloatPixelData", 4), ("DoubleFloatPixelData", 8)])
def test_pixels_that_are_floats_are_counted_too(check, keyword: str, width: int) -> None:
    whole = an_image(PixelData=None, **{keyword: bytes(1024 * width)})
    assert check(file_of(whole)).warning is None
    cut = an_image(PixelData=None, **{keyword: bytes(1024 * width - width)})
    assert refusal(check(file_of(cut))).status == 0xC000


@pytest.mark.parametrize("kind", ["YBR_FULL_422", "YBR_PARTIAL_422"])
def test_subsampled_colour_has_two_samples_a_pixel(check, kind: str) -> None:
    dataset = an_image(SamplesPerPixel=3, PhotometricInterpretation=kind, PlanarConfiguration=0)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = bytes(32 * 32 * 2)
    received = check(file_of(dataset))
    assert (received.problem, received.warning) == (None, None)


def test_an_image_without_pixels_is_refused(check) -> None:
    found = refusal(check(file_of(an_image(PixelData=None))))
    assert found.comment == "no Pixel Data, but 32 rows, 32 columns"


@pytest.mark.parametrize(
    ("changes", "comment"),
    [
        ({"Modality": None}, "Modality is missing"),
        ({"Modality": ""}, "Modality is missing"),
        ({"PatientID": None}, "Patient ID is missing"),
        ({"Rows": None}, "Rows is missing"),
        ({"Columns": 0}, "Columns is missing"),
        ({"BitsAllocated": 0}, "Bits Allocated is missing"),
        ({"SamplesPerPixel": None}, "Samples per Pixel is missing"),
    ],
)
def test_what_the_node_will_need_and_lacks_is_a_warning(check, changes, comment: str) -> None:
    received = check(file_of(an_image(**changes)))
    assert received.problem is None
    assert (received.warning.status, received.warning.comment) == (0xB007, comment)


@pytest.mark.parametrize("changes", [{"PatientID": ""}, {"PatientName": None}])
def test_what_may_be_empty_or_is_not_needed_is_no_warning(check, changes) -> None:
    assert check(file_of(an_image(**changes))).warning is None


@pytest.mark.parametrize(
    ("vr", "comment"),
    [(b"US", "Rows is not one number of 16 bits"), (b"UL", "Rows has the VR UL")],
)
def test_rows_in_another_type_cannot_be_understood(check, vr: bytes, comment: str) -> None:
    content = file_of(an_image()).replace(
        element(0x00280010, b"US", b"\x20\0"), element(0x00280010, vr, b"\x20\0\0\0")
    )
    for cut in (len(content), content.rindex(struct.pack("<HH", 0x7FE0, 0x0010))):
        found = refusal(check(content[:cut]))  # also where there are no pixels
        assert (found.comment, found.offending) == (comment, (0x00280010,))


@pytest.mark.parametrize("tag", [0x00080016, 0x0020000D])
def test_a_uid_in_another_type_cannot_be_understood(check, tag: int) -> None:
    content = file_of(an_image())
    header = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, b"UI")
    start = content.index(header, start_of(content))
    found = refusal(check(content[: start + 4] + b"US" + content[start + 6 :]))
    assert found.status == 0xC000
    assert found.comment.endswith("cannot be read as a UID")


@pytest.mark.parametrize(
    ("tag", "vr"),
    [
        (0x00080005, b"US"),
        (0x00080016, b"LO"),
        (0x00080018, b"OB"),
        (0x0020000E, b"SH"),
        (0x00280010, b"DS"),
        (0x00280100, b"OW"),
        (0x00280004, b"UI"),
    ],
)
def test_what_an_object_is_judged_by_has_its_own_vr(check, tag: int, vr: bytes) -> None:
    content = file_of(an_image())
    start = content.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF), start_of(content))
    length = int.from_bytes(content[start + 6 : start + 8], "little")
    value = content[start + 8 : start + 8 + length]
    changed = content[:start] + element(tag, vr, value) + content[start + 8 + length :]
    found = refusal(check(changed))
    assert (found.status, found.offending) == (0xC000, (tag,))
    unknown = content[:start] + element(tag, b"UN", value) + content[start + 8 + length :]
    assert check(unknown).problem is None


@pytest.mark.parametrize(("vr", "refused"), [(b"OB", False), (b"UN", False), (b"UC", True)])
def test_pixels_are_bytes_or_words(check, vr: bytes, refused: bool) -> None:
    content = file_of(an_image())
    start = content.rindex(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW"))
    received = check(content[: start + 4] + vr + content[start + 6 :])
    assert (received.problem is not None) == refused


@pytest.mark.parametrize(
    ("changes", "comment", "tag"),
    [
        (
            {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"},
            "SOP Class UID differs from the command",
            0x00080016,
        ),
        ({"SOPInstanceUID": "1.2.3"}, "SOP Instance UID differs from the command", 0x00080018),
        ({"StudyInstanceUID": None}, "Study Instance UID is missing", 0x0020000D),
        ({"SeriesInstanceUID": "1.2.x"}, "Series Instance UID is not a UID", 0x0020000E),
    ],
)
def test_uids_that_do_not_match_are_refused_and_named(check, changes, comment, tag) -> None:
    dataset = an_image()
    meta = {
        k: getattr(dataset.file_meta, k)
        for k in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID")
    }
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            dataset[keyword]._value = value
    for keyword, value in meta.items():
        setattr(dataset.file_meta, keyword, value)
    assert refusal(check(file_of(dataset))) == Problem(
        status=0xA900, comment=comment, offending=(tag,)
    )


@pytest.mark.parametrize("size", [1 << 16, 1 << 20, 3 << 20])
def test_private_data_before_the_patient_hide_nothing(check, size: int) -> None:
    content = before(file_of(an_image()), 0x00100010, element(0x00091001, b"OB", bytes(size)))
    received = check(content)
    assert (received.problem, received.warning) == (None, None)
    assert received.attributes["Columns"] == 32


def test_uids_may_stand_out_of_order_even_behind_the_pixels(check) -> None:
    content = file_of(an_image())
    study = element(0x0020000D, b"UI", an_image().StudyInstanceUID.encode())
    study += b"\0" * (len(study) % 2)
    moved = element(0x0020000D, b"UI", study[8:])
    assert moved in content
    received = check(content.replace(moved, b"") + moved)
    assert received.problem is None
    assert received.attributes["StudyInstanceUID"] == an_image().StudyInstanceUID


def test_what_is_refused_is_told_with_the_series_it_says_it_is_of(check) -> None:
    received = check(file_of(an_image())[:-5])
    assert received.attributes["SeriesInstanceUID"] == an_image().SeriesInstanceUID


def tiny(count: int) -> bytes:
    """Empty private elements, in ascending order."""
    return b"".join(
        struct.pack("<HH2sH", 0x0041 + 2 * (n // 60000), 0x1000 + n % 60000, b"LO", 0)
        for n in range(count)
    )


def test_more_elements_than_are_allowed_are_refused(check) -> None:
    sound = file_of(an_image())
    known = len(an_image())
    assert check(before(sound, PIXEL_DATA, tiny(100_000 - known))).problem is None
    found = refusal(check(before(sound, PIXEL_DATA, tiny(100_001 - known))))
    assert found == Problem(status=0xC000, comment="data set has more than 100000 elements")


def test_more_items_than_are_allowed_are_refused(check) -> None:
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 1_000_001
    content = before(file_of(an_image()), PIXEL_DATA, element(0x0040A730, b"SQ", items))
    found = refusal(check(content))
    assert found == Problem(status=0xC000, comment="data set has more than 1000000 items")


def test_objects_of_many_elements_take_turns_and_others_do_not(check) -> None:
    turns = Turns()
    check(file_of(an_image()), heavy=turns)
    assert turns.taken == 0
    check(before(file_of(an_image()), PIXEL_DATA, tiny(30_000)), heavy=turns)
    assert turns.taken == 1


def test_deflated_data_sets_are_refused_before_they_are_inflated(check) -> None:
    received = check(file_of(an_image()), "1.2.840.10008.1.2.1.99")
    assert received == Received(
        attributes={},
        problem=Problem(status=0xC000, comment="deflated data sets are not accepted"),
    )


@pytest.mark.parametrize("content", [b"", b"\0", bytes(3000), b"GIF89a" * 100])
def test_junk_is_no_data_set(check, content: bytes) -> None:
    assert refusal(check(content)).comment == "not a DICOM data set"
