"""A SegmentationResult as a SOP Instance of Segmentation Storage (PS3.3 A.51, C.8.20)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from dicom_node.iod.seg_frames import Place, frames_of, references
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
class _Image:
    """One source. position: Image Position (Patient) as text, each number a DS."""

    sop_class_uid: str
    sop_instance_uid: str
    position: tuple[str, str, str]
    plane: Plane
    header: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """All that one object is made from."""

    result: SegmentationResult
    sources: Sequence[_Image]
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
    headers: Sequence[Mapping[str, object]] | None = None,
) -> bytes:
    """A DICOM file (Explicit VR Little Endian) with one BINARY segment for each Segment.

    source_paths: the source instances in the slice order of result.labels_zyx; the object lies on
    their grid, in their Study. headers: what `read_attributes` gives of each, where it is known.
    uids: Series and SOP Instance UID (iod.identity). content_at: the date and time of the content,
    as it is to be read. replaces: earlier results, which the new one names. The same arguments give
    the same bytes.
    An empty result has one empty frame for each segment, in the middle of the stack.
    Raises NotAVolume where a source cannot be referred to, ToolError where the result is wrong.
    """
    sources = _sources(headers or [read_attributes(path) for path in source_paths])
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
    from_source = copied(source_paths[0], PATIENT_AND_STUDY)
    try:
        return _with_frames(order, from_source) or _by_highdicom(order, from_source)
    except (KeyError, ValueError) as error:  # a SOP Class or a geometry that highdicom refuses
        raise NotAVolume("the source images are not of a kind that can be segmented") from error


def _with_frames(order: _Order, from_source: dict[int, bytes]) -> bytes | None:
    """The object from one frame of highdicom's, and the bytes of all; None if that cannot be."""
    result, omit_empty = order.result, order.settings.omit_empty_frames
    if not result.labels_zyx.any():
        return None
    encoded = _segmentation(order, order.sources[:1], _one_of_each(result))
    frames = frames_of(
        encoded.PerFrameFunctionalGroupsSequence[0],
        result.labels_zyx,
        _places(order),
        segments=len(result.segments),
        omit_empty=omit_empty,
    )
    if frames is None:
        return None
    del encoded.PerFrameFunctionalGroupsSequence, encoded.PixelData
    encoded.NumberOfFrames = frames.number
    named = references(encoded, _places(order))
    return _file(encoded, order, from_source | named) + frames.elements()


def _by_highdicom(order: _Order, from_source: dict[int, bytes]) -> bytes:
    """The same bytes, every frame made by highdicom: slow, and what the quick way is held to."""
    labels: NDArray[np.uint8] = np.ascontiguousarray(order.result.labels_zyx)
    images = order.sources
    if not labels.any():
        middle = len(images) // 2
        images, labels = [images[middle]], labels[middle : middle + 1]
    encoded = _segmentation(order, images, labels)
    used = -(-int(encoded.NumberOfFrames) * labels[0].size // 8)
    encoded.PixelData = encoded.PixelData[:used] + b"\0" * (used % 2)  # it pads with a "0"
    if len(images) < len(order.sources):
        from_source = from_source | references(encoded, _places(order))
    return _file(encoded, order, from_source)


def _places(order: _Order) -> list[Place]:
    return [(i.sop_class_uid, i.sop_instance_uid, "\\".join(i.position)) for i in order.sources]


def _file(encoded: Dataset, order: _Order, from_source: dict[int, bytes]) -> bytes:
    _complete(encoded, order)
    _fix_generated_uids(encoded, order.uids[1])
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, encoded, enforce_file_format=True)
    return with_elements(buffer.getvalue(), from_source)


def _one_of_each(result: SegmentationResult) -> NDArray[np.uint8]:
    """One slice in which each segment has a pixel."""
    labels = np.zeros_like(result.labels_zyx[:1])
    numbers = [segment.number for segment in result.segments]
    labels.reshape(-1)[: len(numbers)] = numbers
    return labels


