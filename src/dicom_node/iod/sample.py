"""Small results of every kind that the node makes, to look at what stands in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from io import BytesIO
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from dicom_node.domain.identifiers import derived_uid
from dicom_node.domain.tool import AlgorithmIdentity, Code, Segment, SegmentationResult
from dicom_node.iod import rejection, secondary
from dicom_node.iod.composing import as_file, begun
from dicom_node.iod.image import read_volume
from dicom_node.iod.rejection import Rejection, encode_rejection
from dicom_node.iod.replacing import Replacement
from dicom_node.iod.secondary import encode_secondary_captures
from dicom_node.iod.seg import encode_segmentation
from dicom_node.iod.seg_settings import SegSettings

SEG_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"
_SLICES = 3
_AT = datetime(2026, 1, 5, 10, 15)  # noqa: DTZ001 - of a sample; DICOM has no zone here


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one object is made from. source: attributes of each slice; step_mm: between slices."""

    settings: SegSettings
    tool: AlgorithmIdentity
    source: Mapping[str, object]
    step_mm: tuple[int, int, int]
    segments: tuple[Segment, ...]
    at: datetime
    replaces: tuple[Replacement, ...] = ()
    warnings: tuple[str, ...] = ()

    def uid(self, *parts: str) -> str:
        """A UID of this sample."""
        return derived_uid("sample", str(self.source["StudyID"]), *parts)


_BARE: dict[str, object] = {  # without which there is no result
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    "Modality": "CT",
    "StudyID": "1",
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": [1, 1],
    "Rows": 8,
    "Columns": 8,
    "LossyImageCompression": "01",
    "LossyImageCompressionRatio": "20",
    "LossyImageCompressionMethod": "ISO_15444_1",
}
_USUAL = _BARE | {
    "LossyImageCompression": "00",
    "PatientName": "A^B",
    "PatientID": "1",
    "SpecificCharacterSet": "ISO_IR 100",
    "FrameOfReferenceUID": derived_uid("sample", "frame"),
    "SeriesNumber": 2,
    "BodyPartExamined": "CHEST",
    "SliceThickness": 3,
}
_OTHER = _USUAL | {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
    "Modality": "MR",
    "StudyID": "2",
    "ImageOrientationPatient": [0, 1, 0, 0, 0, 1],
    "PixelSpacing": [2, 3],
    "Rows": 10,
    "Columns": 12,
    "FrameOfReferenceUID": derived_uid("sample", "another frame"),
    "SeriesNumber": 7,
    "BodyPartExamined": "ABDOMEN",
    "SliceThickness": 5,
    "BurnedInAnnotation": "YES",
    "LossyImageCompression": "01",
    "LossyImageCompressionRatio": "10",
    "LossyImageCompressionMethod": "ISO_10918_1",
}


def samples(settings: SegSettings) -> tuple[Sample, ...]:
    """The usual one; one of another site; one in which all is different; one of a bare source."""
    usual = Sample(
        settings=settings,
        tool=_tool("1"),
        source=_USUAL,
        step_mm=(0, 0, 3),
        segments=(_segment(1, "Lung"),),
        at=_AT,
    )
    elsewhere = SegSettings(
        manufacturer=f"{settings.manufacturer[:60]} B",
        series_number_offset=settings.series_number_offset % 1000 + 1,
        research_use=not settings.research_use,
        omit_empty_frames=not settings.omit_empty_frames,
    )
    other = replace(
        usual,
        tool=_tool("2"),
        source=_OTHER,
        step_mm=(5, 0, 0),
        segments=(_segment(1, "Heart"), _segment(2, "Liver")),
        at=_AT.replace(month=2, hour=3),
        replaces=_earlier("2"),
        warnings=("Warning: another.",),
    )
    bare = replace(
        usual,
        source=_BARE,
        segments=tuple(_segment(number, str(number)) for number in (1, 2, 3)),
        replaces=_earlier("1"),
        warnings=("Warning: one.",),
    )
    return usual, replace(usual, settings=elsewhere), other, bare


