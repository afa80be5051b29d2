"""What the audit trail wants to know: the events in their order, and whose data they are about."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from dicom_node.catalog import codec
from dicom_node.catalog.views import Rows
from dicom_node.domain import events as e

AT_ONCE = 1000
"""Events that are looked at together: a millisecond, for which a commit may have to wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """An association: who called."""

    number: int
    calling_ae: str
    address: str


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

    def arrivals(self, after: int, until: int) -> list[tuple[str, float, float]]:
        """The Series of which instances arrived: UID, when the first of these did, and the last."""
        rows = self._rows(
            "SELECT series, min(at) AS first_at, max(at) AS last_at FROM event "
            "WHERE number > ? AND number <= ? AND kind = 'InstanceArrived' "
            "GROUP BY series ORDER BY min(number)",
            after,
            until,
        )
        return [(row["series"], row["first_at"], row["last_at"]) for row in rows]

    def bringing(self, series_uid: str, first_at: float, last_at: float) -> list[Party]:
        """The associations that brought something of a Series and were open in that time."""
        rows = self._rows(
            "SELECT number, calling_ae, address FROM contribution JOIN association "
            "ON number = association WHERE series_uid = ? AND opened_at <= ? "
            "AND coalesce(ended_at, 1e300) >= ? ORDER BY number",
            series_uid,
            last_at,
            first_at,
        )
        return [Party(**dict(row)) for row in rows]

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

    def brought(self, association: int) -> list[Brought]:
        """What an association brought, Series by Series."""
        found = []
        for row in self._rows(
            "SELECT series_uid, instances FROM contribution WHERE association = ? ORDER BY 1",
            association,
        ):
            uid, fresh = row["series_uid"], self._classes(row["series_uid"], association)
            again = row["instances"] - sum(fresh.values())
            of_all = self._classes(uid, None)
            repeated = {max(of_all, key=lambda c: of_all[c]): again} if again > 0 and of_all else {}
            found.append(Brought(series_uid=uid, fresh=fresh, repeated=repeated))
        return found

    def _classes(self, series_uid: str, association: int | None) -> dict[str, int]:
        rows = self._rows(
            "SELECT sop_class_uid AS uid, count(*) AS n FROM instance WHERE series_uid = ?1 "
            "AND association = coalesce(?2, association) GROUP BY 1",
            series_uid,
            association,
        )
        return {row["uid"]: row["n"] for row in rows}

    def classes(self, series_uid: str) -> dict[str, int]:
        """SOP Class UID -> how many instances of a Series are known."""
        return self._classes(series_uid, None)

    def subject(self, series_uid: str) -> Subject | None:
        """Whose a Series is."""
        rows = self._rows(
            "SELECT study_uid, patient_id, accession_number, "
            "(SELECT json_extract(event.body, '$.instance.attributes.PatientName') FROM instance "
            "JOIN event ON number = event WHERE instance.series_uid = series.series_uid LIMIT 1) "
            "AS patient_name FROM series WHERE series_uid = ?",
            series_uid,
        )
        if not rows:
            return None
        name = rows[0]["patient_name"]
        return Subject(**{**dict(rows[0]), "patient_name": name if isinstance(name, str) else ""})

    def sent(self, delivery_id: int) -> Sent | None:
        """What a delivery is about. series_uid: of the sources."""
        rows = self._rows(
            "SELECT destination, sop_class_uid, source_series_uid AS series_uid FROM delivery "
            "JOIN result ON sop_instance_uid = result_uid WHERE delivery_id = ?",
            delivery_id,
        )
        return Sent(**dict(rows[0])) if rows else None
