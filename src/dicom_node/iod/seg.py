"""A SegmentationResult as a SOP Instance of Segmentation Storage (PS3.3 A.51, C.8.20)."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import highdicom
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code as PydicomCode
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from dicom_node import __version__
from dicom_node.decide.geometry import SPACING_TOLERANCE, SPACING_TOLERANCE_MM
from dicom_node.decide.planes import Plane, plane_of
from dicom_node.domain.errors import NotAVolume, ToolError
from dicom_node.domain.identifiers import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    derived_uid,
)
from dicom_node.domain.tool import AlgorithmIdentity, Code, Segment, SegmentationResult
from dicom_node.iod.elements import EXPLICIT_LITTLE, Located, locate
from dicom_node.iod.header import read_attributes
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.iod.transcode import PATIENT_AND_STUDY, copied, top_level

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NOT_CLINICAL", "RESEARCH_USE", "SegSettings", "encode_segmentation"]

NOT_CLINICAL = "NOT FOR CLINICAL USE"
RESEARCH_USE = f"RESEARCH USE ONLY, {NOT_CLINICAL}"

MAX_SERIES_NUMBER = 2**31 - 1
_LO, _SH, _ST, _LT = 64, 16, 1024, 10240  # longest values, PS3.5 §6.2

# what highdicom asks of a source; the true values are put in afterwards, byte for byte
_ASKED_FOR = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID"),
    *("AccessionNumber", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)

_AI = PydicomCode("123110", "DCM", "Artificial Intelligence")  # CID 7162
_PROCESSING = PydicomCode("109102", "DCM", "Processing Equipment")  # CID 7005


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """All that one object is made from."""

    result: SegmentationResult
    sources: Sequence[Dataset]
    identity: AlgorithmIdentity
    settings: SegSettings
    uids: tuple[str, str]
    content_at: datetime


def encode_segmentation(
    result: SegmentationResult,
    *,
    source_paths: Sequence[Path],
    identity: AlgorithmIdentity,
    settings: SegSettings,
    uids: tuple[str, str],
    content_at: datetime,
) -> bytes:
    """A DICOM file (Explicit VR Little Endian) with one BINARY segment for each Segment.

    source_paths: the source instances in the slice order of result.labels_zyx; the object lies on
    their grid, in their Study. uids: Series and SOP Instance UID (iod.identity). content_at: the
    date and time of the content, as it is to be read. The same arguments give the same bytes.
    An empty result has one empty frame for each segment, in the middle of the stack.
    Raises NotAVolume where a source cannot be referred to, ToolError where the result is wrong.
    """
    sources = _sources([read_attributes(path) for path in source_paths])
    _check_result(result, sources)
    order = _Order(
        result=result,
        sources=sources,
        identity=identity,
        settings=settings,
        uids=uids,
        content_at=content_at,
    )
    try:
        encoded = _segmentation(order)
    except (KeyError, ValueError) as error:  # a SOP Class or a geometry that highdicom refuses
        raise NotAVolume("the source images are not of a kind that can be segmented") from error
    _complete(encoded, order)
    _fix_generated_uids(encoded, uids[1])
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, encoded, enforce_file_format=True)
    return _with_elements(buffer.getvalue(), copied(source_paths[0], PATIENT_AND_STUDY))


def _sources(headers: Sequence[dict[str, object]]) -> list[Dataset]:
    """What highdicom needs to know of each source, checked and cleaned."""
    if not headers:
        raise NotAVolume("a segmentation needs source images")
    first = headers[0]
    frame_of_reference = str(first.get("FrameOfReferenceUID") or "")
    if not frame_of_reference:
        frame_of_reference = derived_uid("frame of reference", str(first.get("SeriesInstanceUID")))
    return [_source(h, frame_of_reference) for h in headers]


def _source(header: dict[str, object], frame_of_reference: str) -> Dataset:
    plane = plane_of(header)
    if not isinstance(plane, Plane):
        raise NotAVolume(f"a source image cannot be placed: {plane}")
    source = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        if keyword not in header:
            raise NotAVolume(f"a source image has no {keyword}")
        setattr(source, keyword, str(header[keyword]))
    source.FrameOfReferenceUID = frame_of_reference
    source.Rows, source.Columns = plane.rows, plane.columns
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        values = cast("Sequence[float]", header[keyword])  # plane_of has seen them
        setattr(source, keyword, [format_number_as_ds(float(v)) for v in values])
    source.SliceThickness = format_number_as_ds(plane.thickness_mm) if plane.thickness_mm else None
    source.Modality = str(header.get("Modality", "CT"))
    source.SeriesNumber = header.get("SeriesNumber", 0)
    body_part = str(header.get("BodyPartExamined", ""))
    source.BodyPartExamined = body_part if _is_code_string(body_part) else ""
    _copy_lossy(header, source)
    return source


def _copy_lossy(header: dict[str, object], source: Dataset) -> None:
    """Pixels that were lossy once stay so (PS3.3 C.7.6.1.1.5)."""
    lossy = str(header.get("LossyImageCompression", "00"))
    source.LossyImageCompression = "01" if lossy == "01" else "00"
    if lossy != "01":
        return
    ratio = header.get("LossyImageCompressionRatio")
    if ratio is not None:
        ratios = ratio if isinstance(ratio, (tuple, list)) else (ratio,)
        source.LossyImageCompressionRatio = [format_number_as_ds(float(r)) for r in ratios]
    method = header.get("LossyImageCompressionMethod")
    if method is not None:
        source.LossyImageCompressionMethod = (
            list(method) if isinstance(method, (tuple, list)) else method
        )


def _check_result(result: SegmentationResult, sources: Sequence[Dataset]) -> None:
    shape = (len(sources), int(sources[0].Rows), int(sources[0].Columns))
    labels = result.labels_zyx
    if labels.shape != shape or labels.dtype != np.uint8:
        raise ToolError(f"the labels are {labels.dtype} {labels.shape}, not uint8 {shape}")
    numbers = [s.number for s in result.segments]
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        raise ToolError(f"segments are numbered {numbers}, not from 1 upwards")
    highest = int(labels.max(initial=0))
    if highest > len(numbers):
        raise ToolError(f"label {highest} has no segment")


def _description(segment: Segment, order: _Order) -> highdicom.seg.SegmentDescription:
    identity, sop_instance_uid = order.identity, order.uids[1]
    label = _plain(segment.label, _LO)
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=_plain(identity.name, _LO),
        family=_AI,
        version=_plain(identity.version, _LO),
        source=_plain(identity.manufacturer, _LO) or None,
    )
    description = highdicom.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=label,
        segmented_property_category=_code(segment.category),
        segmented_property_type=_code(segment.type),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_id=f"{label} {segment.number}",
        tracking_uid=derived_uid("tracking", sop_instance_uid, str(segment.number)),
        display_color=highdicom.color.CIELabColor.from_rgb(*segment.rgb),
    )
    if segment.laterality is not None:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [_concept(_code(segment.laterality))]
    if order.result.warnings:  # where viewers show what a segment is (0062,0006)
        description.SegmentDescription = _plain(" ".join(order.result.warnings), _ST)
    return description


def _segmentation(order: _Order) -> Dataset:
    """The object as highdicom makes it, from an almost empty header, with its references."""
    identity, settings, uids, sources = order.identity, order.settings, order.uids, order.sources
    labels: NDArray[np.uint8] = np.ascontiguousarray(order.result.labels_zyx)
    images = list(sources)
    if not labels.any():
        middle = len(images) // 2
        images, labels = [images[middle]], labels[middle : middle + 1]
    for keyword in _ASKED_FOR:
        setattr(images[0], keyword, "")
    encoded: Dataset = highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=labels,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(s, order) for s in order.result.segments],
        series_instance_uid=uids[0],
        series_number=_series_number(sources[0].SeriesNumber, settings.series_number_offset),
        sop_instance_uid=uids[1],
        instance_number=1,
        manufacturer=_plain(settings.manufacturer, _LO),
        manufacturer_model_name=_plain(identity.name, _LO),
        software_versions=_versions(identity),
        device_serial_number=_plain(settings.device_serial_number, _LO),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=settings.omit_empty_frames and bool(labels.any()),
        content_label="SEGMENTATION",
        content_creator_name=_plain(settings.content_creator, _LO) or None,
    )
    _complete_pixel_measures(encoded, sources)
    if len(images) < len(sources):
        _refer_to_all(encoded, sources)
    return encoded


def _refer_to_all(encoded: Dataset, sources: Sequence[Dataset]) -> None:
    """An empty result was made from every source, too."""
    for references in (
        encoded.SourceImageSequence,
        encoded.ReferencedSeriesSequence[0].ReferencedInstanceSequence,
    ):
        references.clear()
        for source in sources:
            item = Dataset()
            item.ReferencedSOPClassUID = source.SOPClassUID
            item.ReferencedSOPInstanceUID = source.SOPInstanceUID
            references.append(item)


def _complete_pixel_measures(encoded: Dataset, sources: Sequence[Dataset]) -> None:
    """Slice thickness where the source says none, and the distance between slices.

    It is measured along the normal; slices that are unevenly spaced have no such distance, and the
    plane position of each frame says where it is (PS3.3 C.7.6.16.2.1).
    """
    first = sources[0]
    x = [float(v) for v in first.ImageOrientationPatient]
    normal = np.cross(x[:3], x[3:])
    heights = [float(np.dot(normal, [float(v) for v in s.ImagePositionPatient])) for s in sources]
    gaps = np.diff(heights)
    apart = abs(heights[-1] - heights[0]) / max(len(sources) - 1, 1)
    thickness = float(first.SliceThickness or 0) or apart or 1.0
    measures = encoded.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.SliceThickness = format_number_as_ds(thickness)
    even = max(SPACING_TOLERANCE_MM, SPACING_TOLERANCE * apart)
    if len(gaps) and np.ptp(gaps) > 2 * even:
        measures.pop("SpacingBetweenSlices", None)
    else:
        measures.SpacingBetweenSlices = format_number_as_ds(round(apart, 6) or thickness)


def _complete(encoded: Dataset, order: _Order) -> None:
    """What highdicom leaves out, and what it takes from the clock."""
    result, identity, settings = order.result, order.identity, order.settings
    date, time = order.content_at.strftime("%Y%m%d"), order.content_at.strftime("%H%M%S")
    encoded.InstanceCreationDate = encoded.ContentDate = encoded.SeriesDate = date
    encoded.InstanceCreationTime = encoded.ContentTime = encoded.SeriesTime = time
    if order.sources[0].BodyPartExamined:
        encoded.BodyPartExamined = order.sources[0].BodyPartExamined
    name = settings.series_description or identity.name
    encoded.SeriesDescription = _plain(name, _LO)
    encoded.ContentDescription = _plain(name, _LO)
    notes = [_plain(note, _LT) for note in (*result.warnings, *result.notes)]
    if settings.research_use:
        suffix = f" - {NOT_CLINICAL}"
        encoded.SeriesDescription = _plain(name, _LO - len(suffix)) + suffix
        encoded.ContentDescription = RESEARCH_USE
        notes.insert(0, f"{RESEARCH_USE}.")
    if not result.labels_zyx.any():
        notes.append("Nothing was found: every segment is empty.")
    if notes:
        encoded.ImageComments = " ".join(notes)[:_LT]
    encoded.ContributingEquipmentSequence = [_equipment(identity, order.content_at)]
    encoded.file_meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    encoded.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME


def _equipment(identity: AlgorithmIdentity, content_at: datetime) -> Dataset:
    """The tool, as what contributed to the object (PS3.3 C.12.1)."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [_concept(_PROCESSING)]
    item.Manufacturer = _plain(identity.manufacturer, _LO)
    item.ManufacturerModelName = _plain(identity.tool_id, _LO)
    item.SoftwareVersions = _versions(identity)
    item.ContributionDateTime = content_at.strftime("%Y%m%d%H%M%S")
    item.ContributionDescription = "Segmentation by this tool and these weights (SHA-256)"
    return item


