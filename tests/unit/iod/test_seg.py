"""A result becomes a Segmentation: every voxel in its place, everything needed in its header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from io import BytesIO
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_node.decide.geometry import Fault
from dicom_node.domain.errors import NotAVolume, NotDicom, ObjectError, PixelsUndecodable, ToolError
from dicom_node.domain.tool import AlgorithmIdentity, Code, Segment, SegmentationResult
from dicom_node.domain.volume import Volume
from dicom_node.iod import identity
from dicom_node.iod.checks import check_stored
from dicom_node.iod.header import read_attributes
from dicom_node.iod.identity import manner, result_uids
from dicom_node.iod.image import read_volume
from dicom_node.iod.seg import RESEARCH_USE, SegSettings, encode_segmentation
from dicom_node.iod.seg_read import read_segmentation
from dicom_node.testing.series import (
    STORED_AS,
    Header,
    Pixels,
    a_series,
    ct_series,
    moved,
    turned,
    write_files,
    write_series,
)

STRUCTURE = Code(value="91723000", scheme="SCT", meaning="Anatomical Structure")
LUNG = Code(value="39607008", scheme="SCT", meaning="Lung")
RIGHT = Code(value="24028007", scheme="SCT", meaning="Right")
LEFT = Code(value="7771000", scheme="SCT", meaning="Left")
LUNGS = (
    Segment(
        number=1,
        label="Right lung",
        category=STRUCTURE,
        type=LUNG,
        laterality=RIGHT,
        rgb=(0, 128, 255),
    ),
    Segment(
        number=2,
        label="Left lung",
        category=STRUCTURE,
        type=LUNG,
        laterality=LEFT,
        rgb=(255, 128, 0),
    ),
)
WHO = AlgorithmIdentity(
    tool_id="lung-unet", name="Lung U-Net", version="1.2.0", digest="ab" * 32, manufacturer="Makers"
)
UIDS = ("2.25.1", "2.25.2")
NOON = datetime(2026, 1, 5, 12, 0, 0)


def in_slice_order(paths: list[Path]) -> tuple[Volume, list[Path]]:
    volume = read_volume(paths, tolerate=frozenset(Fault))
    by_uid = {read_attributes(p)["SOPInstanceUID"]: p for p in paths}
    return volume, [by_uid[uid] for uid in volume.instance_uids]


def scattered_labels(shape: tuple[int, ...]) -> np.ndarray:
    """Labels without any symmetry, and two slices without one."""
    labels = np.random.default_rng(7).choice([0, 0, 0, 1, 2], shape).astype(np.uint8)
    labels[1] = 0
    labels[-1, :, :5] = 0
    labels[0] = 0
    return labels


def encoded(
    paths: list[Path],
    labels: np.ndarray | None = None,
    *,
    settings: SegSettings | None = None,
    notes: tuple[str, ...] = (),
    doubts: tuple[str, ...] = (),
    identity: AlgorithmIdentity = WHO,
) -> bytes:
    if labels is None:
        first = read_attributes(paths[0])
        labels = scattered_labels((len(paths), first["Rows"], first["Columns"]))
    return encode_segmentation(
        SegmentationResult(labels_zyx=labels, segments=LUNGS, notes=notes, doubts=doubts),
        source_paths=paths,
        identity=identity,
        settings=settings or SegSettings(),
        uids=UIDS,
        content_at=NOON,
    )


def parsed(content: bytes) -> Dataset:
    return pydicom.dcmread(BytesIO(content))


@pytest.fixture
def body() -> Volume:
    affine = np.array(
        [[0.0, 0.0, 0.7, -100.0], [0.0, 0.9, 0.0, -90.5], [2.5, 0.0, 0.0, 30.25], [0, 0, 0, 1]]
    )
    return Volume(voxels_zyx=np.zeros((7, 21, 27), np.int16), affine_lps_mm=affine)


def oblique(body: Volume) -> Volume:
    a, b = np.radians((20, -35))
    turn = np.eye(4)
    turn[:3, :3] = np.array(
        [[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]
    ) @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    turn[:3, 3] = 310.0, -77.7, -1203.4
    return moved(body, turn)


FAR_AWAY = np.array([[1.0, 0, 0, 1e3], [0, 1, 0, -900], [0, 0, 1, 2e3], [0, 0, 0, 1]])
BODIES = {
    **{name: (lambda v, order=order: turned(v, order)) for name, order in STORED_AS.items()},
    "oblique": oblique,
    "far away": lambda v: moved(v, FAR_AWAY),
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("omit", [True, False])
def test_highdicom_finds_every_voxel_in_its_source(
    tmp_path: Path, body: Volume, kind: str, omit: bool
) -> None:
    paths = write_series(tmp_path, BODIES[kind](body), shuffle_seed=2)
    volume, ordered = in_slice_order(paths)
    labels = scattered_labels(volume.voxels_zyx.shape)
    content = encoded(ordered, labels, settings=SegSettings(omit_empty_frames=omit))
    segmentation = highdicom.seg.Segmentation.from_dataset(parsed(content))
    found = segmentation.get_pixels_by_source_instance(
        volume.instance_uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(found, labels)
    filled = [len(set(np.unique(s)) & {1, 2}) for s in labels]
    expected = sum(filled) if omit else 2 * len(labels)
    assert segmentation.NumberOfFrames == expected


@pytest.mark.parametrize("kind", BODIES)
def test_every_frame_lies_on_its_source(tmp_path: Path, body: Volume, kind: str) -> None:
    _, ordered = in_slice_order(write_series(tmp_path, BODIES[kind](body), shuffle_seed=4))
    sources = {h["SOPInstanceUID"]: h for h in map(read_attributes, ordered)}
    dataset = parsed(encoded(ordered))
    first = next(iter(sources.values()))
    shared = dataset.SharedFunctionalGroupsSequence[0]
    assert tuple(shared.PixelMeasuresSequence[0].PixelSpacing) == first["PixelSpacing"]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    assert tuple(map(float, orientation)) == first["ImageOrientationPatient"]
    assert dataset.FrameOfReferenceUID == first["FrameOfReferenceUID"]
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        derived = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert derived.SpatialLocationsPreserved == "YES"
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        source = sources[derived.ReferencedSOPInstanceUID]
        assert tuple(map(float, position)) == source["ImagePositionPatient"]


def test_reading_back_gives_the_labels(tmp_path: Path, body: Volume) -> None:
    volume, ordered = in_slice_order(write_series(tmp_path / "ct", body, shuffle_seed=2))
    labels = scattered_labels(volume.voxels_zyx.shape)
    content = encoded(ordered, labels)
    np.testing.assert_array_equal(read_segmentation(content, volume.instance_uids), labels)
    path = tmp_path / "seg.dcm"
    path.write_bytes(content)
    reverse = read_segmentation(path, volume.instance_uids[::-1])
    np.testing.assert_array_equal(reverse, labels[::-1])


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path, body: Volume) -> None:
    _, ordered = in_slice_order(write_series(tmp_path, body))
    assert encoded(ordered, notes=("one",)) == encoded(ordered, notes=("one",))


def test_what_is_written_passes_the_node_s_own_check(tmp_path: Path, body: Volume) -> None:
    path = tmp_path / "seg.dcm"
    path.write_bytes(encoded(write_series(tmp_path / "ct", body)))
    assert check_stored(path, "1.2.840.10008.5.1.4.1.1.66.4", UIDS[1]) is None


def test_identity_and_references(tmp_path: Path, body: Volume) -> None:
    header = Header(extra={"LossyImageCompression": "00"})
    paths = write_series(tmp_path, body, header=header)
    dataset = parsed(encoded(paths))
    assert dataset.preamble == bytes(128)
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert (dataset.SeriesInstanceUID, dataset.SOPInstanceUID) == UIDS
    assert dataset.Modality == "SEG"
    assert dataset.SeriesNumber == 3002
    assert dataset.BodyPartExamined == "CHEST"
    assert dataset.SegmentsOverlap == "NO"
    assert dataset.LossyImageCompression == "00"
    assert dataset.ContentDate == dataset.SeriesDate == dataset.InstanceCreationDate == "20260105"
    assert dataset.ContentTime == dataset.SeriesTime == dataset.InstanceCreationTime == "120000"
    assert dataset.SoftwareVersions[:2] == ["lung-unet 1.2.0", "ab" * 32]
    equipment = dataset.ContributingEquipmentSequence[0]
    assert equipment.Manufacturer == "Makers"
    assert equipment.SoftwareVersions[1] == "ab" * 32
    references = dataset.ReferencedSeriesSequence
    assert [r.SeriesInstanceUID for r in references] == [header.series_uid]
    expected = {header.instance_uid(i) for i in range(7)}
    listed = {r.ReferencedSOPInstanceUID for r in references[0].ReferencedInstanceSequence}
    assert listed == expected


def test_segments_are_described(tmp_path: Path, body: Volume) -> None:
    right, left = parsed(encoded(write_series(tmp_path, body))).SegmentSequence
    assert (right.SegmentNumber, right.SegmentLabel) == (1, "Right lung")
    kind = right.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("39607008", "SCT")
    side = left.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert (side.CodeValue, side.CodeMeaning) == ("7771000", "Left")
    assert right.SegmentAlgorithmType == "AUTOMATIC"
    algorithm = right.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("Lung U-Net", "1.2.0")
    assert list(right.RecommendedDisplayCIELabValue) == [35860, 37725, 14668]
    assert right.TrackingUID.startswith("2.25.")
    assert right.TrackingUID != left.TrackingUID


def test_research_use_is_written_where_people_look(tmp_path: Path, body: Volume) -> None:
    paths = write_series(tmp_path, body)
    long = replace(WHO, name="A segmentation of both lungs by a network of a very long name")
    dataset = parsed(encoded(paths, identity=long, notes=("A doubt.",)))
    assert dataset.SeriesDescription.endswith(" - NOT FOR CLINICAL USE")
    assert dataset.SeriesDescription.startswith("A segmentation of both lungs")
    assert len(dataset.SeriesDescription) <= 64
    assert dataset.ContentDescription == RESEARCH_USE
    assert dataset.ImageComments == f"{RESEARCH_USE}. A doubt."
    released = parsed(encoded(paths, settings=SegSettings(research_use=False)))
    assert released.SeriesDescription == released.ContentDescription == "Lung U-Net"
    assert "ImageComments" not in released


def test_an_empty_result_is_a_readable_object(tmp_path: Path, body: Volume) -> None:
    volume, ordered = in_slice_order(write_series(tmp_path, body))
    labels = np.zeros(volume.voxels_zyx.shape, np.uint8)
    content = encoded(ordered, labels)
    dataset = parsed(content)
    assert dataset.NumberOfFrames == 2
    assert len(dataset.SegmentSequence) == 2
    assert len(dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 7
    assert "Nothing was found" in dataset.ImageComments
    assert dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[
        0
    ].SpacingBetweenSlices == pytest.approx(2.5)
    found = highdicom.seg.Segmentation.from_dataset(dataset).get_pixels_by_source_instance(
        volume.instance_uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    assert not found.any()
    assert not read_segmentation(content, volume.instance_uids).any()


def test_one_segment_alone_is_read_back(tmp_path: Path, body: Volume) -> None:
    volume, ordered = in_slice_order(write_series(tmp_path, body))
    labels = (scattered_labels(volume.voxels_zyx.shape) == 1).astype(np.uint8)
    result = SegmentationResult(labels_zyx=labels, segments=LUNGS[:1])
    content = encode_segmentation(
        result,
        source_paths=ordered,
        identity=WHO,
        settings=SegSettings(),
        uids=UIDS,
        content_at=NOON,
    )
    np.testing.assert_array_equal(read_segmentation(content, volume.instance_uids), labels)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_patient_and_study_are_copied_byte_for_byte(tmp_path: Path, syntax: str) -> None:
    item = Dataset()
    item.PatientID, item.TypeOfPatientID = "OLD-7", "TEXT"
    extra: Mapping[str, object] = {
        "PatientName": "Люкceмбypг^Anna",
        "StudyDescription": "Thorax \u0416",
        "PatientAge": "056Y",
        "OtherPatientIDsSequence": [item],
        "AccessionNumber": None,
    }
    header = Header(character_set="ISO_IR 144", extra=extra)
    series = a_series(3, header=header)
    for dataset in series:
        dataset.file_meta.TransferSyntaxUID = syntax
    paths = write_files(tmp_path, series)
    result, source = parsed(encoded(paths)), pydicom.dcmread(paths[0])
    for keyword in ("PatientName", "PatientID", "StudyDescription", "StudyInstanceUID"):
        tag = pydicom.tag.Tag(keyword)
        assert result.get_item(tag).value == source.get_item(tag).value
    assert result.SpecificCharacterSet == "ISO_IR 144"
    assert str(result.PatientName) == "Люкceмбypг^Anna"
    assert result.PatientAge == "056Y"
    assert result.OtherPatientIDsSequence[0].PatientID == "OLD-7"
    assert result.AccessionNumber == ""
    assert "PatientComments" not in result


def test_values_that_are_no_good_are_copied_all_the_same(tmp_path: Path) -> None:
    paths = write_files(tmp_path, a_series(3))
    for path in paths:
        content = path.read_bytes()
        content = content.replace(b"19700101", b"1970-1-1").replace(
            b"PHANTOM-0", b"PH\xff\x00TOM 0"
        )
        path.write_bytes(content.replace(b"CHEST", b"chest"))
    raw = parsed(encoded(paths))
    assert raw.get_item("PatientBirthDate").value == b"1970-1-1"
    assert raw.get_item("PatientID").value == b"PH\xff\x00TOM 0 "
    assert "BodyPartExamined" not in raw


def test_sources_that_lack_what_is_required_still_make_an_object(tmp_path: Path) -> None:
    keywords = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate")
    more = ("StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "SeriesNumber")
    rest = ("SpecificCharacterSet", "SliceThickness", "FrameOfReferenceUID", "BodyPartExamined")
    extra = dict.fromkeys((*keywords, *more, *rest))
    dataset = parsed(encoded(write_files(tmp_path, a_series(4, header=Header(extra=extra)))))
    for keyword in (*keywords, *more[:4]):
        assert not dataset[keyword].value
    assert dataset.SeriesNumber == 3000
    assert dataset.FrameOfReferenceUID.startswith("2.25.")
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SliceThickness == 3.0


def test_lossy_sources_make_lossy_results(tmp_path: Path) -> None:
    extra = {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": ["10.5", "2"],
        "LossyImageCompressionMethod": ["ISO_10918_1", "ISO_15444_1"],
    }
    dataset = parsed(encoded(write_files(tmp_path, a_series(3, header=Header(extra=extra)))))
    assert dataset.LossyImageCompression == "01"
    assert list(dataset.LossyImageCompressionRatio) == [10.5, 2]
    assert list(dataset.LossyImageCompressionMethod) == ["ISO_10918_1", "ISO_15444_1"]


@pytest.mark.parametrize(
    ("number", "expected"), [(3000566, 3003566), (2**31 - 1, 3000), (-5, 3000), (0, 3000)]
)
def test_series_numbers_stay_whole_numbers(tmp_path: Path, number: int, expected: int) -> None:
    header = Header(series_number=number)
    assert (
        parsed(encoded(write_files(tmp_path, a_series(3, header=header)))).SeriesNumber == expected
    )


def test_text_is_reduced_to_what_any_character_set_holds(tmp_path: Path) -> None:
    who = replace(WHO, name="Lüngen\\Netz\n2", version="ä1")
    dataset = parsed(encoded(write_files(tmp_path, a_series(3)), identity=who))
    assert dataset.ManufacturerModelName == "Lungen Netz 2"


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros((3, 32, 31), np.uint8), "the labels are uint8"),
        (np.zeros((3, 32, 32), np.int16), "the labels are int16"),
        (np.full((3, 32, 32), 3, np.uint8), "label 3 has no segment"),
    ],
)
def test_wrong_results_are_the_tool_s_fault(tmp_path: Path, labels: np.ndarray, words: str) -> None:
    with pytest.raises(ToolError, match=words):
        encoded(write_files(tmp_path, a_series(3)), labels)


def test_segments_must_be_numbered_from_one(tmp_path: Path) -> None:
    result = SegmentationResult(labels_zyx=np.zeros((3, 32, 32), np.uint8), segments=LUNGS[1:])
    with pytest.raises(ToolError, match="segments are numbered"):
        encode_segmentation(
            result,
            source_paths=write_files(tmp_path, a_series(3)),
            identity=WHO,
            settings=SegSettings(),
            uids=UIDS,
            content_at=NOON,
        )


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"ImagePositionPatient": None}, "a source image cannot be placed"),
        ({"StudyInstanceUID": None}, "a source image has no StudyInstanceUID"),
        ({"SOPClassUID": "1.2.3.4"}, "not of a kind that can be segmented"),
    ],
)
def test_sources_that_cannot_be_referred_to_are_named(tmp_path: Path, extra, words: str) -> None:
    paths = write_files(tmp_path, a_series(3, header=Header(extra=extra)))
    with pytest.raises(NotAVolume, match=words):
        encoded(paths, np.zeros((3, 32, 32), np.uint8))


def test_no_source_is_no_segmentation() -> None:
    with pytest.raises(NotAVolume, match="needs source images"):
        encoded([], np.zeros((0, 1, 1), np.uint8))


def test_compressed_sources_are_referred_to_alike(tmp_path: Path, body: Volume) -> None:
    plain = encoded(write_files(tmp_path / "a", ct_series(body)))
    rle = Pixels(transfer_syntax="1.2.840.10008.1.2.5")
    assert encoded(write_files(tmp_path / "b", ct_series(body, pixels=rle))) == plain


def test_what_is_no_segmentation_is_not_read_as_one(tmp_path: Path) -> None:
    paths = write_files(tmp_path, a_series(3))
    with pytest.raises(PixelsUndecodable, match="not a BINARY segmentation"):
        read_segmentation(paths[0], ())
    with pytest.raises(NotDicom):
        read_segmentation(b"junk" * 100, ())
    with pytest.raises(ObjectError, match="refers to none of the source instances"):
        read_segmentation(encoded(paths), ("1.2.3",))


def test_uids_follow_from_what_a_result_was_made_of() -> None:
    sources = [("1.2.3", "aa"), ("1.2.4", "bb")]
    arguments = {
        "tool_id": "t", "tool_version": "1", "digest": "d", "kind": "segmentation", "manner": "m",
    }  # fmt: skip
    uids = result_uids(sources, **arguments)
    assert result_uids(sources[::-1], **arguments) == uids
    assert result_uids([*sources, sources[0]], **arguments) == uids
    assert uids[0] != uids[1]
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)
    others = [
        result_uids(sources, **{**arguments, "tool_version": "2"}),
        result_uids(sources, **{**arguments, "kind": "report"}),
        result_uids(sources, **{**arguments, "manner": "another"}),
        result_uids(sources, **arguments, index=1),
        result_uids([("1.2.3", "aa"), ("1.2.4", "cc")], **arguments),
        result_uids(sources[:1], **arguments),
    ]
    assert len({uids, *others}) == 7


def test_whatever_goes_into_the_bytes_goes_into_the_uids(monkeypatch: pytest.MonkeyPatch) -> None:
    who = AlgorithmIdentity(tool_id="t", name="T", version="1", digest="d")
    same = manner(SegSettings(), who, LUNGS)
    assert manner(SegSettings(), who, list(LUNGS)) == same
    others = [
        manner(SegSettings(series_number_offset=1), who, LUNGS),
        manner(SegSettings(manufacturer="Others"), who, LUNGS),
        manner(SegSettings(research_use=False), who, LUNGS),
        manner(SegSettings(omit_empty_frames=False), who, LUNGS),
        manner(SegSettings(), replace(who, name="Another"), LUNGS),
        manner(SegSettings(), who, LUNGS[:1]),
    ]
    monkeypatch.setattr(identity, "__version__", "99.0.0")
    others.append(manner(SegSettings(), who, LUNGS))
    assert len({same, *others}) == 8


def test_a_doubt_is_marked_in_the_series_description_however_long_the_name_is(tmp_path, body):
    paths = write_series(tmp_path, body)
    who = replace(WHO, name="Lungs of adults on CT, by a distilled U-Net of two and a half D")
    doubtful = parsed(encoded(paths, doubts=("It may be wrong.",), identity=who))
    assert "DOUBTFUL" in doubtful.SeriesDescription
    assert "DOUBTFUL" not in parsed(encoded(paths, identity=who)).SeriesDescription