def _sources(headers: Sequence[Mapping[str, object]]) -> list[_Image]:
    """What is needed to know of each source, checked."""
    if not headers:
        raise NotAVolume("a segmentation needs source images")
    return [_image(header) for header in headers]


def _image(header: Mapping[str, object]) -> _Image:
    plane = plane_of(header)
    if not isinstance(plane, Plane):
        raise NotAVolume(f"a source image cannot be placed: {plane}")
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        if keyword not in header:
            raise NotAVolume(f"a source image has no {keyword}")
    values = cast("Sequence[float]", header["ImagePositionPatient"])  # plane_of has seen them
    x, y, z = (format_number_as_ds(float(value)) for value in values)
    return _Image(
        sop_class_uid=str(header["SOPClassUID"]),
        sop_instance_uid=str(header["SOPInstanceUID"]),
        position=(x, y, z),
        plane=plane,
        header=header,
    )


def _dataset(image: _Image, first: Mapping[str, object]) -> Dataset:
    """A source as highdicom wants it, cleaned. first: the header of the first of them."""
    frame_of_reference = str(first.get("FrameOfReferenceUID") or "")
    if not frame_of_reference:
        frame_of_reference = derived_uid("frame of reference", str(first.get("SeriesInstanceUID")))
    header, plane = image.header, image.plane
    source = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(source, keyword, str(header[keyword]))
    source.FrameOfReferenceUID = frame_of_reference
    source.Rows, source.Columns = plane.rows, plane.columns
    source.ImagePositionPatient = list(image.position)
    for keyword in ("ImageOrientationPatient", "PixelSpacing"):
        values = cast("Sequence[float]", header[keyword])
        setattr(source, keyword, [format_number_as_ds(float(v)) for v in values])
    source.SliceThickness = format_number_as_ds(plane.thickness_mm) if plane.thickness_mm else None
    source.Modality = str(header.get("Modality", "CT"))
    source.SeriesNumber = header.get("SeriesNumber", 0)
    _copy_lossy(header, source)
    return source


def _body_part(order: _Order) -> str:
    said = str(order.sources[0].header.get("BodyPartExamined", ""))
    return said if _is_code_string(said) else ""


def _copy_lossy(header: Mapping[str, object], source: Dataset) -> None:
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


def _check_result(result: SegmentationResult, sources: Sequence[_Image]) -> None:
    shape = (len(sources), sources[0].plane.rows, sources[0].plane.columns)
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


def _segmentation(order: _Order, images: Sequence[_Image], labels: NDArray[np.uint8]) -> Dataset:
    """The object as highdicom makes it of these images, from an almost empty header."""
    identity, settings, uids = order.identity, order.settings, order.uids
    first = order.sources[0].header
    sources = [_dataset(image, first) for image in images]
    for keyword in _ASKED_FOR:
        setattr(sources[0], keyword, "")
    encoded: Dataset = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=labels,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(s, order) for s in order.result.segments],
        series_instance_uid=uids[0],
        series_number=series_number(first.get("SeriesNumber", 0), settings.series_number_offset),
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
    _complete_pixel_measures(encoded, sources[0], order.sources)
    return encoded


def _complete_pixel_measures(encoded: Dataset, first: Dataset, sources: Sequence[_Image]) -> None:
    """Slice thickness where the source says none, and the distance between slices.

    It is measured along the normal; slices that are unevenly spaced have no such distance, and the
    plane position of each frame says where it is (PS3.3 C.7.6.16.2.1).
    """
    x = [float(v) for v in first.ImageOrientationPatient]
    normal = np.cross(x[:3], x[3:])
    heights = [float(np.dot(normal, [float(v) for v in image.position])) for image in sources]
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
    if body_part := _body_part(order):
        encoded.BodyPartExamined = body_part
    mark = replacing.mark_of(order.replaces, doubtful=bool(result.doubts))
    title = titled(identity.name, mark=mark, research_use=settings.research_use)
    encoded.SeriesDescription = title
    encoded.ContentDescription = RESEARCH_USE if settings.research_use else title
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
