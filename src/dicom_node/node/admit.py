"""Who is let in to associate, and the record of those who are (PS3.8 §9.3.4)."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dicom_node.config.secrets import reveal
from dicom_node.decide.admission import (
    FINGERPRINT,
    NAME,
    NAME_AND_PASSCODE,
    Caller,
    Stranger,
    identified,
    subject_text,
    whom,
)
from dicom_node.decide.telling import Pace
from dicom_node.dimse.contract import AssociationRequest, Refusal, Rejection
from dicom_node.dimse.status import (
    CALLED_AE_UNKNOWN,
    CALLING_AE_UNKNOWN,
    IDENTITY_REFUSED,
    LOCAL_LIMIT_EXCEEDED,
    TEMPORARY_CONGESTION,
)
from dicom_node.domain import events as e
from dicom_node.domain import keeping as k
from dicom_node.domain import security as s
from dicom_node.domain.errors import CatalogError, ConfigurationError
from dicom_node.domain.records import Instance, Peer
from dicom_node.domain.text import printable
from dicom_node.node.clock import Clock
from dicom_node.node.journal import Journal
from dicom_node.node.missed import Missed, Sender
from dicom_node.node.quotas import Counted, Meter, quota_of
from dicom_node.node.refusals import Repeats

ONCE = Pace()  # an hour, of the same
OF_ADDRESS = Pace(first=50, then=1000)
STRANGERS = Pace(first=500, then=1000)
_AE_TITLE_MAX = 64  # of what is no AE title, for the record
_SUBJECT_MAX = 200  # of a certificate, likewise

_log = logging.getLogger("dicom_node")


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Who may associate, and how much may come.

    quiet_s: a Series is judged at the latest when nothing of it has come for so long. peer_max:
    associations of one peer at a time. closed: whether nobody is let in for now who wants to store.
    verify_unknown: whether somebody unknown is let in who does not want to store.
    """

    ae_title: str
    peers: tuple[Peer, ...]
    accept_unknown: bool
    min_free_bytes: int
    quiet_s: float
    peer_max: int = 1000
    closed: Callable[[], bool] = lambda: False
    verify_unknown: bool = False


@dataclass(slots=True)
class _Open:
    request: AssociationRequest
    who: tuple[str, str]
    opened_at: float
    may_store: bool
    idle_s: float | None
    flight: Counted | None = None
    user: str = ""
    recorded: bool = False


def _told_title(title: str) -> str:
    """An AE title for the record, even one that is none."""
    return printable(title)[:_AE_TITLE_MAX]


