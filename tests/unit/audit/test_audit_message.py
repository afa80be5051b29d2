"""Audit messages follow the schema of PS3.15 §A.5.1.1, and say what §A.5.3 asks of each kind."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.audit import codes, message
from dicom_node.audit.message import Asked, Message, Outcome, Participant, Transfer
from dicom_node.audit.xml import to_xml

AT = 1_796_000_000.25
NODE = Participant(user_id="NODE", ae_title="NODE", name="dicom-node", address="node.test")
CT = Participant(user_id="CT1", ae_title="CT1", address="10.1.2.3")
PERSON = Participant(user_id="ann@desk.test")
CT_CLASS, SEG_CLASS = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.66.4"
STUDY = Transfer(
    study_uid="1.2.3",
    patient_id="P-7",
    patient_name="Muster^Anna",
    accession_number="A1",
    classes={CT_CLASS: 12, SEG_CLASS: 1},
)

# --- the schema, as far as these messages use it: attributes (! is required), children in order
CODED = {"csd-code!", "codeSystemName!", "originalText!", "displayName"}
SCHEMA: dict[str, tuple[set[str], str]] = {
    "AuditMessage": (
        set(),
        "EventIdentification (ActiveParticipant )+AuditSourceIdentification "
        "(ParticipantObjectIdentification )*",
    ),
    "EventIdentification": (
        {"EventActionCode", "EventDateTime!", "EventOutcomeIndicator!"},
        "EventID (EventTypeCode )*(EventOutcomeDescription )?",
    ),
    "ActiveParticipant": (
        {
            *("UserID!", "AlternativeUserID", "UserName", "UserIsRequestor!"),
            *("NetworkAccessPointID", "NetworkAccessPointTypeCode"),
        },
        "(RoleIDCode )*(MediaIdentifier )?",
    ),
    "MediaIdentifier": (set(), "MediaType "),
    "AuditSourceIdentification": (
        {"AuditSourceID!", "AuditEnterpriseSiteID"},
        "(AuditSourceTypeCode )*",
    ),
    "ParticipantObjectIdentification": (
        {
            *("ParticipantObjectID!", "ParticipantObjectTypeCode"),
            *("ParticipantObjectTypeCodeRole", "ParticipantObjectDataLifeCycle"),
        },
        "ParticipantObjectIDTypeCode (ParticipantObjectName |ParticipantObjectQuery )"
        "(ParticipantObjectDetail )*(ParticipantObjectDescription )*",
    ),
    "ParticipantObjectDescription": (set(), "(MPPS )*(Accession )*(SOPClass )*"),
    "ParticipantObjectDetail": ({"type!", "value!"}, ""),
    "Accession": ({"Number!"}, ""),
    "SOPClass": ({"UID", "NumberOfInstances!"}, "(Instance )*"),
    **dict.fromkeys(
        ("EventID", "EventTypeCode", "RoleIDCode", "MediaType", "ParticipantObjectIDTypeCode"),
        (CODED, ""),
    ),
    "AuditSourceTypeCode": ({"csd-code!"}, ""),
    **dict.fromkeys(
        ("EventOutcomeDescription", "ParticipantObjectName", "ParticipantObjectQuery"),
        (set(), ""),
    ),
}


def require_valid(element: ET.Element) -> None:
    """AssertionError where an element is not as the schema has it."""
    attributes, children = SCHEMA[element.tag]
    required = {name[:-1] for name in attributes if name.endswith("!")}
    allowed = {name.rstrip("!") for name in attributes}
    assert required <= element.attrib.keys() <= allowed, element.tag
    found = "".join(f"{child.tag} " for child in element)
    assert re.fullmatch(children, found), f"{element.tag} has {found}"
    for child in element:
        require_valid(child)


def read(one: Message) -> ET.Element:
    """The message as a collector reads it."""
    text = to_xml(one, "NODE@node.test")
    assert "\n" not in text
    root = ET.fromstring(text)
    require_valid(root)
    assert root.find("AuditSourceIdentification").get("AuditSourceID") == "NODE@node.test"
    return root


def code(element: ET.Element | None) -> tuple[str, str]:
    assert element is not None
    return element.get("csd-code", ""), element.get("codeSystemName", "")


def roles(root: ET.Element) -> list[tuple[str, str, str]]:
    """(who, role, whether he wanted it) of each participant."""
    return [
        (p.get("UserID", ""), code(r)[0] if (r := p.find("RoleIDCode")) is not None else "",
         p.get("UserIsRequestor", ""))
        for p in root.findall("ActiveParticipant")
    ]  # fmt: skip


MESSAGES: dict[str, Callable[[], Message]] = {
    "start": lambda: message.application_activity(at=AT, node=NODE, started=True),
    "stop": lambda: message.application_activity(at=AT, node=NODE, started=False),
    "begin": lambda: message.begin_transferring(at=AT, source=CT, destination=NODE, what=STUDY),
    "transferred": lambda: message.instances_transferred(
        at=AT, source=CT, destination=NODE, what=STUDY, action="C"
    ),
    "failed": lambda: message.instances_transferred(
        at=AT, source=NODE, destination=CT, what=STUDY, outcome=Outcome.SERIOUS, why="no <room>"
    ),
    "sent by hand": lambda: message.instances_transferred(
        at=AT, source=NODE, destination=CT, what=STUDY, by=PERSON
    ),
    "deleted": lambda: message.instances_deleted(at=AT, node=NODE, what=STUDY),
    "export": lambda: message.export(
        at=AT, user=PERSON, source=NODE, to_uri="file:///mnt/stick", what=STUDY
    ),
    "query": lambda: message.query(
        at=AT, source=NODE, destination=CT, asked=Asked(
            identifier=b"\x08\0\x52\0", class_uid="1.2.840.10008.5.1.4.1.2.2.1",
            transfer_syntax="1.2.840.10008.1.2", by=PERSON,
        ),
    ),
    "web query": lambda: message.query(
        at=AT, source=NODE, destination=CT, asked=Asked(identifier=b"a=b", url="https://pacs/dw")
    ),
    "login": lambda: message.user_authentication(
        at=AT, user=CT, node=NODE, outcome=Outcome.MINOR, why="no such user"
    ),
    "alert": lambda: message.security_alert(
        at=AT, node=NODE, kind=codes.NODE_AUTHENTICATION, what="who is that?", by=CT
    ),
}  # fmt: skip
EXPECTED = {
    "start": ("110100", "E", "0", "110120"),
    "stop": ("110100", "E", "0", "110121"),
    "begin": ("110102", "E", "0", None),
    "transferred": ("110104", "C", "0", None),
    "failed": ("110104", "R", "8", None),
    "sent by hand": ("110104", "R", "0", None),
    "deleted": ("110103", "D", "0", None),
    "export": ("110106", "R", "0", None),
    "query": ("110112", "E", "0", None),
    "web query": ("110112", "E", "0", None),
    "login": ("110114", "E", "4", "110122"),
    "alert": ("110113", "E", "4", "110126"),
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_each_kind_of_message_is_valid_and_has_the_codes_of_the_standard(kind: str):
    root = read(MESSAGES[kind]())
    event = root.find("EventIdentification")
    event_id, action, outcome, type_code = EXPECTED[kind]

    assert code(event.find("EventID")) == (event_id, "DCM")
    assert event.get("EventActionCode") == action
    assert event.get("EventOutcomeIndicator") == outcome
    assert event.get("EventDateTime") == "2026-11-30T00:53:20.250Z"
    if type_code is None:
        assert event.find("EventTypeCode") is None
    else:
        assert code(event.find("EventTypeCode")) == (type_code, "DCM")


@pytest.mark.parametrize("kind", MESSAGES)
def test_exactly_one_participant_wanted_it(kind: str):
    wanted = [who for who, _, requestor in roles(read(MESSAGES[kind]())) if requestor == "true"]

    assert len(wanted) == (0 if kind in ("start", "stop") else 1)


def test_a_transfer_names_source_destination_study_and_patient():
    root = read(MESSAGES["transferred"]())
    source, destination = root.findall("ActiveParticipant")
    study, patient = root.findall("ParticipantObjectIdentification")

    assert roles(root) == [("CT1", "110153", "true"), ("NODE", "110152", "false")]
    assert source.get("AlternativeUserID") == "AETITLES=CT1"
    assert source.get("NetworkAccessPointID") == "10.1.2.3"
    assert source.get("NetworkAccessPointTypeCode") == "2"
    assert destination.get("NetworkAccessPointTypeCode") == "1"
    assert study.get("ParticipantObjectID") == "1.2.3"
    assert (study.get("ParticipantObjectTypeCode"), study.get("ParticipantObjectTypeCodeRole")) == (
        "2", "3",
    )  # fmt: skip
    assert code(study.find("ParticipantObjectIDTypeCode")) == ("110180", "DCM")
    described = study.find("ParticipantObjectDescription")
    assert described.find("Accession").get("Number") == "A1"
    assert {c.get("UID"): c.get("NumberOfInstances") for c in described.findall("SOPClass")} == {
        CT_CLASS: "12",
        SEG_CLASS: "1",
    }
    assert patient.get("ParticipantObjectID") == "P-7"
    assert patient.findtext("ParticipantObjectName") == "Muster^Anna"
    assert code(patient.find("ParticipantObjectIDTypeCode")) == ("2", "RFC-3881")


def test_a_failure_says_why():
    event = read(MESSAGES["failed"]()).find("EventIdentification")

    assert event.findtext("EventOutcomeDescription") == "no <room>"


def test_a_query_holds_its_keys_as_they_were_sent_and_who_typed_it():
    root = read(MESSAGES["query"]())
    asked = root.find("ParticipantObjectIdentification")
    detail = asked.find("ParticipantObjectDetail")

    assert asked.get("ParticipantObjectID") == "1.2.840.10008.5.1.4.1.2.2.1"
    assert base64.b64decode(asked.findtext("ParticipantObjectQuery")) == b"\x08\0\x52\0"
    assert detail.get("type") == "TransferSyntax"
    assert base64.b64decode(detail.get("value")) == b"1.2.840.10008.1.2"
    assert ("ann@desk.test", "", "true") in roles(root)


def test_an_export_names_the_medium():
    medium = read(MESSAGES["export"]()).findall("ActiveParticipant")[-1]

    assert medium.get("UserID") == "file:///mnt/stick"
    assert code(medium.find("RoleIDCode")) == ("110154", "DCM")
    assert code(medium.find("MediaIdentifier/MediaType")) == ("110037", "DCM")


def test_an_alert_describes_itself_and_names_the_machine():
    subject = read(MESSAGES["alert"]()).find("ParticipantObjectIdentification")
    detail = subject.find("ParticipantObjectDetail")

    assert subject.get("ParticipantObjectID") == "10.1.2.3"
    assert code(subject.find("ParticipantObjectIDTypeCode")) == ("110182", "DCM")
    assert detail.get("type") == "Alert Description"
    assert base64.b64decode(detail.get("value")) == b"who is that?"


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_whatever_a_peer_or_a_header_says_the_message_stays_one_valid_line(
    title: str, name: str, why: str
):
    root = read(
        message.instances_transferred(
            at=AT,
            source=Participant(user_id=title, ae_title=title, address=title),
            destination=NODE,
            what=Transfer(study_uid="1.2", patient_name=name, classes={"1.2": 1}),
            why=why,
        )
    )

    if title.isprintable():
        assert root.find("ActiveParticipant").get("UserID") == title
    told = root.findall("ParticipantObjectIdentification")[1].findtext("ParticipantObjectName")
    assert (told or "").isprintable()


def test_control_characters_are_escaped_and_forge_nothing():
    evil = 'A"/><EventID csd-code="0"/>\n<86>1 forged\x1b[2J\0'
    root = read(message.begin_transferring(
        at=AT, source=Participant(user_id=evil), destination=NODE, what=STUDY
    ))  # fmt: skip

    told = root.find("ActiveParticipant").get("UserID")
    assert told == 'A"/><EventID csd-code="0"/>\\n<86>1 forged\\x1b[2J\\x00'
