"""Stage 6: what is owed to a peer is sent until it is taken, or a person has to decide."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from dicom_node.decide import confirmation, retry
from dicom_node.dimse.scu import Phase, StoreItem, StoreOutcome, Timeouts, store
from dicom_node.domain import events as e
from dicom_node.domain import keeping as k
from dicom_node.domain.errors import NodeError, PeerError, SpoolError
from dicom_node.domain.records import Delivery, Peer, Result
from dicom_node.domain.states import DeliveryState
from dicom_node.node.clock import Clock
from dicom_node.node.journal import Journal
from dicom_node.node.lanes import Lanes
from dicom_node.spool.store import Spool

_log = logging.getLogger("dicom_node")

BATCH_MAX = 200  # instances in one association
REJECTED_PERMANENTLY = 1

Send = Callable[[Peer, Sequence[StoreItem], Callable[[StoreOutcome], None]], object]
"""send(peer, items, on_outcome): on_outcome is called once for every item that was tried."""

Instead = Callable[[Delivery, Result, Peer], Sequence[e.Event]]
"""What follows where a peer will not take a result of this kind: the events by which it gets
another in its place. None of them: the delivery is parked."""


def nothing_instead(_delivery: Delivery, _result: Result, _peer: Peer) -> Sequence[e.Event]:
    """No other kind is made."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliverer:
    """Sends what is due, to one destination in one association, to several destinations at once.

    ask_after_s: when a peer that offers proof is asked for it, after it was sent something.
    """

    peers: Mapping[str, Peer]
    policy: retry.Policy
    spool: Spool
    journal: Journal
    clock: Clock
    send: Send
    lanes: Lanes
    instead: Instead = nothing_instead
    ask_after_s: float = 0.0

    def run_due(self, now: float) -> float | None:
        """Start a thread for each destination that something is due for."""
        claim = self.journal.catalog.claim_deliveries
        while due := claim(now=now, limit=BATCH_MAX, busy=self.lanes.busy()):
            name = due[0][0].destination
            if not self.lanes.start(name, partial(self._deliver, name, due)):
                for delivery, _ in due:
                    self._ended(delivery, retry.Attempt(status=None, detail="no thread to send it"))
        return self.journal.catalog.owing.next_due(self.lanes.busy())  # a busy one will ring

    def finish(self, seconds: float) -> None:
        """Wait for what is under way."""
        self.lanes.finish(seconds)

    def _deliver(self, name: str, due: Sequence[tuple[Delivery, Result]]) -> None:
        """One attempt for each; whatever happens, each of them ends. Raises CatalogError."""
        waiting = {result.sop_instance_uid: (delivery, result) for delivery, result in due}
        away: dict[str, retry.Attempt] = {}

        def ended(outcome: StoreOutcome) -> None:
            uid, attempt = outcome.sop_instance_uid, attempt_of(outcome)
            if uid not in waiting:
                return
            if not outcome.associated and not attempt.permanent:
                away[uid] = attempt
                return
            self._reached(name)
            delivery, result = waiting[uid]
            self._ended(delivery, attempt, result if will_not_take(outcome) else None)
            del waiting[uid]  # after: what is not recorded has not ended

        lost = retry.Attempt(status=None, detail="an error of the node itself: see its log")
        try:
            lost = self._sent(name, waiting, ended)
        finally:
            if away:
                self._unreachable(name, [(waiting.pop(uid)[0], away[uid]) for uid in away])
            for delivery, _ in waiting.values():
                self._ended(delivery, lost)

    def _reached(self, name: str) -> None:
        """What waits for a peer that is there again is due."""
        if self.journal.catalog.owing.unreachable(name) is not None:
            self.journal.commit(k.PeerReached(at=self.clock.now(), destination=name))

    def _unreachable(self, name: str, tried: Sequence[tuple[Delivery, retry.Attempt]]) -> None:
        """What was tried, and all that is due by now, waits for the peer. Raises CatalogError.

        What became due while others wait is tried once by itself, and does not change their time.
        """
        now = self.clock.now()
        known = self.journal.catalog.owing.unreachable(name)
        early = known is not None and now < known.due_at
        tries = (known.tries if known else 0) + (0 if early else 1)
        wait_s = retry.wait_s(tries, self.policy, self.clock.luck())
        events: list[e.Event] = [
            replace(ended, due_at=now) if ended.state is DeliveryState.DEFERRED else ended
            for ended in (self._ending(delivery, attempt, now) for delivery, attempt in tried)
        ]
        events.append(
            k.PeerUnreachable(
                at=now,
                destination=name,
                tries=tries,
                due_at=known.due_at if known and early else now + wait_s,
                reason=tried[-1][1].detail,
                given_up_before=0.0 if early else self.policy.gives_up_before(now),
            )
        )
        self.journal.commit(*events)

    def _sent(
        self,
        name: str,
        waiting: dict[str, tuple[Delivery, Result]],
        ended: Callable[[StoreOutcome], None],
    ) -> retry.Attempt:
        """Send; returns what became of those of which nothing was heard."""
        peer = self.peers.get(name)
        if peer is None:
            detail = f"no peer is named {name}: add [[peer]]"
            return retry.Attempt(status=None, permanent=True, detail=detail)
        items = self._items(waiting)
        if items:
            try:
                self.send(peer, items, ended)
            except PeerError as error:
                return retry.Attempt(status=None, permanent=error.permanent, detail=str(error))
        return retry.Attempt(status=None, detail="the association ended early")

    def _items(self, waiting: dict[str, tuple[Delivery, Result]]) -> list[StoreItem]:
        """What there is a file of; the rest cannot be sent."""
        items: list[StoreItem] = []
        for uid, (delivery, result) in list(waiting.items()):
            try:
                path = self.spool.path(result.path)
            except SpoolError:
                gone = "its file was removed: have the Series sent and processed again"
                self._ended(delivery, retry.Attempt(status=None, permanent=True, detail=gone))
                del waiting[uid]
                continue
            items.append(
                StoreItem(
                    sop_class_uid=result.sop_class_uid,
                    sop_instance_uid=uid,
                    transfer_syntax_uid=result.transfer_syntax_uid,
                    path=path,
                )
            )
        return items

    def _ended(
        self, delivery: Delivery, attempt: retry.Attempt, refused: Result | None = None
    ) -> None:
        """The attempt's outcome becomes the delivery's next state. Raises CatalogError.

        refused: the result, if it was its kind that the peer would not take.
        """
        ended = self._ending(delivery, attempt, self.clock.now())
        parked = ended.state is DeliveryState.PARKED
        self.journal.commit(ended, *(self._instead(delivery, refused) if parked else ()))

    def _ending(self, delivery: Delivery, attempt: retry.Attempt, now: float) -> e.DeliveryEnded:
        number = delivery.attempt + 1  # claimed: the record is from before
        then = retry.after(
            attempt, number, delivery.created_at, self.policy, now, self.clock.luck()
        )
        sent = then.state is DeliveryState.SENT
        return e.DeliveryEnded(
            at=now,
            delivery_id=delivery.delivery_id,
            state=then.state,
            status=attempt.status,
            reason="" if sent else then.reason,
            due_at=self._proof_due(delivery, now) if sent else then.due_at,
        )

    def _instead(self, delivery: Delivery, refused: Result | None) -> Sequence[e.Event]:
        peer = self.peers.get(delivery.destination)
        if peer is None or refused is None:
            return ()
        try:
            return self.instead(delivery, refused, peer)
        except NodeError as error:
            _log.error("nothing could be made in place of %s: %s", refused.sop_instance_uid, error)
            return ()

    def _proof_due(self, delivery: Delivery, now: float) -> float:
        peer = self.peers.get(delivery.destination)
        offered = peer is not None and confirmation.ways(peer.offers)
        return now + self.ask_after_s if offered else now


def attempt_of(outcome: StoreOutcome) -> retry.Attempt:
    """What the network says, as the judgment wants it: PS3.8 Table 9-21 for rejections."""
    never = outcome.phase in (Phase.NO_CONTEXT, Phase.OBJECT) or (
        outcome.rejection is not None and outcome.rejection.result == REJECTED_PERMANENTLY
    )
    said = "; ".join(text for text in (outcome.detail, outcome.comment) if text)
    return retry.Attempt(status=outcome.status, permanent=never, detail=said)


def will_not_take(outcome: StoreOutcome) -> bool:
    """Whether it is this kind of object that the peer refuses, not us and not all of them."""
    return outcome.phase is Phase.NO_CONTEXT or (
        outcome.status is not None and retry.kind_refused(outcome.status)
    )


def sender(ae_title: str, timeouts: Timeouts) -> Send:
    """C-STORE as `ae_title`."""

    def send(
        peer: Peer, items: Sequence[StoreItem], on_outcome: Callable[[StoreOutcome], None]
    ) -> object:
        return store(
            peer=peer, calling_ae=ae_title, items=items, on_outcome=on_outcome, timeouts=timeouts
        )

    return send
