"""What the audit trail wants to know: the events in their order, and whose data they are about."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass

from dicom_node.catalog import codec
from dicom_node.catalog.views import Rows
from dicom_node.domain import events as e

AT_ONCE = 1000
"""Events that are looked at together: ten milliseconds, for which a commit may have to wait."""

_SOME = 20  # instances, that stand for the whole Series


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """An association: who called."""

    number: int
    calling_ae: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Of a Series something came on an association. at: when the first of it did."""

    series_uid: str
    at: float
    party: Party


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whose data, of which study."""

    study_uid: str
    patient_id: str
    patient_name: str
    accession_number: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What an association brought of one Series, by SOP Class. fresh: what was not here before."""

    series_uid: str
    fresh: dict[str, int]
    repeated: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """What an association brought of a study and was kept apart: other bytes under a known UID.

    subject: as the objects themselves say. classes: SOP Class UID -> how many.
    """

    subject: Subject
    classes: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A result on its way to a peer."""

    destination: str
    sop_class_uid: str
    series_uid: str


class Trail:
    """Shares its catalog's connection and lock."""

    def __init__(self, rows: Rows) -> None:
        self._rows: Rows = rows

    def position(self, number: int) -> tuple[int, float] | None:
        """The event of that number, if there is one: its number and its time."""
        rows = self._rows("SELECT number, at FROM event WHERE number = ?", number)
        return (rows[0]["number"], rows[0]["at"]) if rows else None

    def next_position(self, after: int) -> tuple[int, float] | None:
        """How far one may look at once from there: number and time of the last of some events."""
        rows = self._rows(
            "SELECT number, at FROM (SELECT number, at FROM event WHERE number > ? "
            "ORDER BY number LIMIT ?) ORDER BY number DESC LIMIT 1",
            after,
            AT_ONCE,
        )
        return (rows[0]["number"], rows[0]["at"]) if rows else None

    def first_after(self, number: int) -> float | None:
        """When the next event after that number was."""
        rows = self._rows("SELECT at FROM event WHERE number > ? ORDER BY number LIMIT 1", number)
        return float(rows[0]["at"]) if rows else None

    def last_start(self) -> int:
        """The number of the event of the node's last start."""
        rows = self._rows(
            "SELECT max(number) AS number FROM event WHERE subject = 'node' "
            "AND kind = 'NodeStarted'"
        )
        return int(rows[0]["number"] or 0)

    def events(self, kinds: Collection[str], after: int, until: int) -> list[e.Event]:
        """Those of these kinds, in order."""
        rows = self._rows(
            "SELECT kind, body FROM event WHERE number > ? AND number <= ? "
            "AND kind IN (SELECT value FROM json_each(?)) ORDER BY number",
            after,
            until,
            json.dumps(sorted(kinds)),
        )
        return [codec.from_json(row["kind"], row["body"]) for row in rows]

    def arrivals(self, after: int, until: int) -> list[Arrival]:
        """What arrived, by Series and association; not what was kept apart."""
        rows = self._rows(
            "SELECT series AS series_uid, at, number, calling_ae, address FROM "
            "(SELECT series, json_extract(body, '$.instance.association') AS association, "
            "min(at) AS at, min(number) AS first FROM event "
            "WHERE number > ? AND number <= ? AND kind = 'InstanceArrived' GROUP BY 1, 2) AS came "
            "CROSS JOIN contribution ON series_uid = series "
            "AND contribution.association = came.association "
            "CROSS JOIN association ON number = came.association ORDER BY first",
            after,
            until,
        )
        return [
            Arrival(
                series_uid=row["series_uid"],
                at=row["at"],
                party=Party(**{name: row[name] for name in ("number", "calling_ae", "address")}),
            )
            for row in rows
        ]

    def party(self, association: int) -> Party | None:
        """Who called on an association that stored something, or was refused something."""
        rows = self._rows(
            "SELECT number, calling_ae, address FROM association WHERE number = ?", association
        )
        return Party(**dict(rows[0])) if rows else None

    def ended_at(self, at: float) -> list[int]:
        """The associations that were found to have ended at that time: by a start of the node."""
        rows = self._rows(
            "SELECT number FROM association WHERE ended_at = ? AND ended = 'lost' ORDER BY number",
            at,
        )
        return [row["number"] for row in rows]

    def brought(self, association: int, series_uid: str | None = None) -> list[Brought]:
        """What an association brought, Series by Series; or of one of them."""
        rows = self._rows(
            "SELECT series_uid, instances FROM contribution WHERE association = ?1 "
            "AND series_uid = coalesce(?2, series_uid) ORDER BY 1",
            association,
            series_uid,
        )
        return [self._brought(row["series_uid"], association, row["instances"]) for row in rows]

    def apart(self, association: int) -> list[Apart]:
        """What an association brought that was kept apart, by study and patient."""
        rows = self._rows(
            "SELECT study_uid, patient_id, sop_class_uid, instances, "
            "json_extract(body, '$.instance.attributes.PatientName') AS patient_name, "
            "json_extract(body, '$.instance.attributes.AccessionNumber') AS accession_number "
            "FROM apart JOIN event ON number = event WHERE association = ? ORDER BY event",
            association,
        )
        found: dict[tuple[str, str], Apart] = {}
        for row in rows:
            one = found.setdefault(
                (row["study_uid"], row["patient_id"]), Apart(subject=_subject(row), classes={})
            )
            one.classes[row["sop_class_uid"]] = row["instances"]
        return list(found.values())

    def _brought(self, series_uid: str, association: int, instances: int) -> Brought:
        """Of what was here before only the number is known: it is told as what the Series is of."""
        fresh = self._counted(
            "SELECT sop_class_uid AS uid, count(*) AS n FROM instance "
            "WHERE series_uid = ? AND association = ? GROUP BY 1",
            series_uid,
            association,
        )
        again = instances - sum(fresh.values())
        some = (
            {}
            if again <= 0
            else self._counted(  # a look at all of them each time is the square
                "SELECT uid, count(*) AS n FROM (SELECT sop_class_uid AS uid FROM instance "
                "WHERE series_uid = ? LIMIT ?) GROUP BY 1",
                series_uid,
                _SOME,
            )
        )
        repeated = {max(some, key=lambda uid: some[uid]): again} if some else {}
        return Brought(series_uid=series_uid, fresh=fresh, repeated=repeated)

    def classes(self, series_uid: str) -> dict[str, int]:
        """SOP Class UID -> how many instances of a Series are known."""
        return self._counted(
            "SELECT sop_class_uid AS uid, count(*) AS n FROM instance WHERE series_uid = ? "
            "GROUP BY 1",
            series_uid,
        )

    def _counted(self, sql: str, *values: object) -> dict[str, int]:
        return {row["uid"]: row["n"] for row in self._rows(sql, *values)}

    def subject(self, series_uid: str) -> Subject | None:
        """Whose a Series is."""
        rows = self._rows(
            "SELECT study_uid, patient_id, accession_number, "
            "(SELECT json_extract(event.body, '$.instance.attributes.PatientName') FROM instance "
            "JOIN event ON number = event WHERE instance.series_uid = series.series_uid LIMIT 1) "
            "AS patient_name FROM series WHERE series_uid = ?",
            series_uid,
        )
        return _subject(rows[0]) if rows else None

    def sent(self, delivery_id: int) -> Sent | None:
        """What a delivery is about. series_uid: of the sources."""
        rows = self._rows(
            "SELECT destination, sop_class_uid, source_series_uid AS series_uid FROM delivery "
            "JOIN result ON sop_instance_uid = result_uid WHERE delivery_id = ?",
            delivery_id,
        )
        return Sent(**dict(rows[0])) if rows else None


def _subject(row: sqlite3.Row) -> Subject:
    """What is no text in an odd header is told as nothing."""
    names = ("study_uid", "patient_id", "patient_name", "accession_number")
    said = {name: row[name] for name in names}
    return Subject(**{name: text if isinstance(text, str) else "" for name, text in said.items()})
