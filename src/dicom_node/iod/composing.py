"""What every object that the node makes has in common: plain text, who made it, copied elements."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Final

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node import __version__
from dicom_node.domain.identifiers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.domain.tool import AlgorithmIdentity
from dicom_node.iod.elements import EXPLICIT_LITTLE, Located, locate
from dicom_node.iod.transcode import PATIENT_AND_STUDY, copied, top_level

NOT_CLINICAL: Final = "NOT FOR CLINICAL USE"
RESEARCH_USE: Final = f"RESEARCH USE ONLY, {NOT_CLINICAL}"

MAX_SERIES_NUMBER = 2**31 - 1
LO, SH, ST, LT = 64, 16, 1024, 10240  # longest values, PS3.5 §6.2
_FROM_SOURCE = (  # type 2 in the Patient and General Study modules, put in by `as_file`
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate"),
    *("StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)


def plain(text: str, limit: int) -> str:
    """ASCII without control characters and backslashes, so that it fits any character set."""
    folded = (
        unicodedata.normalize("NFKD", text.replace("°", " degrees"))
        .encode("ascii", "ignore")
        .decode("ascii")
    )
    clean = "".join(c if c.isprintable() and c != "\\" else " " for c in folded)
    return clean[:limit].strip()


def titled(name: str, *, mark: str = "", research_use: bool) -> str:
    """A Series Description (LO): the name, its mark, and that it is not for clinical use.

    Where there is no room for all, the name is cut.
    """
    suffix = mark + (f" - {NOT_CLINICAL}" if research_use else "")
    return plain(name, LO - len(suffix)) + suffix


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """An item of a Code Sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """An item that refers to a SOP Instance (PS3.3 10.8)."""
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def series_number(source: object, offset: int) -> int:
    """That of the source plus the offset, within what an IS can hold."""
    number = source if isinstance(source, int) and source > 0 else 0
    total = number + offset
    return total if 0 < total <= MAX_SERIES_NUMBER else max(offset, 1)


def versions(identity: AlgorithmIdentity) -> list[str]:
    """Tool, digest, node: the digest has 64 characters and some readers count a pad after it."""
    digest = identity.digest.removeprefix("sha256:")
    said = (f"{identity.tool_id} {identity.version}", digest, f"dicom-node {__version__}")
    return [plain(v, LO) for v in said if v]


def equipment(identity: AlgorithmIdentity, at: datetime, what: str) -> Dataset:
    """The tool, as what contributed to the object (PS3.3 C.12.1)."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code("109102", "DCM", "Processing Equipment")]  # 7005
    item.Manufacturer = plain(identity.manufacturer, LO)
    item.ManufacturerModelName = plain(identity.tool_id, LO)
    item.SoftwareVersions = versions(identity)
    item.ContributionDateTime = at.strftime("%Y%m%d%H%M%S")
    item.ContributionDescription = what
    return item


def with_elements(file: bytes, replaced: dict[int, bytes]) -> bytes:
    """The file (Explicit VR Little Endian) with some top-level elements put in or replaced."""
    located = locate(file)
    body = top_level(
        Located(
            data=file, start=located.start, transfer_syntax=EXPLICIT_LITTLE, coding=located.coding
        )
    )
    merged = body | replaced
    return file[: located.start] + b"".join(merged[tag] for tag in sorted(merged))


def begun(sop_class_uid: str, sop_instance_uid: str, series_uid: str, at: datetime) -> Dataset:
    """A data set with its UIDs and dates, and empty where the source is to be copied."""
    dataset = Dataset()
    for keyword in _FROM_SOURCE:
        setattr(dataset, keyword, "")
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class_uid, sop_instance_uid
    dataset.SeriesInstanceUID = series_uid
    for kind in ("InstanceCreation", "Content", "Series"):
        setattr(dataset, f"{kind}Date", at.strftime("%Y%m%d"))
        setattr(dataset, f"{kind}Time", at.strftime("%H%M%S"))
    return dataset


def of_patient_and_study(source: Path) -> dict[int, bytes]:
    """What an object without a Frame of Reference copies from a source. Raises NotDicom."""
    return copied(source, (k for k in PATIENT_AND_STUDY if k != "PositionReferenceIndicator"))


def as_file(dataset: Dataset, from_source: dict[int, bytes]) -> bytes:
    """A DICOM file (Explicit VR Little Endian), with elements copied from the source."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    dataset.file_meta = meta
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return with_elements(buffer.getvalue(), from_source)
