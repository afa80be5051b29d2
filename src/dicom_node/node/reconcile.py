"""Catalog and spool compared, after whatever ended the node before.

A file that the catalog does not know was made durable, and then the node died, or the end of its
catalog was lost: it is entered, for it may have been promised to its sender. Entering it is no harm
if it was not: the sender sends it again, and it is a repetition. A result that no step has entered
is removed: its step makes the same one again. A file that the catalog knows and the spool lacks is
shouted about, and its Series is held.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter

from dicom_node.domain import events as e
from dicom_node.domain.errors import SpoolError
from dicom_node.domain.keeping import InstanceRestored
from dicom_node.domain.states import SeriesState
from dicom_node.iod.provenance import REJECTION, provenance
from dicom_node.node.adopt import Found, look
from dicom_node.node.clock import Clock
from dicom_node.node.journal import Journal
from dicom_node.node.reasons import LOST, NOBODY
from dicom_node.spool.store import Spool

_log = logging.getLogger("dicom_node")

_AT_ONCE_S = 2.0  # a small spool is compared before anybody is let in
_TURN_S = 0.25  # a large one bit by bit, while the node works
_LINES_MAX = 20  # of one kind, in the log


@dataclass(slots=True, kw_only=True)
class Reconciler:
    """Goes through the spool once, folder by folder. before: what is stored later is not judged.

    left: the folders still to be looked at. lost: Series -> files that are not there.
    """

    spool: Spool
    journal: Journal
    clock: Clock
    before: float
    left: list[str]
    of_results: frozenset[str]
    entered: int = 0
    removed: int = 0
    unreadable: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    association: int | None = None

    def run_due(self, now: float) -> float | None:
        """Compare for a moment. Returns when to go on, None when all is done."""
        return now if self.run_for(_TURN_S) else None

    def run_for(self, seconds: float) -> bool:
        """Compare a folder, and more until the time is up. Returns whether anything is left."""
        until = perf_counter() + seconds
        while self.left:
            self._compare(self.left.pop())
            if not self.left:
                self._finish()
            elif perf_counter() >= until:
                return True
        return False

    def _compare(self, shard: str) -> None:
        present = self.spool.shard(shard)
        prefix = f"objects/{shard}/"
        known = self.journal.catalog.files.between(prefix, f"objects/{shard}0")
        known.update(path for path in self.of_results if path.startswith(prefix))
        for path in sorted(known.difference(present)):
            self._missing(path)
        for path in present:
            if path not in known:
                self._unknown(path)

    def _missing(self, path: str) -> None:
        if self.spool.look(path) is not None:
            return  # stored after the folder was listed
        for series_uid in self.journal.catalog.files.series_of(path):  # none, if removed since
            self.lost[series_uid] += 1

    def _unknown(self, path: str) -> None:
        """Enter it, or remove it, or leave it alone; it may have become known meanwhile."""
        state = self.spool.look(path)
        if state is None or state[1] >= self.before or self.journal.catalog.files.is_known(path):
            return
        found = look(self.spool, path)
        if isinstance(found, str):
            self.unreadable += 1
            if self.unreadable <= _LINES_MAX:
                _log.warning("%s in the spool is not known, and left alone: %s", path, found)
        elif found.ours and self._is_made_again(found):
            self.removed += self.spool.remove_older(path, self.before)
        else:
            self._enter(found)

    def _is_made_again(self, found: Found) -> bool:
        """Whether it is the result of a step that is known here."""
        made = provenance(self.spool.path(found.path), found.attributes)
        if made is None:
            return False
        catalog = self.journal.catalog
        if made.kind == REJECTION:
            return bool(catalog.files.series_of_results(made.source_uids))
        return any(
            step.tool_id == made.tool_id
            for series_uid in catalog.files.series_of_instances(made.source_uids)
            for step in catalog.views.steps(series_uid)
        )

    def _enter(self, found: Found) -> None:
        """As an arrival over the association that brought the rest of its Series."""
        now = self.clock.now()
        self.entered += 1
        if self._is_restored(found):
            restored = InstanceRestored(
                at=now,
                sop_instance_uid=found.uid,
                series_uid=found.series_uid,
                sha256=found.sha256,
                path=found.path,
                judge_at=now,
            )
            self.journal.commit(restored)
            return
        events: list[e.Event] = []
        associations = self.journal.catalog.views.associations(found.series_uid)
        if associations:
            number = associations[-1].number
        else:
            number, events = self._nobodys(now)
        arrived = e.InstanceArrived(at=now, instance=found.instance(number), judge_at=now)
        self.journal.commit(*events, arrived)
        self.association = number if not associations else self.association

    def _is_restored(self, found: Found) -> bool:
        """Whether it is known, and its file was removed: it came again before the node died."""
        known = self.journal.catalog.views.instance(found.uid)
        return known is not None and not known.path and known.sha256 == found.sha256

    def _nobodys(self, now: float) -> tuple[int, list[e.Event]]:
        """The association of files whose sender is not known: one for each start that finds any.

        Its number is below those that the receiver gives, which have begun above the last one.
        """
        if self.association is not None:
            return self.association, []
        number = self.journal.catalog.files.first_association() - 1
        opened = e.AssociationOpened(
            at=now, number=number, calling_ae=NOBODY, called_ae="", address=""
        )
        return number, [opened, e.AssociationEnded(at=now, number=number, how="lost")]

    def _finish(self) -> None:
        """Say what was found, and hold what lacks files."""
        if self.entered:
            _log.warning("%d files of the spool were not in the catalog: entered", self.entered)
        if self.removed:
            _log.info("%d results of unfinished work were removed from the spool", self.removed)
        for number, (series_uid, count) in enumerate(sorted(self.lost.items())):
            if number < _LINES_MAX:
                _log.critical("%s %s of series %s", LOST, _files(count), series_uid)
            self._hold(series_uid, count)
        if len(self.lost) > _LINES_MAX:
            _log.critical("%s files of %d series in all", LOST, len(self.lost))

    def _hold(self, series_uid: str, count: int) -> None:
        series = self.journal.catalog.views.series(series_uid)
        if series is None or series.state is SeriesState.HELD:
            return
        reason = (
            f"{LOST} {_files(count)} of it: restore them, or have the images sent again, "
            f"then dicom-node release {series_uid}"
        )
        self.journal.commit(e.SeriesHeld(at=self.clock.now(), series_uid=series_uid, reason=reason))


def reconcile(spool: Spool, journal: Journal, clock: Clock) -> Reconciler:
    """Sweep temporaries, and compare what can be compared in a moment; the rest is left.

    Raises SpoolError if the spool is empty and the catalog is not: its disk is not mounted.
    """
    before = spool.stamp()
    swept = spool.sweep()
    if swept:
        _log.info("%d unfinished files were removed from the spool", swept)
    files = journal.catalog.files
    if files.any() and not any(True for _ in spool.files()):
        raise SpoolError(
            f"the catalog knows objects, and {spool.root} holds none: is its disk mounted?"
        )
    reconciler = Reconciler(
        spool=spool,
        journal=journal,
        clock=clock,
        before=before,
        left=spool.shards(),
        of_results=frozenset(files.of_results()),
    )
    reconciler.run_for(_AT_ONCE_S)
    return reconciler


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
