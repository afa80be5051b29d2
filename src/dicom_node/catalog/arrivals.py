"""What is still being received, in the order in which it comes."""

from __future__ import annotations

from dicom_node.catalog.views import Rows, instance_of
from dicom_node.domain.records import Arriving, Instance
from dicom_node.domain.states import SeriesState, StepState


class Arrivals:
    """Queries for what is done ahead of a verdict. Shares its catalog's connection and lock."""

    def __init__(self, rows: Rows) -> None:
        self._rows: Rows = rows

    def series(self, limit: int) -> list[Arriving]:
        """Series that are being received; the liveliest first."""
        rows = self._rows(
            "SELECT series_uid, instances, first_at, last_at, EXISTS (SELECT 1 FROM contribution "
            "JOIN association ON number = association WHERE contribution.series_uid = "
            "series.series_uid AND ended_at IS NULL) AS is_open FROM series "
            "WHERE due_at IS NOT NULL AND state = ? ORDER BY last_at DESC LIMIT ?",
            SeriesState.RECEIVING,
            limit,
        )
        return [
            Arriving(
                series_uid=row["series_uid"],
                instances=row["instances"],
                first_at=row["first_at"],
                last_at=row["last_at"],
                is_open=bool(row["is_open"]),
            )
            for row in rows
        ]

    def instances(self, series_uid: str, after: int, limit: int) -> list[tuple[int, Instance]]:
        """Instances of a Series, each with the number of its event, from `after` on."""
        rows = self._rows(
            "SELECT instance.*, event.body FROM event CROSS JOIN instance "
            "ON sop_instance_uid = subject AND event = number "
            "WHERE series = ? AND series <> '' AND number > ? AND path <> '' "
            "ORDER BY number LIMIT ?",
            series_uid,
            after,
            limit,
        )
        return [(row["event"], instance_of(row)) for row in rows]

    def is_expected(self, series_uid: str) -> bool:
        """Whether the Series is being received, or a step on it still to be performed."""
        sql = "SELECT 1 FROM series WHERE series_uid = ? AND state = ?"
        return self.is_wanted(series_uid) or bool(
            self._rows(sql, series_uid, SeriesState.RECEIVING)
        )

    def is_wanted(self, series_uid: str) -> bool:
        """Whether a step on the Series is still to be performed."""
        sql = "SELECT 1 FROM step WHERE series_uid = ? AND state IN (?, ?)"
        return bool(self._rows(sql, series_uid, StepState.SCHEDULED, StepState.IN_PROGRESS))
