"""Where an object comes from that says of itself that this software made it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from dicom_node.domain.identifiers import derived_uid
from dicom_node.domain.records import Attributes
from dicom_node.iod.replacing import SCHEME

_NODE = "dicom-node "  # begins the item of Software Versions (0018,1020) with the node's version
REJECTION = "rejection"
_KINDS = {
    "1.2.840.10008.5.1.4.1.1.66.4": "seg",
    "1.2.840.10008.5.1.4.1.1.7": "sc",
    "1.2.840.10008.5.1.4.1.1.88.59": REJECTION,
}
_TAGS = (
    "SOPInstanceUID",
    "SourceImageSequence",
    "ReferencedSeriesSequence",
    "RelatedSeriesSequence",
    "CurrentRequestedProcedureEvidenceSequence",
    "ContributingEquipmentSequence",
    "DimensionOrganizationSequence",
)
_UNREADABLE = (
    *(InvalidDicomError, OSError, EOFError, struct.error, RuntimeError),
    *(AttributeError, IndexError, KeyError, TypeError, ValueError),
)
"""What pydicom raises for a data set that is not what it says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a result says of its making. source_uids: SOP Instance UIDs of what it refers to: the
    sources; of a rejection note, what it rejects. replaced: Series that it takes the place of.

    tool_version: version and digest, without the arithmetic, which is not written into a result.
    """

    kind: str
    tool_id: str
    tool_version: str
    source_uids: frozenset[str]
    replaced: frozenset[str]


def claims_to_be_ours(attributes: Attributes) -> bool:
    """Whether the header says so: a derived UID, and the node among the software. Cheap."""
    return str(attributes.get("SOPInstanceUID", "")).startswith("2.25.") and any(
        version.startswith(_NODE) for version in _versions(attributes.get("SoftwareVersions"))
    )


def provenance(path: Path, attributes: Attributes) -> Provenance | None:
    """What the object was made from and by which tool, None if this software did not make it.

    attributes: the header as read_attributes gives it. Beyond the claim a Segmentation is held
    against a UID that only this software derives from the object's own: one that was renumbered on
    its way is not ours any more.
    """
    if not claims_to_be_ours(attributes):
        return None
    try:
        dataset = pydicom.dcmread(path, specific_tags=list(_TAGS), stop_before_pixels=True)
        tool_id, tool_version = _tool(dataset)
        sources = frozenset(_references(dataset))
        replaced = frozenset(_replaced(dataset))
        genuine = _is_genuine(dataset)
    except _UNREADABLE:
        return None
    if not genuine or not sources:
        return None
    sop_class = str(attributes.get("SOPClassUID", ""))
    kind = _KINDS.get(sop_class, str(attributes.get("Modality", "")).lower())
    return Provenance(
        kind=kind,
        tool_id=tool_id,
        tool_version=tool_version,
        source_uids=sources,
        replaced=replaced,
    )


def _tool(dataset: Dataset) -> tuple[str, str]:
    """Id and version of the tool, from the Contributing Equipment that iod writes."""
    item = dataset.ContributingEquipmentSequence[0]
    tool_id = str(item.ManufacturerModelName)
    first, *digests = [v for v in _versions(item.SoftwareVersions) if not v.startswith(_NODE)]
    version = first.removeprefix(tool_id).strip()
    digest = f"+{digests[0][:12]}" if digests else ""
    return tool_id, f"{version}{digest}"


def _is_genuine(dataset: Dataset) -> bool:
    organizations = dataset.get("DimensionOrganizationSequence")
    if not organizations:
        return True  # no Segmentation: its claim has to do
    derived = derived_uid("dimension organization", str(dataset.SOPInstanceUID))
    return str(organizations[0].DimensionOrganizationUID) == derived


def _references(dataset: Dataset) -> Iterator[str]:
    """Every Referenced SOP Instance UID at any depth."""
    for element in dataset:
        if element.keyword == "ReferencedSOPInstanceUID":
            yield str(element.value)
        elif element.VR == "SQ":
            for item in element.value:
                yield from _references(item)


def _replaced(dataset: Dataset) -> Iterator[str]:
    """The Series that iod.replacing names."""
    for item in dataset.get("RelatedSeriesSequence", ()):
        if any(c.CodingSchemeDesignator == SCHEME for c in item.PurposeOfReferenceCodeSequence):
            yield str(item.SeriesInstanceUID)


def _versions(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(v) for v in value] if value else []
