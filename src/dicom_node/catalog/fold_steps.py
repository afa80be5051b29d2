"""What the events of steps, and of results that replace others, do to the tables."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from dicom_node.domain import events as e
from dicom_node.domain.errors import CatalogError
from dicom_node.domain.records import Result
from dicom_node.domain.states import DeliveryState, StepState

SUPERSEDED = "superseded: more instances arrived"
_AT_ONCE = 0.0  # an operator's clock need not be that of the node


def _step_scheduled(db: sqlite3.Connection, event: e.StepScheduled, number: int) -> None:
    del number
    s = event.step
    db.execute(
        "UPDATE step SET state = ?, reason = ? "
        "WHERE series_uid = ? AND route = ? AND state IN (?, ?)",
        (
            StepState.CANCELED,
            SUPERSEDED,
            s.series_uid,
            s.route,
            StepState.SCHEDULED,
            StepState.IN_PROGRESS,
        ),
    )
    db.execute(
        "INSERT INTO step (series_uid, revision, route, tool_id, results, destinations, "
        "instance_uids, state, attempt, priority, due_at, reason, created_at, replaces) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            s.series_uid, s.revision, s.route, s.tool_id, json.dumps(s.results),
            json.dumps(s.destinations), json.dumps(s.instance_uids), StepState.SCHEDULED, s.attempt,
            s.priority, s.due_at, "", event.at, json.dumps(s.replaces),
        ),
    )  # fmt: skip


def _step_claimed(db: sqlite3.Connection, event: e.StepClaimed, number: int) -> None:
    del number
    db.execute(
        "UPDATE step SET state = ?, transaction_uid = ?, performer = ?, claimed_at = ?, "
        "lease_until = ?, attempt = attempt + 1, reason = '' WHERE step_id = ?",
        (
            StepState.IN_PROGRESS, event.transaction_uid, event.performer, event.at,
            event.lease_until, event.step_id,
        ),
    )  # fmt: skip


def _step_completed(db: sqlite3.Connection, event: e.StepCompleted, number: int) -> None:
    del number
    changed = db.execute(
        "UPDATE step SET state = ?, lease_until = NULL, reason = ?, "
        "replaces = coalesce(?, replaces) WHERE step_id = ? AND state = ? AND transaction_uid = ?",
        (
            StepState.COMPLETED, "; ".join(event.notes),
            None if event.replaces is None else json.dumps(event.replaces),
            event.step_id, StepState.IN_PROGRESS, event.transaction_uid,
        ),
    ).rowcount  # fmt: skip
    if not changed:
        raise CatalogError("the step is no longer claimed by this performer")


def _step_canceled(db: sqlite3.Connection, event: e.StepCanceled, number: int) -> None:
    del number
    changed = db.execute(
        "UPDATE step SET state = ?1, lease_until = NULL, reason = ?2 "
        "WHERE step_id = ?3 AND (?4 IS NULL OR (transaction_uid = ?4 AND state = ?5))",
        (
            StepState.CANCELED, event.reason, event.step_id, event.transaction_uid,
            StepState.IN_PROGRESS,
        ),
    ).rowcount  # fmt: skip
    if not changed:
        raise CatalogError("the step is no longer claimed by this performer")


def _step_failed(db: sqlite3.Connection, event: e.StepFailed, number: int) -> None:
    del number
    state = StepState.QUARANTINED if event.retry_at is None else StepState.SCHEDULED
    changed = db.execute(
        "UPDATE step SET state = ?1, due_at = coalesce(?2, due_at), lease_until = NULL, "
        "performer = NULL, transaction_uid = NULL, reason = ?3 "
        "WHERE step_id = ?4 AND state = ?5 AND (?6 IS NULL OR transaction_uid = ?6)",
        (
            state, event.retry_at, event.reason, event.step_id, StepState.IN_PROGRESS,
            event.transaction_uid,
        ),
    ).rowcount  # fmt: skip
    if not changed:
        raise CatalogError("the step is not in progress, or claimed by another performer")


def _step_returned(db: sqlite3.Connection, event: e.StepReturned, number: int) -> None:
    del number
    db.execute(
        "UPDATE step SET state = ?, due_at = ?, attempt = attempt - 1, lease_until = NULL, "
        "performer = NULL, transaction_uid = NULL, reason = ? WHERE step_id = ? AND state = ?",
        (StepState.SCHEDULED, event.at, event.reason, event.step_id, StepState.IN_PROGRESS),
    )


def _step_reset(db: sqlite3.Connection, event: e.StepReset, number: int) -> None:
    """Where the step has been claimed meanwhile, it is under way already: nothing changes."""
    del number
    db.execute(
        "UPDATE step SET state = ?, due_at = ?, attempt = 0, reason = 'asked for by an operator' "
        "WHERE step_id = ? AND state <> ?",
        (StepState.SCHEDULED, _AT_ONCE, event.step_id, StepState.IN_PROGRESS),
    )


def replaced(db: sqlite3.Connection, result: Result) -> None:
    """What the step of a result replaces of the same kind is not sent from now on."""
    db.execute(
        "UPDATE delivery SET replaced_by = ?1 WHERE replaced_by IS NULL AND result_uid IN "
        "(SELECT sop_instance_uid FROM result WHERE kind = ?2 AND sop_instance_uid IN "
        "(SELECT value FROM json_each((SELECT replaces FROM step WHERE step_id = ?1))))",
        (result.step_id, result.kind),
    )


def _delivery_withdrawn(db: sqlite3.Connection, event: e.DeliveryWithdrawn, number: int) -> None:
    """Where the object is on its way, or has arrived, the transition is refused."""
    del number
    db.execute(
        "UPDATE delivery SET state = ?, reason = ? WHERE delivery_id = ?",
        (DeliveryState.WITHDRAWN, event.reason, event.delivery_id),
    )


def _rejection_owed(db: sqlite3.Connection, event: e.RejectionOwed, number: int) -> None:
    del number
    db.execute(
        "UPDATE delivery SET rejected_by = ? WHERE delivery_id = ?",
        (event.note_uid, event.delivery_id),
    )


HANDLERS: Mapping[type, Callable[[sqlite3.Connection, Any, int], None]] = MappingProxyType(
    {
        e.StepScheduled: _step_scheduled,
        e.StepClaimed: _step_claimed,
        e.StepCompleted: _step_completed,
        e.StepCanceled: _step_canceled,
        e.StepFailed: _step_failed,
        e.StepReturned: _step_returned,
        e.StepReset: _step_reset,
        e.DeliveryWithdrawn: _delivery_withdrawn,
        e.RejectionOwed: _rejection_owed,
    }
)
