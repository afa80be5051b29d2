"""What the verdicts on a Series, and an operator's word, do to the tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from dicom_node.domain import events as e
from dicom_node.domain.errors import CatalogError
from dicom_node.domain.states import SeriesState, StepState

_AT_ONCE = 0.0  # an operator's clock need not be that of the node


def _series_judged(db: sqlite3.Connection, event: e.SeriesJudged, number: int) -> None:
    del number
    changed = db.execute(
        "UPDATE series SET state = ?, due_at = ?, reason = ?, "
        "ask_at = CASE WHEN ? THEN coalesce(ask_at, ?) END "
        "WHERE series_uid = ? AND revision = ? AND state <> ? "
        "AND (? IS NULL OR (instances = ? AND due_at IS ?))",
        (
            event.state, event.due_at, "; ".join(event.reasons), event.ask, event.at,
            event.series_uid, event.revision, SeriesState.HELD,
            event.instances, event.instances, event.was_due_at,
        ),
    ).rowcount  # fmt: skip
    if not changed:
        raise CatalogError("the Series has changed since it was judged")


def _source_counted(db: sqlite3.Connection, event: e.SourceCounted, number: int) -> None:
    """What the source says; nothing where the Series has gone on without it."""
    del number
    db.execute(
        "UPDATE series SET ask_at = NULL, source_at = ?, source_count = ?, source = ?, due_at = ? "
        "WHERE series_uid = ? AND revision = ? AND state = ?",
        (
            event.at, event.count, event.source, event.at, event.series_uid, event.revision,
            SeriesState.RECEIVING,
        ),
    )  # fmt: skip


def _series_held(db: sqlite3.Connection, event: e.SeriesHeld, number: int) -> None:
    del number
    db.execute(
        "UPDATE series SET held_from = state, state = ?, due_at = NULL, ask_at = NULL, reason = ? "
        "WHERE series_uid = ? AND state <> ?",
        (SeriesState.HELD, event.reason, event.series_uid, SeriesState.HELD),
    )


def _series_released(db: sqlite3.Connection, event: e.SeriesReleased, number: int) -> None:
    """Held when complete: it goes on. Else it is judged anew, and declared whole."""
    del number
    changed = db.execute(
        "SELECT 1 FROM series WHERE series_uid = ? AND revision <> ?",
        (event.series_uid, event.revision),  # NULL is not checked
    ).fetchone()
    if changed:
        raise CatalogError("the Series has changed since it was looked at: release it again")
    db.execute(
        "UPDATE series SET state = held_from, held_from = '', reason = ? "
        "WHERE series_uid = ? AND state = ? AND held_from = ?",
        (event.reason, event.series_uid, SeriesState.HELD, SeriesState.COMPLETE),
    )
    db.execute(
        "UPDATE series SET state = ?, held_from = '', released = 1, due_at = ?, reason = ? "
        "WHERE series_uid = ? AND state IN (?, ?, ?)",
        (
            SeriesState.RECEIVING, _AT_ONCE, event.reason, event.series_uid, SeriesState.HELD,
            SeriesState.INCOMPLETE, SeriesState.RECEIVING,
        ),
    )  # fmt: skip


def _series_reopened(db: sqlite3.Connection, event: e.SeriesReopened, number: int) -> None:
    """Nothing for one that is not COMPLETE: it is judged anyway, or waits for an operator."""
    del number
    reopened = db.execute(
        "UPDATE series SET state = ?, revision = revision + 1, due_at = ?, ask_at = NULL, "
        "reason = ? WHERE series_uid = ? AND state = ?",
        (
            SeriesState.RECEIVING, _AT_ONCE, event.reason, event.series_uid, SeriesState.COMPLETE,
        ),
    ).rowcount  # fmt: skip
    if reopened:
        db.execute(
            "UPDATE step SET state = ?, lease_until = NULL, reason = 'judged anew' "
            "WHERE series_uid = ? AND state IN (?, ?)",
            (
                StepState.CANCELED, event.series_uid, StepState.SCHEDULED, StepState.IN_PROGRESS,
            ),
        )  # fmt: skip


HANDLERS: Mapping[type, Callable[[sqlite3.Connection, Any, int], None]] = MappingProxyType(
    {
        e.SeriesJudged: _series_judged,
        e.SourceCounted: _source_counted,
        e.SeriesHeld: _series_held,
        e.SeriesReleased: _series_released,
        e.SeriesReopened: _series_reopened,
    }
)
