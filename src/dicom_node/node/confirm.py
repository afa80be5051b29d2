"""Stage 7: proof that a peer has what it was sent: Storage Commitment, else a query.

What was asked for is recorded before it is asked, so a report is known again after a restart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from dicom_node.decide import confirmation
from dicom_node.decide.confirmation import Ask, Next, Reply
from dicom_node.decide.telling import Pace
from dicom_node.dimse.contract import (
    CommitmentReport,
    CommitmentRequest,
    Reference,
    StoreAnswer,
)
from dicom_node.dimse.scu import Asked, Phase, Timeouts, ask_commitment, held_instances
from dicom_node.dimse.status import INVALID_ARGUMENT, PROCESSING_FAILURE, SUCCESS, meaning
from dicom_node.domain import events as e
from dicom_node.domain import keeping as k
from dicom_node.domain.errors import CatalogError, PeerError
from dicom_node.domain.records import Delivery, Peer, Result
from dicom_node.domain.states import DeliveryState
from dicom_node.node.clock import Clock
from dicom_node.node.journal import Journal
from dicom_node.node.lanes import Lanes
from dicom_node.node.refusals import Repeats
from dicom_node.node.stage import AFTER_ERROR_S

_log = logging.getLogger("dicom_node")

BATCH_MAX = 500  # instances in one transaction
_BATCH_S = 2.0  # what is due so soon is asked for together with what is due
_SAME_ASSOCIATION_S = 3.0  # for a report; most peers open an association of their own for it
_ATTEMPTS = 3  # at a commit that something else changed meanwhile
_REJECTED_PERMANENTLY = 1
_STRAY, _STRAYS = Pace(first=10), Pace(first=100)  # of one AE title, and of all, an hour

Pair = tuple[Delivery, Result]
OnReport = Callable[[CommitmentReport], StoreAnswer]

AskCommitment = Callable[[Peer, CommitmentRequest, OnReport], Asked]
"""ask(peer, request, on_report): on_report answers what is reported on the same association."""

Listing = Callable[[Peer, str, str, Collection[str]], tuple[frozenset[str], str | None]]
"""listing(peer, study, series, instances) -> which of them the peer lists; and why it could not be
asked for the others, None if they are known to be missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """What peers report becomes the state of deliveries. strays: counts what nobody asked for."""

    policy: confirmation.Policy
    journal: Journal
    clock: Clock
    strays: Repeats = field(default_factory=lambda: Repeats(_STRAY, _STRAYS))

    def take(self, report: CommitmentReport, peer: Peer | None) -> StoreAnswer:
        """Record a report; the answer to it. Only who was asked can report.

        peer: who reports; None for somebody who is none.
        """
        asked, pairs = self.journal.catalog.keeping.requested(report.transaction_uid)
        if peer is None or peer.name != asked:
            if self.strays.times(report.sender_ae, self.clock.now()):
                self._record(report, "", [])
            return StoreAnswer(status=INVALID_ARGUMENT, comment="unknown Transaction UID")
        for _ in range(_ATTEMPTS):
            if self._record(report, asked, self._outcomes(report, pairs)):
                return StoreAnswer(status=SUCCESS)
            _, pairs = self.journal.catalog.keeping.requested(report.transaction_uid)
        return StoreAnswer(status=PROCESSING_FAILURE, comment="the catalog could not record it")

    def _record(
        self, report: CommitmentReport, destination: str, outcomes: Sequence[e.Event]
    ) -> bool:
        reported = k.CommitmentReported(
            at=self.clock.now(),
            transaction_uid=report.transaction_uid,
            sender_ae=report.sender_ae,
            destination=destination,
            committed=len(report.committed),
            failed=len(report.failed),
        )
        try:
            self.journal.commit(reported, *outcomes)
        except CatalogError as error:
            _log.warning("a report on commitment: %s", error)
            return False
        return True

    def _outcomes(self, report: CommitmentReport, pairs: Sequence[Pair]) -> list[e.Event]:
        """An event for each delivery that the report changes."""
        now = self.clock.now()
        failures: dict[str, int | None] = {
            item.sop_instance_uid: item.reason for item in report.failed
        }
        failures.update({item.sop_instance_uid: None for item in report.committed})
        events: list[e.Event] = []
        for delivery, result in pairs:
            if result.sop_instance_uid not in failures:
                continue  # neither kept nor not: the question stays open
            failure = failures[result.sop_instance_uid]
            then = confirmation.after_report(
                delivery,
                report.transaction_uid,
                failure,
                self.policy,
                now,
                self.clock.luck(),
                "" if failure is None else meaning(failure),
            )
            if then is not None:
                events.append(event_of(delivery, then, now))
        return events


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmer:
    """Asks each peer that offers proof for what it was sent; one thread a peer."""

    peers: Mapping[str, Peer]
    policy: confirmation.Policy
    journal: Journal
    clock: Clock
    reports: Reports
    ask: AskCommitment
    listing: Listing
    lanes: Lanes

    def run_due(self, now: float) -> float | None:
        """Start a thread for each peer of which proof is due."""
        keeping = self.journal.catalog.keeping
        busy = self.lanes.busy()
        free = [
            name
            for name, peer in self.peers.items()
            if name not in busy and confirmation.ways(peer.offers)
        ]
        stuck = False
        for name in free:
            if keeping.unproven([name], now, 1):
                pairs = keeping.unproven([name], now + _BATCH_S, BATCH_MAX)
                stuck |= not self.lanes.start(name, partial(self._ask, self.peers[name], pairs))
        if stuck:  # there is no thread: what is due stays due
            return now + AFTER_ERROR_S
        waiting = [name for name in free if name not in self.lanes.busy()]
        return keeping.next_proof_due(waiting)  # a lane rings when it is free

    def finish(self, seconds: float) -> None:
        """Wait for what is under way."""
        self.lanes.finish(seconds)

    def _ask(self, peer: Peer, pairs: Sequence[Pair]) -> None:
        """Ask for commitment what that is to be asked for, and list the rest."""
        pairs = [pair for pair in pairs if not self._given_up(pair[0])]
        ways = [confirmation.ask_of(delivery, peer.offers) for delivery, _ in pairs]
        commit = [pair for way, pair in zip(ways, pairs, strict=True) if way is Ask.COMMIT]
        query = [pair for way, pair in zip(ways, pairs, strict=True) if way is Ask.QUERY]
        if commit:
            self._commitment(peer, commit)
        by_series: dict[tuple[str, str], list[Pair]] = {}
        for delivery, result in query:
            key = (result.study_uid, result.series_uid)
            by_series.setdefault(key, []).append((delivery, result))
        for (study_uid, series_uid), some in by_series.items():
            self._query(peer, study_uid, series_uid, some)

    def _given_up(self, delivery: Delivery) -> bool:
        now = self.clock.now()
        then = confirmation.given_up(delivery, self.policy, now)
        if then is not None:
            self._settle(delivery, lambda _delivery, _now: then)
        return then is not None

    def _commitment(self, peer: Peer, pairs: Sequence[Pair]) -> None:
        uid = self.clock.new_uid()
        self.journal.commit(
            k.CommitmentRequested(
                at=self.clock.now(),
                transaction_uid=uid,
                destination=peer.name,
                delivery_ids=tuple(delivery.delivery_id for delivery, _ in pairs),
            )
        )
        request = CommitmentRequest(
            transaction_uid=uid,
            references=tuple(
                Reference(result.sop_class_uid, result.sop_instance_uid) for _, result in pairs
            ),
        )
        try:
            asked = self.ask(peer, request, partial(self.reports.take, peer=peer))
            reply, detail = reply_of(asked), asked.outcome.detail
        except PeerError as error:
            reply, detail = Reply.REFUSED, str(error)

        def judge(delivery: Delivery, now: float) -> Next:
            luck = self.clock.luck()
            return confirmation.after_request(
                delivery, reply, peer.offers, self.policy, now, luck, detail
            )

        for delivery, _ in pairs:
            self._settle(delivery, judge)

    def _query(self, peer: Peer, study_uid: str, series_uid: str, pairs: Sequence[Pair]) -> None:
        uids = [result.sop_instance_uid for _, result in pairs]
        try:
            listed, problem = self.listing(peer, study_uid, series_uid, uids)
        except PeerError as error:
            listed, problem = frozenset(), str(error)

        def judge(delivery: Delivery, now: float) -> Next:
            there = delivery.result_uid in listed
            answer = True if there else None if problem is not None else False
            return confirmation.after_listing(
                delivery, answer, self.policy, now, self.clock.luck(), problem or ""
            )

        for delivery, _ in pairs:
            self._settle(delivery, judge)

    def _settle(self, asked: Delivery, judge: Callable[[Delivery, float], Next]) -> None:
        """Commit what follows, for what still waits; a report may have come meanwhile."""
        current = self._waiting(asked)
        if current is None:
            return
        now = self.clock.now()
        try:
            self.journal.commit(event_of(current, judge(current, now), now))
        except CatalogError:
            if self._waiting(asked) is not None:
                raise  # it was not for something that came in between

    def _waiting(self, asked: Delivery) -> Delivery | None:
        """The delivery as it is now, if it is still the one that was asked about."""
        current = self.journal.catalog.keeping.delivery(asked.delivery_id)
        if current is None or current.state is not DeliveryState.SENT:
            return None
        return current if current.sent_at == asked.sent_at else None


