"""What is owed to peers and is due, and which of them cannot be reached."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from dicom_node.catalog.views import Rows, delivery_of, result_of
from dicom_node.domain.records import Delivery, Result

_WAITS = "state IN ('QUEUED', 'DEFERRED', 'SENDING')"  # as the index has it
_DESTINATIONS = (  # from one to the next in the index, however much is owed to each
    f"WITH RECURSIVE one(name) AS (SELECT min(destination) FROM delivery WHERE {_WAITS} "  # noqa: S608
    f"UNION ALL SELECT (SELECT min(destination) FROM delivery WHERE {_WAITS} "
    "AND destination > name) FROM one WHERE name IS NOT NULL) "
    "SELECT name FROM one WHERE name IS NOT NULL"
)
_DUE = (
    f"SELECT * FROM owed WHERE destination = ? AND {_WAITS} "  # noqa: S608
    "AND due_at > ? AND due_at <= ? ORDER BY due_at, delivery_id LIMIT ?"
)
_NEXT = (
    f"SELECT due_at FROM owed WHERE destination = ? AND {_WAITS} AND state <> 'SENDING' "  # noqa: S608
    "AND due_at > ? ORDER BY due_at LIMIT 1"
)
_ALWAYS = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreachable:
    """A peer with which no association could be had, `tries` times since `since`.

    What was due at tried_at waits until due_at; what is due later is tried.
    """

    destination: str
    since: float
    tried_at: float
    due_at: float
    tries: int
    reason: str


class Owing:
    """Shares its catalog's connection and lock."""

    def __init__(self, rows: Rows) -> None:
        self._rows: Rows = rows

    def due(self, now: float, limit: int, busy: Collection[str]) -> list[tuple[Delivery, Result]]:
        """What is due for the destination that has waited longest and is not busy.

        SENDING to a destination that is not busy is due, too: whoever sent it has failed.
        """
        firsts = [
            (row["due_at"], row["delivery_id"], name)
            for name in self._destinations(busy)
            for row in self._rows(_DUE, name, self._after(name, now), now, 1)
        ]
        if not firsts:
            return []
        *_, name = min(firsts)
        rows = self._rows(_DUE, name, self._after(name, now), now, limit)
        found = self._rows(
            "SELECT * FROM result WHERE sop_instance_uid IN (SELECT value FROM json_each(?))",
            json.dumps([row["result_uid"] for row in rows]),
        )
        results = {row["sop_instance_uid"]: result_of(row) for row in found}
        return [(delivery_of(row), results[row["result_uid"]]) for row in rows]

    def next_due(self, busy: Collection[str]) -> float | None:
        """When the next delivery is due, to a destination that is not busy."""
        times: list[float] = []
        for name in self._destinations(busy):
            away = self.unreachable(name)
            after = _ALWAYS if away is None else away.tried_at
            times += [row["due_at"] for row in self._rows(_NEXT, name, after)]
            if away is not None and self._rows(_DUE, name, _ALWAYS, after, 1):
                times.append(away.due_at)
        return min(times, default=None)

    def unreachable(self, destination: str) -> Unreachable | None:
        """What is known of a peer that could not be reached when it was last tried."""
        rows = self._rows("SELECT * FROM unreachable WHERE destination = ?", destination)
        return Unreachable(**dict(rows[0])) if rows else None

    def _destinations(self, busy: Collection[str]) -> list[str]:
        return [row["name"] for row in self._rows(_DESTINATIONS) if row["name"] not in busy]

    def _after(self, name: str, now: float) -> float:
        """What is due by then waits for the peer."""
        away = self.unreachable(name)
        return _ALWAYS if away is None or away.due_at <= now else away.tried_at
