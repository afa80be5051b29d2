"""A result as pictures for an old PACS: in the right place, labelled, and the same each time."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from io import BytesIO

import numpy as np
import pydicom
import pytest

from dicom_node.decide.geometry import Fault
from dicom_node.domain.tool import AlgorithmIdentity, Code, Segment, SegmentationResult
from dicom_node.domain.volume import Volume
from dicom_node.iod import overlay
from dicom_node.iod.header import read_attributes
from dicom_node.iod.image import read_volume
from dicom_node.iod.replacing import Replacement
from dicom_node.iod.secondary import IMAGES_MAX, encode_secondary_captures
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.testing.series import STORED_AS, Header, a_series, turned, write_files, write_series

LUNG = Code(value="39607008", scheme="SCT", meaning="Lung")
RED, GREEN = (255, 0, 0), (0, 255, 0)
SEGMENTS = tuple(
    Segment(number=n, label=label, category=LUNG, type=LUNG, laterality=None, rgb=rgb)
    for n, label, rgb in ((1, "Right lung", RED), (2, "Left lung", GREEN))
)
WHO = AlgorithmIdentity(tool_id="lung-unet", name="Lung U-Net", version="1.2.0", digest="ab" * 32)
NOON = datetime(2026, 1, 5, 12, 0, 0)
EARLIER = Replacement(kind="sc", sop_instance_uid="2.25.5", series_uid="2.25.6")


def made(paths, labels=None, *, warnings=(), doubts=(), settings=None, replaces=(), who=WHO):
    volume = read_volume(paths, tolerate=frozenset(Fault))
    by_uid = {read_attributes(p)["SOPInstanceUID"]: p for p in paths}
    if labels is None:
        labels = np.zeros(volume.voxels_zyx.shape, np.uint8)
        labels[:, 8:16, 6:14], labels[:, 8:16, 18:26] = 1, 2
    captures = encode_secondary_captures(
        SegmentationResult(
            labels_zyx=labels,
            segments=SEGMENTS,
            notes=("A note.",),
            warnings=warnings,
            doubts=doubts,
        ),
        volume=volume,
        source_paths=[by_uid[uid] for uid in volume.instance_uids],
        identity=who,
        settings=settings or SegSettings(),
        series_uid="2.25.77",
        content_at=NOON,
        replaces=replaces,
    )
    return list(captures)


def read(captures):
    return [pydicom.dcmread(BytesIO(capture.data)) for capture in captures]


@pytest.fixture
def paths(tmp_path):
    return write_files(tmp_path, a_series(6))


def test_there_is_one_image_a_slice_in_one_series_of_the_source_study(paths):
    captures = made(paths)
    images, sources = read(captures), [pydicom.dcmread(p) for p in paths]
    assert [c.sop_instance_uid for c in captures] == [i.SOPInstanceUID for i in images]
    assert len({i.SOPInstanceUID for i in images}) == 6
    assert {i.SeriesInstanceUID for i in images} == {"2.25.77"}
    for image, source in zip(images, sources, strict=True):
        assert image.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
        assert image.StudyInstanceUID == source.StudyInstanceUID
        assert image.PatientName == source.PatientName
        assert image.PatientID == source.PatientID
        assert image.InstanceNumber == source.InstanceNumber
        (of,) = image.SourceImageSequence
        assert of.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert image.Modality == "OT"
        assert image.ConversionType == "WSD"


def test_the_same_result_gives_the_same_bytes(paths):
    assert made(paths) == made(paths)


def test_segments_lie_where_they_are_and_have_their_colours(paths):
    labels = np.zeros((6, 32, 32), np.uint8)
    labels[2, 10:20, 4:12], labels[4, 10:20, 20:30] = 1, 2
    images = read(made(paths, labels))
    for index, image in enumerate(images):
        picture = image.pixel_array.astype(int)
        factor = picture.shape[0] // 32
        red = (picture[..., 0] - picture[..., 1] > 100) & (picture[..., 2] < 128)
        green = (picture[..., 1] - picture[..., 0] > 100) & (picture[..., 2] < 128)
        for mask, number in ((red, 1), (green, 2)):
            block = np.zeros((32, 32), bool)
            drawn = mask.reshape(32, factor, 32, factor).mean(axis=(1, 3)) > 0.9
            block[:] = labels[index] == number
            free = np.zeros((32, 32), bool)
            free[8:22, 3:29] = True  # away from what is burned in
            assert (drawn[free] == block[free]).all()


def test_inside_a_segment_the_image_can_be_seen(paths):
    before = np.full((64, 64), 100, np.uint8)
    before[30:34] = 200
    labels = np.ones((64, 64), np.uint8)
    picture = overlay.drawn(before, labels, {1: RED})
    assert picture[64, 64].tolist() != picture[128, 128].tolist()


@pytest.mark.parametrize(
    ("stored_as", "right", "bottom"),
    [("HFS", "L", "P"), ("HFP", "R", "A"), ("FFS", "R", "P"), ("coronal", "L", "F")],
)
def test_orientation_is_that_of_the_patient(tmp_path, stored_as, right, bottom):
    affine = np.diag([3.0, 8.0, 8.0, 1.0])[[2, 1, 0, 3]]
    volume = Volume(voxels_zyx=np.zeros((8, 32, 32), np.int16), affine_lps_mm=affine)
    paths = write_series(tmp_path, turned(volume, STORED_AS[stored_as]))
    shape = read_volume(paths, tolerate=frozenset(Fault)).voxels_zyx.shape
    image = read(made(paths, np.zeros(shape, np.uint8)))[0]
    assert list(image.PatientOrientation) == [right, bottom]


def test_letters_of_oblique_directions_name_the_nearest_first():
    assert overlay.letters((1.0, 0.0, 0.0)) == "L"
    assert overlay.letters((-0.8, 0.6, 0.0)) == "RP"
    assert overlay.letters((0.0, -0.1, -0.99)) == "F"
    assert overlay.opposite("RP") == "LA"


def test_a_long_stack_is_shown_by_some_of_its_slices(tmp_path):
    paths = write_files(tmp_path, a_series(IMAGES_MAX + 50, size=16))
    images = read(made(paths, np.zeros((IMAGES_MAX + 50, 16, 16), np.uint8)))
    assert len(images) == (IMAGES_MAX + 50) // 2
    assert "one of every 2 images" in images[0].DerivationDescription


def test_small_images_are_enlarged_and_large_ones_reduced_by_whole_factors():
    assert overlay.factor(512, 512) == (1, 1)
    assert overlay.factor(64, 64) == (4, 1)
    assert overlay.factor(1024, 1024) == (1, 2)
    assert overlay.factor(100, 512) == (1, 1)
    picture = overlay.drawn(np.zeros((1025, 1025), np.uint8), np.zeros((1025, 1025), np.uint8), {})
    assert picture.shape == (341, 341, 3)


def test_what_is_burned_in_names_no_patient_unless_the_source_does(tmp_path, paths):
    assert {i.BurnedInAnnotation for i in read(made(paths))} == {"NO"}
    burned = a_series(3, header=Header(extra={"BurnedInAnnotation": "YES"}))
    folder = tmp_path / "burned"
    assert {i.BurnedInAnnotation for i in read(made(write_files(folder, burned)))} == {"YES"}


def test_pixels_that_were_lossy_stay_so(tmp_path):
    extra = {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": "10.5",
        "LossyImageCompressionMethod": "ISO_10918_1",
    }
    (image, *_) = read(made(write_files(tmp_path, a_series(3, header=Header(extra=extra)))))
    assert image.LossyImageCompression == "01"
    assert float(image.LossyImageCompressionRatio) == 10.5
    assert image.LossyImageCompressionMethod == "ISO_10918_1"


def test_research_use_is_burned_in_and_said_unless_the_site_says_otherwise(paths):
    said = read(made(paths))[0]
    unsaid = read(made(paths, settings=SegSettings(research_use=False)))[0]
    assert "NOT FOR CLINICAL USE" in said.SeriesDescription
    assert "NOT FOR CLINICAL USE" not in unsaid.SeriesDescription
    foot = slice(-16, None)
    assert (said.pixel_array[foot] != unsaid.pixel_array[foot]).any()


def test_a_replaced_series_is_named(paths):
    image = read(made(paths, replaces=[EARLIER]))[0]
    (related,) = image.RelatedSeriesSequence
    assert related.SeriesInstanceUID == "2.25.6"
    assert "Replaces series 2.25.6" in image.ImageComments
    assert "RelatedSeriesSequence" not in read(made(paths))[0]


def test_warnings_are_burned_in_and_written(paths):
    warned = read(made(paths, warnings=("the slices are thick",)))[0]
    assert "the slices are thick" in warned.ImageComments
    assert (warned.pixel_array != read(made(paths))[0].pixel_array).any()


def test_a_long_warning_is_burned_in_whole_on_as_many_lines_as_it_takes(paths):
    words = [f"word{n}" for n in range(24)]
    longer, shorter = (
        read(made(paths, warnings=(f"Warning: {' '.join(some)}.",)))[0].pixel_array
        for some in (words, words[:-1])
    )
    assert (longer != shorter).any(), "the last word is in the picture, too"
    lines = overlay.wrapped([(f"Warning: {' '.join(words)}.", None)], longer.shape[1], 99)
    assert len(lines) > 2
    assert " ".join(text for text, _ in lines) == f"Warning: {' '.join(words)}."


def test_lines_keep_their_colour_and_end_with_dots_where_there_is_no_room():
    lines = [("short", None), ("one two three four five six seven eight nine ten", RED)]
    assert overlay.wrapped(lines, 1000, 9) == lines
    narrow = overlay.wrapped(lines, 100, 9)
    assert [colour for _, colour in narrow] == [None, RED, *[None] * (len(narrow) - 2)]
    cut = overlay.wrapped(lines, 100, 3)
    assert len(cut) == 3
    assert cut[-1][0].endswith(" ...")
    assert overlay.wrapped([("w" * 99, None)], 100, 9) == [("w" * 99, None)]


def test_an_overlay_and_a_doubt_are_named_however_long_the_name_of_the_model_is(paths):
    who = replace(WHO, name="Lungs of adults on CT, by a distilled U-Net of two and a half D")
    image = read(made(paths, doubts=("It may be wrong.",), who=who))[0]
    assert " overlay, DOUBTFUL - " in image.SeriesDescription
    assert len(image.SeriesDescription) <= 64