def event_of(delivery: Delivery, then: Next, now: float) -> e.Event:
    """SENT is that nothing is known yet."""
    if then.state is DeliveryState.SENT:
        return k.ProofAwaited(
            at=now,
            delivery_id=delivery.delivery_id,
            ask=then.ask,
            tries=then.tries,
            reason=then.reason,
            due_at=then.due_at,
        )
    return k.DeliveryConfirmed(
        at=now,
        delivery_id=delivery.delivery_id,
        state=then.state,
        reason=then.reason,
        due_at=then.due_at,
    )


def reply_of(asked: Asked) -> Reply:
    """What the network says, as the judgment wants it."""
    outcome = asked.outcome
    if outcome.succeeded:
        return Reply.ACCEPTED
    rejected = outcome.rejection is not None and outcome.rejection.result == _REJECTED_PERMANENTLY
    refused = outcome.phase in (Phase.STATUS, Phase.NO_CONTEXT) or rejected
    return Reply.REFUSED if refused else Reply.UNHEARD


def asker(
    ae_title: str, timeouts: Timeouts, report_s: float, enough: Callable[[CommitmentRequest], bool]
) -> AskCommitment:
    """N-ACTION as `ae_title`. report_s: so long a report is awaited at all. enough: whether it came
    otherwise, or nobody waits any more."""

    def ask(peer: Peer, request: CommitmentRequest, on_report: OnReport) -> Asked:
        return ask_commitment(
            peer=peer,
            calling_ae=ae_title,
            request=request,
            report_within_s=min(report_s, _SAME_ASSOCIATION_S),
            on_report=on_report,
            enough=lambda: enough(request),
            timeouts=timeouts,
        )

    return ask


def lister(ae_title: str, timeouts: Timeouts) -> Listing:
    """C-FIND as `ae_title`."""

    def listing(
        peer: Peer, study_uid: str, series_uid: str, uids: Collection[str]
    ) -> tuple[frozenset[str], str | None]:
        held = held_instances(
            peer=peer,
            calling_ae=ae_title,
            study_uid=study_uid,
            series_uid=series_uid,
            sop_instance_uids=uids,
            timeouts=timeouts,
        )
        return held.found, None if held.outcome.succeeded else held.outcome.detail

    return listing
