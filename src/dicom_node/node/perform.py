"""Stage 5, a process of its own: a model that dies takes nothing along but its step."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from dicom_node.decide import retry, supersede
from dicom_node.domain import events as e
from dicom_node.domain.errors import (
    CatalogError,
    NodeError,
    ObjectError,
    SpoolError,
    ToolError,
    ToolUnavailable,
    is_lost,
)
from dicom_node.domain.policy import HOLD
from dicom_node.domain.records import Result, Step
from dicom_node.domain.states import StepState
from dicom_node.domain.tool import ImageProcessingTool
from dicom_node.iod.image import Reading
from dicom_node.iod.replacing import Replacement
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.node.ahead import Ahead
from dicom_node.node.clock import Clock
from dicom_node.node.encode import Earlier, Produced, Source
from dicom_node.node.journal import Journal
from dicom_node.node.produce import Outcome, produce
from dicom_node.node.stage import attempt
from dicom_node.node.supersede import Superseder, owed
from dicom_node.node.toolbox import Toolbox
from dicom_node.spool.store import Spool

_log = logging.getLogger("dicom_node")

LEASE_S = 60.0
_WARMING_BEATS = 30  # in ten minutes: what takes longer to load is loaded for a step


@dataclass(frozen=True, slots=True, kw_only=True)
class Performer:
    """Claims steps one after the other, and performs them. Tools are loaded once.

    superseder: one performer of a node has it. leaves_s: for how long a step on a Series is left to
    other performers. alive: called at each turn, and again and again while something takes long.
    """

    name: str
    tools: Toolbox
    settings: SegSettings
    reading: Reading
    max_attempts: int
    spool: Spool
    journal: Journal
    clock: Clock
    superseder: Superseder | None
    ahead: Ahead | None = None
    leaves_s: Callable[[str], float] | None = None
    alive: Callable[[], None] = lambda: None

    def run_due(self, now: float) -> float | None:
        """Perform the most urgent step that is due. Returns when to look again."""
        catalog = self.journal.catalog
        self.alive()
        if self.superseder is not None:
            self.superseder.run_due(now)
        step = catalog.claim_step(
            now=now,
            lease_s=LEASE_S,
            transaction_uid=self.clock.new_uid(),
            performer=self.name,
            leaves_s=self.leaves_s,
        )
        if step is None:
            return self._next(self.ahead.turn(self._is_due) if self.ahead else None)
        with _Heartbeat(partial(self._extend, step)):
            self._perform(step)
        return now

    def _next(self, ahead: float | None) -> float | None:
        """When to look again: for a step, or to work ahead."""
        known = (ahead, self.journal.catalog.runnable.next_due(self.leaves_s))
        return min((at for at in known if at is not None), default=None)

    def _is_due(self) -> bool:
        """Whether a step waits."""
        return self.journal.catalog.runnable.next_step(self.clock.now(), self.leaves_s) is not None

    def warm(self, tool_ids: Iterable[str]) -> None:
        """Load tools before they are asked for; one that fails says so now, and again when run."""
        with _Heartbeat(self.alive, beats=_WARMING_BEATS):
            for tool_id in sorted(tool_ids):
                attempt(f"model {tool_id}", partial(self.tools.get, tool_id), None)

    def _extend(self, step: Step) -> None:
        self.alive()
        until = self.clock.now() + LEASE_S
        try:
            self.journal.catalog.extend_lease(step.step_id, step.transaction_uid or "", until)
        except CatalogError as error:  # the lease outlasts two such beats
            _log.warning("%s", error)

    def _perform(self, step: Step) -> None:
        """One step to its end: completed, canceled (the input), or failed (the tool, the disk).

        Whatever else goes wrong fails the step, too, and is raised; so is the loss of the device.
        """
        known = False
        try:
            self._tried(step)
            known = True
        except ToolError:
            known = True
            raise
        finally:
            if not known:
                kind = getattr(sys.exc_info()[0], "__name__", "")
                what = f"{kind}, an error of the node itself: see its log"
                self._failed(step, ToolError(what))

    def _tried(self, step: Step) -> None:
        try:
            self._complete(step, self._outcome(step))
        except ObjectError as error:
            self._end(
                step,
                e.StepCanceled(
                    at=self.clock.now(),
                    step_id=step.step_id,
                    reason=str(error),
                    transaction_uid=step.transaction_uid,
                ),
            )
        except NodeError as error:
            self._failed(step, error)
            if is_lost(error):
                raise
        except MemoryError:
            self._failed(step, ToolError("out of memory"))

    def _outcome(self, step: Step) -> Outcome:
        """What the tool makes of the step's input, in the kinds that it asks for."""
        sources = self._sources(step)
        tool = self.tools.get(step.tool_id)
        try:
            return produce(
                sources,
                tool,
                self.settings,
                reading=self.reading,
                kinds=step.results,
                earlier=self._earlier(step),
                kept=self.ahead.kept(step.series_uid, step.tool_id) if self.ahead else None,
            )
        except OSError as error:
            raise _unreadable(sources, error) from error

    def _earlier(self, step: Step) -> Earlier:
        """What was made of the Series before."""
        views = self.journal.catalog.views
        results = views.results(step.series_uid)
        known = {
            r.sop_instance_uid: Replacement(
                kind=r.kind, sop_instance_uid=r.sop_instance_uid, series_uid=r.series_uid
            )
            for r in results
        }

        def named(uids: Iterable[str]) -> tuple[Replacement, ...]:
            return tuple(known[uid] for uid in uids if uid in known)

        same = supersede.again(step, views.steps(step.series_uid), results)
        return Earlier(
            replaces=named(step.replaces),
            named=tuple(named(uids) for uids in same.replaced),
            series=same.series,
        )

    def _failed(self, step: Step, error: NodeError) -> None:
        now = self.clock.now()
        wait = retry.step_wait_s(
            step.attempt, self.max_attempts, _trouble(error), self.clock.luck()
        )
        failed = e.StepFailed(
            at=now,
            step_id=step.step_id,
            reason=str(error),
            retry_at=None if wait is None else now + wait,
            transaction_uid=step.transaction_uid,
        )
        self._end(step, failed)

    def _end(self, step: Step, *events: e.Event) -> None:
        """Commit how the step ended; nothing of it where it is not this performer's any more."""
        try:
            self.journal.commit(*events)
        except CatalogError:
            # canceled or taken away meanwhile: its files are unreferenced, and swept at a start
            current = self.journal.catalog.views.step(step.step_id)
            if current is not None and (current.state, current.transaction_uid) == (
                StepState.IN_PROGRESS,
                step.transaction_uid,
            ):
                raise
            _log.info("step %d was superseded while it ran", step.step_id)

    def _sources(self, step: Step) -> list[Source]:
        wanted = set(step.instance_uids)
        sources = [
            Source(
                path=self.spool.path(instance.path),
                attributes=instance.attributes,
                sha256=instance.sha256,
            )
            for instance in self.journal.catalog.views.instances(step.series_uid)
            if instance.sop_instance_uid in wanted and instance.path
        ]
        missing = len(wanted) - sum(source.path.exists() for source in sources)
        if missing:
            raise SpoolError(
                f"the spool has lost {missing} of the {len(wanted)} files of this step: "
                "restore them, or have the images sent again"
            )
        return sources

    def _complete(self, step: Step, outcome: Outcome) -> None:
        """Result files first, then step, results and deliveries in one transaction."""
        now = self.clock.now()
        tool = self.tools.get(step.tool_id)
        events: list[e.Event] = [
            e.StepCompleted(
                at=now,
                step_id=step.step_id,
                transaction_uid=step.transaction_uid or "",
                seconds={name: round(value, 4) for name, value in outcome.seconds.items()},
                notes=outcome.notes,
                replaces=tuple(
                    dict.fromkeys(uid for made in outcome.produced for uid in made.replaces)
                ),
            )
        ]
        for produced in outcome.produced:
            result = self._result(step, produced, tool, now)
            events.append(e.ResultStored(at=now, result=result))
            events.extend(
                e.DeliveryQueued(at=now, delivery=owed(result.sop_instance_uid, to, now))
                for to in step.destinations
            )
        if outcome.doubts and tool.input_policy().doubtful is HOLD:
            reason = f"the result of {step.tool_id} is doubtful: {' '.join(outcome.doubts)}"
            events.append(e.SeriesHeld(at=now, series_uid=step.series_uid, reason=reason))
        self._end(step, *events)

    def _result(
        self, step: Step, produced: Produced, tool: ImageProcessingTool, now: float
    ) -> Result:
        stored = self.spool.put(produced.data)
        return Result(
            sop_instance_uid=produced.sop_instance_uid,
            sop_class_uid=produced.sop_class_uid,
            transfer_syntax_uid=produced.transfer_syntax_uid,
            series_uid=produced.series_uid,
            study_uid=produced.study_uid,
            step_id=step.step_id,
            source_series_uid=step.series_uid,
            tool_id=step.tool_id,
            tool_version=tool.version_id(),
            kind=produced.kind,
            path=stored.path,
            size=stored.size,
            sha256=stored.sha256,
            created_at=now,
            summary=produced.summary,
        )


def _trouble(error: NodeError) -> retry.Trouble:
    if isinstance(error, SpoolError | CatalogError) and error.full:
        return retry.Trouble.ROOM
    if isinstance(error, SpoolError | CatalogError | ToolUnavailable):
        return retry.Trouble.PLACE
    return retry.Trouble.TOOL


def _unreadable(sources: Sequence[Source], error: OSError) -> SpoolError:
    """The error of a file as one that names the object."""
    which = next((s.uid for s in sources if str(s.path) == str(error.filename)), "")
    what = f"instance {which}" if which else "an instance"
    return SpoolError(f"the file of {what} cannot be read: {error.strerror or error}")


class _Heartbeat:
    """Calls `beat` again and again, from a thread of its own, while something takes long.

    beats: at most so often.
    """

    def __init__(self, beat: Callable[[], None], *, beats: int = sys.maxsize) -> None:
        self._beat_once = beat
        self._beats = beats
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while self._beats and not self._over.wait(LEASE_S / 3):
            self._beat_once()
            self._beats -= 1


def be_nice(by: int) -> None:
    """Stand back behind the receiver: a C-ECHO must not feel a running model."""
    if hasattr(os, "nice"):
        os.nice(by)
