"""CT series as real SOP Instances, made from a Volume: valid ones, and odd ones on purpose."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian

from dicom_node.dimse.sending import StoreItem
from dicom_node.domain.identifiers import derived_uid
from dicom_node.domain.volume import AxisOrder, Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMPLEMENTATION_UID = derived_uid("dicom-node", "testing")

STORED_AS: Mapping[str, AxisOrder] = {
    "HFS": AxisOrder(permutation=(0, 1, 2), flips=(False, False, False)),
    "HFP": AxisOrder(permutation=(0, 1, 2), flips=(False, True, True)),
    "FFS": AxisOrder(permutation=(0, 1, 2), flips=(True, False, True)),
    "FFP": AxisOrder(permutation=(0, 1, 2), flips=(True, True, False)),
    "coronal": AxisOrder(permutation=(1, 0, 2), flips=(False, True, False)),
    "sagittal": AxisOrder(permutation=(2, 0, 1), flips=(True, True, False)),
}
"""How scanners lay out the rows and columns, from canonical axes; see `turned`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What is written about patient, study and series; all UIDs follow from `seed` and `study`.

    extra: keyword -> value, put last; None takes the attribute away.
    """

    seed: int = 0
    study: str = "study"
    series: str = "series"
    patient_name: str = "Phantom^Chest"
    patient_id: str = "PHANTOM-0"
    patient_sex: str = "O"
    patient_birth_date: str = "19700101"
    patient_position: str = "HFS"
    accession_number: str = "ACC-0"
    study_date: str = "20260105"
    study_time: str = "101500"
    study_description: str = "Chest phantom"
    series_description: str = "Chest 3.0 mm"
    series_number: int = 2
    body_part: str = "CHEST"
    character_set: str = "ISO_IR 100"
    extra: Mapping[str, object] = field(default_factory=dict)

    @property
    def study_uid(self) -> str:
        """The Study Instance UID."""
        return derived_uid("study", str(self.seed), self.study)

    @property
    def series_uid(self) -> str:
        """The Series Instance UID."""
        return derived_uid("series", str(self.seed), self.study, self.series)

    @property
    def frame_of_reference_uid(self) -> str:
        """One for the whole study: series of a study lie over one another."""
        return derived_uid("frame", str(self.seed), self.study)

    def instance_uid(self, index: int) -> str:
        """The SOP Instance UID of slice `index` of the Volume."""
        return derived_uid("instance", str(self.seed), self.study, self.series, str(index))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """How Hounsfield units are stored: stored = (hu - intercept) / slope (PS3.3 §C.11.1).

    padding: this stored value outside the scan circle, as Pixel Padding Value; None for no circle.
    """

    transfer_syntax: str = ExplicitVRLittleEndian
    signed: bool = True
    bits_stored: int = 16
    slope: float = 1.0
    intercept: float = 0.0
    monochrome1: bool = False
    padding: int | None = None


UNSIGNED_12 = Pixels(signed=False, bits_stored=12, intercept=-1024.0)
PADDED = Pixels(padding=-2000, intercept=-1024.0)


def turned(volume: Volume, order: AxisOrder) -> Volume:
    """The same body with other rows, columns and slices; take labels along with `order.apply`."""
    affine = volume.affine_lps_mm[:, [*order.permutation, 3]].copy()
    for axis, flip in enumerate(order.flips):
        if flip:
            size = volume.voxels_zyx.shape[order.permutation[axis]]
            affine[:, 3] += affine[:, axis] * (size - 1)
            affine[:, axis] *= -1
    return Volume(voxels_zyx=order.apply(volume.voxels_zyx), affine_lps_mm=affine)


def moved(volume: Volume, lps_from_lps: NDArray[np.float64]) -> Volume:
    """The same voxels elsewhere: oblique, sheared like a tilted gantry, shifted (4 x 4, in mm)."""
    return replace(volume, affine_lps_mm=lps_from_lps @ volume.affine_lps_mm)


def ct_series(
    volume: Volume,
    *,
    header: Header | None = None,
    pixels: Pixels | None = None,
    missing: Collection[int] = (),
) -> list[Dataset]:
    """One CT Image object a slice, in slice order, without the slices `missing`.

    Each has its File Meta Information and can be stored or sent as it is.
    """
    header, pixels = header or Header(), pixels or Pixels()
    stored = _stored(volume, pixels)
    return [
        _instance(volume, stored[k], k, header, pixels)
        for k in range(len(stored))
        if k not in missing
    ]


def a_series(
    slices: int = 6,
    *,
    missing: Collection[int] = (),
    size: int = 32,
    spacing_mm: tuple[float, float, float] = (3.0, 8.0, 8.0),
    header: Header | None = None,
    pixels: Pixels | None = None,
) -> list[Dataset]:
    """A small series for tests that need objects and no anatomy: a disc with two dark holes."""
    rows, columns = np.mgrid[0:size, 0:size] / (size - 1) - 0.5
    plane = np.where(np.hypot(rows, columns) < 0.45, 40, -1000)
    for side in (-0.2, 0.2):
        plane = np.where(np.hypot(rows, columns - side) < 0.15, -850, plane)
    voxels = np.repeat(plane[None].astype(np.int16), slices, axis=0)
    voxels += np.arange(slices, dtype=np.int16)[:, None, None]  # no two slices are equal
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing_mm, 1.0
    affine[:2, 3] = -spacing_mm[2] * (size - 1) / 2, -spacing_mm[1] * (size - 1) / 2
    volume = Volume(voxels_zyx=voxels, affine_lps_mm=affine)
    return ct_series(volume, header=header, pixels=pixels, missing=missing)


def a_localizer(volume: Volume, *, header: Header | None = None) -> Dataset:
    """The scout view from the front, in the series of `header` (PS3.3 §C.7.6.1.1.2 LOCALIZER)."""
    header = header or Header()
    seen = volume.voxels_zyx.astype(np.float64).mean(axis=1)[::-1]
    affine = np.zeros((4, 4))
    z_mm, _y_mm, x_mm = volume.spacing_zyx_mm
    affine[1, 0], affine[2, 1], affine[0, 2], affine[3, 3] = 1.0, -z_mm, x_mm, 1.0
    corner = volume.affine_lps_mm @ np.array([volume.voxels_zyx.shape[0] - 1, 0, 0, 1.0])
    affine[:3, 3] = corner[:3]
    flat = Volume(voxels_zyx=np.rint(seen)[None].astype(np.int16), affine_lps_mm=affine)
    scout = _instance(flat, _stored(flat, Pixels())[0], 0, header, Pixels())
    scout.SOPInstanceUID = derived_uid(header.instance_uid(0), "localizer")
    scout.file_meta.MediaStorageSOPInstanceUID = scout.SOPInstanceUID
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.InstanceNumber = 0
    return scout


def write_series(
    folder: Path,
    volume: Volume,
    *,
    header: Header | None = None,
    pixels: Pixels | None = None,
    missing: Collection[int] = (),
    localizer: bool = False,
    shuffle_seed: int | None = None,
) -> list[Path]:
    """Make a series of files in `folder`, and return their paths in the order of their names.

    With a shuffle_seed names and slice order have nothing to do with one another.
    """
    datasets = ct_series(volume, header=header, pixels=pixels, missing=missing)
    if localizer:
        datasets.insert(0, a_localizer(volume, header=header))
    if shuffle_seed is not None:
        order = np.random.default_rng(shuffle_seed).permutation(len(datasets))
        datasets = [datasets[i] for i in order]
    return write_files(folder, datasets)


def changed(dataset: Dataset, changes: Mapping[str, object]) -> Dataset:
    """The same object with other values, by keyword; None takes an attribute away."""
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def file_of(dataset: Dataset) -> bytes:
    """The DICOM file of an object (PS3.10 §7)."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write_files(folder: Path, datasets: Sequence[Dataset]) -> list[Path]:
    """Store objects as files IM00000.dcm and so on; the folder is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"IM{i:05d}.dcm" for i in range(len(datasets))]
    for path, dataset in zip(paths, datasets, strict=True):
        dataset.save_as(path, enforce_file_format=True)
    return paths


def items_of(paths: Sequence[Path]) -> list[StoreItem]:
    """What a sender needs to know of DICOM files, from their file meta."""
    metas = [dcmread(path, stop_before_pixels=True).file_meta for path in paths]
    return [
        StoreItem(
            sop_class_uid=meta.MediaStorageSOPClassUID,
            sop_instance_uid=meta.MediaStorageSOPInstanceUID,
            transfer_syntax_uid=meta.TransferSyntaxUID,
            path=path,
        )
        for meta, path in zip(metas, paths, strict=True)
    ]


def _stored(volume: Volume, pixels: Pixels) -> NDArray[np.integer[Any]]:
    """Stored values, clipped to what the bits can hold."""
    bits = pixels.bits_stored
    low, high = (
        (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if pixels.signed else (0, (1 << bits) - 1)
    )
    values = np.rint((volume.voxels_zyx.astype(np.float64) - pixels.intercept) / pixels.slope)
    values = np.clip(values, low, high)
    if pixels.padding is not None:
        _slices, rows, columns = values.shape
        y, x = np.mgrid[0:rows, 0:columns]
        radius = np.hypot((y - (rows - 1) / 2) / rows, (x - (columns - 1) / 2) / columns)
        values = np.where(radius > 0.5, pixels.padding, values)
    return values.astype(np.int16 if pixels.signed else np.uint16)


def _instance(
    volume: Volume, plane: NDArray[np.integer[Any]], index: int, header: Header, pixels: Pixels
) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = header.character_set
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = header.instance_uid(index)
    _add_study(dataset, header)
    _add_plane(dataset, volume, index)
    _add_acquisition(dataset, index)
    _add_pixels(dataset, plane, pixels)
    for keyword, value in header.extra.items():
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)
    return _as_file(dataset, pixels.transfer_syntax)


def _add_study(dataset: Dataset, header: Header) -> None:
    """Patient, General Study, General Series, Frame of Reference, General Equipment."""
    dataset.PatientName = header.patient_name
    dataset.PatientID = header.patient_id
    dataset.PatientBirthDate = header.patient_birth_date
    dataset.PatientSex = header.patient_sex
    dataset.PatientPosition = header.patient_position
    dataset.StudyInstanceUID = header.study_uid
    dataset.SeriesInstanceUID = header.series_uid
    dataset.FrameOfReferenceUID = header.frame_of_reference_uid
    dataset.PositionReferenceIndicator = ""
    dataset.StudyID = "1"
    dataset.AccessionNumber = header.accession_number
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = header.study_description
    dataset.SeriesDescription = header.series_description
    dataset.SeriesNumber = header.series_number
    dataset.Modality = "CT"
    dataset.BodyPartExamined = header.body_part
    for kind in ("Study", "Series", "Acquisition", "Content"):
        setattr(dataset, f"{kind}Date", header.study_date)
        setattr(dataset, f"{kind}Time", header.study_time)
    dataset.Manufacturer = "dicom-node"
    dataset.ManufacturerModelName = "Chest phantom"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = "1"


def _add_plane(dataset: Dataset, volume: Volume, index: int) -> None:
    """Image Plane (PS3.3 §C.7.6.2): the first value of each pair is the row's."""
    affine = volume.affine_lps_mm
    slice_mm, row_mm, column_mm = volume.spacing_zyx_mm
    along_row, along_column = affine[:3, 2] / column_mm, affine[:3, 1] / row_mm
    position = affine @ np.array([index, 0.0, 0.0, 1.0])
    dataset.ImageOrientationPatient = [_ds(v) for v in (*along_row, *along_column)]
    dataset.ImagePositionPatient = [_ds(v) for v in position[:3]]
    dataset.PixelSpacing = [_ds(row_mm), _ds(column_mm)]
    dataset.SliceThickness = _ds(slice_mm)
    dataset.SliceLocation = _ds(float(np.cross(along_row, along_column) @ position[:3]))


