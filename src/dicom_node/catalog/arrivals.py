"""What is still being received, in the order in which it comes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from dicom_node.catalog.views import instance_of
from dicom_node.domain.records import Instance
from dicom_node.domain.states import SeriesState

Rows = Callable[..., list[sqlite3.Row]]
"""rows(sql, *values): raises CatalogError."""


class Arrivals:
    """Queries for what is done ahead of a verdict. Shares its catalog's connection and lock."""

    def __init__(self, rows: Rows) -> None:
        self._rows: Rows = rows

    def series(self, limit: int) -> list[tuple[str, int]]:
        """Series that are received, and how many instances they have; the liveliest first."""
        rows = self._rows(
            "SELECT series_uid, instances FROM series WHERE state = ? "
            "ORDER BY last_at DESC LIMIT ?",
            SeriesState.RECEIVING,
            limit,
        )
        return [(row["series_uid"], row["instances"]) for row in rows]

    def instances(self, series_uid: str, after: int, limit: int) -> list[tuple[int, Instance]]:
        """Instances of a Series, each with the number of its event, from `after` on."""
        rows = self._rows(
            "SELECT instance.*, event.body FROM instance JOIN event ON event.number = event "
            "WHERE series_uid = ? AND event > ? AND path <> '' ORDER BY event LIMIT ?",
            series_uid,
            after,
            limit,
        )
        return [(row["event"], instance_of(row)) for row in rows]
