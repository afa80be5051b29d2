"""Proof that is wanted, promises that are owed, and files that may go: queries of their stages."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple, cast

from dicom_node.catalog import codec
from dicom_node.catalog.supersession import Supersession
from dicom_node.catalog.views import Rows, delivery_of, result_of
from dicom_node.domain import keeping as k
from dicom_node.domain.records import Delivery, Result
from dicom_node.domain.states import DeliveryState, SeriesState, StepState

Pair = tuple[Delivery, Result]


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a peer asked this node to keep. judged: what is to be reported, None if not known yet.

    attempt: how often it was reported in vain. due_at: None if it is done, or given up.
    """

    asked: k.CommitmentAsked
    judged: k.CommitmentJudged | None
    attempt: int
    due_at: float | None


class StoredInstance(NamedTuple):
    """An instance; path: "" if its file was removed. conflicts: objects with its UID kept apart."""

    sop_class_uid: str
    series_uid: str
    path: str
    size: int
    conflicts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A Series whose files are here, and all that its removal depends on.

    routes: of the steps on what the Series is now. deliveries: (state, destination), of all its
    results. untold: who has a result that was replaced, and the newer one, and was not told so.
    seen: the number of its newest event.
    """

    series_uid: str
    state: SeriesState
    last_at: float
    promised_at: float | None
    steps: tuple[StepState, ...]
    routes: frozenset[str]
    deliveries: tuple[tuple[DeliveryState, str], ...]
    untold: frozenset[str]
    seen: int


class Keeping:
    """Shares its catalog's connection and lock."""

    def __init__(self, rows: Rows) -> None:
        self._rows: Rows = rows
        self._supersession = Supersession(rows)

    # --- proof of delivery

    def unproven(self, destinations: Collection[str], now: float, limit: int) -> list[Pair]:
        """What was sent and lacks proof that is due, to one of these, the longest due first."""
        rows = self._rows(
            "SELECT delivery_id FROM delivery WHERE state = 'SENT' AND due_at <= ? "
            "AND destination IN (SELECT value FROM json_each(?)) "
            "ORDER BY due_at, delivery_id LIMIT ?",
            now,
            json.dumps(sorted(destinations)),
            limit,
        )
        return self._pairs([row["delivery_id"] for row in rows])

    def next_proof_due(self, destinations: Collection[str]) -> float | None:
        """When the next proof is due of one of these."""
        rows = self._rows(
            "SELECT min(due_at) AS due FROM delivery WHERE state = 'SENT' "
            "AND destination IN (SELECT value FROM json_each(?))",
            json.dumps(sorted(destinations)),
        )
        due: float | None = rows[0]["due"]
        return due

    def requested(self, transaction_uid: str) -> tuple[str, list[Pair]]:
        """Whom a transaction was with, and for what; "" if this node did not ask for it."""
        rows = self._rows(
            "SELECT delivery_id, destination FROM request WHERE transaction_uid = ?",
            transaction_uid,
        )
        if not rows:
            return "", []
        return rows[0]["destination"], self._pairs([row["delivery_id"] for row in rows])

    def awaits_report(self, transaction_uid: str) -> bool:
        """Whether proof is still lacking of something that a peer was asked to keep."""
        return bool(
            self._rows(
                "SELECT 1 FROM request JOIN delivery USING (delivery_id) "
                "WHERE request.transaction_uid = ? AND state = 'SENT' LIMIT 1",
                transaction_uid,
            )
        )

    def delivery(self, delivery_id: int) -> Delivery | None:
        """One delivery."""
        rows = self._rows("SELECT * FROM delivery WHERE delivery_id = ?", delivery_id)
        return delivery_of(rows[0]) if rows else None

    def _pairs(self, delivery_ids: Collection[int]) -> list[Pair]:
        found: list[Pair] = []
        for delivery_id in delivery_ids:
            delivery = self.delivery(delivery_id)
            if delivery is not None:
                rows = self._rows(
                    "SELECT * FROM result WHERE sop_instance_uid = ?", delivery.result_uid
                )
                found.append((delivery, result_of(rows[0])))
        return found

    # --- promises

    def promises_due(self, now: float) -> list[Promise]:
        """What is to be judged or reported, the longest due first."""
        rows = self._rows("SELECT * FROM promise WHERE due_at <= ? ORDER BY due_at", now)
        return [self._promise(row) for row in rows]

    def next_promise_due(self) -> float | None:
        """When there is something to judge or to report."""
        rows = self._rows("SELECT min(due_at) AS due FROM promise WHERE due_at IS NOT NULL")
        due: float | None = rows[0]["due"]
        return due

    def promise(self, transaction_uid: str, peer: str) -> Promise | None:
        """What a peer has asked for under this Transaction UID."""
        rows = self._rows(
            "SELECT * FROM promise WHERE transaction_uid = ? AND peer = ?", transaction_uid, peer
        )
        return self._promise(rows[0]) if rows else None

    def _promise(self, row: sqlite3.Row) -> Promise:
        asked = cast("k.CommitmentAsked", self._event(row["asked"]))
        judged = None if row["judged"] is None else self._event(row["judged"])
        return Promise(
            asked=asked,
            judged=cast("k.CommitmentJudged | None", judged),
            attempt=row["attempt"],
            due_at=row["due_at"],
        )

    def _event(self, number: int) -> object:
        row = self._rows("SELECT kind, body FROM event WHERE number = ?", number)[0]
        return codec.from_json(row["kind"], row["body"])

    def stored(self, sop_instance_uid: str) -> StoredInstance | None:
        """What a promise depends on."""
        rows = self._rows(
            "SELECT sop_class_uid, series_uid, path, size, (SELECT count(*) FROM conflict "
            "WHERE conflict.sop_instance_uid = instance.sop_instance_uid) AS conflicts "
            "FROM instance WHERE sop_instance_uid = ?",
            sop_instance_uid,
        )
        return StoredInstance(*rows[0]) if rows else None

    # --- retention

    def seen(self, series_uid: str) -> int:
        """The number of the newest event of a Series, 0 if there is none."""
        rows = self._rows("SELECT max(number) AS number FROM event WHERE series = ?", series_uid)
        return int(rows[0]["number"] or 0)

    def kept(
        self,
        *,
        after: tuple[float, str],
        before: float,
        limit: int,
        routes: Collection[str] | None = None,
    ) -> list[Kept]:
        """Series with files that received nothing since `before`, the oldest first.

        after: last_at and UID of the one to go on behind; (0.0, "") begins. routes: only those that
        one of these has taken; None is any.
        """
        # a step for another kind of result has a route named after that of the first: "NAME, ..."
        rows = self._rows(
            "SELECT series_uid, state, last_at, promised_at, revision, (SELECT max(number) "
            "FROM event WHERE event.series = series.series_uid) AS seen FROM series "
            "WHERE purged_at IS NULL AND (last_at, series_uid) > (?1, ?2) AND last_at < ?3 "
            "AND (?4 IS NULL OR EXISTS (SELECT 1 FROM step WHERE step.series_uid = "
            "series.series_uid AND substr(route, 1, instr(route || ',', ',') - 1) IN "
            "(SELECT value FROM json_each(?4)))) ORDER BY last_at, series_uid LIMIT ?5",
            *after,
            before,
            None if routes is None else json.dumps(sorted(routes)),
            limit,
        )
        return [self._kept(row) for row in rows]

    def _kept(self, row: sqlite3.Row) -> Kept:
        """What is read here is as new as `seen`, or newer."""
        uid = row["series_uid"]
        steps = self._rows("SELECT state, revision, route FROM step WHERE series_uid = ?", uid)
        deliveries = self._rows(
            "SELECT state, destination, replaced_by FROM delivery JOIN result "
            "ON sop_instance_uid = result_uid WHERE source_series_uid = ?",
            uid,
        )
        replaced = any(d["replaced_by"] is not None for d in deliveries)
        return Kept(
            series_uid=uid,
            state=SeriesState(row["state"]),
            last_at=row["last_at"],
            promised_at=row["promised_at"],
            steps=tuple(StepState(step["state"]) for step in steps),
            routes=frozenset(s["route"] for s in steps if s["revision"] == row["revision"]),
            deliveries=tuple((DeliveryState(d["state"]), d["destination"]) for d in deliveries),
            untold=self._supersession.untold(uid) if replaced else frozenset(),
            seen=row["seen"],
        )

    def files_of(self, series_uid: str) -> tuple[int, int]:
        """How many files a Series and its results have, and their bytes together."""
        rows = self._rows(
            "SELECT count(*) AS files, coalesce(sum(size), 0) AS size FROM ("
            "SELECT path, size FROM instance WHERE series_uid = ?1 "
            "UNION SELECT path, size FROM conflict WHERE series_uid = ?1 "
            "UNION SELECT path, size FROM result WHERE source_series_uid = ?1) WHERE path <> ''",
            series_uid,
        )
        return int(rows[0]["files"]), int(rows[0]["size"])

    def removed_of(self, series_uid: str) -> int:
        """How many instances of a Series have no file any more."""
        rows = self._rows(
            "SELECT count(*) AS n FROM instance WHERE series_uid = ? AND path = ''", series_uid
        )
        return int(rows[0]["n"])

    def garbage(self) -> dict[str, list[str]]:
        """Series -> the files that are still to be removed."""
        found: dict[str, list[str]] = {}
        for row in self._rows("SELECT series_uid, path FROM garbage ORDER BY 1, 2"):
            found.setdefault(row["series_uid"], []).append(row["path"])
        return found

    def removed(self, series_uid: str) -> int:
        """How many instances of a Series have lost their file to retention."""
        rows = self._rows(
            "SELECT count(*) AS n FROM instance WHERE series_uid = ? AND path = ''", series_uid
        )
        return int(rows[0]["n"])

    # --- backlog

    def waiting_steps(self) -> int:
        """How many steps wait for a performer."""
        return int(self._rows("SELECT count(*) AS n FROM step WHERE state = 'SCHEDULED'")[0]["n"])
