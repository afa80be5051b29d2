"""Whose the objects are that were refused before anybody read of which Series they are.

Senders send Series by Series: what was refused belongs to the Series stored before it, or to the
one stored after it, on the same association or on one that follows at once. Both lack it, until it
comes. Pure but for its lock.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

Sender = tuple[str, str]
"""Calling AE title and address."""
Subject = tuple[str, str]
"""SOP Class UID and Series Instance UID."""

NEIGHBOURS_S = 60.0  # what comes later on another association is another matter
KEPT_MAX = 1000  # UIDs of an association and senders: who goes on is known by then


@dataclass(slots=True)
class _Thread:
    """What one association, or one sender, did last. last: what was stored. refused: SOP class and
    UID of what was refused since. lacks: Series -> UIDs."""

    at: float = float("-inf")
    last: Subject | None = None
    refused: list[tuple[str, str]] = field(default_factory=list)
    lacks: dict[str, dict[str, None]] = field(default_factory=dict)

    def add(self, series_uid: str, instance_uid: str) -> None:
        if sum(map(len, self.lacks.values())) < KEPT_MAX:
            self.lacks.setdefault(series_uid, {})[instance_uid] = None


class Missed:
    """Called from many threads."""

    def __init__(self) -> None:
        self._open: dict[int, _Thread] = {}
        self._senders: dict[Sender, _Thread] = {}
        self._lock = threading.Lock()

    def stored(self, association: int, sender: Sender, subject: Subject, now: float) -> None:
        """An object was kept."""
        with self._lock:
            thread = self._of(association, sender, now)
            if thread.last != subject:
                for its_class, uid in thread.refused:
                    if its_class == subject[0]:
                        thread.add(subject[1], uid)
            thread.at, thread.last = now, subject
            thread.refused.clear()

    def refused(
        self, association: int, sender: Sender, subject: Subject, instance_uid: str, now: float
    ) -> None:
        """An object was refused; its Series is "" where that was not read."""
        sop_class, series_uid = subject
        with self._lock:
            thread = self._of(association, sender, now)
            thread.at = now
            if series_uid:
                thread.add(series_uid, instance_uid)
                return
            if thread.last is not None and thread.last[0] == sop_class:
                thread.add(thread.last[1], instance_uid)
            if len(thread.refused) < KEPT_MAX:
                thread.refused.append((sop_class, instance_uid))

    def ended(self, association: int, sender: Sender) -> Mapping[str, tuple[str, ...]]:
        """What is missed of which Series, by what this association was refused."""
        with self._lock:
            thread = self._open.pop(association, None)
            if thread is None:
                return {}
            lacks = {series_uid: tuple(uids) for series_uid, uids in thread.lacks.items()}
            self._senders.pop(sender, None)
            thread.lacks = {}
            self._senders[sender] = thread
            if len(self._senders) > KEPT_MAX:
                del self._senders[next(iter(self._senders))]
            return lacks

    def _of(self, association: int, sender: Sender, now: float) -> _Thread:
        """The association's own, which goes on where the sender's last one ended a moment ago."""
        thread = self._open.get(association)
        if thread is None:
            thread, before = _Thread(), self._senders.get(sender)
            if before is not None and now - before.at <= NEIGHBOURS_S:
                thread = _Thread(at=before.at, last=before.last, refused=list(before.refused))
            self._open[association] = thread
        return thread