class Doors:
    """The associations that are open, and who may open one. Called from many threads."""

    def __init__(
        self,
        *,
        admission: Admission,
        journal: Journal,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        """wake: called when run_due has something to do."""
        self._admission = admission
        self._journal = journal
        self._clock = clock
        self._wake = wake
        self._open: dict[int, _Open] = {}
        self._untold: list[e.Event] = []
        self._lock = threading.Lock()
        self._missed = Missed()
        self._repeats = Repeats(ONCE, STRANGERS, OF_ADDRESS)
        self._meters = {
            peer.name: Meter(quota, clock)
            for peer in admission.peers
            if (quota := quota_of(peer)) is not None
        }
        self._last = journal.catalog.views.last_association()

    def admit(self, request: AssociationRequest) -> int | Rejection:
        """A number for the association, or why not (PS3.8 §9.3.4)."""
        if request.called_ae.strip() != self._admission.ae_title:
            reason = f"this node is called {self._admission.ae_title}"
            return self._reject(request, reason, CALLED_AE_UNKNOWN)
        caller, known = _caller(request), self._admission
        only_verifies = known.verify_unknown and not request.proposes_storage
        peer = whom(caller, known.peers, accept_unknown=known.accept_unknown or only_verifies)
        if isinstance(peer, Stranger):
            return self._reject(request, peer.reason, CALLING_AE_UNKNOWN)
        if peer is not None and (stranger := _user(peer, caller)) is not None:
            self.rejected(request, stranger.reason, user=_named(caller.identity))
            return IDENTITY_REFUSED
        if request.proposes_storage and self._admission.closed():
            return self._reject(request, "the node takes in nothing for now", TEMPORARY_CONGESTION)
        return self._count(request, peer)

    def _count(self, request: AssociationRequest, peer: Peer | None) -> int | Rejection:
        """A number, unless there are too many of this peer."""
        who = (peer.name, "") if peer is not None else ("", request.address)
        most = self._admission.peer_max
        if peer is not None and peer.max_associations is not None:
            most = peer.max_associations
        with self._lock:
            if sum(known.who == who for known in self._open.values()) < most:
                self._last += 1
                self._open[self._last] = _Open(
                    request=replace(request, identity=None),  # a passcode is not kept
                    who=who,
                    opened_at=self._clock.now(),
                    may_store=self._may_store(peer),
                    idle_s=None if peer is None else peer.idle_s,
                    flight=self._flight(peer),
                    user="" if peer is None else peer.user,
                )
                return self._last
        reason = f"it has {most} associations already, as many as a peer may"
        return self._reject(request, reason, LOCAL_LIMIT_EXCEEDED)

    def _may_store(self, peer: Peer | None) -> bool:
        return self._admission.accept_unknown if peer is None else "store" in peer.may

    def _flight(self, peer: Peer | None) -> Counted | None:
        meter = self._meters.get(peer.name) if peer is not None else None
        return Counted(meter) if meter is not None else None

    def _reject(self, request: AssociationRequest, reason: str, rejection: Rejection) -> Rejection:
        self.rejected(request, reason)
        return rejection

    def rejected(self, request: AssociationRequest, reason: str, user: str | None = None) -> None:
        """Record that it was rejected, unless the same was recorded lately.

        user: where that was for its user identity, the name that it gave.
        """
        event = e.AssociationRejected(
            at=self._clock.now(),
            calling_ae=_told_title(request.calling_ae),
            called_ae=_told_title(request.called_ae),
            address=request.address,
            reason=reason,
            user=user,
        )
        self._record_once(event, event.address, (event.calling_ae, reason, user))

    def broke(self, request: AssociationRequest, number: int | None, reason: str) -> None:
        """Record by which fault of the peer's it ended, unless the same was recorded lately."""
        event = e.AssociationBroken(
            at=self._clock.now(),
            calling_ae=_told_title(request.calling_ae),
            address=request.address,
            reason=reason,
            number=number,
        )
        with self._lock:
            known = self._open.get(number) if number is not None else None
            recorded = known is not None and known.recorded
        key = (event.calling_ae, reason, number if recorded else None)
        self._record_once(event, event.address, key)

    def unsecured(self, request: AssociationRequest, reason: str) -> None:
        """Record that there was no TLS with somebody, unless the same was recorded lately."""
        event = s.HandshakeFailed(at=self._clock.now(), address=request.address, reason=reason)
        self._record_once(event, event.address, (reason,))

    def refused(self, refusal: Refusal) -> None:
        """Record the refusal of what is no SOP Instance, unless the same was recorded lately."""
        event = e.RequestRefused(
            at=self._clock.now(),
            association=refusal.association,
            calling_ae=refusal.caller.calling_ae,
            address=refusal.caller.address,
            request=refusal.request,
            status=refusal.answer.status,
            reason=refusal.answer.comment,
        )
        key = (event.calling_ae, event.request, event.status, event.reason)
        self._record_once(event, event.address, key)

    def _record_once(
        self,
        event: e.AssociationRejected | e.AssociationBroken | e.RequestRefused | s.HandshakeFailed,
        address: str,
        key: tuple[str | int | None, ...],
    ) -> None:
        times = self._repeats.times((address, *key), event.at, address)
        if times:
            with contextlib.suppress(CatalogError):  # it stands, recorded or not
                self._journal.commit(replace(event, times=times))

    def idle_s(self, number: int) -> float | None:
        """How long this association may say nothing, if its peer is an exception."""
        return self._open[number].idle_s

    def identifies(self, number: int) -> bool:
        """Whether its user identity was demanded, and right."""
        return bool(self._open[number].user)

    def _sender(self, number: int) -> Sender | None:
        """Who opened it, while it is open."""
        known = self._open.get(number)
        return None if known is None else (known.request.calling_ae, known.request.address)

    def flight(self, number: int) -> Counted | None:
        """What counts its objects, if its peer has a quota."""
        return self._open[number].flight

    def echoed(self, request: AssociationRequest) -> None:
        """A line in the log, and no trace in the catalog: IT probes every few seconds."""
        who, secured = printable(request.calling_ae), _secured(request)
        where = f"{request.address} by {secured}" if secured else request.address
        _log.info("%s at %s: C-ECHO was answered", who, where)

    def may_store(self, number: int) -> bool:
        """Whether what comes on this association is stored."""
        return self._open[number].may_store

    def stored(self, instance: Instance) -> None:
        """It was kept."""
        sender = self._sender(instance.association)
        if sender is not None:
            subject = instance.sop_class_uid, instance.series_uid
            self._missed.stored(instance.association, sender, subject, instance.received_at)

    def missed(self, event: e.InstanceRefused, sop_class: str) -> None:
        """It was not, and something may lack it."""
        sender = self._sender(event.association)
        if sender is not None:
            subject = sop_class, event.series_uid
            uid = event.sop_instance_uid
            self._missed.refused(event.association, sender, subject, uid, event.at)

    def _lacks(self, association: int) -> list[e.Event]:
        sender = self._sender(association)
        if sender is None:
            return []
        return [
            k.InstancesMissed(at=self._clock.now(), series_uid=uid, sop_instance_uids=uids)
            for uid, uids in self._missed.ended(association, sender).items()
        ]

    def ended(self, association: int, how: str) -> None:
        """The association is over; recorded if it stored anything, or was refused something."""
        over = self._lacks(association)
        with self._lock:
            gone = self._open.pop(association, None)
        if gone is not None and gone.flight is not None:
            gone.flight.ended()  # whatever became of its receiver
        if gone is not None and gone.recorded:
            over.append(e.AssociationEnded(at=self._clock.now(), number=association, how=how))
        try:
            if over:
                self._journal.commit(*over)
        except CatalogError:
            with self._lock:
                self._untold += over
            self._wake()
            raise

    def run_due(self, now: float) -> float | None:
        """Record the ends of associations that could not be recorded. Raises CatalogError.

        Till then they count as open, and what they sent waits for more.
        """
        del now
        with self._lock:
            untold, self._untold = self._untold, []
        try:
            if untold:
                self._journal.commit(*untold)
        except CatalogError:
            with self._lock:
                self._untold = [*untold, *self._untold]
            raise
        return None

    def opening(self, number: int) -> tuple[e.Event, ...]:
        """The association's own record, made with the first thing that it stores, or is refused."""
        with self._lock:
            association = self._open[number]
            if association.recorded:
                return ()
            association.recorded = True
        return (
            e.AssociationOpened(
                at=association.opened_at,
                number=number,
                calling_ae=association.request.calling_ae,
                called_ae=association.request.called_ae,
                address=association.request.address,
                user=association.user,
                secured=_secured(association.request),
            ),
        )

    def forget_opening(self, number: int, events: Sequence[e.Event]) -> None:
        """These events of opening() could not be recorded: the next thing stored tries again."""
        if events:
            self._open[number].recorded = False


def peer_of(request: AssociationRequest, peers: Sequence[Peer]) -> Peer | None:
    """The peer that an admitted caller is; None for somebody unknown."""
    found = whom(_caller(request), peers, accept_unknown=True)
    return found if isinstance(found, Peer) else None


def _caller(request: AssociationRequest) -> Caller:
    return Caller(
        ae_title=request.calling_ae,
        address=request.address,
        over_tls=request.over_tls,
        certificate=request.certificate,
        identity=request.identity,
    )


def _secured(request: AssociationRequest) -> str:
    """For the record: which TLS, and whose certificate; "" for none."""
    if not request.over_tls:
        return ""
    shown = request.certificate
    if shown is None:
        return f"{request.tls_version} without a certificate"
    whose = printable(subject_text(shown.subject))[:_SUBJECT_MAX]
    return f"{request.tls_version} as {whose or FINGERPRINT + shown.sha256}"


def _user(peer: Peer, caller: Caller) -> Stranger | None:
    """Whether it is the user that it must be; None if so."""
    try:
        return identified(peer, caller, reveal(peer.passcode) if peer.user else "")
    except ConfigurationError as error:
        return Stranger(reason=f"its passcode cannot be compared: {error}")


def _named(identity: s.Identity | None) -> str:
    """The user's name in an identity that has one: other types hold what is a secret."""
    if identity is None or identity.kind not in (NAME, NAME_AND_PASSCODE):
        return ""
    return _told_title(identity.primary.decode("utf-8", "replace"))
