"""What the events of domain.keeping do to the tables: see fold."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from dicom_node.domain import keeping as k
from dicom_node.domain.errors import CatalogError
from dicom_node.domain.states import DeliveryState, SeriesState, StepState


def _requested(db: sqlite3.Connection, event: k.CommitmentRequested, number: int) -> None:
    del number
    for delivery_id in event.delivery_ids:
        db.execute(
            "INSERT INTO request VALUES (?, ?, ?)",
            (event.transaction_uid, delivery_id, event.destination),
        )
        db.execute(
            "UPDATE delivery SET transaction_uid = ? WHERE delivery_id = ?",
            (event.transaction_uid, delivery_id),
        )


def _missed(db: sqlite3.Connection, event: k.InstancesMissed, number: int) -> None:
    del number
    db.executemany(
        "INSERT OR IGNORE INTO missed VALUES (?, ?)",
        [(event.series_uid, uid) for uid in event.sop_instance_uids],
    )


def _proof_awaited(db: sqlite3.Connection, event: k.ProofAwaited, number: int) -> None:
    """Nothing, if it was proven, or is sent again, meanwhile."""
    del number
    db.execute(
        "UPDATE delivery SET ask = ?, tries = ?, reason = ?, due_at = ? "
        "WHERE delivery_id = ? AND state = ?",
        (
            event.ask, event.tries, event.reason, event.due_at, event.delivery_id,
            DeliveryState.SENT,
        ),
    )  # fmt: skip


def _confirmed(db: sqlite3.Connection, event: k.DeliveryConfirmed, number: int) -> None:
    """One that was sent. Sent again, it has all its attempts once more."""
    del number
    changed = db.execute(
        "UPDATE delivery SET state = ?, reason = ?, due_at = ?, ask = '', tries = 0 "
        "WHERE delivery_id = ? AND state NOT IN (?, ?)",
        (
            event.state, event.reason, event.due_at, event.delivery_id, DeliveryState.QUEUED,
            DeliveryState.SENDING,
        ),
    ).rowcount  # fmt: skip
    if not changed:
        raise CatalogError("the delivery is sent again meanwhile")
    if event.state is DeliveryState.DEFERRED:
        db.execute(
            "UPDATE delivery SET attempt = 0, returns = returns + 1, created_at = ? "
            "WHERE delivery_id = ?",
            (event.at, event.delivery_id),
        )


def _asked(db: sqlite3.Connection, event: k.CommitmentAsked, number: int) -> None:
    db.execute(
        "INSERT INTO promise VALUES (?, ?, ?, NULL, ?, 0, ?, '')",
        (event.transaction_uid, event.peer, number, event.at, event.at),
    )


def _judged(db: sqlite3.Connection, event: k.CommitmentJudged, number: int) -> None:
    db.execute(
        "UPDATE promise SET judged = ? WHERE transaction_uid = ? AND peer = ?",
        (number, event.transaction_uid, event.peer),
    )


def _promised(db: sqlite3.Connection, event: k.SeriesPromised, number: int) -> None:
    """Only what has not been removed since it was looked at."""
    purged = db.execute(
        "SELECT 1 FROM event WHERE series = ? AND number > ? AND number < ? AND kind = ?",
        (event.series_uid, event.seen, number, k.SeriesPurged.__name__),
    ).fetchone()
    if purged is not None:
        raise CatalogError("the Series was removed meanwhile")
    db.execute(
        "UPDATE series SET promised_at = ? WHERE series_uid = ?", (event.at, event.series_uid)
    )


def _report_ended(db: sqlite3.Connection, event: k.CommitmentReportEnded, number: int) -> None:
    del number
    db.execute(
        "UPDATE promise SET attempt = attempt + 1, due_at = ?, reason = ? "
        "WHERE transaction_uid = ? AND peer = ?",
        (event.due_at, event.reason, event.transaction_uid, event.peer),
    )


def _purged(db: sqlite3.Connection, event: k.SeriesPurged, number: int) -> None:
    """The facts first: from now on nothing claims the files, and a start removes what is left."""
    uid = event.series_uid
    changed = db.execute(
        "SELECT 1 FROM event WHERE series = ? AND number > ? AND number < ?",
        (uid, event.seen, number),
    ).fetchone()
    if changed is not None:
        raise CatalogError("the Series has changed since it was judged")
    db.execute(
        "INSERT OR IGNORE INTO garbage SELECT path, ?1 FROM ("
        "SELECT path FROM instance WHERE series_uid = ?1 "
        "UNION SELECT path FROM conflict WHERE series_uid = ?1 "
        "UNION SELECT path FROM result WHERE source_series_uid = ?1) WHERE path <> ''",
        (uid,),
    )
    db.execute("UPDATE instance SET path = '' WHERE series_uid = ?", (uid,))
    db.execute("UPDATE conflict SET path = '' WHERE series_uid = ?", (uid,))
    db.execute("UPDATE result SET path = '' WHERE source_series_uid = ?", (uid,))
    db.execute(
        "UPDATE delivery SET state = ?, reason = 'its file was removed' WHERE result_uid IN "
        "(SELECT sop_instance_uid FROM result WHERE source_series_uid = ?) "
        "AND state IN (?, ?, ?, ?)",
        (
            DeliveryState.WITHDRAWN, uid, DeliveryState.QUEUED, DeliveryState.DEFERRED,
            DeliveryState.PARKED, DeliveryState.DEAD,
        ),
    )  # fmt: skip
    db.execute(
        "UPDATE step SET state = ?, reason = 'the files were removed' "
        "WHERE series_uid = ? AND state = ?",
        (StepState.CANCELED, uid, StepState.SCHEDULED),
    )
    db.execute(
        "UPDATE series SET purged_at = ?, due_at = NULL, ask_at = NULL WHERE series_uid = ?",
        (event.at, uid),
    )


def _files_removed(db: sqlite3.Connection, event: k.FilesRemoved, number: int) -> None:
    del number
    db.execute("DELETE FROM garbage WHERE series_uid = ?", (event.series_uid,))


def _unreachable(db: sqlite3.Connection, event: k.PeerUnreachable, number: int) -> None:
    """One row, however much waits: what is due by now is not looked at until then."""
    del number
    db.execute(
        "INSERT INTO unreachable VALUES (?1, ?2, ?2, ?3, ?4, ?5) ON CONFLICT (destination) "
        "DO UPDATE SET tried_at = ?2, due_at = ?3, tries = ?4, reason = ?5",
        (event.destination, event.at, event.due_at, event.tries, event.reason),
    )
    since = db.execute(
        "SELECT since FROM unreachable WHERE destination = ?", (event.destination,)
    ).fetchone()["since"]
    if since <= event.given_up_before:
        db.execute(
            "UPDATE delivery SET state = ?, due_at = ?, reason = 'given up: ' || ? "
            "WHERE delivery_id IN (SELECT delivery_id FROM owed WHERE destination = ? "
            "AND state IN ('QUEUED', 'DEFERRED', 'SENDING') AND state <> 'SENDING' "
            "AND created_at <= ?)",
            (
                DeliveryState.DEAD, event.at, event.reason, event.destination,
                event.given_up_before,
            ),
        )  # fmt: skip


def _reached(db: sqlite3.Connection, event: k.PeerReached, number: int) -> None:
    del number
    db.execute("DELETE FROM unreachable WHERE destination = ?", (event.destination,))


def _restored(db: sqlite3.Connection, event: k.InstanceRestored, number: int) -> str:
    """A Series that lacked files is judged anew as soon as it has all of them.

    Returns what it is a repetition of, as for InstanceArrived.
    """
    del number
    is_instance, _ = (
        db.execute(
            f"UPDATE {table} SET path = ? WHERE sop_instance_uid = ? AND sha256 = ?",  # noqa: S608
            (event.path, event.sop_instance_uid, event.sha256),
        ).rowcount
        for table in ("instance", "conflict")
    )
    db.execute(  # it is here because of who brought it again
        "UPDATE instance SET association = ?3 WHERE sop_instance_uid = ?1 AND sha256 = ?2 "
        "AND ?3 IS NOT NULL",
        (event.sop_instance_uid, event.sha256, event.association),
    )
    db.execute("DELETE FROM garbage WHERE path = ?", (event.path,))
    db.execute(
        "UPDATE series SET purged_at = NULL, last_at = max(last_at, ?) WHERE series_uid = ?",
        (event.at, event.series_uid),
    )
    db.execute(
        "UPDATE series SET state = ?, due_at = ? WHERE series_uid = ? AND state = ? AND NOT EXISTS "
        "(SELECT 1 FROM instance WHERE instance.series_uid = series.series_uid AND path = '')",
        (SeriesState.RECEIVING, event.judge_at, event.series_uid, SeriesState.INCOMPLETE),
    )
    return "repeated" if is_instance else "conflict"


def _result_lost(db: sqlite3.Connection, event: k.ResultLost, number: int) -> None:
    """It is not missed again; what cannot be sent rests until it is made again: result_stored."""
    del number
    db.execute("UPDATE result SET path = '' WHERE sop_instance_uid = ?", (event.sop_instance_uid,))
    db.execute(
        "UPDATE delivery SET state = ?, reason = ? WHERE result_uid = ? AND state IN (?, ?, ?)",
        (
            DeliveryState.DEAD, event.reason, event.sop_instance_uid, DeliveryState.QUEUED,
            DeliveryState.DEFERRED, DeliveryState.PARKED,
        ),
    )  # fmt: skip


HANDLERS: Mapping[type, Callable[[sqlite3.Connection, Any, int], str | None]] = MappingProxyType(
    {
        k.InstancesMissed: _missed,
        k.CommitmentRequested: _requested,
        k.ProofAwaited: _proof_awaited,
        k.DeliveryConfirmed: _confirmed,
        k.CommitmentAsked: _asked,
        k.CommitmentJudged: _judged,
        k.SeriesPromised: _promised,
        k.CommitmentReportEnded: _report_ended,
        k.SeriesPurged: _purged,
        k.FilesRemoved: _files_removed,
        k.InstanceRestored: _restored,
        k.ResultLost: _result_lost,
        k.PeerUnreachable: _unreachable,
        k.PeerReached: _reached,
    }
)
"""One function a kind of event; the other kinds are history alone."""
