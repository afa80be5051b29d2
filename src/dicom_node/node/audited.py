"""Which audit message an event leads to (PS3.15 §A.5.3).

A transfer to this node is told when it begins and when it has ended, study by study, with counts:
an event for each image would be no trail but a flood. Both are taken from the catalog when they are
told, so that a crash in between loses nothing; after one, a beginning may be told twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from dicom_node.audit import codes, message
from dicom_node.audit.message import Message, Outcome, Participant, Transfer
from dicom_node.catalog.trail import Party, Subject, Trail
from dicom_node.dimse.status import DUPLICATE_INSTANCE, NOT_AUTHORISED
from dicom_node.domain import events as e
from dicom_node.domain import keeping as k
from dicom_node.domain import security as s
from dicom_node.domain.records import Peer
from dicom_node.domain.states import DeliveryState

AUDITED = (
    e.NodeStarted,
    e.AssociationOpened,
    e.AssociationEnded,
    e.AssociationRejected,
    e.AssociationBroken,
    e.InstanceRefused,
    e.RequestRefused,
    e.DeliveryClaimed,
    e.DeliveryEnded,
    k.SeriesPurged,
    s.HandshakeFailed,
    s.CertificateLoaded,
    s.CertificateRefused,
)
"""What is told by itself; of InstanceArrived it is told that it began, and how it ended."""
KINDS = frozenset(kind.__name__ for kind in AUDITED)

TOLD: Mapping[codes.Code, str] = MappingProxyType(
    {
        codes.APPLICATION_ACTIVITY: "The node starts, or stops in order.",
        codes.BEGIN_TRANSFERRING: "A peer begins to send instances of a study; a result is about "
        "to be sent to a peer.",
        codes.INSTANCES_TRANSFERRED: "An association that brought instances has ended: one message "
        'a study, with counts; action "C" for what was new, "R" for what the node had. An attempt '
        "to send a result has ended, whichever way. Instances of a known study were refused, or "
        "kept apart, for their UIDs are here with other content (outcome 4). A person sent files "
        "(`send`).",
        codes.INSTANCES_ACCESSED: 'Objects of a Series were removed (action "D").',
        codes.EXPORT: "A person had instances written into a folder (`get`).",
        codes.QUERY: "A peer is asked how many instances it has, or which; a person asks one "
        "(`find`, `move`, `get`), and stands there as requestor.",
        codes.USER_AUTHENTICATION: "A peer proved to be the `user` that it must be, and stored "
        "something or was refused something; a peer did not prove it.",
        codes.SECURITY_ALERT: "An association was rejected; TLS did not come about; a "
        "connection broke the protocol; a peer asked for what its `may` lacks; the node shows "
        "another certificate, or refused changed files of TLS; audit messages were lost.",
    }
)
"""Which messages there are, and when."""

_DELIVERED = {
    DeliveryState.SENT: Outcome.SUCCESS,
    DeliveryState.DEFERRED: Outcome.MINOR,
    DeliveryState.PARKED: Outcome.SERIOUS,
    DeliveryState.DEAD: Outcome.SERIOUS,
}

_APART = (
    f"answered with status {DUPLICATE_INSTANCE:04X}, and kept apart: these SOP Instance UIDs are "
    "here with other content"
)

Begun = frozenset[tuple[int, str]]
"""Of which studies an association is known to have begun to send: its number, the Study UID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """The messages of some events, in order; and what is under way after them."""

    messages: tuple[Message, ...]
    begun: Begun


def node_itself(ae_title: str, host: str) -> Participant:
    """This node, as it calls itself in its messages."""
    return Participant(user_id=ae_title, ae_title=ae_title, name="dicom-node", address=host)


def of_peer(peer: Peer) -> Participant:
    """A peer that is called by this node."""
    return Participant(user_id=peer.ae_title, ae_title=peer.ae_title, address=peer.host)


def _of_caller(calling_ae: str, address: str) -> Participant:
    """Who called this node, as he says: he need not have said it."""
    return Participant(user_id=calling_ae or address, ae_title=calling_ae, address=address)


