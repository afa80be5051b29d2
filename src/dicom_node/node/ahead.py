"""Working ahead: what can be done for a Series while it still arrives.

All of it is for speed alone: a step has the same result, to the bit, without it. So nothing here is
recorded, and whatever goes wrong is left for the step to find.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dicom_node.domain.errors import CatalogError, NodeError
from dicom_node.domain.tool import ImageProcessingTool, ToolContext, WorksAhead
from dicom_node.iod.arriving import ArrivingStack
from dicom_node.node.journal import Journal
from dicom_node.spool.store import Spool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dicom_node.domain.records import Instance

_log = logging.getLogger("dicom_node")
_AT_ONCE = 16  # instances decoded before the tool has its turn
_SERIES = 8  # that are worked ahead on at a time

Memory = MutableMapping[tuple[str, ...], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What was prepared for a step. planes: decoded, by the digest of their files."""

    planes: Mapping[str, NDArray[np.generic]]
    memory: Memory


@dataclass(slots=True, kw_only=True)
class _Arriving:
    tools: tuple[str, ...] = ()
    asked_at: int = 0  # instances when the routes were asked
    seen: int = 0  # the number of the last event that was looked at
    stack: ArrivingStack = field(default_factory=ArrivingStack)
    memories: dict[str, Memory] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """Prepares steps that are to be expected, in small portions.

    expected: the ids of the tools that the routes would give a Series, as far as it has arrived.
    tool: by id. most_bytes: of decoded planes, for all Series; 0 works on nothing ahead.
    """

    journal: Journal
    spool: Spool
    expected: Callable[[str], tuple[str, ...]]
    tool: Callable[[str], ImageProcessingTool]
    most_bytes: int
    _arriving: dict[str, _Arriving] = field(default_factory=dict)

    def turn(self, stop: Callable[[], bool]) -> bool:
        """Do a portion, until `stop` says so. Returns whether there may be more to do now."""
        if not self.most_bytes:
            return False
        try:
            for series_uid, instances in self.journal.catalog.arrivals.series(_SERIES):
                if stop() or self._portion(series_uid, instances, stop):
                    return True
        except CatalogError:
            raise
        except NodeError as error:
            _log.debug("nothing is done ahead: %s", error)
        return False

    def kept(self, series_uid: str, tool_id: str) -> Kept | None:
        """What was prepared for a tool's step on a Series."""
        known = self._arriving.get(series_uid)
        if known is None or tool_id not in known.memories:
            return None
        return Kept(planes=known.stack.planes, memory=known.memories[tool_id])

    def forget(self, series_uid: str) -> None:
        """Its step has ended."""
        self._arriving.pop(series_uid, None)

    def _portion(self, series_uid: str, instances: int, stop: Callable[[], bool]) -> bool:
        """Whether something was done for this Series."""
        known = self._arriving.setdefault(series_uid, _Arriving())
        if not known.tools and instances >= 2 * known.asked_at:
            # where no route wants it, they are asked again when it has doubled
            known.asked_at = instances
            wanted = self.expected(series_uid)
            known.tools = tuple(i for i in wanted if isinstance(self.tool(i), WorksAhead))
        if not known.tools or not self._room(series_uid):
            return False
        new = self.journal.catalog.arrivals.instances(series_uid, known.seen, _AT_ONCE)
        if not new and not known.stack.is_fresh:
            return False
        for number, instance in new:
            known.seen = number
            self._add(known, instance)
        for volume in known.stack.fresh():
            for tool_id in known.tools:
                tool = self.tool(tool_id)
                memory = known.memories.setdefault(tool_id, {})
                if isinstance(tool, WorksAhead):
                    tool.ahead(volume, ToolContext(memory=memory, stop=stop))
        if not stop():
            known.stack.settle()
        return True

    def _room(self, series_uid: str) -> bool:
        """Whether there is, once Series that are not expected any more are forgotten."""
        others = [uid for uid in self._arriving if uid != series_uid]
        used = sum(known.stack.size_bytes for known in self._arriving.values())
        for uid in others:
            if used < self.most_bytes and len(self._arriving) <= _SERIES:
                break
            used -= self._arriving.pop(uid).stack.size_bytes
        return used < self.most_bytes

    def _add(self, known: _Arriving, instance: Instance) -> None:
        try:
            known.stack.add(self.spool.path(instance.path), instance.attributes, instance.sha256)
        except (NodeError, OSError) as error:
            _log.debug("instance %s is not read ahead: %s", instance.sop_instance_uid, error)
