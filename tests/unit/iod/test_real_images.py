"""Real CT series, and real objects with something odd about them."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom_node.decide.geometry import Fault, NotAStack, Stack, split_localizers, stack_of
from dicom_node.domain.errors import NotAVolume, PixelsUndecodable
from dicom_node.domain.volume import canonical
from dicom_node.iod.checks import check_stored
from dicom_node.iod.header import KEYWORDS, read_attributes, transfer_syntax
from dicom_node.iod.image import read_headers, read_volume
from dicom_node.iod.received import check_received

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore::UserWarning"),  # pydicom, on what is odd
]


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file())


SERIES = {
    "test/lung1-001": (134, 3.0, "HFS"),
    "test/lungdx-a0001": (64, 5.0, "HFS"),
    "test/cmb-crc-01068": (100, 2.5, "FFS"),
    "test/lidc-0001-part": (16, 2.5, "FFS"),
}


@pytest.mark.parametrize("name", SERIES)
def test_a_chest_series_is_read_as_other_libraries_read_it(real_data: Path, name: str) -> None:
    slices, spacing_mm, position = SERIES[name]
    paths = files(real_data / name)
    volume = read_volume(paths)
    assert volume.voxels_zyx.shape == (slices, 512, 512)
    assert volume.voxels_zyx.dtype == np.int16
    assert volume.spacing_zyx_mm[0] == pytest.approx(spacing_mm)
    assert volume.voxels_zyx.min() >= -1024
    index = {uid: i for i, uid in enumerate(volume.instance_uids)}
    for path in paths[:: slices // 8]:
        dataset = pydicom.dcmread(path)
        assert dataset.PatientPosition == position
        hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        found = volume.voxels_zyx[index[dataset.SOPInstanceUID]]
        np.testing.assert_array_equal(found, np.maximum(hu, -1024))
        place = volume.affine_lps_mm @ [index[dataset.SOPInstanceUID], 0, 0, 1]
        np.testing.assert_allclose(place[:3], dataset.ImagePositionPatient, atol=0.01)


@pytest.mark.parametrize("name", SERIES)
def test_a_chest_series_has_the_table_behind_and_air_in_front(real_data: Path, name: str) -> None:
    turned, _ = canonical(read_volume(files(real_data / name)))
    dense = (turned.voxels_zyx[:, :, ::4] > 300).sum(axis=(0, 2))
    middle = np.average(np.arange(512), weights=dense)
    heights = turned.voxels_zyx.shape[1] / 2
    assert middle > heights * 0.9  # spine and table are in the back half


@pytest.mark.parametrize("name", SERIES)
def test_a_series_on_its_way_has_a_hole(real_data: Path, name: str) -> None:
    headers = read_headers(files(real_data / name))
    whole = stack_of(headers)
    assert isinstance(whole, Stack)
    arrived = [h for h in headers if h["SOPInstanceUID"] != whole.uids[5]]
    judged = stack_of(arrived)
    assert isinstance(judged, NotAStack)
    assert (judged.fault, judged.missing) == (Fault.HOLE, 1)


def all_files(folder: Path) -> list[Path]:
    found = (p for p in folder.rglob("*") if p.is_file() and p.suffix in (".dcm", ""))
    return [p for p in found if not p.name.startswith(".")]


def test_no_header_raises(real_data: Path) -> None:
    read = [read_attributes(p) for p in all_files(real_data)]
    assert len(read) > 300
    assert all(set(a) <= set(KEYWORDS) for a in read)


def test_what_real_archives_hold_can_be_stored(real_data: Path) -> None:
    refused: dict[str, str] = {}
    for path in all_files(real_data):
        attributes = read_attributes(path)
        uids = (attributes.get(k, "1.2") for k in ("SOPClassUID", "SOPInstanceUID"))
        problem = check_stored(path, *map(str, uids))
        if problem is not None:
            refused.setdefault(f"{path.parent.name}/{path.name}", problem.comment)
    assert {name.split("/")[0] for name in refused} == {
        "charsets",  # two without any UID, two whose pixels were taken out
        "dose-report-and-localizer",  # one that cannot be walked, two without their pixels
        "no-sop-class",
        "pydicom-data-ct",  # one whose SOP Instance UID is none
    }
    assert len(refused) == 4 + 3 + 4 + 1


def test_what_real_archives_hold_is_taken_in_as_it_can_be_stored(real_data: Path) -> None:
    warned: list[str] = []
    for path in all_files(real_data):
        attributes = read_attributes(path)
        uids = [str(attributes.get(k, "1.2")) for k in ("SOPClassUID", "SOPInstanceUID")]
        received = check_received(
            path,
            expected_class=uids[0],
            expected_instance=uids[1],
            transfer_syntax=transfer_syntax(path),
            heavy=nullcontext(),
        )
        stored = check_stored(path, *uids)
        assert (received.problem is None) == (stored is None), path
        assert received.problem is not None or received.attributes == attributes
        if received.warning is not None:
            warned.append(f"{path.parent.name}: {received.warning.comment}")
    assert warned == ["lungmask-bare: Modality is missing"] * 2


@pytest.mark.parametrize(
    ("name", "fault", "words"),
    [
        ("gap-ge-noise", Fault.HOLE, "1 plane is missing after position 28.1 mm"),
        ("ge-tilt-variable-spacing", Fault.SHEAR, "sheared by 18.5°"),
        ("philips-tilt-and-localizer", Fault.ORIENTATION, "2 orientations (3 and 3 planes)"),
        ("mixed-orientation-mr-noise", Fault.ORIENTATION, "2 orientations (2 and 2 planes)"),
        ("reformats-acrin013", Fault.ORIENTATION, "2 orientations (2 and 2 planes)"),
        ("same-position-ct-monitor", Fault.DUPLICATE, "all 2 planes lie at the same position"),
        ("supine-far-apart-two-slices", Fault.TOO_FEW, "2 planes make no stack"),
        ("prone-single-slices", Fault.MATRIX, "pixel spacing varies"),
        ("enhanced-ct", Fault.MULTI_FRAME, "a multi-frame object of 2 frames"),
        ("enhanced-mr", Fault.MULTI_FRAME, "a multi-frame object of 8 frames"),
        ("philips-exam-summary", Fault.TOO_FEW, "there is no image plane"),
        ("dose-report-and-localizer", Fault.TOO_FEW, "there is no image plane"),
        ("charsets", Fault.NO_POSITION, "no Image Position (Patient)"),
        ("undecodable-j2k-phantom", Fault.FRAMES_OF_REFERENCE, "2 frames of reference"),
    ],
)
def test_what_is_no_stack_says_why(real_data: Path, name: str, fault: Fault, words: str) -> None:
    judged = stack_of(split_localizers(read_headers(files(real_data / f"quirks/{name}"))).volume)
    assert isinstance(judged, NotAStack)
    assert judged.fault is fault
    assert words in judged.reason


@pytest.mark.parametrize(
    "name", ["cerr-hn-511", "head-c3n", "ibsi-phantom-one-lung", "pelvis-acrin001", "mr-liver"]
)
def test_what_is_merely_odd_is_a_stack(real_data: Path, name: str) -> None:
    volume = read_volume(files(real_data / f"quirks/{name}"))
    assert len(volume.voxels_zyx) >= 3


def test_the_localizer_is_set_aside(real_data: Path) -> None:
    split = split_localizers(read_headers(files(real_data / "quirks/philips-tilt-and-localizer")))
    assert [reason for _, reason in split.others] == ["it is a localizer, by its Image Type"]


def test_a_fractional_slope_gives_fractional_units(real_data: Path) -> None:
    volume = read_volume(files(real_data / "quirks/rtog-slope-1.001"))
    assert volume.voxels_zyx.dtype == np.float32


def test_multi_frame_and_colour_are_refused(real_data: Path) -> None:
    with pytest.raises(NotAVolume, match="multi-frame"):
        read_volume(files(real_data / "quirks/enhanced-ct"))
    with pytest.raises(NotAVolume, match="colour picture"):
        read_volume(files(real_data / "quirks/philips-exam-summary")[-1:])


def test_undecodable_pixels_are_named(real_data: Path) -> None:
    with pytest.raises(PixelsUndecodable, match="JPEG 2000 code stream is damaged"):
        read_volume(
            files(real_data / "quirks/undecodable-j2k-phantom")[:1], tolerate={Fault.TOO_FEW}
        )


@pytest.mark.parametrize("image", ["CT1", "CT2"])
def test_all_compressions_of_one_image_are_one_image(real_data: Path, image: str) -> None:
    folder = real_data / "quirks" / "wg04-ct-syntaxes"
    read = {
        kind: read_volume([folder / f"{image}_{kind}"], tolerate={Fault.TOO_FEW}).voxels_zyx
        for kind in ("RLE", "JPLL", "JLSL", "J2KR", "JLSN", "J2KI")
    }
    for one, other in pairwise(("RLE", "JPLL", "JLSL", "J2KR")):
        np.testing.assert_array_equal(read[one], read[other])
    near = np.abs(read["JLSN"].astype(int) - read["RLE"])
    assert 0 < near.max() <= 10
    lossy = np.corrcoef(read["J2KI"].ravel(), read["RLE"].ravel())[0, 1]
    assert 0.99 < lossy < 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chrArab", "قباني^لنزار"),
        ("chrFren", "Buc^Jérôme"),
        ("chrGerm", "Äneas^Rüdiger"),
        ("chrGreek", "Διονυσιος"),
        ("chrH31", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("chrH32", "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        ("chrHbrw", "שרון^דבורה"),
        ("chrI2", "Hong^Gildong=洪^吉洞=홍^길동"),
        ("chrRuss", "Люкceмбypг"),
        ("chrX1", "Wang^XiaoDong=王^小東"),
        ("chrX2", "Wang^XiaoDong=王^小东"),
    ],
)
def test_names_of_the_world_are_read(real_data: Path, name: str, expected: str) -> None:
    found = read_attributes(real_data / "quirks" / "charsets" / f"{name}.dcm")
    assert found["PatientName"] == expected
