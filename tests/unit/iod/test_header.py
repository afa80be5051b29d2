"""Header attributes: plain values, tolerant of bad ones, never reading the pixels."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_node.domain.errors import NotDicom
from dicom_node.iod.elements import MAX_HEADER_BYTES
from dicom_node.iod.header import KEYWORDS, read_attributes, transfer_syntax
from dicom_node.testing.series import Header, Pixels, a_series, file_of

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
BIG, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"


def explicit(*elements: tuple[int, bytes, bytes]) -> bytes:
    """A bare data set of short elements, exactly as given."""
    return b"".join(
        struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value
        for tag, vr, value in elements
    )


def attributes_of(*elements: tuple[int, bytes, bytes]) -> dict[str, object]:
    return read_attributes(explicit(*elements), "1.2.840.10008.1.2.1")


def test_values_have_the_types_of_their_vr() -> None:
    dataset = a_series(1)[0]
    attributes = read_attributes(file_of(dataset))
    assert attributes["SOPInstanceUID"] == dataset.SOPInstanceUID
    assert attributes["ImageType"] == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert attributes["PixelSpacing"] == (8.0, 8.0)
    assert attributes["SliceThickness"] == 3.0
    assert attributes["InstanceNumber"] == 1
    assert attributes["Rows"] == 32
    assert attributes["PatientName"] == "Phantom^Chest"
    assert attributes["StudyDate"] == "20260105"
    assert "StationName" not in attributes  # absent
    assert "ReferringPhysicianName" not in attributes  # empty


def test_every_keyword_is_in_the_dictionary() -> None:
    assert len(set(KEYWORDS)) == len(KEYWORDS)
    assert all(pydicom.datadict.tag_for_keyword(k) is not None for k in KEYWORDS)


@pytest.mark.parametrize("syntax", [IMPLICIT, BIG])
def test_other_codings_give_the_same_values(syntax: str) -> None:
    usual = read_attributes(file_of(a_series(1)[0]))
    dataset = a_series(1)[0]
    dataset.file_meta.TransferSyntaxUID = syntax
    coded = file_of(dataset)
    assert read_attributes(coded) == usual
    assert transfer_syntax(coded) == syntax


def test_a_deflated_data_set_is_read() -> None:
    usual = file_of(a_series(1)[0])
    dataset = a_series(1)[0]
    dataset.file_meta.TransferSyntaxUID = DEFLATED
    assert read_attributes(file_of(dataset)) == read_attributes(usual)


def test_a_deflate_bomb_is_inflated_no_further_than_a_header() -> None:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    start = explicit((0x00080060, b"CS", b"CT"))
    bomb = compressor.compress(start + bytes(64 * MAX_HEADER_BYTES)) + compressor.flush()
    assert read_attributes(bomb, DEFLATED) == {"Modality": "CT"}


def test_a_file_and_its_bytes_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    path.write_bytes(file_of(a_series(1)[0]))
    assert read_attributes(path) == read_attributes(path.read_bytes())
    assert transfer_syntax(path) == "1.2.840.10008.1.2.1"


def test_a_file_without_preamble_is_read() -> None:
    content = file_of(a_series(1)[0])
    meta_only = content[132:]
    assert read_attributes(meta_only)["Modality"] == "CT"
    assert transfer_syntax(meta_only) == "1.2.840.10008.1.2.1"


def test_a_bare_data_set_is_read_and_its_coding_guessed() -> None:
    coded = explicit((0x00080060, b"CS", b"CT"), (0x00280010, b"US", b"\x20\x00"))
    assert read_attributes(coded) == {"Modality": "CT", "Rows": 32}
    implicit = struct.pack("<HHI", 8, 0x60, 2) + b"MR"
    assert read_attributes(implicit) == {"Modality": "MR"}


@pytest.mark.parametrize(
    "junk",
    [b"", b"\0", b"GIF89a" + bytes(200), bytes(4096), b"<html></html>" * 50, b"\xff" * 300],
)
def test_junk_is_not_dicom(junk: bytes) -> None:
    with pytest.raises(NotDicom):
        read_attributes(junk)


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x00180050, b"DS", b"thick "),
        (0x00180050, b"DS", b"NaN "),
        (0x00180050, b"DS", b"1e999 "),
        (0x00180050, b"DS", b"1_0 "),
        (0x00280030, b"DS", b"0.7\\x "),
        (0x00200013, b"IS", b"1.5 "),
        (0x00200013, b"IS", b"  "),
        (0x00280010, b"US", b"\x20"),
        (0x00280010, b"US", b""),
        (0x00080060, b"CS", b" \0"),
    ],
)
def test_a_bad_value_is_left_out_and_the_rest_is_read(tag: int, vr: bytes, value: bytes) -> None:
    elements = [(tag, vr, value), (0x00100020, b"LO", b"ID")]
    assert attributes_of(*sorted(elements)) == {"PatientID": "ID"}


def test_whole_numbers_written_as_decimals_are_whole() -> None:
    assert attributes_of((0x00200013, b"IS", b"12.0"))["InstanceNumber"] == 12


def test_a_known_attribute_in_vr_un_is_read_by_its_own_vr() -> None:
    un = struct.pack("<HH2sxxI", 0x0018, 0x0050, b"UN", 4) + b"2.5 "
    assert read_attributes(un, "1.2.840.10008.1.2.1") == {"SliceThickness": 2.5}


def test_padding_values_have_the_sign_of_the_pixels() -> None:
    unsigned = attributes_of((0x00280103, b"US", b"\0\0"), (0x00280120, b"US", b"\x30\xf8"))
    signed = attributes_of((0x00280103, b"US", b"\1\0"), (0x00280120, b"US", b"\x30\xf8"))
    assert unsigned["PixelPaddingValue"] == 63536
    assert signed["PixelPaddingValue"] == -2000


def test_values_longer_than_any_text_may_be_are_left_out() -> None:
    assert attributes_of((0x00080060, b"CS", b"CT"), (0x00081030, b"LO", b"x" * 20000)) == {
        "Modality": "CT"
    }


def test_a_cut_header_gives_what_came_before_the_cut() -> None:
    content = file_of(a_series(1)[0])
    end = content.index(b"Phantom^Chest")
    attributes = read_attributes(content[: end + 4])
    assert attributes["Modality"] == "CT"
    assert "PatientName" not in attributes


def test_a_large_private_value_before_the_geometry_is_passed_over(tmp_path: Path) -> None:
    dataset = a_series(1)[0]
    block = dataset.private_block(0x0019, "DICOM-NODE TEST", create=True)
    block.add_new(1, "OB", bytes(300_000))
    path = tmp_path / "image.dcm"
    path.write_bytes(file_of(dataset))
    assert read_attributes(path)["PixelSpacing"] == (8.0, 8.0)


def test_a_long_private_value_hides_nothing(tmp_path: Path) -> None:
    dataset = a_series(1)[0]
    block = dataset.private_block(0x0009, "DICOM-NODE TEST", create=True)
    block.add_new(1, "OB", bytes(2 * MAX_HEADER_BYTES))
    content, path = file_of(dataset), tmp_path / "image.dcm"
    path.write_bytes(content)
    attributes = read_attributes(path)
    assert "PixelSpacing" in attributes
    assert read_attributes(content) == attributes


def test_of_what_is_twice_the_first_is_read() -> None:
    twice = explicit((0x00080060, b"CS", b"CT"), (0x00080060, b"CS", b"MR"))
    assert read_attributes(twice, EXPLICIT) == {"Modality": "CT"}


def test_uids_are_found_also_behind_the_pixels() -> None:
    dataset = a_series(1)[0]
    content = file_of(dataset)
    uid = explicit((0x0020000D, b"UI", dataset.StudyInstanceUID.encode() + b"\0"))
    uid = (
        uid if uid in content else explicit((0x0020000D, b"UI", dataset.StudyInstanceUID.encode()))
    )
    assert uid in content
    assert read_attributes(content.replace(uid, b"") + uid) == read_attributes(content)


@pytest.mark.parametrize(
    ("character_set", "value", "expected"),
    [
        (b"ISO_IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
        (b"ISO_IR 192", "Wang^XiaoDong=王^小東=".encode(), "Wang^XiaoDong=王^小東"),
        (b"GB18030", "Wang^XiaoDong=王^小东=".encode("gb18030"), "Wang^XiaoDong=王^小东"),
        (b"ISO_IR 144", "Люкceмбypг".encode("iso8859_5"), "Люкceмбypг"),
        (b"ISO-IR 100", b"J\xe9r\xf4me ", "Jérôme"),  # misspelt, as met in the field
        (
            b"\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
            "Yamada^Tarou=山田^太郎",
        ),
        (
            b"\\ISO 2022 IR 149",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce",
            "Hong^Gildong=洪^吉",
        ),
        (b"", "Müller".encode(), "Müller"),  # undeclared UTF-8
        (b"", b"M\xfcller", "Müller"),  # undeclared Latin-1
        (b"ISO_IR 192", b"M\xfcller", "M�ller"),
        (b"NONSENSE", b"M\xfcller", "Müller"),
    ],
)
def test_names_are_decoded_by_their_character_set(
    character_set: bytes, value: bytes, expected: str
) -> None:
    padded = character_set + b" " * (len(character_set) % 2)
    attributes = attributes_of(
        (0x00080005, b"CS", padded), (0x00100010, b"PN", value + b" " * (len(value) % 2))
    )
    assert attributes["PatientName"] == expected


def test_sequences_are_passed_over() -> None:
    dataset = a_series(1, header=Header(extra={"PatientComments": "none"}))[0]
    item = Dataset()
    item.PatientID = "INNER"
    dataset.OtherPatientIDsSequence = [item]
    attributes = read_attributes(file_of(dataset))
    assert attributes["PatientID"] == "PHANTOM-0"
    assert "OtherPatientIDsSequence" not in attributes


def test_compressed_images_are_read_up_to_their_pixels() -> None:
    dataset = a_series(1, pixels=Pixels(transfer_syntax="1.2.840.10008.1.2.5"))[0]
    content = file_of(dataset)
    assert transfer_syntax(content) == "1.2.840.10008.1.2.5"
    assert read_attributes(content)["Columns"] == 32
