"""Results that others replaced, and who still waits for them or has them."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from dicom_node.catalog.views import Rows, result_of
from dicom_node.decide.supersede import DELIVERED, Replaced
from dicom_node.domain.records import Result
from dicom_node.domain.states import DeliveryState

_UNSENT = (  # the states as the partial indices of delivery have them
    "SELECT * FROM delivery JOIN result ON sop_instance_uid = result_uid "
    "WHERE delivery.state IN ('QUEUED', 'DEFERRED', 'PARKED', 'DEAD') AND replaced_by IS NOT NULL"
)
_UNTOLD = (
    "SELECT * FROM delivery JOIN result ON sop_instance_uid = result_uid "
    "WHERE replaced_by IS NOT NULL AND rejected_by = '' AND delivery.state <> 'WITHDRAWN' AND "
    "delivery.state NOT IN ('QUEUED', 'DEFERRED', 'PARKED', 'DEAD', 'SENDING')"
)
_OUTDATED = (  # a rejection note is about what its peer has, and that stays so
    "SELECT delivery_id FROM series JOIN step USING (series_uid) JOIN result USING (step_id) "
    "JOIN delivery ON result_uid = sop_instance_uid WHERE series.series_uid = ? "
    "AND series.state = 'HELD' AND held_from <> 'COMPLETE' AND step.revision < series.revision "
    "AND kind <> 'rejection' AND replaced_by IS NULL "
    "AND delivery.state IN ('QUEUED', 'DEFERRED', 'PARKED', 'DEAD') ORDER BY delivery_id"
)
_NEWER = (
    "SELECT newer.state AS state FROM result AS made JOIN delivery AS newer "
    "ON newer.result_uid = made.sop_instance_uid WHERE made.source_series_uid = ? "
    "AND made.tool_id = ? AND made.kind = ? AND made.step_id >= ? AND newer.destination = ?"
)


class Supersession:
    """Queries for those who settle it. Shares its catalog's connection and lock."""

    def __init__(self, rows: Rows) -> None:
        self._rows: Rows = rows

    def open(self, told: Collection[str]) -> list[Replaced]:
        """What is to be withdrawn, or has arrived at one of the peers `told`, who are told then."""
        unsent = self._rows(_UNSENT)
        arrived = [
            row
            for name in sorted(told)
            for row in self._rows(f"{_UNTOLD} AND destination = ?", name)
        ]
        return [self._replaced(row) for row in (*unsent, *arrived)]

    def untold(self, source_series_uid: str) -> frozenset[str]:
        """The peers that have both a replaced result of a Series and what took its place, and no
        rejection note yet."""
        rows = self._rows(f"{_UNTOLD} AND source_series_uid = ?", source_series_uid)
        found = [self._replaced(row) for row in rows]
        return frozenset(one.destination for one in found if one.newer & DELIVERED)

    def outdated(self, series_uid: str) -> list[int]:
        """The deliveries of a held Series that a release is not to let go: nothing was sent, and it
        was made of fewer images than there are now. That which is made then takes their place."""
        return [row["delivery_id"] for row in self._rows(_OUTDATED, series_uid)]

    def series(self, series_uid: str) -> list[Result]:
        """The results of one Series of ours, by SOP Instance UID."""
        rows = self._rows(
            "SELECT * FROM result WHERE series_uid = ? ORDER BY sop_instance_uid", series_uid
        )
        return [result_of(row) for row in rows]

    def _replaced(self, row: sqlite3.Row) -> Replaced:
        newer = self._rows(
            _NEWER,
            row["source_series_uid"],
            row["tool_id"],
            row["kind"],
            row["replaced_by"],
            row["destination"],
        )
        return Replaced(
            delivery_id=row["delivery_id"],
            destination=row["destination"],
            state=DeliveryState(row["state"]),
            result_uid=row["result_uid"],
            series_uid=row["series_uid"],
            step_id=row["replaced_by"],
            newer=frozenset(DeliveryState(found["state"]) for found in newer),
        )