class Teller:
    """Makes messages of what the catalog says."""

    def __init__(self, trail: Trail, node: Participant, peers: Mapping[str, Peer]) -> None:
        self._trail = trail
        self._node = node
        self._peers = peers

    def story(self, after: int, until: int, begun: Begun) -> Story:
        """What the events after that number, and up to the other, are to be told as.

        Raises CatalogError.
        """
        events = self._trail.events(KINDS, after, until)
        started = any(isinstance(event, e.NodeStarted) for event in events)
        under_way = set(() if started else begun)
        beginnings = list(self._beginnings(after, until, under_way))
        rest = [message for event in events for message in self._of(event)]
        over = {event.number for event in events if isinstance(event, e.AssociationEnded)}
        return Story(
            messages=tuple(sorted((*beginnings, *rest), key=lambda one: one.at)),
            begun=frozenset(one for one in under_way if one[0] not in over),
        )

    def _beginnings(
        self, after: int, until: int, under_way: set[tuple[int, str]]
    ) -> Iterator[Message]:
        for one in self._trail.arrivals(after, until):
            subject = self._trail.subject(one.series_uid)
            known = (one.party.number, subject.study_uid if subject is not None else "")
            if known in under_way:
                continue
            under_way.add(known)
            classes: Counter[str] = Counter()
            for some in self._trail.brought(one.party.number, one.series_uid):
                classes.update(some.fresh)
                classes.update(some.repeated)
            yield message.begin_transferring(
                at=one.at,
                source=_of_caller(one.party.calling_ae, one.party.address),
                destination=self._node,
                what=_transfer(subject, classes),
            )

    def _of(self, event: e.Event) -> Iterable[Message]:  # noqa: PLR0911  # a table
        match event:
            case e.NodeStarted():
                return self._started(event)
            case e.AssociationOpened(user=str(user)) if user:
                return (self._login(event, user),)
            case e.AssociationEnded():
                return self._ended(event.number, event.at)
            case e.AssociationRejected() | e.AssociationBroken() | s.HandshakeFailed():
                return (self._turned_away(event),)
            case s.CertificateLoaded() | s.CertificateRefused():
                return (self._reconfigured(event),)
            case e.RequestRefused():
                return self._restricted(event) if event.status == NOT_AUTHORISED else ()
            case e.InstanceRefused():
                return self._refused(event)
            case e.DeliveryClaimed() | e.DeliveryEnded():
                return self._delivery(event)
            case k.SeriesPurged():
                what = self._transfer(event.series_uid, self._trail.classes(event.series_uid))
                return (message.instances_deleted(at=event.at, node=self._node, what=what),)
        return ()

    def _started(self, event: e.NodeStarted) -> Iterator[Message]:
        """What was under way when the node went down has ended."""
        for number in self._trail.ended_at(event.at):
            yield from self._ended(number, event.at)
        yield message.application_activity(at=event.at, node=self._node, started=True)

    def _ended(self, number: int, at: float) -> Iterator[Message]:
        """One message a study for what is new here, for what was here, and for what was kept
        apart."""
        party = self._trail.party(number)
        if party is None:
            return
        fresh: dict[str, list[tuple[str, dict[str, int]]]] = {}
        again: dict[str, list[tuple[str, dict[str, int]]]] = {}
        for one in self._trail.brought(number):
            subject = self._trail.subject(one.series_uid)
            study_uid = subject.study_uid if subject is not None else ""
            for told, classes in ((fresh, one.fresh), (again, one.repeated)):
                if classes:
                    told.setdefault(study_uid, []).append((one.series_uid, classes))
        for told, action in ((fresh, "C"), (again, "R")):
            for some in told.values():
                yield self._received(party, at, action, some)
        for apart in self._trail.apart(number):
            yield message.instances_transferred(
                at=at,
                source=_of_caller(party.calling_ae, party.address),
                destination=self._node,
                what=_transfer(apart.subject, apart.classes),
                outcome=Outcome.MINOR,
                why=_APART,
            )

    def _received(
        self, party: Party, at: float, action: str, some: list[tuple[str, dict[str, int]]]
    ) -> Message:
        classes: Counter[str] = Counter()
        for _, counts in some:
            classes.update(counts)
        return message.instances_transferred(
            at=at,
            source=_of_caller(party.calling_ae, party.address),
            destination=self._node,
            what=self._transfer(some[0][0], classes),
            action=action,
        )

    def _refused(self, event: e.InstanceRefused) -> Iterator[Message]:
        """Where it is not known whose data it was, nothing was transferred that could be told."""
        if event.status == NOT_AUTHORISED:
            yield from self._restricted(event)
        elif event.study_uid:
            known = self._transfer(event.series_uid, {})
            yield message.instances_transferred(
                at=event.at,
                source=self._caller(event),
                destination=self._node,
                what=Transfer(
                    study_uid=event.study_uid,
                    patient_id=known.patient_id,
                    patient_name=known.patient_name,
                    accession_number=known.accession_number,
                    classes={"": event.times},
                ),
                outcome=Outcome.MINOR,
                why=f"refused with status {event.status:04X}: {event.reason}",
            )

    def _restricted(self, event: e.InstanceRefused | e.RequestRefused) -> Iterator[Message]:
        request = "C-STORE" if isinstance(event, e.InstanceRefused) else event.request
        times = event.times
        yield message.security_alert(
            at=event.at,
            node=self._node,
            kind=codes.RESTRICTED_FUNCTION,
            what=_often(f"{request} was refused: {event.reason}", times),
            by=self._caller(event),
        )

    def _caller(self, event: e.InstanceRefused | e.RequestRefused) -> Participant:
        party = self._trail.party(event.association)
        address = event.address if isinstance(event, e.RequestRefused) else ""
        if not address and party is not None:
            address = party.address
        return _of_caller(event.calling_ae, address)

    def _alert(
        self,
        event: e.AssociationRejected | e.AssociationBroken | s.HandshakeFailed,
        what: str,
        times: int,
    ) -> Message:
        title = "" if isinstance(event, s.HandshakeFailed) else event.calling_ae
        return message.security_alert(
            at=event.at,
            node=self._node,
            kind=codes.NODE_AUTHENTICATION,
            what=_often(what, times),
            by=_of_caller(title, event.address),
        )

    def _turned_away(
        self, event: e.AssociationRejected | e.AssociationBroken | s.HandshakeFailed
    ) -> Message:
        match event:
            case e.AssociationRejected(user=str(user)):
                return self._no_login(event, user)
            case e.AssociationRejected():
                return self._alert(event, f"rejected: {event.reason}", event.times)
            case s.HandshakeFailed():
                return self._alert(event, f"no TLS: {event.reason}", event.times)
        return self._alert(event, event.reason, event.times)

    def _reconfigured(self, event: s.CertificateLoaded | s.CertificateRefused) -> Message:
        if isinstance(event, s.CertificateRefused):
            what, outcome = f"and are not used: {event.reason}", Outcome.MINOR
        else:
            what, outcome = f"the certificate is now sha256:{event.sha256}", Outcome.SUCCESS
        return message.security_alert(
            at=event.at,
            node=self._node,
            kind=codes.SECURITY_CONFIGURATION,
            what=f"the files of TLS have changed, {what}",
            outcome=outcome,
        )

    def _login(self, event: e.AssociationOpened, user: str) -> Message:
        """Who proved to be the user that the peer must be."""
        return message.user_authentication(
            at=event.at,
            user=replace(_of_caller(event.calling_ae, event.address), user_id=user),
            node=self._node,
            outcome=Outcome.SUCCESS,
        )

    def _no_login(self, event: e.AssociationRejected, user: str) -> Message:
        """Who did not prove to be the user that the peer must be."""
        caller = _of_caller(event.calling_ae, event.address)
        return message.user_authentication(
            at=event.at,
            user=replace(caller, user_id=user or caller.user_id),
            node=self._node,
            outcome=Outcome.MINOR,
            why=_often(event.reason, event.times),
        )

    def _delivery(self, event: e.DeliveryClaimed | e.DeliveryEnded) -> Iterator[Message]:
        sent = self._trail.sent(event.delivery_id)
        if sent is None:
            return
        peer = self._peers.get(sent.destination)
        to = of_peer(peer) if peer is not None else Participant(user_id=sent.destination)
        what = self._transfer(sent.series_uid, {sent.sop_class_uid: 1})
        if isinstance(event, e.DeliveryClaimed):
            yield message.begin_transferring(
                at=event.at, source=self._node, destination=to, what=what
            )
        elif event.state in _DELIVERED:
            outcome = _DELIVERED[event.state]
            yield message.instances_transferred(
                at=event.at,
                source=self._node,
                destination=to,
                what=what,
                outcome=outcome,
                why="" if outcome is Outcome.SUCCESS else event.reason,
            )

    def _transfer(self, series_uid: str, classes: Mapping[str, int]) -> Transfer:
        """Instances of the study that a Series is of."""
        return _transfer(self._trail.subject(series_uid), classes)


def _transfer(subject: Subject | None, classes: Mapping[str, int]) -> Transfer:
    """Instances of a study that may not be known."""
    if subject is None:
        return Transfer(study_uid="", classes=classes)
    return Transfer(
        study_uid=subject.study_uid,
        patient_id=subject.patient_id,
        patient_name=subject.patient_name,
        accession_number=subject.accession_number,
        classes=classes,
    )


def _often(what: str, times: int) -> str:
    return what if times <= 1 else f"{what} ({times} times)"
