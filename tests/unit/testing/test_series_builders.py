"""The series writer: valid objects, and the oddities that were ordered."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom_node.testing.phantom import chest_phantom
from dicom_node.testing.series import (
    PADDED,
    STORED_AS,
    UNSIGNED_12,
    Header,
    Pixels,
    a_localizer,
    a_series,
    ct_series,
    moved,
    turned,
    write_series,
)

DCIODVFY = Path(sys.executable).with_name("dciodvfy")
JPEG_LS, JPEG_2000, RLE = (f"1.2.840.10008.1.2.{x}" for x in ("4.80", "4.90", "5"))
IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"


@pytest.fixture(scope="module")
def volume():
    return chest_phantom(slices=6, size=32, spacing_mm=(40.0, 12.0, 11.0), seed=2)[0]


def hounsfield(dataset):
    return dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)


@pytest.mark.parametrize("pixels", [Pixels(), UNSIGNED_12, Pixels(slope=0.5, monochrome1=True)])
def test_stored_values_give_the_hounsfield_units_of_the_volume(volume, pixels):
    datasets = ct_series(volume, pixels=pixels)
    read = np.stack([hounsfield(d) for d in datasets])
    assert np.abs(read - volume.voxels_zyx).max() <= 0.5


@pytest.mark.parametrize("syntax", [IMPLICIT, BIG_ENDIAN, JPEG_LS, JPEG_2000, RLE])
def test_every_transfer_syntax_gives_the_same_pixels(volume, tmp_path, syntax):
    pixels = Pixels(transfer_syntax=syntax, signed=False, bits_stored=12, intercept=-1024.0)
    paths = write_series(tmp_path, volume, pixels=pixels)
    for k, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        assert dataset.file_meta.TransferSyntaxUID == syntax
        assert np.array_equal(hounsfield(dataset), volume.voxels_zyx[k])


@pytest.mark.parametrize("name", STORED_AS)
def test_positions_and_orientations_lead_every_voxel_back_to_its_place(volume, name):
    order = STORED_AS[name]
    datasets = ct_series(turned(volume, order))
    back = order.undo(np.stack([d.pixel_array for d in datasets]))
    assert np.array_equal(back, volume.voxels_zyx)
    first, last = datasets[0], datasets[-1]
    row, column = np.reshape(np.array(first.ImageOrientationPatient, float), (2, 3))
    step = np.subtract(last.ImagePositionPatient, first.ImagePositionPatient)
    assert np.dot(np.cross(row, column), step) > 0  # slices rise along the normal
    assert list(first.PixelSpacing) == list(turned(volume, order).spacing_zyx_mm[1:])


def test_a_tilted_gantry_shifts_each_slice(volume):
    tilt = np.eye(4)
    tilt[1, 2] = np.tan(np.deg2rad(15))
    first, second = ct_series(moved(volume, tilt))[:2]
    step = np.subtract(second.ImagePositionPatient, first.ImagePositionPatient)
    assert step == pytest.approx([0, 40 * tilt[1, 2], 40])
    assert list(first.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]


def test_missing_slices_are_missing_and_the_others_keep_their_identity():
    whole, holed = a_series(5), a_series(5, missing=(2,))
    assert [d.InstanceNumber for d in holed] == [1, 2, 4, 5]
    uids = [d.SOPInstanceUID for d in whole]
    assert [d.SOPInstanceUID for d in holed] == [*uids[:2], *uids[3:]]


def test_uids_follow_from_seed_study_and_series():
    first, again = a_series(2)[0], a_series(2)[0]
    other = a_series(2, header=Header(series="other"))[0]
    assert first.SOPInstanceUID == again.SOPInstanceUID
    assert first.StudyInstanceUID == other.StudyInstanceUID
    assert first.SeriesInstanceUID != other.SeriesInstanceUID
    assert first.SOPInstanceUID != other.SOPInstanceUID


def test_extra_attributes_are_added_and_taken_away():
    header = Header(extra={"StationName": "CT1", "KVP": None})
    dataset = a_series(1, header=header)[0]
    assert dataset.StationName == "CT1"
    assert "KVP" not in dataset


def test_a_shuffled_series_has_the_same_slices_under_other_names(volume, tmp_path):
    plain = write_series(tmp_path / "a", volume)
    mixed = write_series(tmp_path / "b", volume, shuffle_seed=1)
    numbers = [[pydicom.dcmread(p).InstanceNumber for p in paths] for paths in (plain, mixed)]
    assert numbers[0] != numbers[1]
    assert numbers[0] == sorted(numbers[1])


def test_the_localizer_belongs_to_the_series_and_is_coronal(volume, tmp_path):
    paths = write_series(tmp_path, volume, localizer=True)
    scout, first = pydicom.dcmread(paths[0]), pydicom.dcmread(paths[1])
    assert scout.ImageType[2] == "LOCALIZER"
    assert scout.SeriesInstanceUID == first.SeriesInstanceUID
    assert scout.SOPInstanceUID != first.SOPInstanceUID
    assert list(scout.ImageOrientationPatient) == [1, 0, 0, 0, 0, -1]


def test_padding_lies_outside_the_circle_only(volume):
    dataset = ct_series(volume, pixels=PADDED)[2]
    assert dataset.PixelPaddingValue == -2000
    assert dataset.pixel_array[0, 0] == -2000
    assert (dataset.pixel_array[8:24, 8:24] > -2000).all()


@pytest.mark.peer
@pytest.mark.skipif(not DCIODVFY.exists(), reason="dciodvfy is not installed")
def test_dciodvfy_finds_no_error_in_any_variant(volume, tmp_path):
    variants = [
        ct_series(volume)[0],
        ct_series(volume, pixels=UNSIGNED_12)[0],
        ct_series(volume, pixels=PADDED)[0],
        ct_series(turned(volume, STORED_AS["FFP"]), header=Header(patient_position="FFP"))[0],
        a_localizer(volume),
        a_series(1)[0],
    ]
    for dataset in variants:
        path = tmp_path / "one.dcm"
        dataset.save_as(path, enforce_file_format=True)
        done = subprocess.run(
            [DCIODVFY, "-new", path], capture_output=True, text=True, timeout=60, check=False
        )
        assert "CTImage" in done.stdout + done.stderr
        assert "Error" not in done.stdout + done.stderr
