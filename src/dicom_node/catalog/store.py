"""The catalog: one object a process, safe from several threads."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dicom_node.catalog import codec, views
from dicom_node.catalog.arrivals import Arrivals
from dicom_node.catalog.attention import Attention
from dicom_node.catalog.damage import Damage
from dicom_node.catalog.fold import fold
from dicom_node.catalog.history import History
from dicom_node.catalog.inventory import Inventory
from dicom_node.catalog.keeping import Keeping
from dicom_node.catalog.owing import Owing
from dicom_node.catalog.runnable import Leaves, Runnable
from dicom_node.catalog.schema import connect
from dicom_node.catalog.supersession import Supersession
from dicom_node.catalog.trail import Trail
from dicom_node.domain import events as e
from dicom_node.domain import keeping as k
from dicom_node.domain import security as s
from dicom_node.domain.errors import CatalogDamaged, CatalogError
from dicom_node.domain.records import Delivery, Result, Step


@dataclass(slots=True)
class _Ticket:
    """One caller's events, waiting for the transaction that takes them along."""

    events: Sequence[e.Event]
    outcomes: list[str] = field(default_factory=list)
    error: CatalogError | None = None
    done: bool = False


class Catalog:
    """Events in, due work and views out.

    `commit` is durable when it returns. Callers on several threads share transactions: whoever gets
    the lock commits for all who wait, so the price of a sync is divided among them.
    """

    def __init__(self, path: Path) -> None:
        """Open or make the catalog. Raises CatalogError."""
        self._damage = Damage(path)
        self._db = connect(path)
        self._lock = threading.RLock()
        self._waiting: list[_Ticket] = []
        self._queue_lock = threading.Lock()
        self.views = views.Views(self._db, self._lock, self._damage)
        self.files = Inventory(self.views.rows)
        self.supersession = Supersession(self.views.rows)
        self.attention = Attention(self.views.rows)
        self.arrivals = Arrivals(self.views.rows)
        self.keeping = Keeping(self.views.rows)
        self.history = History(self.views.rows)
        self.owing = Owing(self.views.rows)
        self.runnable = Runnable(self.views.rows)
        self.trail = Trail(self.views.rows)

    def close(self) -> None:
        """Close the connection; what was committed stays."""
        with self._lock:
            self._db.close()

    def require_undamaged(self) -> None:
        """Raise CatalogDamaged if any process has met damage: nothing can be committed."""
        self._damage.check()

    def commit(self, *events: e.Event) -> list[str]:
        """Append the events and fold them, all or none, durable on return.

        Returns what became of each: "new", "repeated", "conflict" or "purged" for InstanceArrived,
        else "".
        Raises CatalogError (an illegal transition, a full or failing disk): nothing was changed.
        Raises CatalogDamaged ever after damage was met, here or by another process.
        """
        ticket = _Ticket(events)
        with self._queue_lock:
            self._waiting.append(ticket)
        with self._lock:
            if not ticket.done:
                with self._queue_lock:
                    batch, self._waiting = self._waiting, []
                self._commit_all(batch)
        if ticket.error is not None:
            raise ticket.error
        return ticket.outcomes

    def _commit_all(self, batch: Sequence[_Ticket]) -> None:
        error = CatalogError("the catalog could not commit: an error of the node itself")
        committed = ending = False
        try:
            self._damage.check()
            self._db.execute("BEGIN IMMEDIATE")
            alone = len(batch) == 1
            for ticket in batch:
                self._apply(ticket, alone=alone)
            ending = True
            if not alone or batch[0].error is None:
                self._db.execute("COMMIT")
            committed = True
        except CatalogDamaged as damage:
            error = damage
        except sqlite3.Error as fault:
            error = self._damage.error("the catalog could not commit", fault)
            # all of it may be in the log already: where there was room, it was perhaps not synced
            error.unsure = ending and not error.full
        finally:
            if not committed:
                self._rollback()
            for ticket in batch:  # whoever waits is told, whatever has happened
                ticket.error = ticket.error if committed else error
                ticket.done = True

    def _rollback(self) -> None:
        if self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def _apply(self, ticket: _Ticket, *, alone: bool) -> None:
        """One ticket, in a savepoint of its own where there are others: its failure is not theirs.

        Without others the transaction is over if it fails.
        """
        if not alone:
            self._db.execute("SAVEPOINT ticket")
        try:
            ticket.outcomes = [self._append(event) for event in ticket.events]
        except CatalogDamaged:
            raise
        except (sqlite3.IntegrityError, CatalogError) as error:
            self._db.execute("ROLLBACK" if alone else "ROLLBACK TO ticket")
            ticket.error = CatalogError(f"refused by the catalog: {error}")
        if not alone:
            self._db.execute("RELEASE ticket")

    def _append(self, event: e.Event) -> str:
        subject, series = self._subject(event)
        cursor = self._db.execute(
            "INSERT INTO event (at, kind, subject, series, body) VALUES (?, ?, ?, ?, ?)",
            (event.at, codec.kind_of(event), subject, series, codec.to_json(event)),
        )
        return fold(self._db, event, int(cursor.lastrowid or 0))

    def _subject(self, event: e.Event) -> tuple[str, str]:  # noqa: C901, PLR0911, PLR0912  # a table
        """What the event is about, and the Series it belongs to."""
        match event:
            case e.InstanceArrived(instance=i):
                return i.sop_instance_uid, i.series_uid
            case e.InstanceRefused():
                return event.sop_instance_uid, event.series_uid
            case (
                e.SeriesJudged() | e.SeriesUnrouted() | e.SourceCounted() | e.SeriesHeld()
                | e.SeriesReleased() | e.SeriesReopened()
            ):  # fmt: skip
                return event.series_uid, event.series_uid
            case e.StepScheduled(step=step):
                return step.series_uid, step.series_uid
            case e.ResultStored(result=result):
                return result.sop_instance_uid, result.source_series_uid
            case e.DeliveryQueued(delivery=delivery):
                return delivery.result_uid, self.views.series_of_result(delivery.result_uid)
            case (
                e.DeliveryClaimed() | e.DeliveryEnded() | e.DeliveryReset() | e.DeliveryWithdrawn()
                | e.RejectionOwed()
            ):  # fmt: skip
                return self.views.result_of_delivery(event.delivery_id)
            case (
                e.StepClaimed() | e.StepCompleted() | e.StepCanceled() | e.StepFailed()
                | e.StepReturned() | e.StepReset()
            ):  # fmt: skip
                return f"step {event.step_id}", self.views.series_of_step(event.step_id)
            case e.AssociationOpened() | e.AssociationEnded():
                return f"association {event.number}", ""
            case e.AssociationRejected() | e.RequestRefused():
                return event.calling_ae, ""
            case e.AssociationBroken():
                return event.calling_ae or event.address, ""
            case s.HandshakeFailed():
                return event.address, ""
            case k.ProofAwaited() | k.DeliveryConfirmed():
                return self.views.result_of_delivery(event.delivery_id)
            case (
                k.CommitmentRequested() | k.CommitmentReported() | k.CommitmentAsked()
                | k.CommitmentJudged() | k.CommitmentReportEnded()
            ):  # fmt: skip
                return event.transaction_uid, ""
            case k.InstanceRestored() | k.ResultLost():
                return event.sop_instance_uid, event.series_uid
            case (
                k.SeriesPromised() | k.SeriesPurged() | k.FilesRemoved() | k.InstancesMissed()
            ):  # fmt: skip
                return event.series_uid, event.series_uid
            case k.PeerUnreachable() | k.PeerReached():
                return f"peer {event.destination}", ""
            case s.CertificateLoaded() | s.CertificateRefused() | s.CertificateExpiring():
                return "tls", ""
            case e.NodeStarted() | k.PressureChanged():
                return "node", ""

    def claim_step(
        self,
        *,
        now: float,
        lease_s: float,
        transaction_uid: str,
        performer: str,
        leaves_s: Leaves | None = None,
    ) -> Step | None:
        """Take the most urgent step that is due, if any: it is IN PROGRESS when this returns.

        leaves_s: for how long this performer leaves a step on a Series to others.
        """
        self._damage.check()
        if self.runnable.next_step(now, leaves_s) is None:
            return None  # without the lock for writing, which receivers want
        with self._lock:
            try:
                self._damage.check()
                self._db.execute("BEGIN IMMEDIATE")
                step_id = self.runnable.next_step(now, leaves_s)
                if step_id is not None:
                    self._append(
                        e.StepClaimed(
                            at=now,
                            step_id=step_id,
                            transaction_uid=transaction_uid,
                            performer=performer,
                            lease_until=now + lease_s,
                        )
                    )
                self._db.execute("COMMIT")
            except CatalogError:
                self._rollback()
                raise
            except sqlite3.Error as error:
                self._rollback()
                raise self._damage.error("no step could be claimed", error) from error
            return None if step_id is None else self.views.step(step_id)

    def extend_lease(self, step_id: int, transaction_uid: str, until: float) -> None:
        """Who claimed a step is alive; nothing if somebody else has. No event: it is no history."""
        try:
            with self._lock:
                self._db.execute(
                    "UPDATE step SET lease_until = ? WHERE step_id = ? AND transaction_uid = ? "
                    "AND state = 'IN PROGRESS'",
                    (until, step_id, transaction_uid),
                )
        except sqlite3.Error as error:
            raise self._damage.error("the lease could not be extended", error) from error

    def claim_deliveries(
        self, *, now: float, limit: int, busy: frozenset[str]
    ) -> list[tuple[Delivery, Result]]:
        """Take what is due for one destination (not one of `busy`), oldest first: SENDING now."""
        with self._lock:
            due = self.owing.due(now, limit, busy)
            if due:
                self.commit(*(e.DeliveryClaimed(at=now, delivery_id=d.delivery_id) for d, _ in due))
            return due
