"""Storage Commitment as its provider (PS3.4 Annex J): what peers ask this node to keep.

A request is durable before it is answered; what is promised is recorded before it is reported; and
retention does not touch what was promised.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from dicom_node.catalog.keeping import Promise
from dicom_node.decide import retry
from dicom_node.dimse.contract import (
    AssociationRequest,
    CommitmentReport,
    CommitmentRequest,
    FailedReference,
    Reference,
    StoreAnswer,
)
from dicom_node.dimse.scu import Outcome, Timeouts, report_commitment
from dicom_node.dimse.status import (
    CLASS_CONFLICT,
    INVALID_ARGUMENT,
    NO_SUCH_INSTANCE,
    NOT_AUTHORISED,
    PROCESSING_FAILURE,
    SUCCESS,
)
from dicom_node.domain import keeping as k
from dicom_node.domain.errors import CatalogError, SpoolError
from dicom_node.domain.records import Peer
from dicom_node.domain.states import DeliveryState
from dicom_node.node.admit import peer_of
from dicom_node.node.clock import Clock
from dicom_node.node.confirm import Reports
from dicom_node.node.journal import Journal
from dicom_node.node.lanes import Lanes
from dicom_node.node.stage import attempt
from dicom_node.spool.store import Spool

_log = logging.getLogger("dicom_node")

Report = Callable[[Peer, CommitmentReport], Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitments:
    """The node behind Storage Commitment, in both roles: see dimse.contract.Committer."""

    peers: Sequence[Peer]
    reports: Reports
    journal: Journal
    clock: Clock

    def asked(self, request: AssociationRequest, commitment: CommitmentRequest) -> StoreAnswer:
        """Success once the request is durable: then the peer is owed a report."""
        peer = peer_of(request, self.peers)
        if peer is None or "commit" not in peer.may:
            return StoreAnswer(status=NOT_AUTHORISED, comment='its `may` lacks "commit"')
        references: dict[str, list[str]] = {}
        for one in commitment.references:
            references.setdefault(one.sop_class_uid, []).append(one.sop_instance_uid)
        asked = k.CommitmentAsked(
            at=self.clock.now(),
            transaction_uid=commitment.transaction_uid,
            peer=peer.name,
            references={name: tuple(uids) for name, uids in references.items()},
        )
        try:
            return self._record(asked)
        except CatalogError:
            return StoreAnswer(status=PROCESSING_FAILURE, comment="the catalog could not record it")

    def _record(self, asked: k.CommitmentAsked) -> StoreAnswer:
        """The same request again, for its answer was lost, gets the same report again."""
        known = self.journal.catalog.keeping.promise(asked.transaction_uid, asked.peer)
        if known is None:
            self.journal.commit(asked)
        elif known.asked.references != asked.references:
            return StoreAnswer(status=INVALID_ARGUMENT, comment="Transaction UID was used before")
        elif known.due_at is None:
            self.journal.commit(
                k.CommitmentReportEnded(
                    at=asked.at,
                    transaction_uid=asked.transaction_uid,
                    peer=asked.peer,
                    reason="asked for it again",
                    due_at=asked.at,
                )
            )
        return StoreAnswer(status=SUCCESS)

    def reported(self, request: AssociationRequest, report: CommitmentReport) -> StoreAnswer:
        """A peer says what it keeps of what this node sent."""
        return self.reports.take(report, peer_of(request, self.peers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Promiser:
    """Looks at what is asked for, promises what is there, and reports it; one thread a peer.

    digest: whether all bytes of a file are compared with what was stored.
    """

    peers: Mapping[str, Peer]
    policy: retry.Policy
    digest: bool
    spool: Spool
    journal: Journal
    clock: Clock
    report: Report
    lanes: Lanes

    def run_due(self, now: float) -> float | None:
        """Start a thread for each peer that is owed an answer."""
        keeping = self.journal.catalog.keeping
        due: dict[str, list[Promise]] = {}
        for promise in keeping.promises_due(now):
            due.setdefault(promise.asked.peer, []).append(promise)
        for name, promises in due.items():
            self.lanes.start(name, partial(self._answer, name, promises))
        next_due = keeping.next_promise_due()
        return None if next_due is not None and next_due <= now else next_due  # a lane rings

    def finish(self, seconds: float) -> None:
        """Wait for what is under way."""
        self.lanes.finish(seconds)

    def _answer(self, name: str, promises: Sequence[Promise]) -> None:
        """Each for itself: what goes wrong with one is tried again later, and the others go on."""
        failed = retry.Attempt(status=None, detail="an error of the node itself: see its log")
        for promise in promises:
            self._ended(
                promise, attempt(f"report to {name}", partial(self._told, name, promise), failed)
            )

    def _told(self, name: str, promise: Promise) -> retry.Attempt:
        """Judge and report it, and what came of that. Raises NodeError."""
        judged = promise.judged or self._judged(promise.asked)
        peer = self.peers.get(name)
        if peer is None:
            return _nobody(name)
        outcome = self.report(peer, report_of(promise.asked, judged))
        # a rejection may be mended on the other side: only a status is the last word
        return retry.Attempt(status=outcome.status, detail=outcome.detail)

    def _judged(self, asked: k.CommitmentAsked) -> k.CommitmentJudged:
        """Look at every instance, and record what is promised. Raises CatalogError."""
        failed: dict[str, list[str]] = {}
        promised: dict[str, int] = {}
        seen: dict[str, int] = {}
        for sop_class, uids in asked.references.items():
            for uid in uids:
                series_uid, failure = self._look(sop_class, uid, seen)
                if failure is not None:
                    failed.setdefault(f"{failure:04X}", []).append(uid)
                else:
                    promised[series_uid] = promised.get(series_uid, 0) + 1
        now = self.clock.now()
        judged = k.CommitmentJudged(
            at=now,
            transaction_uid=asked.transaction_uid,
            peer=asked.peer,
            committed=sum(promised.values()),
            failed={reason: tuple(uids) for reason, uids in failed.items()},
        )
        promises = [
            k.SeriesPromised(
                at=now,
                series_uid=series_uid,
                transaction_uid=asked.transaction_uid,
                peer=asked.peer,
                instances=count,
                seen=seen[series_uid],
            )
            for series_uid, count in promised.items()
        ]
        self.journal.commit(judged, *promises)
        return judged

    def _look(self, sop_class: str, uid: str, seen: dict[str, int]) -> tuple[str, int | None]:
        """The Series of an instance, and why it cannot be promised, None if it can."""
        keeping = self.journal.catalog.keeping
        stored = keeping.stored(uid)
        if stored is None:
            return "", NO_SUCH_INSTANCE
        if stored.series_uid not in seen:  # before the files are looked at
            seen[stored.series_uid] = keeping.seen(stored.series_uid)
            stored = keeping.stored(uid) or stored
        if stored.sop_class_uid != sop_class:
            return "", CLASS_CONFLICT
        if stored.conflicts:  # which of them the peer means is not known
            return "", PROCESSING_FAILURE
        try:
            there = self.spool.look(stored.path) if stored.path else None
            if there is None or there[0] != stored.size:
                return "", NO_SUCH_INSTANCE
            intact = not self.digest or self.spool.is_intact(stored.path)
        except SpoolError as error:
            _log.error("instance %s is not promised: %s", uid, error)
            intact = False
        return (stored.series_uid, None) if intact else ("", PROCESSING_FAILURE)

    def _ended(self, promise: Promise, attempt: retry.Attempt) -> None:
        now = self.clock.now()
        then = retry.after(
            attempt,
            promise.attempt + 1,
            promise.asked.at,
            self.policy,
            now,
            self.clock.luck(),
        )
        done = then.state is DeliveryState.SENT
        self.journal.commit(
            k.CommitmentReportEnded(
                at=now,
                transaction_uid=promise.asked.transaction_uid,
                peer=promise.asked.peer,
                reason="reported" if done else attempt.detail,
                due_at=then.due_at if then.state is DeliveryState.DEFERRED else None,
            )
        )


def _nobody(name: str) -> retry.Attempt:
    return retry.Attempt(status=None, permanent=True, detail=f"no peer is named {name}")


def report_of(asked: k.CommitmentAsked, judged: k.CommitmentJudged) -> CommitmentReport:
    """What was judged of what was asked for, as the peer is told it."""
    reasons = {uid: int(reason, 16) for reason, uids in judged.failed.items() for uid in uids}
    pairs = [Reference(name, uid) for name, uids in asked.references.items() for uid in uids]
    return CommitmentReport(
        transaction_uid=asked.transaction_uid,
        committed=tuple(one for one in pairs if one.sop_instance_uid not in reasons),
        failed=tuple(
            FailedReference(*one, reasons[one.sop_instance_uid])
            for one in pairs
            if one.sop_instance_uid in reasons
        ),
    )


def reporter(ae_title: str, timeouts: Timeouts) -> Report:
    """N-EVENT-REPORT as `ae_title`, over an association of its own."""

    def report(peer: Peer, told: CommitmentReport) -> Outcome:
        return report_commitment(peer=peer, calling_ae=ae_title, report=told, timeouts=timeouts)

    return report
