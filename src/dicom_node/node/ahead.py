"""Working ahead: what can be done for a Series while it still arrives.

All of it is for speed alone: a step has the same result, to the bit, without it. So nothing here is
recorded, and whatever goes wrong is left for the step to find.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dicom_node.decide.arriving import awaited_until
from dicom_node.domain.errors import CatalogError, DecoderEnded, NodeError, is_lost
from dicom_node.domain.tool import ToolContext, WorksAhead
from dicom_node.iod.arriving import ArrivingStack, Planes, Shown
from dicom_node.iod.code_stream import Decode
from dicom_node.node.clock import Clock
from dicom_node.node.journal import Journal
from dicom_node.node.toolbox import Toolbox
from dicom_node.spool.store import Spool

if TYPE_CHECKING:
    from dicom_node.domain.records import Arriving, Instance
    from dicom_node.domain.volume import Volume

_log = logging.getLogger("dicom_node")
_AT_ONCE = 16  # instances decoded before the tool has its turn
_SERIES = 8  # that are worked ahead on at a time
_ANSWERS = 6  # remembered for each plane: more come of an order of arrival that is all awry
_PORTION_S = 1.0
_STALE_S = 10.0

Memory = MutableMapping[tuple[str, ...], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What was prepared for a step, and is its own.

    planes: decoded, by the digest of their files. memory: of the tool.
    """

    planes: Planes
    memory: Memory


