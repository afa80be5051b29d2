"""Steps that wait for a performer, and to which of several they are left."""

from __future__ import annotations

from collections.abc import Callable

from dicom_node.catalog.views import Rows

Leaves = Callable[[str], float]
"""leaves_s(series_uid): for so long a performer leaves a step to others."""
_LOOK_THROUGH = 64  # steps, for one that is not left to others


class Runnable:
    """Queries about steps that are due. Shares its catalog's connection and lock."""

    def __init__(self, rows: Rows) -> None:
        self._rows: Rows = rows

    def next_step(self, now: float, leaves_s: Leaves | None = None) -> int | None:
        """The most urgent step that is due, and not left to others."""
        rows = self._rows(
            "SELECT step_id, series_uid, due_at FROM runnable WHERE due_at <= ? "
            "ORDER BY priority DESC, due_at, step_id LIMIT ?",
            now,
            1 if leaves_s is None else _LOOK_THROUGH,
        )
        for row in rows:
            if leaves_s is None or row["due_at"] + leaves_s(row["series_uid"]) <= now:
                return int(row["step_id"])
        return None

    def next_due(self, leaves_s: Leaves | None = None) -> float | None:
        """When the next step may be claimed by who leaves others so much."""
        rows = self._rows(
            "SELECT series_uid, due_at FROM runnable ORDER BY due_at LIMIT ?",
            1 if leaves_s is None else _LOOK_THROUGH,
        )
        waits = leaves_s or (lambda _series_uid: 0.0)
        return min((row["due_at"] + waits(row["series_uid"]) for row in rows), default=None)
