"""Audit messages (PS3.15 §A.5): who did what to whose data, when, and with what success.

Values, and a function for each kind of message that the node writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

from dicom_node.audit import codes as c
from dicom_node.domain.text import printable


class Outcome(IntEnum):
    """How it ended (PS3.15 §A.5.1.1)."""

    SUCCESS = 0
    MINOR = 4
    SERIOUS = 8
    MAJOR = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """Who took part. user_id: by which our log knows him. requestor: it was he who wanted it.

    address: IP address or name of his machine. media: what data were written to.
    """

    user_id: str
    ae_title: str = ""
    name: str = ""
    requestor: bool = False
    role: c.Code | None = None
    address: str = ""
    media: c.Code | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Concerned:
    """A participant object: a patient, a study, a query, the subject of an alert.

    query: the bytes asked by, instead of a name. details: more about it, by the kind of detail.
    classes: SOP Class UID -> how many instances.
    """

    kind: str
    role: str
    id_type: c.Code
    id: str
    name: str = ""
    query: bytes | None = None
    details: tuple[tuple[str, bytes], ...] = ()
    accession_number: str = ""
    classes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One audit message. at: UTC seconds. why: words about an outcome that is no success."""

    event: c.Code
    action: str
    at: float
    outcome: Outcome = Outcome.SUCCESS
    why: str = ""
    type: c.Code | None = None
    participants: tuple[Participant, ...]
    concerned: tuple[Concerned, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """SOP Instances of one patient and study on their way, or there. classes: as of Concerned."""

    study_uid: str
    patient_id: str = ""
    patient_name: str = ""
    accession_number: str = ""
    classes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A query. identifier: its keys, a data set in that transfer syntax; by: whoever wanted it.

    class_uid: SOP Class of the query; or url: of the service that was asked by HTTP.
    """

    identifier: bytes
    class_uid: str = ""
    transfer_syntax: str = ""
    url: str = ""
    by: Participant | None = None


def application_activity(*, at: float, node: Participant, started: bool) -> Message:
    """The node has started, or is about to stop (PS3.15 §A.5.3.1)."""
    return Message(
        event=c.APPLICATION_ACTIVITY,
        action="E",
        at=at,
        type=c.APPLICATION_START if started else c.APPLICATION_STOP,
        participants=(_as(node, c.APPLICATION),),
    )


def begin_transferring(
    *, at: float, source: Participant, destination: Participant, what: Transfer
) -> Message:
    """The source has begun to send instances of a study (PS3.15 §A.5.3.3)."""
    return Message(
        event=c.BEGIN_TRANSFERRING,
        action="E",
        at=at,
        participants=_between(source, destination),
        concerned=_study_and_patient(what),
    )


def instances_transferred(
    *,
    at: float,
    source: Participant,
    destination: Participant,
    what: Transfer,
    action: str = "R",
    outcome: Outcome = Outcome.SUCCESS,
    why: str = "",
    by: Participant | None = None,
) -> Message:
    """Instances of a study were sent (PS3.15 §A.5.3.7).

    action: "C" where the receiver did not have them, "R" where it had, or is not this node. by:
    whoever had it done, if it was not the source.
    """
    return Message(
        event=c.INSTANCES_TRANSFERRED,
        action=action,
        at=at,
        outcome=outcome,
        why=why,
        participants=_between(source, destination, by),
        concerned=_study_and_patient(what),
    )


def instances_deleted(*, at: float, node: Participant, what: Transfer) -> Message:
    """The node removed instances, and keeps no others of their Series (PS3.15 §A.5.3.6)."""
    return Message(
        event=c.INSTANCES_ACCESSED,
        action="D",
        at=at,
        participants=(_as(node, None, requestor=True),),
        concerned=_study_and_patient(what),
    )


def export(
    *, at: float, user: Participant, source: Participant, to_uri: str, what: Transfer
) -> Message:
    """Somebody had instances written where the node has no hold of them (PS3.15 §A.5.3.4)."""
    media = Participant(user_id=to_uri, role=c.DESTINATION_MEDIA, media=c.MEDIA_URI)
    return Message(
        event=c.EXPORT,
        action="R",
        at=at,
        participants=(_as(user, c.SOURCE, requestor=True), _as(source, c.SOURCE), media),
        concerned=_study_and_patient(what),
    )


def query(*, at: float, source: Participant, destination: Participant, asked: Asked) -> Message:
    """The source asked what the destination has (PS3.15 §A.5.3.10); the answer is not told."""
    return Message(
        event=c.QUERY,
        action="E",
        at=at,
        participants=_between(source, destination, asked.by),
        concerned=(
            Concerned(
                kind=c.SYSTEM,
                role=c.REPORT,
                id_type=c.URI if asked.url else c.CLASS_UID,
                id=asked.url or asked.class_uid,
                query=asked.identifier,
                details=(("TransferSyntax", asked.transfer_syntax.encode()),)
                if asked.transfer_syntax
                else (),
            ),
        ),
    )


def user_authentication(
    *, at: float, user: Participant, node: Participant, outcome: Outcome, why: str = ""
) -> Message:
    """Somebody gave a name to be let in by (PS3.15 §A.5.3.12)."""
    return Message(
        event=c.USER_AUTHENTICATION,
        action="E",
        at=at,
        outcome=outcome,
        why=why,
        type=c.LOGIN,
        participants=(_as(user, None, requestor=True), _as(node, None)),
    )


def security_alert(
    *,
    at: float,
    node: Participant,
    kind: c.Code,
    what: str,
    by: Participant | None = None,
    outcome: Outcome = Outcome.MINOR,
) -> Message:
    """Something that security is concerned with (PS3.15 §A.5.3.11).

    outcome: SUCCESS for what is as it should be, MINOR or SERIOUS where the node is secure all the
    same, MAJOR where it may not be.
    by: who did it; the alert is about his machine, else about the node.
    """
    about = by or node
    return Message(
        event=c.SECURITY_ALERT,
        action="E",
        at=at,
        outcome=outcome,
        type=kind,
        participants=(_as(node, None, requestor=True), *((_as(by, None),) if by else ())),
        concerned=(
            Concerned(
                kind=c.SYSTEM,
                role=c.SECURITY_RESOURCE,
                id_type=c.NODE_ID,
                id=about.address or about.user_id,
                name=about.user_id,
                details=(("Alert Description", printable(what).encode()),),
            ),
        ),
    )


def _as(who: Participant, role: c.Code | None, *, requestor: bool = False) -> Participant:
    return replace(who, role=role, requestor=requestor)


def _between(
    source: Participant, destination: Participant, by: Participant | None = None
) -> tuple[Participant, ...]:
    """One of them wanted it: a third party, if there is one."""
    third = () if by is None else (_as(by, None, requestor=True),)
    return (_as(source, c.SOURCE, requestor=not third), _as(destination, c.DESTINATION), *third)


def _study_and_patient(what: Transfer) -> tuple[Concerned, Concerned]:
    study = Concerned(
        kind=c.SYSTEM,
        role=c.REPORT,
        id_type=c.STUDY_UID,
        id=what.study_uid,
        name="Study",
        accession_number=what.accession_number,
        classes=tuple(sorted(what.classes.items())),
    )
    patient = Concerned(
        kind=c.PERSON,
        role=c.PATIENT,
        id_type=c.PATIENT_NUMBER,
        id=what.patient_id,
        name=what.patient_name,
    )
    return study, patient
