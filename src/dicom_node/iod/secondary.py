"""A SegmentationResult as pictures: Secondary Capture Images for a PACS that takes no Segmentation.

Single-frame Secondary Capture Image Storage (PS3.3 A.8.1), for what cannot read a Segmentation is
old, and that class is the one that everything takes; multi-frame True Color is hardly younger than
Segmentation where it comes to support.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage
from pydicom.valuerep import format_number_as_ds

from dicom_node import __version__
from dicom_node.domain.identifiers import derived_uid
from dicom_node.domain.tool import AlgorithmIdentity, SegmentationResult
from dicom_node.domain.volume import Volume
from dicom_node.iod import overlay, replacing
from dicom_node.iod.composing import (
    LO,
    LT,
    RESEARCH_USE,
    SH,
    ST,
    as_file,
    begun,
    code,
    equipment,
    of_patient_and_study,
    plain,
    reference,
    series_number,
    titled,
    versions,
)
from dicom_node.iod.header import read_attributes
from dicom_node.iod.seg_settings import DEVICE_SERIAL_NUMBER, SegSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

SOP_CLASS_UID = str(SecondaryCaptureImageStorage)
WINDOW_CENTER_HU, WINDOW_WIDTH_HU = 40.0, 400.0  # soft tissue
IMAGES_MAX = 200
"""A stack of more slices is shown by every second, third ... of them: about 150 MB at the most."""

_AFTER = 1  # Series Number: behind the Segmentation
_WARNINGS_MAX = 2
_OF_A_PAIR = frozenset({"", "LUNG", "BREAST", "KIDNEY", "ADRENAL", "EYE", "EAR", "HIP", "KNEE"})
NOT_FOR_DIAGNOSIS = "Research use only - not for diagnosis"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondaryCapture:
    """One picture, as the bytes of a DICOM file (Explicit VR Little Endian)."""

    sop_instance_uid: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    """What all pictures of one result have in common."""

    result: SegmentationResult
    volume: Volume
    identity: AlgorithmIdentity
    settings: SegSettings
    series_uid: str
    content_at: datetime
    replaces: Sequence[replacing.Replacement]
    headers: Sequence[dict[str, object]]
    shown: range
    window: tuple[float, float]


def encode_secondary_captures(
    result: SegmentationResult,
    *,
    volume: Volume,
    source_paths: Sequence[Path],
    identity: AlgorithmIdentity,
    settings: SegSettings,
    series_uid: str,
    content_at: datetime,
    replaces: Sequence[replacing.Replacement] = (),
) -> Iterator[SecondaryCapture]:
    """A picture of each slice, or of at most IMAGES_MAX evenly chosen ones, in slice order.

    volume: what the result lies on; source_paths: its instances in slice order. Rows and columns
    run as in the source. The same arguments give the same bytes. Raises NotDicom, OSError.
    """
    headers = [read_attributes(path) for path in source_paths]
    count = len(headers)
    series = _Series(
        result=result,
        volume=volume,
        identity=identity,
        settings=settings,
        series_uid=series_uid,
        content_at=content_at,
        replaces=replaces,
        headers=headers,
        shown=range(0, count, -(-count // IMAGES_MAX)),
        window=_window(volume.voxels_zyx, str(headers[0].get("Modality", ""))),
    )
    from_source = of_patient_and_study(source_paths[0])
    numbers = _instance_numbers(headers)
    for position, index in enumerate(series.shown):
        dataset = _dataset(series, index, numbers[index])
        _pixels(dataset, series, _picture(series, position, index))
        yield SecondaryCapture(
            sop_instance_uid=str(dataset.SOPInstanceUID), data=as_file(dataset, from_source)
        )


def _window(voxels: NDArray[np.generic], modality: str) -> tuple[float, float]:
    """The values that are black and white: soft tissue on CT, else all but the extremes."""
    if modality == "CT":
        half = WINDOW_WIDTH_HU / 2
        return WINDOW_CENTER_HU - half, WINDOW_CENTER_HU + half
    ordered = np.sort(voxels[:, ::4, ::4], axis=None)
    low, high = float(ordered[len(ordered) // 100]), float(ordered[-1 - len(ordered) // 100])
    return low, max(high, low + 1.0)


def _instance_numbers(headers: Sequence[dict[str, object]]) -> list[int]:
    """Those of the source, so that the pictures are found; counted where it has none of use."""
    numbers = [header.get("InstanceNumber") for header in headers]
    known = [n for n in numbers if isinstance(n, int)]
    usable = len(set(known)) == len(numbers)
    return known if usable else list(range(1, len(numbers) + 1))


def _directions(volume: Volume) -> tuple[str, str]:
    """Where rows and columns run to, as letters."""
    affine = volume.affine_lps_mm[:3, :3] / volume.spacing_zyx_mm
    return overlay.letters(affine[:, 2].tolist()), overlay.letters(affine[:, 1].tolist())


def _picture(series: _Series, position: int, index: int) -> NDArray[np.uint8]:
    """RGB [row, column, 3]."""
    result = series.result
    colours = {segment.number: segment.rgb for segment in result.segments}
    grey = overlay.windowed(series.volume.voxels_zyx[index], *series.window)
    picture = overlay.drawn(grey, result.labels_zyx[index], colours)
    name = f"{series.identity.name} {series.identity.version}"
    heading: list[tuple[str, overlay.RGB | None]] = [(plain(name, LO), None)]
    heading += [(plain(s.label, LO), s.rgb) for s in result.segments]
    rows, columns = picture.shape[:2]
    overlay.burn_lines(
        picture, overlay.wrapped(heading, columns, rows // 3 // overlay.LINE_PX), bottom=False
    )
    warnings: list[tuple[str, overlay.RGB | None]] = [
        (plain(text, LT), None) for text in result.warnings[:_WARNINGS_MAX]
    ]
    foot = overlay.wrapped(warnings, columns, rows // 2 // overlay.LINE_PX)
    foot.append((f"{position + 1}/{len(series.shown)}", None))
    if series.settings.research_use:
        foot.append((NOT_FOR_DIAGNOSIS, None))
    overlay.burn_sides(picture, *_directions(series.volume), foot_lines=len(foot))
    overlay.burn_lines(picture, foot, bottom=True)
    return picture


def _dataset(series: _Series, index: int, instance_number: int) -> Dataset:
    """All but the pixels."""
    source, settings, identity = series.headers[index], series.settings, series.identity
    uid = derived_uid("result instance", series.series_uid, str(source["SOPInstanceUID"]))
    image = begun(SOP_CLASS_UID, uid, series.series_uid, series.content_at)
    image.StudyInstanceUID = str(source["StudyInstanceUID"])
    image.Modality = "OT"  # no CT: nothing that takes CT is to take it
    image.ConversionType = "WSD"
    image.SeriesNumber = series_number(
        source.get("SeriesNumber"), settings.series_number_offset + _AFTER
    )
    mark = " overlay" + replacing.mark_of(series.replaces, doubtful=bool(series.result.doubts))
    title = titled(identity.name, mark=mark, research_use=settings.research_use)
    image.SeriesDescription = title
    body_part = plain(str(source.get("BodyPartExamined", "")), SH)
    if body_part:
        image.BodyPartExamined = body_part
    if body_part in _OF_A_PAIR:
        image.Laterality = ""  # type 2C (PS3.3 C.7.3.1), and of both sides there is no value
    image.Manufacturer = plain(settings.manufacturer, LO)
    image.ManufacturerModelName = plain(identity.name, LO)
    image.DeviceSerialNumber = DEVICE_SERIAL_NUMBER
    image.SoftwareVersions = versions(identity)
    image.SecondaryCaptureDeviceManufacturer = plain(identity.manufacturer, LO)
    image.SecondaryCaptureDeviceManufacturerModelName = "dicom-node"
    image.SecondaryCaptureDeviceSoftwareVersions = f"dicom-node {__version__}"
    image.DateOfSecondaryCapture = image.ContentDate
    image.TimeOfSecondaryCapture = image.ContentTime
    what = "Segmentation, drawn over its source by this tool and these weights (SHA-256)"
    image.ContributingEquipmentSequence = [equipment(identity, series.content_at, what)]
    image.InstanceNumber = instance_number
    replacing.relate(image, series.replaces)
    _describe(image, series, source)
    return image


def _describe(image: Dataset, series: _Series, source: dict[str, object]) -> None:
    """General Image (PS3.3 C.7.6.1) and the references to the source (C.12.4, C.12.2)."""
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.PatientOrientation = list(_directions(series.volume))
    # it says nothing of who the patient is (C.7.6.1): unless the source does
    image.BurnedInAnnotation = "YES" if source.get("BurnedInAnnotation") == "YES" else "NO"
    step, (low, high) = series.shown.step, series.window
    image.DerivationDescription = plain(
        f"Segmentation by {series.identity.name} {series.identity.version}, drawn over its source "
        f"image, values {low:g} to {high:g}"
        + (f"; one of every {step} images is shown" if step > 1 else ""),
        ST,
    )
    image.DerivationCodeSequence = [code("113076", "DCM", "Segmentation")]
    item = reference(str(source["SOPClassUID"]), str(source["SOPInstanceUID"]))
    item.PurposeOfReferenceCodeSequence = [
        code("121322", "DCM", "Source image for image processing operation")
    ]
    item.SpatialLocationsPreserved = "YES"
    image.SourceImageSequence = [item]
    related = Dataset()
    related.SeriesInstanceUID = str(source["SeriesInstanceUID"])
    related.ReferencedInstanceSequence = [
        reference(str(source["SOPClassUID"]), str(source["SOPInstanceUID"]))
    ]
    image.ReferencedSeriesSequence = [related]
    notes = [f"{RESEARCH_USE}."] if series.settings.research_use else []
    notes += [sentence] if (sentence := replacing.sentence(series.replaces)) else []
    notes += [*series.result.warnings, *series.result.notes]
    if not series.result.labels_zyx.any():
        notes.append("Nothing was found: every segment is empty.")
    if notes:
        image.ImageComments = plain(" ".join(notes), LT)
    _copy_lossy(image, source)


def _copy_lossy(image: Dataset, source: dict[str, object]) -> None:
    """Pixels that were lossy once stay so (PS3.3 C.7.6.1.1.5)."""
    image.LossyImageCompression = "01" if source.get("LossyImageCompression") == "01" else "00"
    if image.LossyImageCompression != "01":
        return
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        value = source.get(keyword)
        if value is None:
            continue
        values = value if isinstance(value, tuple) else (value,)
        said = [v if isinstance(v, str) else format_number_as_ds(float(v)) for v in values]
        setattr(image, keyword, said)


def _pixels(image: Dataset, series: _Series, picture: NDArray[np.uint8]) -> None:
    """Image Pixel (PS3.3 C.7.6.3), and how large a pixel is (C.8.6.2)."""
    up, down = overlay.factor(*series.volume.voxels_zyx.shape[1:])
    _, row_mm, column_mm = series.volume.spacing_zyx_mm
    image.PixelSpacing = [
        format_number_as_ds(round(mm * down / up, 9)) for mm in (row_mm, column_mm)
    ]
    image.SamplesPerPixel = 3
    image.PhotometricInterpretation = "RGB"
    image.PlanarConfiguration = 0
    image.Rows, image.Columns = picture.shape[:2]
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    image.PixelRepresentation = 0
    data = picture.tobytes()
    image.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))
