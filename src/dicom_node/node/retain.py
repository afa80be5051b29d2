"""Stage 8: files whose time is up are removed, the oldest first where room is short.

A removal is recorded before it begins: from then on nothing claims the files, and whatever ends the
node in between, its next start removes what is left. The facts stay: who asks is told, and an
object that comes again is known by its digest.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dicom_node.catalog.keeping import Kept
from dicom_node.decide import confirmation, retention
from dicom_node.decide.pressure import Level
from dicom_node.domain import keeping as k
from dicom_node.domain.errors import CatalogError, SpoolError
from dicom_node.domain.records import Peer
from dicom_node.node.clock import Clock
from dicom_node.node.journal import Journal
from dicom_node.node.pressure import Gauge
from dicom_node.spool.store import Spool

_log = logging.getLogger("dicom_node")

_PAGE = 200  # Series looked at in one query
_TURN_MAX = 50  # Series removed in one turn
_LOOK_S = 60.0
_LOOK_SHORT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retainer:
    """Removes what the policy lets go. free_bytes: with less free, room is made; 0 is never."""

    policy: retention.Policy
    free_bytes: int
    peers: Mapping[str, Peer]
    spool: Spool
    journal: Journal
    gauge: Gauge
    clock: Clock

    def run_due(self, now: float) -> float | None:
        """Remove what is due. Returns when to look again."""
        self._keep_reserve()
        collect(self.spool, self.journal, self.clock)
        removed = 0
        for kept in self._candidates(now):
            reason = retention.purge(self._facts(kept), self.policy, now, short=self._is_short())
            if reason and self._purge(kept, reason):
                removed += 1
                if removed >= _TURN_MAX:
                    return now
        if self.gauge.look().level is not Level.OPEN or self._is_short():
            return now + _LOOK_SHORT_S
        return now + _LOOK_S

    def _keep_reserve(self) -> None:
        try:
            self.gauge.reserve.keep(self.spool.free_bytes())
        except SpoolError as error:  # a disk without it works, too
            _log.warning("%s", error)

    def _is_short(self) -> bool:
        return bool(self.free_bytes) and self.spool.free_bytes() < self.free_bytes

    def _candidates(self, now: float) -> Iterator[Kept]:
        """The Series that may be due: the oldest first, then those of routes that keep nothing."""
        before = retention.oldest_wanted(self.policy, now, short=self._is_short())
        if before:
            yield from self._pages(before, None)
        if self.policy.routes:
            yield from self._pages(now, self.policy.routes)

    def _pages(self, before: float, routes: frozenset[str] | None) -> Iterator[Kept]:
        after = (0.0, "")
        page: Sequence[Kept] = ()
        while not page or len(page) == _PAGE:
            page = self.journal.catalog.keeping.kept(
                after=after, before=before, limit=_PAGE, routes=routes
            )
            yield from page
            if not page:
                return
            after = (page[-1].last_at, page[-1].series_uid)

    def _facts(self, kept: Kept) -> retention.Facts:
        return retention.Facts(
            state=kept.state,
            last_at=kept.last_at,
            promised_at=kept.promised_at,
            steps=kept.steps,
            # a step for pictures in place of a segmentation has a route named after that of the
            # segmentation: "NAME, ..."
            routes=frozenset(route.partition(",")[0] for route in kept.routes),
            deliveries=tuple((state, self._proves(to)) for state, to in kept.deliveries),
            note_due=any(self._is_told(to) for to in kept.untold),
        )

    def _is_told(self, destination: str) -> bool:
        peer = self.peers.get(destination)
        return peer is not None and "reject" in peer.offers

    def _proves(self, destination: str) -> bool:
        peer = self.peers.get(destination)
        return peer is not None and bool(confirmation.ways(peer.offers))

    def _purge(self, kept: Kept, reason: str) -> bool:
        """Record, then remove; whether it is done."""
        files, size = self.journal.catalog.keeping.files_of(kept.series_uid)
        purged = k.SeriesPurged(
            at=self.clock.now(),
            series_uid=kept.series_uid,
            reason=reason,
            files=files,
            size=size,
            seen=kept.seen,
        )
        try:
            self.journal.commit(purged)
        except CatalogError as error:
            if not error.full:
                _log.info("series %s is kept for now: %s", kept.series_uid, error)
                return False
            self.gauge.reserve.give()
            self.journal.commit(purged)
        collect(self.spool, self.journal, self.clock)
        return True


def collect(spool: Spool, journal: Journal, clock: Clock) -> int:
    """Remove what is recorded as to be removed; returns how many files. Raises SpoolError.

    An object that came again meanwhile stays.
    """
    removed = 0
    for series_uid, paths in journal.catalog.keeping.garbage().items():
        files = spool.discard(paths, journal.catalog.views.path_known)
        journal.commit(k.FilesRemoved(at=clock.now(), series_uid=series_uid, files=files))
        removed += files
    return removed
