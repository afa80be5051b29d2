"""Reading the catalog: due work, evidence, and what people ask for."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dicom_node.catalog import codec
from dicom_node.catalog.damage import Damage
from dicom_node.domain import events as e
from dicom_node.domain.records import (
    Association,
    Attributes,
    Conflict,
    Delivery,
    Instance,
    Result,
    Series,
    Step,
)
from dicom_node.domain.states import DeliveryState, SeriesState, StepState

Rows = Callable[..., list[sqlite3.Row]]
"""rows(sql, *values), as of `Views`: for all who query in this room. Raises CatalogError."""


class Views:
    """Queries; each returns values of the domain. Shares its catalog's connection and lock."""

    def __init__(self, db: sqlite3.Connection, lock: threading.RLock, damage: Damage) -> None:
        self._db = db
        self._lock = lock
        self._damage = damage

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """For this room only: the answer to a query. Raises CatalogError."""
        return self._rows(sql, *values)

    def _rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        try:
            with self._lock:
                return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._damage.error("the catalog cannot be read", error) from error

    def _row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        rows = self._rows(sql, *values)
        return rows[0] if rows else None

    # --- series

    def series_due(self, now: float) -> list[Series]:
        """Series whose judgment is due, longest waiting first."""
        rows = self._rows("SELECT * FROM series WHERE due_at <= ? ORDER BY due_at", now)
        return [_series(row) for row in rows]

    def next_series_due(self) -> float | None:
        """When the next Series is to be judged."""
        row = self._row("SELECT min(due_at) AS due FROM series WHERE due_at IS NOT NULL")
        return row["due"] if row else None

    def series(self, series_uid: str) -> Series | None:
        """One Series."""
        row = self._row("SELECT * FROM series WHERE series_uid = ?", series_uid)
        return _series(row) if row else None

    def series_to_ask(self) -> list[Series]:
        """Series whose source is to be asked for its count, longest waiting first."""
        rows = self._rows("SELECT * FROM series WHERE ask_at IS NOT NULL ORDER BY ask_at")
        return [_series(row) for row in rows]

    def all_series(self, limit: int) -> list[Series]:
        """The Series that changed last, newest first."""
        rows = self._rows("SELECT * FROM series ORDER BY last_at DESC LIMIT ?", limit)
        return [_series(row) for row in rows]

    def find_series(self, text: str) -> list[Series]:
        """The Series that a UID (study, series, instance, result), an accession number or a patient
        ID leads to, if it is that of any of their instances."""
        if not text:  # many have no accession number
            return []
        rows = self._rows(
            "SELECT * FROM series WHERE series_uid = ?1 OR study_uid = ?1 OR patient_id = ?1 OR "
            "accession_number = ?1 OR series_uid IN (SELECT series_uid FROM identifier WHERE "
            "text = ?1) OR series_uid IN (SELECT series_uid FROM instance WHERE "
            "sop_instance_uid = ?1) OR series_uid IN (SELECT source_series_uid FROM result WHERE "
            "sop_instance_uid = ?1 OR series_uid = ?1) ORDER BY first_at",
            text,
        )
        return [_series(row) for row in rows]

    def instances(self, series_uid: str) -> list[Instance]:
        """The instances of a Series with their header attributes, by SOP Instance UID."""
        rows = self._rows(
            "SELECT instance.*, event.body FROM instance JOIN event ON event.number = event "
            "WHERE series_uid = ? ORDER BY sop_instance_uid",
            series_uid,
        )
        return [instance_of(row) for row in rows]

    def instance(self, sop_instance_uid: str) -> Instance | None:
        """One instance with its header attributes."""
        row = self._row(
            "SELECT instance.*, event.body FROM instance JOIN event ON event.number = event "
            "WHERE sop_instance_uid = ?",
            sop_instance_uid,
        )
        return instance_of(row) if row else None

    def paths(self) -> set[str]:
        """Every file that the catalog knows, relative to the spool."""
        rows = self._rows(
            "SELECT path FROM instance UNION SELECT path FROM result "
            "UNION SELECT path FROM conflict"
        )
        return {row["path"] for row in rows} - {""}

    def path_known(self, path: str) -> bool:
        """Whether an instance or a result lies at this path."""
        return bool(
            self._row(
                "SELECT 1 FROM instance WHERE path = ?1 UNION ALL "
                "SELECT 1 FROM result WHERE path = ?1 UNION ALL "
                "SELECT 1 FROM conflict WHERE path = ?1",
                path,
            )
        )

    def conflicts(self, series_uid: str) -> list[Conflict]:
        """What was kept apart: objects with the UID of an instance here, and other bytes; and those
        that belong here by their own header."""
        rows = self._rows(
            "SELECT * FROM conflict WHERE series_uid = ?1 OR own_series_uid = ?1 "
            "ORDER BY received_at, sop_instance_uid, sha256",
            series_uid,
        )
        return [Conflict(**dict(row)) for row in rows]

    def find_conflicts(self, text: str) -> list[Conflict]:
        """What was kept apart, and says of itself that it has this UID (study, series), accession
        number or patient ID."""
        if not text:
            return []
        rows = self._rows(
            "SELECT * FROM conflict WHERE own_series_uid = ?1 OR own_study_uid = ?1 OR "
            "patient_id = ?1 OR accession_number = ?1 "
            "ORDER BY received_at, sop_instance_uid, sha256",
            text,
        )
        return [Conflict(**dict(row)) for row in rows]

    # --- associations

    def associations(self, series_uid: str) -> list[Association]:
        """The associations that brought something of the Series, in order."""
        rows = self._rows(
            "SELECT association.* FROM contribution JOIN association ON number = association "
            "WHERE series_uid = ? ORDER BY number",
            series_uid,
        )
        return [_association(row) for row in rows]

    def brought(self, series_uid: str) -> dict[int, int]:
        """Number of an association -> how many instances of the Series are here because of it."""
        rows = self._rows(
            "SELECT association, count(*) AS n FROM instance WHERE series_uid = ? GROUP BY 1",
            series_uid,
        )
        return {row["association"]: row["n"] for row in rows}

    def missed(self, series_uid: str) -> int:
        """How many instances that came with the Series were refused, and are not here."""
        row = self._row(
            "SELECT count(*) AS n FROM missed WHERE series_uid = ? AND NOT EXISTS (SELECT 1 FROM "
            "instance WHERE instance.sop_instance_uid = missed.sop_instance_uid)",
            series_uid,
        )
        return int(row["n"]) if row else 0

    def last_association(self) -> int:
        """The highest association number given so far."""
        row = self._row("SELECT max(number) AS number FROM association")
        return int(row["number"] or 0) if row else 0

    # --- steps

    def step(self, step_id: int) -> Step | None:
        """One step."""
        row = self._row("SELECT * FROM step WHERE step_id = ?", step_id)
        return _step(row) if row else None

    def steps(self, series_uid: str) -> list[Step]:
        """The steps of a Series, oldest first."""
        rows = self._rows("SELECT * FROM step WHERE series_uid = ? ORDER BY step_id", series_uid)
        return [_step(row) for row in rows]

    def claimed_by(self, performer: str) -> list[Step]:
        """What a performer has IN PROGRESS."""
        rows = self._rows(
            "SELECT * FROM step WHERE performer = ? AND state = ?", performer, StepState.IN_PROGRESS
        )
        return [_step(row) for row in rows]

    def claimed_since(self, at: float, performer: str) -> bool:
        """Whether a performer claimed a step at that time or later; it may have given it back."""
        sql = "SELECT 1 FROM step WHERE claimed_at >= ? AND coalesce(performer, ?2) = ?2 LIMIT 1"
        return bool(self._row(sql, at, performer))

    def leases_lost(self, now: float) -> list[Step]:
        """Steps whose performer has not been heard of in time."""
        rows = self._rows(
            "SELECT * FROM step WHERE state = ? AND lease_until < ?", StepState.IN_PROGRESS, now
        )
        return [_step(row) for row in rows]

    def series_of_step(self, step_id: int) -> str:
        """The Series that a step works on, "" if there is no such step."""
        row = self._row("SELECT series_uid FROM step WHERE step_id = ?", step_id)
        return row["series_uid"] if row else ""

    # --- results and deliveries

    def results(self, source_series_uid: str) -> list[Result]:
        """What was made from a Series."""
        rows = self._rows(
            "SELECT * FROM result WHERE source_series_uid = ? ORDER BY created_at",
            source_series_uid,
        )
        return [result_of(row) for row in rows]

    def result(self, sop_instance_uid: str) -> Result | None:
        """One result."""
        row = self._row("SELECT * FROM result WHERE sop_instance_uid = ?", sop_instance_uid)
        return result_of(row) if row else None

    def is_own_series(self, series_uid: str) -> bool:
        """Whether the Series is one that this node made."""
        return self._row("SELECT 1 FROM result WHERE series_uid = ?", series_uid) is not None

    def series_of_result(self, sop_instance_uid: str) -> str:
        """The Series that a result was made from, "" if there is no such result."""
        row = self._row(
            "SELECT source_series_uid AS uid FROM result WHERE sop_instance_uid = ?",
            sop_instance_uid,
        )
        return row["uid"] if row else ""

    def result_of_delivery(self, delivery_id: int) -> tuple[str, str]:
        """The result of a delivery and the Series it was made from."""
        row = self._row(
            "SELECT result_uid, source_series_uid FROM delivery JOIN result ON "
            "sop_instance_uid = result_uid WHERE delivery_id = ?",
            delivery_id,
        )
        return (row["result_uid"], row["source_series_uid"]) if row else ("", "")

    def deliveries(self, result_uid: str) -> list[Delivery]:
        """To whom a result is owed, and how far it is."""
        rows = self._rows(
            "SELECT delivery.*, away.due_at AS away_until, away.reason AS away_for FROM delivery "
            "LEFT JOIN unreachable AS away ON away.destination = delivery.destination "
            "AND state IN ('QUEUED', 'DEFERRED') AND delivery.due_at <= tried_at "
            "WHERE result_uid = ? ORDER BY delivery_id",
            result_uid,
        )
        return [_awaiting(row) for row in rows]

    def unhappy(self) -> list[tuple[str, int]]:
        """Counts of what needs a person: (state, how many)."""
        rows = self._rows(
            "SELECT state, count(*) AS n FROM delivery WHERE state IN (?, ?, ?) GROUP BY state "
            "UNION ALL SELECT state, count(*) FROM step WHERE state = ? GROUP BY state "
            "UNION ALL SELECT state, count(*) FROM series WHERE state IN (?, ?) GROUP BY state",
            DeliveryState.PARKED,
            DeliveryState.DEAD,
            DeliveryState.UNCONFIRMED,
            StepState.QUARANTINED,
            SeriesState.INCOMPLETE,
            SeriesState.HELD,
        )
        return [(row["state"], row["n"]) for row in rows]

    def counts(self) -> dict[str, int]:
        """How much of everything there is."""
        tables = ("association", "instance", "series", "step", "result", "delivery", "event")
        rows = self._rows(
            " UNION ALL ".join(f"SELECT '{t}' AS t, count(*) AS n FROM {t}" for t in tables)  # noqa: S608
        )
        return {row["t"]: row["n"] for row in rows}

    # --- events

    def events_of(self, series_uid: str) -> list[tuple[int, e.Event]]:
        """The story of a Series: its events in order, with their numbers."""
        rows = self._rows(
            "SELECT number, kind, body FROM event WHERE series = ? AND series <> '' "
            "ORDER BY number",  # as the partial index has it
            series_uid,
        )
        return [(row["number"], codec.from_json(row["kind"], row["body"])) for row in rows]

    def events_about(self, subject: str) -> list[tuple[int, e.Event]]:
        """Events about one subject (a refused instance, a rejected AE title)."""
        rows = self._rows(
            "SELECT number, kind, body FROM event WHERE subject = ? ORDER BY number", subject
        )
        return [(row["number"], codec.from_json(row["kind"], row["body"])) for row in rows]

    def refused_also(self, text: str) -> list[e.InstanceRefused]:
        """Refusals in which an instance is told of together with others, or of objects from an AE
        title. Looks at every refusal."""
        rows = self._rows(
            "SELECT kind, body FROM event WHERE kind = 'InstanceRefused' "
            "AND (json_extract(body, '$.calling_ae') = ?1 OR EXISTS "
            "(SELECT 1 FROM json_each(body, '$.others') WHERE value = ?1)) ORDER BY number",
            text,
        )
        events = [codec.from_json(row["kind"], row["body"]) for row in rows]
        return [event for event in events if isinstance(event, e.InstanceRefused)]

    def events_after(self, number: int, limit: int) -> list[tuple[int, e.Event]]:
        """The next events after a number, for who follows the log."""
        rows = self._rows(
            "SELECT number, kind, body FROM event WHERE number > ? ORDER BY number LIMIT ?",
            number,
            limit,
        )
        return [(row["number"], codec.from_json(row["kind"], row["body"])) for row in rows]


