"""Audit messages as XML that follows the schema of PS3.15 §A.5.1.1.

What comes from outside is told as it came; what XML, or a line, cannot hold is escaped.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from xml.etree import ElementTree as ET

from dicom_node.audit import codes as c
from dicom_node.audit.message import Concerned, Message, Participant
from dicom_node.domain.text import printable

LATEST = 253_402_300_799.0
"""UTC seconds, the last of the year 9999: a later time has no text."""

_NONE: Mapping[str, str] = MappingProxyType({})


def time_text(at: float) -> str:
    """xsd:dateTime in UTC, to the millisecond; it is also a TIMESTAMP of RFC 5424.

    at: from 0 to LATEST.
    """
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_xml(message: Message, source_id: str) -> str:
    """One line that follows the schema of PS3.15 §A.5.1.1. source_id: who reports it."""
    root = ET.Element("AuditMessage")
    event = _add(
        root,
        "EventIdentification",
        {
            "EventActionCode": message.action,
            "EventDateTime": time_text(message.at),
            "EventOutcomeIndicator": str(int(message.outcome)),
        },
    )
    _code(event, "EventID", message.event)
    if message.type is not None:
        _code(event, "EventTypeCode", message.type)
    if message.why:
        _add(event, "EventOutcomeDescription").text = printable(message.why)
    for participant in message.participants:
        _participant(root, participant)
    reporter = _add(root, "AuditSourceIdentification", {"AuditSourceID": source_id})
    _add(reporter, "AuditSourceTypeCode", {"csd-code": c.APPLICATION_SERVER})
    for one in message.concerned:
        _concerned(root, one)
    return '<?xml version="1.0" encoding="UTF-8"?>' + ET.tostring(root, encoding="unicode")


def _participant(root: ET.Element, who: Participant) -> None:
    said = {"UserID": who.user_id}
    if who.ae_title:  # PS3.15 §A.5.2.2
        said["AlternativeUserID"] = f"AETITLES={who.ae_title}"
    if who.name:
        said["UserName"] = who.name
    said["UserIsRequestor"] = "true" if who.requestor else "false"
    if who.address:
        said["NetworkAccessPointID"] = who.address
        said["NetworkAccessPointTypeCode"] = "2" if _is_ip(who.address) else "1"
    found = _add(root, "ActiveParticipant", said)
    if who.role is not None:
        _code(found, "RoleIDCode", who.role)
    if who.media is not None:
        _code(_add(found, "MediaIdentifier"), "MediaType", who.media)


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def _concerned(root: ET.Element, one: Concerned) -> None:
    found = _add(
        root,
        "ParticipantObjectIdentification",
        {
            "ParticipantObjectID": one.id,
            "ParticipantObjectTypeCode": one.kind,
            "ParticipantObjectTypeCodeRole": one.role,
        },
    )
    _code(found, "ParticipantObjectIDTypeCode", one.id_type)
    if one.query is not None:
        _add(found, "ParticipantObjectQuery").text = _base64(one.query)
    else:
        _add(found, "ParticipantObjectName").text = printable(one.name)
    for kind, value in one.details:
        _add(found, "ParticipantObjectDetail", {"type": kind, "value": _base64(value)})
    if one.accession_number or one.classes:
        described = _add(found, "ParticipantObjectDescription")
        if one.accession_number:
            _add(described, "Accession", {"Number": one.accession_number})
        for uid, count in one.classes:
            of = {"UID": uid} if uid else {}  # of what was refused it is not known
            _add(described, "SOPClass", {**of, "NumberOfInstances": str(count)})


def _add(parent: ET.Element, tag: str, attributes: Mapping[str, str] = _NONE) -> ET.Element:
    return ET.SubElement(parent, tag, {name: printable(text) for name, text in attributes.items()})


def _code(parent: ET.Element, tag: str, code: c.Code) -> None:
    said = {"csd-code": code.value, "codeSystemName": code.system, "originalText": code.meaning}
    _add(parent, tag, said)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