def _versions(identity: AlgorithmIdentity) -> list[str]:
    """Tool, digest, node: the digest has 64 characters and some readers count a pad after it."""
    digest = identity.digest.removeprefix("sha256:")
    versions = (f"{identity.tool_id} {identity.version}", digest, f"dicom-node {__version__}")
    return [_plain(v, _LO) for v in versions if v]


def _fix_generated_uids(encoded: Dataset, sop_instance_uid: str) -> None:
    """highdicom draws the Dimension Organization UID at random: derive it instead."""
    uid = derived_uid("dimension organization", sop_instance_uid)
    for item in (*encoded.DimensionOrganizationSequence, *encoded.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid


def _with_elements(file: bytes, replaced: dict[int, bytes]) -> bytes:
    """The file with some top-level elements put in or replaced."""
    located = locate(file)
    body = top_level(
        Located(
            data=file,
            start=located.start,
            transfer_syntax=EXPLICIT_LITTLE,
            coding=located.coding,
        )
    )
    merged = body | replaced
    return file[: located.start] + b"".join(merged[tag] for tag in sorted(merged))


def _series_number(source: object, offset: int) -> int:
    number = source if isinstance(source, int) and source > 0 else 0
    total = number + offset
    return total if 0 < total <= MAX_SERIES_NUMBER else max(offset, 1)


def _code(code: Code) -> PydicomCode:
    return PydicomCode(_plain(code.value, _SH), _plain(code.scheme, _SH), _plain(code.meaning, _LO))


def _concept(code: PydicomCode) -> Any:
    return highdicom.sr.CodedConcept.from_code(code)


def _plain(text: str, limit: int) -> str:
    """ASCII without control characters and backslashes, so that it fits any character set."""
    folded = (
        unicodedata.normalize("NFKD", text.replace("°", " degrees"))
        .encode("ascii", "ignore")
        .decode("ascii")
    )
    clean = "".join(c if c.isprintable() and c != "\\" else " " for c in folded)
    return clean[:limit].strip()


def _is_code_string(text: str) -> bool:
    return 0 < len(text) <= _SH and all(c.isdigit() or "A" <= c <= "Z" or c in " _" for c in text)
