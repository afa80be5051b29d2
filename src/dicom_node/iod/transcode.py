"""Data elements copied from a source into a result, byte for byte, as Explicit VR Little Endian."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from pathlib import Path

from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicom_node.iod.elements import (
    Buffer,
    Coding,
    Element,
    Located,
    Malformed,
    elements,
    items,
    locate,
    mapped,
)

# Patient, General Study, Patient Study and Clinical Trial modules (PS3.3 C.7.1.1, C.7.2, C.7.1.3)
PATIENT_AND_STUDY = (
    *("SpecificCharacterSet", "TimezoneOffsetFromUTC", "PatientName", "PatientID"),
    *("IssuerOfPatientID", "TypeOfPatientID", "IssuerOfPatientIDQualifiersSequence"),
    *("PatientBirthDate", "PatientBirthTime", "PatientSex", "OtherPatientIDsSequence"),
    *("OtherPatientIDs", "OtherPatientNames", "EthnicGroup", "PatientComments"),
    *("PatientSpeciesDescription", "PatientSpeciesCodeSequence", "PatientBreedDescription"),
    *("PatientBreedCodeSequence", "BreedRegistrationSequence", "ResponsiblePerson"),
    *("ResponsiblePersonRole", "ResponsibleOrganization", "PatientIdentityRemoved"),
    *("DeidentificationMethod", "DeidentificationMethodCodeSequence", "QualityControlSubject"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID"),
    *("AccessionNumber", "IssuerOfAccessionNumberSequence", "StudyDescription"),
    *("ProcedureCodeSequence", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy"),
    *("ConsultingPhysicianName", "AdmittingDiagnosesDescription", "PatientAge", "PatientSize"),
    *("PatientWeight", "PatientSexNeutered", "MedicalAlerts", "Allergies", "Occupation"),
    *("SmokingStatus", "AdditionalPatientHistory", "AdmissionID"),
    *("IssuerOfAdmissionIDSequence", "ClinicalTrialSponsorName", "ClinicalTrialProtocolID"),
    *("ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName"),
    *("ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID"),
    *("ClinicalTrialTimePointDescription", "PositionReferenceIndicator"),
)

_MAX_SHORT = 0xFFFE
_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_TEXT = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM"}
) | {
    *("UC", "UI", "UR", "UT"),
}


def copied(source: Path | bytes, keywords: Iterable[str]) -> dict[int, bytes]:
    """Tag -> encoded element, of the named attributes that the source has at its top level.

    Values are the bytes of the source, whatever they are worth. An element that cannot be written
    in its VR, or a damaged sequence, is left out. Raises NotDicom.
    """
    wanted = {tag_for_keyword(k) for k in keywords}
    if isinstance(source, bytes):
        return _copied(source, wanted)
    with mapped(source) as data:
        return _copied(data, wanted)


def _copied(data: Buffer, wanted: Collection[int | None]) -> dict[int, bytes]:
    located = locate(data)
    found: dict[int, bytes] = {}
    try:
        for element in elements(located, before=0x00400000):
            if element.tag in wanted:
                encoded = _encoded(located, element, located.coding, 0)
                if encoded is not None:
                    found[element.tag] = encoded
    except Malformed:
        return found
    return found


def top_level(encoded: Located) -> dict[int, bytes]:
    """Tag -> element, of a data set that is Explicit VR Little Endian already."""
    found: dict[int, bytes] = {}
    position = encoded.start
    for element in elements(encoded):
        found[element.tag] = bytes(encoded.data[position : element.next])
        position = element.next
    return found


def _encoded(located: Located, element: Element, coding: Coding, depth: int) -> bytes | None:
    vr = _vr(element)
    if vr == "SQ" or element.undefined:
        try:
            value = _sequence(located, element, coding, depth + 1)
        except Malformed:
            return None
        vr = "SQ"
    elif vr in _TEXT or not coding.big:
        value = bytes(located.data[element.start : element.stop])
    else:
        return None  # a number that would have to be turned round: none is worth it
    header = struct.pack("<HH2s", element.tag >> 16, element.tag & 0xFFFF, vr.encode("ascii"))
    if vr in _LONG:
        return header + struct.pack("<HI", 0, len(value)) + value
    if len(value) > _MAX_SHORT:
        return None
    return header + struct.pack("<H", len(value)) + value


def _sequence(located: Located, element: Element, coding: Coding, depth: int) -> bytes:
    if depth > 8:
        raise Malformed("nested deeper than any of the copied attributes")
    inner = Coding(explicit=False) if element.vr == b"UN" else coding
    written = b""
    for item in items(located.data, element, coding):
        parts = [_encoded(located, e, inner, depth) for e in item]
        value = b"".join(p for p in parts if p is not None)
        written += struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value
    return written


def _vr(element: Element) -> str:
    if element.vr not in (b"", b"UN"):
        return element.vr.decode("ascii")
    try:
        vr: str = dictionary_VR(element.tag)
    except KeyError:
        return "UN"
    return vr[:2]  # "US or SS"
