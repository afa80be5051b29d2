"""Stage 2: what a peer stores becomes durable bytes, then a fact in the catalog, then an answer."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

from dicom_node.dimse.contract import (
    AssociationRequest,
    Refusal,
    Rejection,
    Sink,
    StoreAnswer,
    StoreRequest,
)
from dicom_node.dimse.status import rejection_words
from dicom_node.domain import events as e
from dicom_node.domain import keeping as k
from dicom_node.domain.errors import CatalogError, SpoolError
from dicom_node.domain.records import Attributes, Instance
from dicom_node.iod.received import Received, check_received
from dicom_node.node.admit import Admission, Doors
from dicom_node.node.clock import Clock
from dicom_node.node.heavy import Heavy
from dicom_node.node.journal import Journal
from dicom_node.node.quotas import Flight, Metered
from dicom_node.node.refusals import Refusals
from dicom_node.spool.store import Incoming, Spool, Stored

OUT_OF_RESOURCES = 0xA700  # PS3.4 §B.2.3
PROCESSING_FAILURE = 0x0110  # PS3.7 §C.5
DUPLICATE = 0x0111  # of the UID, not of the content: the sender is to know
NOT_AUTHORISED = 0x0124

_NOT_RECORDED = "the catalog could not record it"


class StorageReceiver:
    """The node's side of the Storage SCP: dimse calls it, from one thread for each association."""

    def __init__(
        self,
        *,
        admission: Admission,
        spool: Spool,
        journal: Journal,
        clock: Clock,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """wake: called when run_due has something to do."""
        self._admission = admission
        self._spool = spool
        self._journal = journal
        self._clock = clock
        self._lock = threading.Lock()
        self.heavy: AbstractContextManager[object] = Heavy()
        self._recording: Counter[str] = Counter()
        self._refusals = Refusals(journal=journal, clock=clock, wake=wake)
        self._doors = Doors(admission=admission, journal=journal, clock=clock, wake=wake)

    def admit(self, request: AssociationRequest) -> int | Rejection:
        """A number for the association, or why not (PS3.8 §9.3.4)."""
        return self._doors.admit(request)

    def begin(self, request: StoreRequest) -> Sink | StoreAnswer:
        """Where the data set goes, or a refusal before it comes."""
        refusal = self.may_begin(request)
        if refusal is not None:
            return refusal
        try:
            sink = StorageSink(self, request, self._spool.begin())
        except SpoolError as error:
            return self.refuse(request, for_disk(error), str(error))
        return metered(self, sink, request, self.flight(request.association))

    def flight(self, association: int) -> Flight | None:
        """What counts its objects on their way, if its peer has a quota."""
        return self._doors.flight(association)

    def may_begin(self, request: StoreRequest) -> StoreAnswer | None:
        """Why an object is refused before it comes; None if it is not."""
        if not self._doors.may_store(request.association):
            return self.refuse(
                request, NOT_AUTHORISED, 'this peer may not store here: its `may` lacks "store"'
            )
        flight = self._doors.flight(request.association)
        if flight is not None and (reason := flight.meter.refusal()):
            return self.refuse(request, OUT_OF_RESOURCES, reason)
        try:
            if self._spool.free_bytes() < self._admission.min_free_bytes:
                return self.refuse(request, OUT_OF_RESOURCES, "disk space is below the limit")
            self._journal.catalog.require_undamaged()
        except CatalogError:
            return self.refuse(request, PROCESSING_FAILURE, _NOT_RECORDED)
        except SpoolError as error:
            return self.refuse(request, for_disk(error), str(error))
        return None

    def idle_s(self, association: int) -> float | None:
        """How long it may say nothing, if its peer is an exception."""
        return self._doors.idle_s(association)

    def identifies(self, association: int) -> bool:
        """Whether its user identity was demanded, and right."""
        return self._doors.identifies(association)

    def echoed(self, request: AssociationRequest) -> None:
        """C-ECHO leaves no trace in the catalog."""
        self._doors.echoed(request)

    def rejected(self, request: AssociationRequest, rejection: Rejection) -> None:
        """The front rejected it by itself."""
        self._doors.rejected(request, rejection_words(rejection))

    def broke(self, request: AssociationRequest, association: int | None, reason: str) -> None:
        """It ended by a fault of the peer's."""
        self._doors.broke(request, association, reason)

    def unsecured(self, request: AssociationRequest, reason: str) -> None:
        """There was no TLS with it."""
        self._doors.unsecured(request, reason)

    def refused(self, refusal: Refusal) -> None:
        """The front refused a request by itself."""
        if refusal.request != "C-STORE" or not refusal.sop_instance_uid:
            self._doors.refused(refusal)
            return
        self._record_refusal(
            e.InstanceRefused(
                at=self._clock.now(),
                association=refusal.association,
                calling_ae=refusal.caller.calling_ae,
                sop_instance_uid=refusal.sop_instance_uid,
                study_uid="",
                series_uid="",
                status=refusal.answer.status,
                reason=refusal.answer.comment,
            )
        )

    def ended(self, association: int, how: str) -> None:
        """The association is over; recorded if it stored anything, or was refused something."""
        self._doors.ended(association, how)

    def run_due(self, now: float) -> float | None:
        """Record refusals kept for long, and ends of associations that could not be recorded.

        Raises CatalogError.
        """
        due = self._refusals.run_due(now)
        self._doors.run_due(now)
        return due

    def finish(self) -> None:
        """Record what is kept: nobody comes any more."""
        self._refusals.flush()

    def record(self, request: StoreRequest, stored: Stored, received: Received) -> StoreAnswer:
        """The file is durable: commit the fact, and only then say success, or success but."""
        now = self._clock.now()
        attributes, warning = received.attributes, received.warning
        instance = Instance(
            sop_instance_uid=request.sop_instance_uid,
            sop_class_uid=request.sop_class_uid,
            transfer_syntax_uid=request.transfer_syntax_uid,
            study_uid=str(attributes["StudyInstanceUID"]),
            series_uid=str(attributes["SeriesInstanceUID"]),
            path=stored.path,
            size=stored.size,
            sha256=stored.sha256,
            association=request.association,
            received_at=now,
            attributes=attributes,
        )
        events = self._doors.opening(request.association)
        arrival = e.InstanceArrived(
            at=now,
            instance=instance,
            judge_at=now + self._admission.quiet_s,
            warning=warning.comment if warning is not None else "",
        )
        try:
            outcome = self._journal.commit(*events, arrival)[-1]
            events = ()
            if outcome == "purged":
                outcome = self._restored(instance, arrival.judge_at)
        except CatalogError as error:
            self._doors.forget_opening(request.association, events)
            self._discard(stored, error)
            status = OUT_OF_RESOURCES if error.full else PROCESSING_FAILURE
            return self.refuse(request, status, _NOT_RECORDED)
        except SpoolError as error:
            return self.refuse(request, for_disk(error), str(error))
        self._doors.stored(instance)
        if outcome == "conflict":
            return StoreAnswer(
                status=DUPLICATE,
                comment="kept apart: this UID is here with other content",
                recorded=True,
            )
        if warning is not None:
            return StoreAnswer(
                status=warning.status,
                comment=warning.comment,
                offending=warning.offending,
                recorded=True,
            )
        return StoreAnswer(status=0)

    def record_of_another(
        self, request: StoreRequest, stored: Stored, received: Received
    ) -> StoreAnswer:
        """As record(), of a file that another process made durable. Raises SpoolError.

        That one could not keep others from taking it back before this began. Nobody is about to
        do so while its folder is held: who comes later sees that it is to be recorded.
        """
        with contextlib.ExitStack() as recording:
            with self._spool.held(stored.path):
                recording.enter_context(self.recording(stored.path))
                there = self._spool.look(stored.path)
            if there is None:
                return self.refuse(request, PROCESSING_FAILURE, _NOT_RECORDED, received.attributes)
            return self.record(request, stored, received)

    @contextlib.contextmanager
    def recording(self, path: str) -> Iterator[None]:
        """While somebody is about to record this file, nobody else takes it back."""
        with self._lock:
            self._recording[path] += 1
        try:
            yield
        finally:
            with self._lock:
                self._recording[path] -= 1
                self._recording += Counter()  # keeps what is positive

    def _discard(self, stored: Stored, error: CatalogError) -> None:
        """Take back what could not be recorded, unless it was, or may be, known otherwise."""
        if error.unsure or not stored.fresh:
            return  # the next start enters it, or the sender sends it again

        def wanted(path: str) -> bool:
            return self._recording[path] > 1 or self._journal.catalog.views.path_known(path)

        with contextlib.suppress(SpoolError, CatalogError):
            self._spool.discard([stored.path], wanted)

    def _restored(self, instance: Instance, judge_at: float) -> str:
        """An object whose file was removed is here again. Raises CatalogError, SpoolError.

        While its folder is held, it is not removed once more: what is acknowledged stays.
        """
        keeping = self._journal.catalog.keeping
        known = keeping.stored(instance.sop_instance_uid)
        with self._spool.held(instance.path):
            if self._spool.look(instance.path) is None:
                raise SpoolError("the file was being removed: send it again")
            restored = k.InstanceRestored(
                at=self._clock.now(),
                sop_instance_uid=instance.sop_instance_uid,
                series_uid=known.series_uid if known is not None else instance.series_uid,
                sha256=instance.sha256,
                path=instance.path,
                judge_at=judge_at,
                association=instance.association,
            )
            return self._journal.commit(restored)[-1]

    def refuse(
        self, request: StoreRequest, status: int, reason: str, attributes: Attributes | None = None
    ) -> StoreAnswer:
        """Record why, and answer it; the answer stands even if the catalog is out of order."""
        known = attributes or {}
        event = e.InstanceRefused(
            at=self._clock.now(),
            association=request.association,
            calling_ae=request.calling_ae,
            sop_instance_uid=request.sop_instance_uid,
            study_uid=str(known.get("StudyInstanceUID", "")),
            series_uid=str(known.get("SeriesInstanceUID", "")),
            status=status,
            reason=reason,
        )
        self._record_refusal(event)
        if status != NOT_AUTHORISED:  # of who may not store nothing is missed
            self._doors.missed(event, request.sop_class_uid)
        return StoreAnswer(status=status, comment=reason, recorded=True)

    def _record_refusal(self, event: e.InstanceRefused) -> None:
        due = self._refusals.due(event)
        if not due:
            return
        opening = self._doors.opening(event.association)
        try:
            self._journal.commit(*opening, *due)
        except CatalogError:
            self._doors.forget_opening(event.association, opening)


class Keeper(Protocol):
    """What makes a durable file a fact, or refuses it; heavy: see check_received."""

    heavy: AbstractContextManager[object]

    def recording(self, path: str) -> AbstractContextManager[None]:
        """While somebody is about to record this file, nobody else takes it back."""

    def record(self, request: StoreRequest, stored: Stored, received: Received) -> StoreAnswer:
        """The file is durable: commit the fact, and only then say success, or success but."""

    def refuse(
        self, request: StoreRequest, status: int, reason: str, attributes: Attributes | None = None
    ) -> StoreAnswer:
        """Record why, and answer it."""


def metered(keeper: Keeper, sink: Sink, request: StoreRequest, flight: Flight | None) -> Sink:
    """The sink, with its bytes counted if its peer has a quota."""
    if flight is None:
        return sink
    return Metered(sink, flight, lambda why: keeper.refuse(request, OUT_OF_RESOURCES, why))


def for_disk(error: SpoolError) -> int:
    """The status. Full: come again later. Failing: not our success to claim."""
    return OUT_OF_RESOURCES if error.full else PROCESSING_FAILURE


class StorageSink:
    """One SOP Instance on its way in."""

    def __init__(self, receiver: Keeper, request: StoreRequest, incoming: Incoming) -> None:
        self._receiver = receiver
        self._request = request
        self._incoming = incoming
        self._failed: SpoolError | None = None

    def write(self, chunks: Sequence[memoryview | bytes]) -> None:
        """Keep the bytes; after a failure the rest is let pass, and finish() answers for it."""
        if self._failed is None:
            try:
                self._incoming.write(chunks)
            except SpoolError as error:
                self._failed = error
                self._incoming.abort()

    def finish(self) -> StoreAnswer:
        """Check, make durable, record, answer. However that ends, no temporary is left of it."""
        if self._failed is not None:
            return self._refused(self._failed)
        try:
            return self._finished()
        finally:
            self._incoming.abort()

    def _finished(self) -> StoreAnswer:
        incoming = self._incoming
        received = check_received(
            incoming.path,
            expected_class=self._request.sop_class_uid,
            expected_instance=self._request.sop_instance_uid,
            transfer_syntax=self._request.transfer_syntax_uid,
            heavy=self._receiver.heavy,
            head=incoming.head,
            size=incoming.size,
        )
        problem = received.problem
        if problem is not None:
            self._incoming.abort()
            answer = self._receiver.refuse(
                self._request, problem.status, problem.comment, received.attributes
            )
            return replace(answer, offending=problem.offending)
        with self._receiver.recording(self._incoming.relative):
            try:
                stored = self._incoming.commit()
            except SpoolError as error:
                return self._refused(error)
            return self._receiver.record(self._request, stored, received)

    def _refused(self, error: SpoolError) -> StoreAnswer:
        return self._receiver.refuse(self._request, for_disk(error), str(error))

    def abort(self) -> None:
        """The association ended inside the data set: nothing is left of it."""
        self._incoming.abort()
