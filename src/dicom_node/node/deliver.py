"""Stage 6: what is owed to a peer is sent until it is taken, or a person has to decide."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dicom_node.decide import retry
from dicom_node.dimse.scu import Phase, StoreItem, StoreOutcome, Timeouts, store
from dicom_node.domain import events as e
from dicom_node.domain.errors import PeerError
from dicom_node.domain.records import Delivery, Peer, Result
from dicom_node.domain.states import DeliveryState
from dicom_node.node.clock import Clock
from dicom_node.node.journal import Journal
from dicom_node.spool.store import Spool

BATCH_MAX = 200  # instances in one association
REJECTED_PERMANENTLY = 1

Send = Callable[[Peer, Sequence[StoreItem], Callable[[StoreOutcome], None]], object]
"""send(peer, items, on_outcome): on_outcome is called once for every item that was tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliverer:
    """Sends what is due, to one destination in one association, to several destinations at once."""

    peers: dict[str, Peer]
    policy: retry.Policy
    spool: Spool
    journal: Journal
    clock: Clock
    send: Send
    busy: dict[str, threading.Thread]
    wake: Callable[[], None]

    def run_due(self, now: float) -> float | None:
        """Start a thread for each destination that something is due for."""
        claim = self.journal.catalog.claim_deliveries
        while due := claim(now=now, limit=BATCH_MAX, busy=frozenset(self.busy)):
            name = due[0][0].destination
            thread = threading.Thread(
                target=self._deliver, args=(name, due), name=f"deliver to {name}", daemon=True
            )
            self.busy[name] = thread
            thread.start()
        due_at = self.journal.catalog.views.next_delivery_due()
        busy = due_at is not None and due_at <= now  # its destination is: the thread will ring
        return None if busy else due_at

    def finish(self, seconds: float) -> None:
        """Wait for what is under way."""
        for thread in list(self.busy.values()):
            thread.join(seconds)

    def _deliver(self, name: str, due: Sequence[tuple[Delivery, Result]]) -> None:
        waiting = {result.sop_instance_uid: delivery for delivery, result in due}

        def ended(outcome: StoreOutcome) -> None:
            delivery = waiting.pop(outcome.sop_instance_uid, None)
            if delivery is not None:
                self._ended(delivery, attempt_of(outcome))

        try:
            peer = self.peers.get(name)
            if peer is None:
                lost = retry.Attempt(
                    status=None, permanent=True, detail=f"no peer is named {name}: add [[peer]]"
                )
            else:
                lost = retry.Attempt(status=None, detail="the association ended early")
                try:
                    self.send(peer, [self._item(result) for _, result in due], ended)
                except PeerError as error:
                    lost = retry.Attempt(status=None, permanent=error.permanent, detail=str(error))
            for delivery in list(waiting.values()):
                self._ended(delivery, lost)
        finally:
            del self.busy[name]  # before the bell: who wakes must find the destination free
            self.wake()

    def _item(self, result: Result) -> StoreItem:
        return StoreItem(
            sop_class_uid=result.sop_class_uid,
            sop_instance_uid=result.sop_instance_uid,
            transfer_syntax_uid=result.transfer_syntax_uid,
            path=self.spool.path(result.path),
        )

    def _ended(self, delivery: Delivery, attempt: retry.Attempt) -> None:
        """The attempt's outcome becomes the delivery's next state."""
        now = self.clock.now()
        number = delivery.attempt + 1  # claimed: the record is from before
        then = retry.after(
            attempt, number, delivery.created_at, self.policy, now, self.clock.luck()
        )
        self.journal.commit(
            e.DeliveryEnded(
                at=now,
                delivery_id=delivery.delivery_id,
                state=then.state,
                status=attempt.status,
                reason=then.reason if then.state is not DeliveryState.SENT else "",
                due_at=then.due_at,
            )
        )


def attempt_of(outcome: StoreOutcome) -> retry.Attempt:
    """What the network says, as the judgment wants it: PS3.8 Table 9-21 for rejections."""
    never = outcome.phase in (Phase.NO_CONTEXT, Phase.OBJECT) or (
        outcome.rejection is not None and outcome.rejection.result == REJECTED_PERMANENTLY
    )
    said = "; ".join(text for text in (outcome.detail, outcome.comment) if text)
    return retry.Attempt(status=outcome.status, permanent=never, detail=said)


def sender(ae_title: str, timeouts: Timeouts) -> Send:
    """C-STORE as `ae_title`."""

    def send(
        peer: Peer, items: Sequence[StoreItem], on_outcome: Callable[[StoreOutcome], None]
    ) -> object:
        return store(
            peer=peer, calling_ae=ae_title, items=items, on_outcome=on_outcome, timeouts=timeouts
        )

    return send