def _series(row: sqlite3.Row) -> Series:
    return Series(
        **{**dict(row), "state": SeriesState(row["state"]), "released": bool(row["released"])}
    )


def _association(row: sqlite3.Row) -> Association:
    return Association(**dict(row))


def instance_of(row: sqlite3.Row) -> Instance:
    """A row of `instance`, with the body of its event."""
    fields = dict(row)
    body = json.loads(fields.pop("body"))
    fields.pop("event")
    attributes: Attributes = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in body["instance"]["attributes"].items()
    }
    return Instance(**fields, attributes=attributes)


def _step(row: sqlite3.Row) -> Step:
    fields = dict(row)
    fields.pop("performer")
    for name in ("results", "destinations", "instance_uids", "replaces"):
        fields[name] = tuple(json.loads(fields[name]))
    fields["state"] = StepState(fields["state"])
    return Step(**fields)


def result_of(row: sqlite3.Row) -> Result:
    """A row of `result`."""
    fields = dict(row)
    fields["summary"] = json.loads(fields["summary"])
    return Result(**fields)


def _awaiting(row: sqlite3.Row) -> Delivery:
    """A row of `delivery`, and until when and why its peer is not tried (NULL if it is)."""
    delivery = delivery_of(row)
    if row["away_until"] is None:
        return delivery
    reason = f"waits for {delivery.destination}: {row['away_for']}"
    return replace(delivery, due_at=max(delivery.due_at, row["away_until"]), reason=reason)


def delivery_of(row: sqlite3.Row) -> Delivery:
    """A row of `delivery`."""
    return Delivery(
        delivery_id=row["delivery_id"],
        result_uid=row["result_uid"],
        destination=row["destination"],
        state=DeliveryState(row["state"]),
        attempt=row["attempt"],
        created_at=row["created_at"],
        due_at=row["due_at"],
        status=row["status"],
        reason=row["reason"],
        sent_at=row["sent_at"],
        ask=row["ask"],
        tries=row["tries"],
        returns=row["returns"],
        transaction_uid=row["transaction_uid"],
        replaced_by=row["replaced_by"],
    )
