"""What an operator has to look at: what failed, what was turned away, what no route took."""

from __future__ import annotations

import json
from dataclasses import dataclass

from dicom_node.catalog import codec
from dicom_node.catalog.views import Rows
from dicom_node.domain import events as e
from dicom_node.domain.states import DeliveryState, SeriesState, StepState

_LATELY = 20_000  # events: enough for some days, and quick to look through

_UNROUTED = (
    "state = 'COMPLETE' AND purged_at IS NULL AND NOT EXISTS (SELECT 1 FROM step "
    "WHERE step.series_uid = series.series_uid AND step.revision = series.revision) "
    "AND NOT EXISTS (SELECT 1 FROM result WHERE result.series_uid = series.series_uid)"
)

_SINCE_THE_START = (
    "number > (SELECT coalesce(max(number), 0) FROM event) - ? AND number > "
    "(SELECT coalesce(max(number), 0) FROM event WHERE subject = 'node' AND kind = 'NodeStarted')"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """What a peer was refused with one status. reason: of the last time."""

    calling_ae: str
    status: int
    times: int
    last_at: float
    reason: str


class Attention:
    """Queries for `status` and `retry`. Shares its catalog's connection and lock."""

    def __init__(self, rows: Rows) -> None:
        self._rows: Rows = rows

    def series(self, limit: int) -> list[str]:
        """The Series that wait for a person, those that changed last first."""
        rows = self._rows(
            "SELECT series_uid AS uid FROM series WHERE state IN (?, ?) "
            "OR series_uid IN (SELECT step.series_uid FROM step WHERE step.state = ? "
            "AND step.revision = series.revision) "
            "OR series_uid IN (SELECT source_series_uid FROM delivery JOIN result "
            "ON sop_instance_uid = result_uid WHERE delivery.state IN (?, ?, ?)) "
            "ORDER BY last_at DESC LIMIT ?",
            SeriesState.INCOMPLETE,
            SeriesState.HELD,
            StepState.QUARANTINED,
            DeliveryState.PARKED,
            DeliveryState.DEAD,
            DeliveryState.UNCONFIRMED,
            limit,
        )
        return [row["uid"] for row in rows]

    def failed_steps(self) -> list[int]:
        """The steps that failed, on what their Series is now: too often, or they wait since."""
        rows = self._rows(
            "SELECT step_id FROM step JOIN series USING (series_uid) "
            "WHERE (step.state = ? OR (step.state = ? AND attempt > 0)) "
            "AND step.revision = series.revision AND purged_at IS NULL ORDER BY step_id",
            StepState.QUARANTINED,
            StepState.SCHEDULED,
        )
        return [row["step_id"] for row in rows]

    def undelivered(self) -> list[tuple[int, str]]:
        """What was tried and did not go: (delivery, destination)."""
        rows = self._rows(
            "SELECT delivery_id, destination FROM delivery WHERE state IN (?, ?, ?) "
            "AND replaced_by IS NULL ORDER BY delivery_id",
            DeliveryState.DEFERRED,
            DeliveryState.PARKED,
            DeliveryState.DEAD,
        )
        return [(row["delivery_id"], row["destination"]) for row in rows]

    def sending(self, to: str | None) -> int:
        """How many deliveries are under way, to one peer or to all."""
        rows = self._rows(
            "SELECT count(*) AS n FROM delivery WHERE state = ?1 AND (?2 IS NULL OR "
            "destination = ?2)",
            DeliveryState.SENDING,
            to,
        )
        return int(rows[0]["n"])

    def waiting(self) -> list[tuple[str, int, float, str]]:
        """Who could not be reached: (destination, results that wait, next attempt, reason)."""
        rows = self._rows(
            "SELECT delivery.destination, count(*) AS results, coalesce(away.reason, "
            "delivery.reason) AS reason, min(max(delivery.due_at, coalesce(away.due_at, 0))) "
            "AS due_at FROM delivery LEFT JOIN unreachable AS away "
            "ON away.destination = delivery.destination AND delivery.due_at <= tried_at "
            "WHERE state IN ('QUEUED', 'DEFERRED', 'SENDING') "  # as the index has it
            "AND (state = ?1 OR (state = ?2 AND away.destination IS NOT NULL)) "
            "GROUP BY delivery.destination ORDER BY delivery.destination",
            DeliveryState.DEFERRED,
            DeliveryState.QUEUED,
        )
        return [(row["destination"], row["results"], row["due_at"], row["reason"]) for row in rows]

    def unrouted(self) -> list[str]:
        """The COMPLETE Series, other than our own results, that no route gave a step."""
        rows = self._rows(f"SELECT series_uid AS uid FROM series WHERE {_UNROUTED} ORDER BY 1")  # noqa: S608
        return [row["uid"] for row in rows]

    def is_unrouted(self, series_uid: str) -> bool:
        """Whether it is one of them."""
        sql = f"SELECT 1 FROM series WHERE series_uid = ? AND {_UNROUTED}"  # noqa: S608
        return bool(self._rows(sql, series_uid))

    def routing(self, series_uid: str, revision: int) -> tuple[str, ...]:
        """What the routes said to a revision of a Series, where they gave no step for it."""
        rows = self._rows(
            "SELECT body FROM event WHERE series = ? AND series <> '' AND kind = 'SeriesUnrouted' "
            "ORDER BY number DESC LIMIT 1",
            series_uid,
        )
        said = json.loads(rows[0]["body"]) if rows else {}
        return tuple(said["reasons"]) if said.get("revision") == revision else ()

    def notes(self, series_uid: str, revision: int) -> tuple[str, ...]:
        """What the steps on a revision of a Series noted about their results."""
        rows = self._rows(
            "SELECT body FROM event WHERE series = ?1 AND series <> '' AND kind = 'StepCompleted' "
            "AND json_extract(body, '$.step_id') IN "
            "(SELECT step_id FROM step WHERE series_uid = ?1 AND revision = ?2) ORDER BY number",
            series_uid,
            revision,
        )
        noted = [note for row in rows for note in json.loads(row["body"]).get("notes", ())]
        return tuple(dict.fromkeys(noted))

    def rejected(self) -> list[tuple[str, int, float]]:
        """Who was turned away since the node's start: (AE title, how often, when last).

        Who did not come so far as to say its title is called by its address.
        """
        rows = self._rows(
            "SELECT subject, sum(coalesce(json_extract(body, '$.times'), 1)) AS times, "  # noqa: S608
            "max(at) AS at FROM event "
            "WHERE kind IN ('AssociationRejected', 'HandshakeFailed') "
            f"AND {_SINCE_THE_START} GROUP BY subject ORDER BY max(at) DESC",
            _LATELY,
        )
        return [(row["subject"], row["times"], row["at"]) for row in rows]

    def refused(self, limit: int) -> list[Refused]:
        """What was answered with a failure since the node's start, by AE title and status, what was
        refused last first."""
        rows = self._rows(
            "SELECT json_extract(body, '$.calling_ae') AS calling_ae, "  # noqa: S608
            "json_extract(body, '$.status') AS status, sum(coalesce(json_extract(body, '$.times'), "
            "1 + coalesce(json_array_length(body, '$.others'), 0) "
            "+ coalesce(json_extract(body, '$.unnamed'), 0))) AS times, max(at) AS last_at, "
            "json_extract(body, '$.reason') AS reason FROM event "
            "WHERE kind IN ('InstanceRefused', 'RequestRefused') "
            f"AND {_SINCE_THE_START} GROUP BY 1, 2 ORDER BY max(at) DESC LIMIT ?",
            _LATELY,
            limit,
        )
        return [Refused(**dict(row)) for row in rows]

    def turned_away_at(self, address: str) -> list[e.Event]:
        """What AE titles at an address did in vain, in order. Looks at every such event."""
        rows = self._rows(
            "SELECT kind, body FROM event "
            "WHERE kind IN ('AssociationRejected', 'AssociationBroken', 'RequestRefused') "
            "AND json_extract(body, '$.address') = ?1 AND subject <> ?1 ORDER BY number",
            address,
        )
        return [codec.from_json(row["kind"], row["body"]) for row in rows]

    def without_tls(self, limit: int) -> list[e.Event]:
        """The last handshakes that failed, in order, whoever called."""
        rows = self._rows(
            "SELECT kind, body FROM event WHERE kind = 'HandshakeFailed' "
            "ORDER BY number DESC LIMIT ?",
            limit,
        )
        return [codec.from_json(row["kind"], row["body"]) for row in reversed(rows)]
