"""Which files the catalog knows: what is compared with the spool."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dicom_node.catalog.integrity import opened
from dicom_node.catalog.schema import is_current
from dicom_node.catalog.views import Rows
from dicom_node.domain.errors import CatalogError


class Inventory:
    """Queries by path. Shares its catalog's connection and lock."""

    def __init__(self, rows: Rows) -> None:
        self._rows: Rows = rows

    def any(self) -> bool:
        """Whether any file of an instance is known."""
        return bool(self._rows("SELECT 1 FROM instance WHERE path > '' LIMIT 1"))

    def is_known(self, path: str) -> bool:
        """Whether the file is one that is needed, or one that is about to be removed."""
        return bool(
            self.series_of(path) or self._rows("SELECT 1 FROM garbage WHERE path = ?", path)
        )

    def between(self, low: str, high: str) -> set[str]:
        """The paths of received objects from `low` up to, and without, `high`."""
        return self._paths(
            "SELECT path FROM instance WHERE path >= ?1 AND path < ?2 UNION ALL "
            "SELECT path FROM conflict WHERE path >= ?1 AND path < ?2",
            low,
            high,
        )

    def of_results(self) -> set[str]:
        """The paths of all results."""
        return self._paths("SELECT path FROM result")

    def series_of(self, path: str) -> set[str]:
        """The Series that need the file: of its instance, of its result's sources."""
        rows = self._rows(
            "SELECT series_uid AS uid FROM instance WHERE path = ?1 UNION "
            "SELECT source_series_uid FROM result WHERE path = ?1 UNION "
            "SELECT series_uid FROM conflict WHERE path = ?1",
            path,
        )
        return {row["uid"] for row in rows}

    def received_at(self, path: str) -> set[str]:
        """The Series of which an object that was received lies there."""
        rows = self._rows(
            "SELECT series_uid AS uid FROM instance WHERE path = ?1 UNION "
            "SELECT series_uid FROM conflict WHERE path = ?1",
            path,
        )
        return {row["uid"] for row in rows}

    def results_at(self, path: str) -> list[str]:
        """The results that lie there, by SOP Instance UID."""
        rows = self._rows(
            "SELECT sop_instance_uid AS uid FROM result WHERE path = ? ORDER BY 1", path
        )
        return [row["uid"] for row in rows]

    def awaited_by(self, sop_instance_uid: str, sha256: str) -> str:
        """The Series of an object whose file was removed, "" if there is no such object."""
        rows = self._rows(
            "SELECT series_uid AS uid FROM instance "
            "WHERE sop_instance_uid = ?1 AND sha256 = ?2 AND path = '' UNION ALL "
            "SELECT series_uid FROM conflict "
            "WHERE sop_instance_uid = ?1 AND sha256 = ?2 AND path = ''",
            sop_instance_uid,
            sha256,
        )
        return str(rows[0]["uid"]) if rows else ""

    def series_uids(self) -> list[str]:
        """Every Series, sorted."""
        return [row["uid"] for row in self._rows("SELECT series_uid AS uid FROM series ORDER BY 1")]

    def series_of_instances(self, uids: frozenset[str]) -> dict[str, int]:
        """Series -> how many of these SOP Instances are in it."""
        found: dict[str, int] = {}
        for uid in uids:
            for row in self._rows(
                "SELECT series_uid AS uid FROM instance WHERE sop_instance_uid = ?", uid
            ):
                found[row["uid"]] = found.get(row["uid"], 0) + 1
        return found

    def series_of_results(self, uids: frozenset[str]) -> set[str]:
        """The Series that these results were made from."""
        found: set[str] = set()
        for uid in uids:
            rows = self._rows(
                "SELECT source_series_uid AS uid FROM result WHERE sop_instance_uid = ?", uid
            )
            found.update(row["uid"] for row in rows)
        return found

    def first_association(self) -> int:
        """The lowest number of an association, 1 if there is none."""
        rows = self._rows("SELECT coalesce(min(number), 1) AS number FROM association")
        return int(rows[0]["number"])

    def _paths(self, sql: str, *values: Any) -> set[str]:
        return {row["path"] for row in self._rows(sql, *values)}


@contextmanager
def looked_into(path: Path) -> Iterator[Inventory | None]:
    """The files that a catalog knows, by a connection that changes nothing; None if it is of an
    older version, which has to be brought up to date first. Raises CatalogError."""

    def rows(sql: str, *values: Any) -> list[sqlite3.Row]:
        try:
            return db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise CatalogError(f"the catalog cannot be read: {error}") from error

    with opened(path) as db:
        yield Inventory(rows) if is_current(db) else None
