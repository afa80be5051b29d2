"""What each event does to the tables: one function a kind of event, in the commit's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any

from dicom_node.catalog import fold_series, fold_steps
from dicom_node.catalog.fold_keeping import HANDLERS as KEEPING
from dicom_node.domain import events as e
from dicom_node.domain.records import Instance
from dicom_node.domain.states import DeliveryState, SeriesState, StepState

NEW = "new"
REPEATED = "repeated"
CONFLICT = "conflict"
PURGED = "purged"

_AT_ONCE = 0.0  # an operator's clock need not be that of the node
_BETWEEN_IMAGES_S = 1.0
_WAIT_MAX_S = 86400.0  # a delivery that is due later than that waits for a clock that was set back


def fold(db: sqlite3.Connection, event: e.Event, number: int) -> str:
    """Apply one event. Returns what became of it, for an instance: NEW, REPEATED, CONFLICT, or
    PURGED, which is a repetition or a conflict whose file had been removed."""
    handler = _HANDLERS.get(type(event))
    return handler(db, event, number) or "" if handler else ""


def _node_started(db: sqlite3.Connection, event: e.NodeStarted, number: int) -> None:
    """Nothing outlives the process: associations are lost, claims return to the queue."""
    del number
    _set_back(db, event.at)
    db.execute(
        "UPDATE series SET due_at = :at, ask_at = NULL, source_at = NULL, source_count = NULL "
        "WHERE state = :receiving",
        {"at": event.at, "receiving": SeriesState.RECEIVING},
    )
    db.execute(
        "UPDATE association SET ended_at = ?, ended = 'lost' WHERE ended_at IS NULL", (event.at,)
    )
    db.execute(
        "UPDATE step SET state = ?, due_at = ?, lease_until = NULL, performer = NULL, "
        "transaction_uid = NULL, reason = 'the node was stopped' WHERE state = ?",
        (StepState.SCHEDULED, event.at, StepState.IN_PROGRESS),
    )
    db.execute(  # whoever starts the node may have mended what was in the way
        "UPDATE unreachable SET since = min(since, ?1), tried_at = min(tried_at, ?1), "
        "due_at = min(due_at, ?1)",
        (event.at,),
    )
    db.execute(
        "UPDATE delivery SET state = ?, due_at = ?, reason = 'the node was stopped' "
        "WHERE state = ?",
        (DeliveryState.DEFERRED, event.at, DeliveryState.SENDING),
    )


def _set_back(db: sqlite3.Connection, at: float) -> None:
    """Times in the future are those of a clock that was set back: nothing waits for them.

    What is due after an attempt may lie in the future, and is believed for a day.
    """
    db.execute(
        "UPDATE series SET last_at = ?1, first_at = min(first_at, ?1) WHERE last_at > ?1", (at,)
    )
    db.execute("UPDATE series SET promised_at = ?1 WHERE promised_at > ?1", (at,))
    db.execute("UPDATE association SET ended_at = ?1 WHERE ended_at > ?1", (at,))
    db.execute(
        "UPDATE step SET due_at = ?1 WHERE state = ?2 AND due_at > ?1", (at, StepState.SCHEDULED)
    )
    db.execute(
        "UPDATE delivery SET due_at = min(due_at, ?1), created_at = min(created_at, ?1), "
        "sent_at = min(sent_at, ?1) "
        "WHERE created_at > ?1 OR sent_at > ?1 OR (due_at > ?1 + ?2 AND state IN (?3, ?4, ?5))",
        (at, _WAIT_MAX_S, DeliveryState.QUEUED, DeliveryState.DEFERRED, DeliveryState.SENT),
    )
    db.execute(
        "UPDATE promise SET due_at = min(due_at, ?1), asked_at = min(asked_at, ?1) "
        "WHERE asked_at > ?1 OR due_at > ?1 + ?2",
        (at, _WAIT_MAX_S),
    )


def _association_opened(db: sqlite3.Connection, event: e.AssociationOpened, number: int) -> None:
    del number
    db.execute(
        "INSERT INTO association (number, calling_ae, called_ae, address, opened_at) "
        "VALUES (?, ?, ?, ?, ?)",
        (event.number, event.calling_ae, event.called_ae, event.address, event.at),
    )


def _association_ended(db: sqlite3.Connection, event: e.AssociationEnded, number: int) -> None:
    del number
    db.execute(
        "UPDATE association SET ended_at = ?, ended = ? WHERE number = ? AND ended_at IS NULL",
        (event.at, event.how, event.number),
    )
    # with an association for each image no end is the last: judging at each would cost the square
    db.execute(
        "UPDATE series SET due_at = min(coalesce(due_at, 1e300), ?1 + CASE WHEN instances > 1 AND "
        "(SELECT count(*) FROM contribution c WHERE c.series_uid = series.series_uid) >= instances "
        "THEN ?4 ELSE 0 END) "
        "WHERE state = ?2 AND series_uid IN "
        "(SELECT series_uid FROM contribution WHERE association = ?3)",
        (event.at, SeriesState.RECEIVING, event.number, _BETWEEN_IMAGES_S),
    )


def _instance_arrived(db: sqlite3.Connection, event: e.InstanceArrived, number: int) -> str:
    i = event.instance
    added = db.execute(
        "INSERT INTO instance VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (sop_instance_uid) DO NOTHING",
        (
            i.sop_instance_uid, i.sop_class_uid, i.transfer_syntax_uid, i.study_uid, i.series_uid,
            i.path, i.size, i.sha256, i.association, i.received_at, number,
        ),
    ).rowcount  # fmt: skip
    if not added:
        return _known_already(db, i, number)
    _contribute(db, i.series_uid, i.association)
    _count(db, event)
    return NEW


def _known_already(db: sqlite3.Connection, i: Instance, number: int) -> str:
    known = db.execute(
        "SELECT sha256, series_uid, path FROM instance WHERE sop_instance_uid = ?",
        (i.sop_instance_uid,),
    ).fetchone()
    if known["sha256"] != i.sha256:
        _apart(db, i, number)
        return _kept_apart(db, i, known["series_uid"])
    _contribute(db, known["series_uid"], i.association)
    return REPEATED if known["path"] else PURGED


def _count(db: sqlite3.Connection, event: e.InstanceArrived) -> None:
    """The Series has one instance more."""
    i = event.instance
    text = i.attributes.get
    patient_id, accession_number = _numbers(i)
    said = (i.study_uid, patient_id, accession_number)
    before = db.execute(
        "SELECT study_uid, patient_id, accession_number, EXISTS (SELECT 1 FROM step "
        "WHERE step.series_uid = series.series_uid AND step.state IN (?2, ?3)) "
        "FROM series WHERE series_uid = ?1",
        (i.series_uid, StepState.SCHEDULED, StepState.IN_PROGRESS),
    ).fetchone()
    *known, has_steps = before or (*said, True)
    if has_steps:  # what runs on fewer instances than there are now is of no use
        db.execute(
            "UPDATE step SET state = ?, lease_until = NULL, reason = ? WHERE series_uid = ? "
            "AND state IN (?, ?)",
            (
                StepState.CANCELED, fold_steps.SUPERSEDED, i.series_uid, StepState.SCHEDULED,
                StepState.IN_PROGRESS,
            ),
        )  # fmt: skip
    db.execute(
        "INSERT INTO series (series_uid, study_uid, state, revision, instances, first_at, last_at, "
        "due_at, reason, patient_id, accession_number, modality, description) "
        "VALUES (:uid, :study, 'RECEIVING', 1, 1, :at, :at, :due, '', "
        ":patient, :accession, :modality, :description) "
        "ON CONFLICT (series_uid) DO UPDATE SET instances = instances + 1, "
        "last_at = max(last_at, excluded.last_at), ask_at = NULL, released = 0, "
        "purged_at = NULL, "
        "held_from = CASE held_from WHEN '' THEN '' ELSE 'RECEIVING' END, "
        "due_at = CASE state WHEN 'HELD' THEN due_at ELSE excluded.due_at END, "
        "revision = revision + (state IN ('COMPLETE', 'INCOMPLETE') OR "
        "held_from IN ('COMPLETE', 'INCOMPLETE')), "
        "state = CASE state WHEN 'HELD' THEN state ELSE 'RECEIVING' END",
        {
            "uid": i.series_uid,
            "study": i.study_uid,
            "at": event.at,
            "due": event.judge_at,
            "patient": patient_id,
            "accession": accession_number,
            "modality": str(text("Modality", "")),
            "description": str(text("SeriesDescription", "")),
        },
    )
    # what leads to the Series, and does not stand in its row: that has the first instance's
    for one in {*said} - {"", *known}:
        db.execute("INSERT OR IGNORE INTO identifier VALUES (?, ?)", (one, i.series_uid))


def _numbers(i: Instance) -> tuple[str, str]:
    """Patient ID and Accession Number."""
    text = i.attributes.get
    return str(text("PatientID", "")), str(text("AccessionNumber", ""))


def _kept_apart(db: sqlite3.Connection, i: Instance, series_uid: str) -> str:
    """The first stays the instance; the other bytes are remembered beside it."""
    known = db.execute(
        "SELECT path FROM conflict WHERE sop_instance_uid = ? AND sha256 = ?",
        (i.sop_instance_uid, i.sha256),
    ).fetchone()
    added = db.execute(
        "INSERT INTO conflict VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            i.sop_instance_uid, i.sha256, series_uid, i.path, i.size, i.association, i.received_at,
            i.series_uid, i.study_uid, *_numbers(i),
        ),
    ).rowcount  # fmt: skip
    db.execute(
        "UPDATE series SET conflicts = conflicts + ? WHERE series_uid = ?", (added, series_uid)
    )
    return CONFLICT if known is None or known["path"] else PURGED


def _apart(db: sqlite3.Connection, i: Instance, number: int) -> None:
    """Who sent it: the same again, and by another, too."""
    patient_id, _ = _numbers(i)
    db.execute(
        "INSERT INTO apart VALUES (?, ?, ?, ?, 1, ?) "
        "ON CONFLICT DO UPDATE SET instances = instances + 1",
        (i.association, i.study_uid, patient_id, i.sop_class_uid, number),
    )


def _contribute(db: sqlite3.Connection, series_uid: str, association: int) -> None:
    db.execute(
        "INSERT INTO contribution VALUES (?, ?, 1) ON CONFLICT (series_uid, association) "
        "DO UPDATE SET instances = instances + 1",
        (series_uid, association),
    )


def _result_stored(db: sqlite3.Connection, event: e.ResultStored, number: int) -> None:
    """The same result again (a second run of the same tool on the same input) changes nothing.

    One whose step was not known, for it was found in the spool, gets the step that makes it again.
    One whose file was lost is owed again to those who did not get it.
    """
    del number
    r = event.result
    fold_steps.replaced(db, r)
    db.execute(
        "UPDATE delivery SET state = ?, due_at = ?, attempt = 0, created_at = ?, reason = '' "
        "WHERE state IN (?, ?) AND result_uid IN "
        "(SELECT sop_instance_uid FROM result WHERE sop_instance_uid = ? AND path = '')",
        (
            DeliveryState.QUEUED, event.at, event.at, DeliveryState.DEAD, DeliveryState.PARKED,
            r.sop_instance_uid,
        ),
    )  # fmt: skip
    db.execute(
        "INSERT INTO result VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (sop_instance_uid) DO UPDATE SET "
        "step_id = CASE step_id WHEN 0 THEN excluded.step_id ELSE step_id END, "
        "path = CASE path WHEN '' THEN excluded.path ELSE path END, "  # it had been removed
        "size = CASE path WHEN '' THEN excluded.size ELSE size END, "
        "sha256 = CASE path WHEN '' THEN excluded.sha256 ELSE sha256 END",
        (
            r.sop_instance_uid, r.sop_class_uid, r.transfer_syntax_uid, r.series_uid, r.study_uid,
            r.step_id, r.source_series_uid, r.tool_id, r.tool_version, r.kind, r.path, r.size,
            r.sha256, r.created_at, json.dumps(dict(r.summary)),
        ),
    )  # fmt: skip


def _delivery_queued(db: sqlite3.Connection, event: e.DeliveryQueued, number: int) -> None:
    """Owed already, it stays as it is; withdrawn, it is owed again, unless a newer one is there."""
    del number
    d = event.delivery
    db.execute(
        "INSERT INTO delivery (result_uid, destination, state, attempt, created_at, due_at, reason)"
        " VALUES (?1, ?2, ?3, 0, ?4, ?5, '') ON CONFLICT (result_uid, destination) DO UPDATE SET "
        "state = ?3, attempt = 0, returns = 0, created_at = ?4, due_at = ?5, reason = '' "
        "WHERE state = ?6 AND replaced_by IS NULL",
        (
            d.result_uid, d.destination, DeliveryState.QUEUED, event.at, d.due_at,
            DeliveryState.WITHDRAWN,
        ),
    )  # fmt: skip


def _delivery_claimed(db: sqlite3.Connection, event: e.DeliveryClaimed, number: int) -> None:
    del number
    db.execute(
        "UPDATE delivery SET state = ?, attempt = attempt + 1, transaction_uid = '' "
        "WHERE delivery_id = ?",  # what was asked for before says nothing of what is sent now
        (DeliveryState.SENDING, event.delivery_id),
    )


def _delivery_ended(db: sqlite3.Connection, event: e.DeliveryEnded, number: int) -> None:
    del number
    sent_at = event.at if event.state is DeliveryState.SENT else None
    db.execute(
        "UPDATE delivery SET state = ?, status = ?, reason = ?, due_at = ?, "
        "sent_at = coalesce(?, sent_at), ask = '', tries = 0 WHERE delivery_id = ?",
        (event.state, event.status, event.reason, event.due_at, sent_at, event.delivery_id),
    )


def _delivery_reset(db: sqlite3.Connection, event: e.DeliveryReset, number: int) -> None:
    """Where it was claimed or replaced meanwhile, it stays as it is.

    Its peer is tried at once, if it could not be reached.
    """
    del number
    db.execute(
        "DELETE FROM unreachable WHERE destination = "
        "(SELECT destination FROM delivery WHERE delivery_id = ?)",
        (event.delivery_id,),
    )
    db.execute(
        "UPDATE delivery SET state = ?, due_at = ?, attempt = 0, returns = 0, created_at = ?, "
        "reason = 'asked for by an operator' "
        "WHERE delivery_id = ? AND state <> ? AND replaced_by IS NULL",
        (DeliveryState.QUEUED, _AT_ONCE, event.at, event.delivery_id, DeliveryState.SENDING),
    )


_HANDLERS: dict[type, Callable[[sqlite3.Connection, Any, int], str | None]] = {
    **fold_series.HANDLERS,
    **fold_steps.HANDLERS,
    e.NodeStarted: _node_started,
    e.AssociationOpened: _association_opened,
    e.AssociationEnded: _association_ended,
    e.InstanceArrived: _instance_arrived,
    e.ResultStored: _result_stored,
    e.DeliveryQueued: _delivery_queued,
    e.DeliveryClaimed: _delivery_claimed,
    e.DeliveryEnded: _delivery_ended,
    e.DeliveryReset: _delivery_reset,
    **KEEPING,
}
