"""Catalog and spool compared, after whatever ended the node before.

A file that the catalog does not know was written, and then the node died, or the end of its catalog
was lost: if it is whole it is entered, for it may have been promised to its sender. Entering it is
no harm if it was not: the sender sends it again, and it is a repetition. A result that no step has
entered is removed: its step makes the same one again. What the catalog knows and the spool lacks:
see lost.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter

from dicom_node.domain import events as e
from dicom_node.domain.errors import SpoolError
from dicom_node.domain.keeping import InstanceRestored
from dicom_node.iod.provenance import REJECTION, provenance
from dicom_node.node.adopt import Found, look
from dicom_node.node.clock import Clock
from dicom_node.node.journal import Journal
from dicom_node.node.lost import hold_lacking, note_lost_result
from dicom_node.node.reasons import NOBODY
from dicom_node.spool.store import Spool

_log = logging.getLogger("dicom_node")

_AT_ONCE_S = 2.0  # a small spool is compared before anybody is let in
_TURN_S = 0.25  # a large one bit by bit, while the node works
_LINES_MAX = 20  # of one kind, in the log


@dataclass(slots=True, kw_only=True)
class Reconciler:
    """Goes through the spool once, folder by folder, then through the files that nobody knew, the
    oldest first: of two with one UID the first becomes the instance.

    before: what is stored later is not judged, unless the node is `alone`: nobody stores anything
    meanwhile. left: the folders still to be looked at. unknown: (time, path), the oldest last.
    lost: Series -> files that are not there.
    """

    spool: Spool
    journal: Journal
    clock: Clock
    before: float
    left: list[str]
    of_results: frozenset[str]
    alone: bool = False
    finished: bool = False
    unknown: list[tuple[float, str]] = field(default_factory=list)
    entered: int = 0
    removed: int = 0
    unreadable: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    association: int | None = None

    def run_due(self, now: float) -> float | None:
        """Compare for a moment. Returns when to go on, None when all is done."""
        return now if self.run_for(_TURN_S) else None

    def run_for(self, seconds: float) -> bool:
        """Compare a folder, and more until the time is up. Returns whether anything is left.

        What an error of the catalog ends is begun again at the next call.
        """
        until = perf_counter() + seconds
        while not self.finished:
            if self.left:
                self._compare(self.left[-1])
                self.left.pop()
                if not self.left:
                    self.unknown.sort(reverse=True)
            elif self.unknown:
                self._judge(self.unknown[-1][1])
                self.unknown.pop()
            if not self.left and not self.unknown:
                self._finish()
                self.finished = True
            elif perf_counter() >= until:
                return True
        return False

    def _compare(self, shard: str) -> None:
        try:
            present = self.spool.shard(shard)
        except SpoolError as error:
            self._say_unreadable(f"folder {shard}", str(error))
            return
        prefix = f"objects/{shard}/"
        known = self.journal.catalog.files.between(prefix, f"objects/{shard}0")
        known.update(path for path in self.of_results if path.startswith(prefix))
        missing = [path for path in sorted(known.difference(present)) if self._is_gone(path)]
        lost = Counter(uid for path in missing for uid in self._missing(path))
        self.unknown += [(self._time_of(path), path) for path in present if path not in known]
        self.lost += lost

    def _is_gone(self, path: str) -> bool:
        """Not if it was stored after the folder was listed."""
        try:
            return self.spool.look(path) is None
        except SpoolError as error:
            self._say_unreadable(path, str(error))
            return False

    def _time_of(self, path: str) -> float:
        try:
            state = self.spool.look(path)
        except SpoolError:
            return 0.0  # said when it is judged
        return state[1] if state is not None else 0.0

    def _missing(self, path: str) -> set[str]:
        """The Series that lack the file; a result is another matter."""
        files = self.journal.catalog.files
        for uid in files.results_at(path):
            note_lost_result(self.journal, uid, self.clock.now())
        return files.received_at(path)  # none, if removed since

    def _judge(self, path: str) -> None:
        """Enter a file, or remove it, or leave it alone; it may have become known meanwhile."""
        try:
            self._unknown(path)
        except SpoolError as error:
            self._say_unreadable(path, str(error))

    def _unknown(self, path: str) -> None:
        state = self.spool.look(path)
        if state is None or self.journal.catalog.files.is_known(path):
            return
        if not self.alone and self.before <= state[1] <= self.spool.stamp():
            return  # stored since
        if not state[0]:  # it had got no more than its name when the power went
            self._remove(path)
            return
        found = look(self.spool, path)
        if isinstance(found, str):
            self._say_unreadable(path, f"it is not known, and left alone: {found}")
        elif found.ours and self._is_made_again(found):
            self._remove(path)
        else:
            self._enter(found)

    def _say_unreadable(self, path: str, why: str) -> None:
        self.unreadable += 1
        if self.unreadable <= _LINES_MAX:
            _log.warning("%s in the spool: %s", path, why)

    def _remove(self, path: str) -> None:
        """Never one that is just being made."""
        if self.alone:
            self.spool.remove(path)
            self.removed += 1
        elif self.spool.stamp() >= self.before:  # else the clock was set: no time tells anything
            self.removed += self.spool.remove_older(path, self.before)

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
        restored_to = self.journal.catalog.files.awaited_by(found.uid, found.sha256)
        if restored_to:  # it came again before the node died
            restored = InstanceRestored(
                at=now,
                sop_instance_uid=found.uid,
                series_uid=restored_to,
                sha256=found.sha256,
                path=found.path,
                judge_at=now,
            )
            self.journal.commit(restored)
            self.entered += 1
            return
        events: list[e.Event] = []
        associations = self.journal.catalog.views.associations(found.series_uid)
        if associations:
            number = associations[-1].number
        else:
            number, events = self._nobodys(now)
        instance = found.instance(number, min(found.stored_at, now))  # the clock may have been set
        arrived = e.InstanceArrived(at=now, instance=instance, judge_at=now)
        self.journal.commit(*events, arrived)
        self.entered += 1
        self.association = number if not associations else self.association

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
            _log.info("%d files of unfinished work were removed from the spool", self.removed)
        if self.unreadable > _LINES_MAX:
            _log.warning("%d files of the spool cannot be read, or are unknown", self.unreadable)
        hold_lacking(self.journal, self.lost, self.clock.now())


def reconcile(
    spool: Spool, journal: Journal, clock: Clock, seconds: float = _AT_ONCE_S
) -> Reconciler:
    """Sweep temporaries, and compare what can be compared in a moment; the rest is left.

    To be called while nobody stores anything. Raises SpoolError if the spool is empty and the
    catalog is not: its disk is not mounted.
    """
    before = spool.stamp()
    swept = spool.sweep()
    if swept:
        _log.info("%d unfinished files were removed from the spool", swept)
    files = journal.catalog.files
    if files.any() and _is_empty(spool):
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
        alone=True,
    )
    reconciler.run_for(seconds)
    reconciler.alone = False
    return reconciler


def _is_empty(spool: Spool) -> bool:
    """Not if a folder cannot be looked into: that is another trouble."""
    with contextlib.suppress(SpoolError):
        return not any(True for _ in spool.files())
    return False