@dataclass(slots=True, kw_only=True, eq=False)
class _Work:
    """On one Series. wanted: the tools that it is to go through.

    asked_at: instances when the routes were asked. seen: the number of the last event that was
    looked at. rounded_off: instances when it was worked on as if no more would come. spoilt: tools
    that failed, which a step will tell. last_at: when an instance came. instances: how many had.
    gave_way: instances when it made room for another Series, 0 if it never did.
    """

    stack: ArrivingStack
    wanted: tuple[str, ...] = ()
    last_at: float = 0.0
    instances: int = 0
    gave_way: int = 0
    asked_at: int = 0
    seen: int = 0
    rounded_off: int = 0
    memories: dict[str, Memory] = field(default_factory=dict)
    spoilt: set[str] = field(default_factory=set)

    def give_way(self) -> None:
        """Forget all that was done; it is begun anew when more instances have come."""
        self.stack = ArrivingStack(shown=self.stack.shown, decode=self.stack.decode)
        self.memories.clear()
        self.seen = self.rounded_off = 0
        self.gave_way = self.instances


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """Prepares steps that are to be expected, in small portions.

    expected: the ids of the tools that the routes would give a Series, as far as it has arrived.
    tools: only those that are loaded work ahead. decode: see iod.pixels. most_bytes: of decoded
    planes, for all Series, and of the memory in which they are shown to a tool.
    """

    journal: Journal
    spool: Spool
    clock: Clock
    expected: Callable[[str], tuple[str, ...]]
    tools: Toolbox
    decode: Decode
    most_bytes: int
    _works: dict[str, _Work] = field(default_factory=dict)
    _shown: Shown = field(default_factory=Shown)

    def turn(self, is_due: Callable[[], bool]) -> float | None:
        """Do a portion, until a step is due. Returns when to go on: None at the next bell."""
        arrivals = self.journal.catalog.arrivals
        now = self.clock.now()
        for uid in [uid for uid in self._works if not arrivals.is_expected(uid)]:
            del self._works[uid]
        if not any(self.holds.values()):
            self._shown.release()
        later: list[float] = []
        for arriving in arrivals.series(_SERIES):
            if is_due() or self._did(arriving, now, is_due):
                return now
            at = awaited_until(arriving)
            if at is not None and at > now and self._tools(arriving.series_uid):
                later.append(at)
        return min(later, default=None)

    def kept(self, series_uid: str, tool_id: str) -> Kept | None:
        """What was prepared for a tool's step on a Series; it is given away with its last tool."""
        work = self._works.get(series_uid)
        if work is None or tool_id not in work.memories:
            return None
        kept = Kept(planes=dict(work.stack.planes), memory=work.memories.pop(tool_id))
        if not work.memories:
            del self._works[series_uid]
        return kept

    @property
    def holds(self) -> dict[str, int]:
        """How many planes of which Series."""
        return {uid: len(work.stack.planes) for uid, work in self._works.items()}

    def _tools(self, series_uid: str) -> list[tuple[str, WorksAhead]]:
        """Those that can work ahead on it, by id."""
        work = self._works.get(series_uid)
        if work is None:
            return []
        ids = (i for i in work.wanted if i in self.tools.loaded and i not in work.spoilt)
        tools = ((i, self.tools.get(i)) for i in ids)
        return [(i, tool) for i, tool in tools if isinstance(tool, WorksAhead)]

    def _did(self, arriving: Arriving, now: float, is_due: Callable[[], bool]) -> bool:
        """A portion of the work on one Series; whether there may be more to do at once.

        Whatever a file or a tool raises, it raises again in the step, where it is recorded.
        """
        empty = _Work(stack=ArrivingStack(shown=self._shown, decode=self.decode))
        work = self._works.setdefault(arriving.series_uid, empty)
        work.last_at, work.instances = arriving.last_at, arriving.instances
        try:
            return self._portion(arriving, work, now, is_due)
        except CatalogError:
            raise
        except Exception as error:  # of the tool, or of what nobody has judged yet
            if is_lost(error):
                raise
            what = f"{type(error).__name__}: {error}"
            _log.info("nothing is done ahead for series %s: %s", arriving.series_uid, what)
            work.spoilt.update(work.wanted)
            return False

    def _portion(
        self, arriving: Arriving, work: _Work, now: float, is_due: Callable[[], bool]
    ) -> bool:
        uid = arriving.series_uid
        if arriving.instances <= work.gave_way:
            return False
        if arriving.instances >= 2 * work.asked_at:  # not at each image: all are read for it
            work.asked_at = arriving.instances
            work.wanted = self.expected(uid)
        if not self._tools(uid):
            return False
        if self._take_in(uid, work, self._soon(is_due)) or work.stack.is_fresh:
            for volume in work.stack.fresh():
                stop = self._soon(is_due)
                self._show(uid, work, volume, ToolContext(stop=stop))
                if stop():
                    return True
            work.stack.settle()
            return True
        until = awaited_until(arriving)
        if (until is not None and until > now) or work.rounded_off == arriving.instances:
            return False
        # no more is to be expected: what lies at the ends has its neighbours, too
        whole, stop = work.stack.whole(), self._soon(is_due)
        if whole is not None:
            self._show(uid, work, whole, ToolContext(stop=stop, all_there=True))
        if not stop():
            work.rounded_off = arriving.instances
        return True

    def _soon(self, is_due: Callable[[], bool]) -> Callable[[], bool]:
        """Whether to pause: for a step, or for a sign of life; never before anything was done."""
        until = self.clock.now() + _PORTION_S
        return lambda: is_due() or self.clock.now() > until

    def _take_in(self, uid: str, work: _Work, stop: Callable[[], bool]) -> bool:
        """Decode what is new, as far as there is room. Returns whether there was anything."""
        taken = False
        for number, instance in self.journal.catalog.arrivals.instances(uid, work.seen, _AT_ONCE):
            if not self._room(work):
                break
            work.seen, taken = number, True
            self._add(work, instance)
            if stop() or not self._tools(uid):
                break
        return taken

    def _room(self, work: _Work) -> bool:
        """Whether there is for what is new; Series that have not grown for long make some.

        Not for one that had to make room itself: two would push one another out for ever.
        """
        for other in sorted(self._works.values(), key=lambda other: other.last_at):
            stale = other.last_at <= work.last_at - _STALE_S
            if self._is_free() or work.gave_way or not stale:
                break
            if other.stack.planes:
                other.give_way()
        return self._is_free()

    def _is_free(self) -> bool:
        sizes = [work.stack.size_bytes for work in self._works.values()]
        shown = max([self._shown.size_bytes, *sizes])  # sooner or later all of a Series is
        return sum(sizes) + shown < self.most_bytes

    def _add(self, work: _Work, instance: Instance) -> None:
        try:
            work.stack.add(self.spool.path(instance.path), instance.attributes, instance.sha256)
        except DecoderEnded as error:  # each such image costs a decoder, and much time
            _log.info("nothing more is read ahead: %s", error)
            work.spoilt.update(work.wanted)
        except (NodeError, OSError) as error:
            _log.debug("instance %s is not read ahead: %s", instance.sop_instance_uid, error)

    def _show(self, uid: str, work: _Work, volume: Volume, context: ToolContext) -> None:
        for tool_id, tool in self._tools(uid):
            memory = work.memories.setdefault(tool_id, {})
            if len(memory) <= _ANSWERS * len(work.stack.planes):
                tool.ahead(volume, replace(context, memory=memory))
