"""What was refused, recorded: the first one by one, a flood by the hundred."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from itertools import groupby

from dicom_node.decide.telling import Count, Pace, happened
from dicom_node.domain import events as e
from dicom_node.domain.errors import CatalogError
from dicom_node.node.clock import Clock
from dicom_node.node.journal import Journal

EACH = Pace(first=50)  # of one AE title and status, an hour
ALL = Pace(first=1000)
KEPT_MAX, KEPT_S = 500, 60.0  # what is kept is recorded then
NAMED_MAX, NAMED_S = 20_000, 86_400.0  # UIDs of one AE title a day; what comes then is counted
_KINDS_MAX = 20  # of those told together: an attacker may give each a Series of its own
_KEYS_MAX = 1000


class Repeats:
    """Counts by key, so that who knocks all day is told of once an hour; for many threads.

    all_together: the pace of whatever is told, whoever did it; else a flood from many addresses
    were told of one by one. of_group: that of a group of keys; else one of them would leave none of
    it for others.
    """

    def __init__(self, pace: Pace, all_together: Pace, of_group: Pace | None = None) -> None:
        self._pace = pace
        self._of_group = of_group
        self._all_together = all_together
        self._counts: dict[Hashable, Count] = {}
        self._groups: dict[Hashable, Count] = {}
        self._total = Count()
        self._lock = threading.Lock()

    def times(self, key: Hashable, now: float, group: Hashable = None) -> int:
        """How often since it was last told, this time included; 0: not to be told now."""
        with self._lock:
            count, times = happened(self._counts.pop(key, Count()), now, self._pace)
            if times and not self._is_room(group, now):
                count, times = replace(count, kept=times), 0
            _put(self._counts, key, count)
        return times

    def _is_room(self, group: Hashable, now: float) -> bool:
        """Whether one more of this group may be told."""
        if self._of_group is not None:
            count, told = happened(self._groups.pop(group, Count()), now, self._of_group)
            _put(self._groups, group, count)
            if not told:
                return False
        self._total, told = happened(self._total, now, self._all_together)
        return bool(told)


class Refusals:
    """Objects that were answered with a failure: each is found by `why`, few have a row of their
    own. Called from many threads."""

    def __init__(self, *, journal: Journal, clock: Clock, wake: Callable[[], None]) -> None:
        """wake: called when run_due has something to do."""
        self._journal = journal
        self._clock = clock
        self._wake = wake
        self._repeats = Repeats(EACH, ALL)
        self._kept: list[e.InstanceRefused] = []
        self._kept_since = 0.0
        self._named: dict[Hashable, Count] = {}
        self._lock = threading.Lock()

    def due(self, event: e.InstanceRefused) -> list[e.Event]:
        """What to record now: this one, and those kept before it; or nothing, and it is kept."""
        told = self._repeats.times((event.calling_ae, event.status), event.at)
        with self._lock:
            if not told and len(self._kept) < KEPT_MAX:
                if not self._kept:
                    self._kept_since = self._clock.now()
                    self._wake()
                self._kept.append(event)
                return []
            kept, self._kept = self._kept, []
        return [*self._told_of(kept), event]

    def run_due(self, now: float) -> float | None:
        """Record what was kept for long enough, and say when to come again."""
        with self._lock:
            due = self._kept_since + KEPT_S
            if not self._kept:
                return None
            if now < due:
                return due
            kept, self._kept = self._kept, []
        self._commit(self._told_of(kept))
        return None

    def flush(self) -> None:
        """Record what was kept: nothing more comes."""
        with self._lock:
            kept, self._kept = self._kept, []
        self._commit(self._told_of(kept))

    def _told_of(self, kept: Iterable[e.InstanceRefused]) -> list[e.Event]:
        """Together, with as many of their UIDs as are kept of one AE title."""
        with self._lock:
            return [self._named_in_part(event) for event in _together(kept)]

    def _named_in_part(self, event: e.InstanceRefused) -> e.InstanceRefused:
        now, known = event.at, self._named.pop(event.calling_ae, Count())
        if abs(now - known.began_at) >= NAMED_S:
            known = Count(began_at=now)
        room = max(0, NAMED_MAX - known.told)
        named = event.others[:room]
        _put(self._named, event.calling_ae, replace(known, told=known.told + len(named)))
        return replace(event, others=named, unnamed=len(event.others) - len(named))

    def _commit(self, events: list[e.Event]) -> None:
        with contextlib.suppress(CatalogError):  # the refusals stand, recorded or not
            if events:
                self._journal.commit(*events)


def _put(counts: dict[Hashable, Count], key: Hashable, count: Count) -> None:
    """At the end: what was long not counted goes first."""
    counts[key] = count
    if len(counts) > _KEYS_MAX:
        del counts[next(iter(counts))]


def _together(events: Iterable[e.InstanceRefused]) -> list[e.InstanceRefused]:
    """One for each Series and reason, and one for the rest if these are too many."""

    def alike(event: e.InstanceRefused) -> tuple[str, str, int, str]:
        return event.calling_ae, event.series_uid, event.status, event.reason

    groups = [list(some) for _, some in groupby(sorted(events, key=alike), alike)]
    if len(groups) > _KINDS_MAX:
        rest = [event for some in groups[_KINDS_MAX:] for event in some]
        groups[_KINDS_MAX:] = [[*rest, replace(rest[-1], series_uid="", study_uid="")]]
    return [
        replace(some[-1], others=tuple(dict.fromkeys(one.sop_instance_uid for one in some[:-1])))
        for some in groups
    ]
