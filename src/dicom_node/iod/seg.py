"""A SegmentationResult as a SOP Instance of Segmentation Storage (PS3.3 A.51, C.8.20)."""

from __future__ import annotations

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

from dicom_node.decide.geometry import SPACING_TOLERANCE, SPACING_TOLERANCE_MM
from dicom_node.decide.planes import Plane, plane_of
from dicom_node.domain.errors import NotAVolume, ToolError
from dicom_node.domain.identifiers import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    derived_uid,
)
from dicom_node.domain.tool import AlgorithmIdentity, Code, Segment, SegmentationResult
from dicom_node.iod import replacing
from dicom_node.iod.composing import (
    LO,
    LT,
    RESEARCH_USE,
    SH,
    ST,
    equipment,
    plain,
    series_number,
    titled,
    versions,
    with_elements,
)
from dicom_node.iod.header import read_attributes
from dicom_node.iod.seg_settings import DEVICE_SERIAL_NUMBER, SegSettings
from dicom_node.iod.transcode import PATIENT_AND_STUDY, copied

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RESEARCH_USE", "SegSettings", "encode_segmentation"]


# what highdicom asks of a source; the true values are put in afterwards, byte for byte
_ASKED_FOR = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID"),
    *("AccessionNumber", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)

_AI = PydicomCode("123110", "DCM", "Artificial Intelligence")  # CID 7162


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """All that one object is made from."""

    result: SegmentationResult
    sources: Sequence[Dataset]
    identity: AlgorithmIdentity
    settings: SegSettings
    uids: tuple[str, str]
    content_at: datetime
    replaces: Sequence[replacing.Replacement]


def encode_segmentation(
    result: SegmentationResult,
    *,
    source_paths: Sequence[Path],
    identity: AlgorithmIdentity,
    settings: SegSettings,
    uids: tuple[str, str],
    content_at: datetime,
    replaces: Sequence[replacing.Replacement] = (),
) -> bytes:
    """A DICOM file (Explicit VR Little Endian) with one BINARY segment for each Segment.

    source_paths: the source instances in the slice order of result.labels_zyx; the object lies on
    their grid, in their Study. uids: Series and SOP Instance UID (iod.identity). content_at: the
    date and time of the content, as it is to be read. replaces: earlier results, which the new one
    names. The same arguments give the same bytes.
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
        replaces=replaces,
    )
    try:
        encoded = _segmentation(order)
    except (KeyError, ValueError) as error:  # a SOP Class or a geometry that highdicom refuses
        raise NotAVolume("the source images are not of a kind that can be segmented") from error
    _complete(encoded, order)
    _fix_generated_uids(encoded, uids[1])
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, encoded, enforce_file_format=True)
    return with_elements(buffer.getvalue(), copied(source_paths[0], PATIENT_AND_STUDY))


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
    label = plain(segment.label, LO)
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=plain(identity.name, LO),
        family=_AI,
        version=plain(identity.version, LO),
        source=plain(identity.manufacturer, LO) or None,
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
        description.SegmentDescription = plain(" ".join(order.result.warnings), ST)
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
        series_number=series_number(sources[0].SeriesNumber, settings.series_number_offset),
        sop_instance_uid=uids[1],
        instance_number=1,
        manufacturer=plain(settings.manufacturer, LO),
        manufacturer_model_name=plain(identity.name, LO),
        software_versions=versions(identity),
        device_serial_number=DEVICE_SERIAL_NUMBER,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=settings.omit_empty_frames and bool(labels.any()),
        content_label="SEGMENTATION",
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
    name = replacing.name_of(identity.name, order.replaces)
    encoded.SeriesDescription = titled(name, research_use=settings.research_use)
    encoded.ContentDescription = RESEARCH_USE if settings.research_use else plain(name, LO)
    replacing.relate(encoded, order.replaces)
    notes = [f"{RESEARCH_USE}."] if settings.research_use else []
    notes += [sentence] if (sentence := replacing.sentence(order.replaces)) else []
    notes += [plain(note, LT) for note in (*result.warnings, *result.notes)]
    if not result.labels_zyx.any():
        notes.append("Nothing was found: every segment is empty.")
    if notes:
        encoded.ImageComments = " ".join(notes)[:LT]
    what = "Segmentation by this tool and these weights (SHA-256)"
    encoded.ContributingEquipmentSequence = [equipment(identity, order.content_at, what)]
    encoded.file_meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    encoded.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME


def _fix_generated_uids(encoded: Dataset, sop_instance_uid: str) -> None:
    """highdicom draws the Dimension Organization UID at random: derive it instead."""
    uid = derived_uid("dimension organization", sop_instance_uid)
    for item in (*encoded.DimensionOrganizationSequence, *encoded.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid


def _code(code: Code) -> PydicomCode:
    return PydicomCode(plain(code.value, SH), plain(code.scheme, SH), plain(code.meaning, LO))


def _concept(code: PydicomCode) -> Any:
    return highdicom.sr.CodedConcept.from_code(code)


def _is_code_string(text: str) -> bool:
    return 0 < len(text) <= SH and all(c.isdigit() or "A" <= c <= "Z" or c in " _" for c in text)
