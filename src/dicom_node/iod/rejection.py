"""A rejection note: a Key Object Selection Document that withdraws results (IHE RAD IOCM).

PS3.3 A.35.4, C.17.6; its content is TID 2010 of PS3.16.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

from dicom_node import __version__
from dicom_node.decide.moment import content_moment
from dicom_node.domain.identifiers import derived_uid
from dicom_node.domain.tool import AlgorithmIdentity
from dicom_node.iod.composing import (
    LO,
    as_file,
    begun,
    code,
    equipment,
    of_patient_and_study,
    plain,
    reference,
    titled,
)
from dicom_node.iod.header import read_attributes
from dicom_node.iod.identity import manner
from dicom_node.iod.replacing import EARLIER
from dicom_node.iod.seg_settings import DEVICE_SERIAL_NUMBER, SegSettings

SOP_CLASS_UID = str(KeyObjectSelectionDocumentStorage)
_AFTER = 999  # Series Number: behind what it may reject


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """What a note withdraws: all instances of one Series.

    rejected: SOP Class UID and SOP Instance UID of each. replaced_by: Series Instance UID of what
    takes its place.
    """

    series_uid: str
    rejected: tuple[tuple[str, str], ...]
    replaced_by: str


def rejection_uids(
    rejection: Rejection, tool: AlgorithmIdentity, settings: SegSettings
) -> tuple[str, str]:
    """Series and SOP Instance UID of a note, from all that goes into it."""
    rejected = sorted({uid for _, uid in rejection.rejected})
    parts = (manner(settings, tool), rejection.replaced_by, *rejected)
    return derived_uid("rejection series", *parts), derived_uid("rejection note", *parts)


def encode_rejection(
    rejection: Rejection, *, of_study: Path, tool: AlgorithmIdentity, settings: SegSettings
) -> bytes:
    """The note as a DICOM file (Explicit VR Little Endian).

    of_study: any object of the Study: patient and Study are copied from it, byte for byte, and the
    moment of the content is taken from it. The same arguments give the same bytes. Raises NotDicom
    and OSError.
    """
    attributes = read_attributes(of_study)
    at = content_moment([attributes])
    series_uid, sop_instance_uid = rejection_uids(rejection, tool, settings)
    note = begun(SOP_CLASS_UID, sop_instance_uid, series_uid, at)
    note.StudyInstanceUID = str(attributes["StudyInstanceUID"])
    note.Modality = "KO"
    note.SeriesNumber = settings.series_number_offset + _AFTER
    note.SeriesDescription = titled("Rejection note", research_use=settings.research_use)
    note.ReferencedPerformedProcedureStepSequence = []
    note.InstanceNumber = 1
    note.Manufacturer = plain(settings.manufacturer, LO)
    note.ManufacturerModelName = "dicom-node"
    note.DeviceSerialNumber = DEVICE_SERIAL_NUMBER
    note.SoftwareVersions = f"dicom-node {__version__}"
    note.ContributingEquipmentSequence = [equipment(tool, at, "Made what is rejected here")]
    note.CurrentRequestedProcedureEvidenceSequence = [_evidence(rejection, note.StudyInstanceUID)]
    _tell(note, rejection)
    return as_file(note, of_patient_and_study(of_study))


def _evidence(rejection: Rejection, study_uid: str) -> Dataset:
    """Hierarchical SOP Instance Reference (PS3.3 C.17.2.1)."""
    series = Dataset()
    series.SeriesInstanceUID = rejection.series_uid
    series.ReferencedSOPSequence = [reference(*pair) for pair in rejection.rejected]
    study = Dataset()
    study.StudyInstanceUID = study_uid
    study.ReferencedSeriesSequence = [series]
    return study


def _tell(note: Dataset, rejection: Rejection) -> None:
    """TID 2010: the title, why, and the instances."""
    note.ValueType = "CONTAINER"
    note.ConceptNameCodeSequence = [code("113001", "DCM", "Rejected for Quality Reasons")]
    note.ContinuityOfContent = "SEPARATE"
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2010"
    note.ContentTemplateSequence = [template]
    why = Dataset()
    why.RelationshipType, why.ValueType = "CONTAINS", "TEXT"
    why.ConceptNameCodeSequence = [code("113012", "DCM", "Key Object Description")]
    why.TextValue = f"Replaced by series {rejection.replaced_by}: what is rejected is {EARLIER}."
    note.ContentSequence = [why, *(_image(*pair) for pair in rejection.rejected)]


def _image(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "IMAGE"
    item.ReferencedSOPSequence = [reference(sop_class_uid, sop_instance_uid)]
    return item