def _tool(name: str) -> AlgorithmIdentity:
    return AlgorithmIdentity(
        tool_id=name, name=name, version=name, digest=f"sha256:{name * 64}", manufacturer=name
    )


def _segment(number: int, label: str) -> Segment:
    code = Code(value=label, scheme="SCT", meaning=label)
    return Segment(
        number=number,
        label=label,
        category=code,
        type=code,
        laterality=code,
        rgb=(0, 50 * number, len(label)),
    )


def _earlier(name: str) -> tuple[Replacement, ...]:
    uid = derived_uid("sample", "earlier", name)
    return tuple(
        Replacement(kind=kind, sop_instance_uid=uid, series_uid=uid) for kind in ("seg", "sc")
    )


def object_of(sop_class_uid: str, sample: Sample, folder: Path) -> Dataset:
    """The object of that SOP Class from the sample; `folder` is made, for its sources."""
    folder.mkdir()
    paths = [_source(sample, index, folder) for index in range(_SLICES)]
    return pydicom.dcmread(BytesIO(_ENCODERS[sop_class_uid](sample, paths)))


def _segmentation(sample: Sample, paths: Sequence[Path]) -> bytes:
    return encode_segmentation(
        _result(sample),
        source_paths=paths,
        identity=sample.tool,
        settings=sample.settings,
        uids=(sample.uid("series"), sample.uid("result")),
        content_at=sample.at,
        replaces=sample.replaces,
    )


def _secondary_capture(sample: Sample, paths: Sequence[Path]) -> bytes:
    pictures = encode_secondary_captures(
        _result(sample),
        volume=read_volume(paths),
        source_paths=paths,
        identity=sample.tool,
        settings=sample.settings,
        series_uid=sample.uid("series"),
        content_at=sample.at,
        replaces=sample.replaces,
    )
    return next(pictures).data


def _rejection_note(sample: Sample, paths: Sequence[Path]) -> bytes:
    note = Rejection(
        series_uid=sample.uid("series"),
        rejected=((str(sample.source["SOPClassUID"]), sample.uid("result")),),
        replaced_by=sample.uid("new series"),
    )
    return encode_rejection(note, of_study=paths[0], tool=sample.tool, settings=sample.settings)


_ENCODERS: Mapping[str, Callable[[Sample, Sequence[Path]], bytes]] = MappingProxyType(
    {
        SEG_CLASS: _segmentation,
        secondary.SOP_CLASS_UID: _secondary_capture,
        rejection.SOP_CLASS_UID: _rejection_note,
    }
)


def _shape(sample: Sample) -> tuple[int, int]:
    return int(str(sample.source["Rows"])), int(str(sample.source["Columns"]))


def _result(sample: Sample) -> SegmentationResult:
    labels = np.zeros((_SLICES, *_shape(sample)), np.uint8)
    for segment in sample.segments:
        labels[1:, segment.number, : segment.number] = segment.number
    return SegmentationResult(labels_zyx=labels, segments=sample.segments, warnings=sample.warnings)


def _source(sample: Sample, index: int, folder: Path) -> Path:
    """A slice of a source, as a file."""
    uid = sample.uid("source", str(index))
    image = begun(str(sample.source["SOPClassUID"]), uid, sample.uid("source"), sample.at)
    image.StudyInstanceUID = sample.uid("study")
    image.InstanceNumber = index + int(str(sample.source["StudyID"]))
    image.ImagePositionPatient = [mm * (index + 1) for mm in sample.step_mm]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 1
    image.RescaleIntercept, image.RescaleSlope = 0, 1
    for keyword, value in sample.source.items():
        setattr(image, keyword, value)
    image.add_new("PixelData", "OW", np.full(_shape(sample), index, np.int16).tobytes())
    path = folder / f"{index}.dcm"
    path.write_bytes(as_file(image, {}))
    return path