def _add_acquisition(dataset: Dataset, index: int) -> None:
    """General Image and CT Image (PS3.3 §C.8.2.1)."""
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.InstanceNumber = index + 1
    dataset.AcquisitionNumber = 1
    dataset.KVP = "120"
    dataset.XRayTubeCurrent = 200
    dataset.ExposureTime = 500
    dataset.ConvolutionKernel = "STANDARD"
    dataset.GantryDetectorTilt = "0"
    dataset.BurnedInAnnotation = "NO"


def _add_pixels(dataset: Dataset, plane: NDArray[np.integer[Any]], pixels: Pixels) -> None:
    """Image Pixel, Modality LUT and VOI LUT; MONOCHROME1 changes how it looks, not the HU."""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if pixels.monochrome1 else "MONOCHROME2"
    dataset.Rows, dataset.Columns = plane.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = pixels.bits_stored
    dataset.HighBit = pixels.bits_stored - 1
    dataset.PixelRepresentation = int(pixels.signed)
    if pixels.padding is not None:
        dataset.add_new("PixelPaddingValue", "SS" if pixels.signed else "US", pixels.padding)
    dataset.RescaleIntercept = _ds(pixels.intercept)
    dataset.RescaleSlope = _ds(pixels.slope)
    dataset.RescaleType = "HU"
    dataset.WindowCenter, dataset.WindowWidth = "-500", "1500"
    order: Literal[">", "<"] = ">" if pixels.transfer_syntax == ExplicitVRBigEndian else "<"
    dataset.add_new("PixelData", "OW", plane.astype(plane.dtype.newbyteorder(order)).tobytes())


def _as_file(dataset: Dataset, transfer_syntax: str) -> Dataset:
    """Give it File Meta Information, and compress it where the Transfer Syntax asks."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    dataset.file_meta = meta
    if meta.TransferSyntaxUID.is_encapsulated:
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(transfer_syntax, generate_instance_uid=False)
    return dataset


def _ds(value: float) -> str:
    """A Decimal String of at most 16 characters (PS3.5 §6.2)."""
    text = f"{value + 0.0:.10g}"
    return text if len(text) <= 16 else f"{value:.8g}"
