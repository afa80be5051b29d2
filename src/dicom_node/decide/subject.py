"""What of a Series a tool is given, the header by which it is judged, and whose images they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dicom_node.decide.geometry import Fault, Finding, Split
from dicom_node.domain.records import Attributes


def chosen(split: Split) -> tuple[Attributes, ...]:
    """The instances that make the volume; all others where there is none, for their own reasons."""
    return split.volume or tuple(attributes for attributes, _ in split.others)


def header(
    instances: Sequence[Attributes], *, calling_ae: str = "", called_ae: str = ""
) -> Attributes:
    """That of the first of the chosen instances by SOP Instance UID, with what the node knows.

    So it does not depend on the order in which they came. Without a title its keyword is missing.
    """
    first = min(instances, key=lambda attributes: str(attributes.get("SOPInstanceUID", "")))
    known = {"CallingAE": calling_ae, "CalledAE": called_ae, "InstancesInSeries": len(instances)}
    return {**first, **{key: value for key, value in known.items() if value != ""}}


def mixed(instances: Iterable[Attributes]) -> tuple[Finding, ...]:
    """Whether one Series Instance UID stands on images of several patients or studies.

    A modality that uses a UID twice, or a hand that merged two Series: whatever the geometry says,
    a result would be that of another patient. Patients are told apart by Patient ID, and those of
    one ID by Issuer of Patient ID where it is known; what is empty says nothing.
    """
    issuers: dict[str, set[str]] = {}
    studies: set[str] = set()
    for attributes in instances:
        patient = str(attributes.get("PatientID", ""))
        if patient:
            issuers.setdefault(patient, set()).add(str(attributes.get("IssuerOfPatientID", "")))
        studies.add(str(attributes.get("StudyInstanceUID", "")))
    patients = sum(max(len(known - {""}), 1) for known in issuers.values())
    counts = (
        (Fault.PATIENTS, patients, "patients"),
        (Fault.STUDIES, len(studies - {""}), "studies"),
    )
    return tuple(
        Finding(code=code, reason=f"the Series holds images of {count} {whose}")
        for code, count, whose in counts
        if count > 1
    )
