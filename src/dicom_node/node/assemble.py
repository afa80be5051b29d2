"""Stages 3 and 4: is a Series complete, and which steps does it go through."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dicom_node.decide import completeness, subject, supersede
from dicom_node.decide.geometry import Fault, Finding, NotAStack, hole, split_localizers, stack_of
from dicom_node.decide.origin import Origin, origin
from dicom_node.decide.routing import StepPlan
from dicom_node.domain import events as e
from dicom_node.domain.errors import CatalogDamaged, CatalogError
from dicom_node.domain.records import Association, Attributes, Instance, Peer, Series, Step
from dicom_node.domain.states import SeriesState, StepState
from dicom_node.node.journal import Journal
from dicom_node.node.router import Router

_log = logging.getLogger("dicom_node")
_MAY_BE_MENDED = frozenset({Fault.UNEVEN, Fault.TOO_FEW})  # by instances still to come


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembler:
    """Judges each Series that is due, and schedules its steps in the same transaction.

    ask_source: whether senders that offer queries are asked how many instances they have.
    started_at: since when the node hears them.
    """

    policy: completeness.Policy
    ask_source: bool
    router: Router
    journal: Journal
    started_at: float = 0.0

    def run_due(self, now: float) -> float | None:
        """Judge what is due. Returns when the next Series is.

        Raises CatalogError, at the end where it was about one Series: the others are judged.
        """
        views = self.journal.catalog.views
        failed: CatalogError | None = None
        for series in views.series_due(now):
            try:
                self.journal.commit(*self._judged(series, now))
            except CatalogError as error:
                if error.full or isinstance(error, CatalogDamaged):
                    raise
                if views.series(series.series_uid) == series:
                    failed = error
                # else it changed meanwhile: it is due again by what changed it
        if failed is not None:
            raise failed
        return views.next_series_due()

    def _judged(self, series: Series, now: float) -> list[e.Event]:
        """The verdict; a Series that the node cannot judge is held, and the others go on."""
        views = self.journal.catalog.views
        try:
            instances = views.instances(series.series_uid)
            associations = views.associations(series.series_uid)
            if len(instances) != series.instances:  # more came between the two reads
                series = views.series(series.series_uid) or series
            return self.judge(series, instances, associations, now)
        except CatalogError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever its header holds, it is one Series
            _log.exception("series %s cannot be judged", series.series_uid)
            what = f"{type(error).__name__}: {error}"
            reason = f"the node could not judge it, which is an error of the node: {what}"
            return [e.SeriesHeld(at=now, series_uid=series.series_uid, reason=reason)]

    def judge(
        self,
        series: Series,
        instances: Sequence[Instance],
        associations: Sequence[Association],
        now: float,
    ) -> list[e.Event]:
        """The events that the verdict consists of."""
        split = split_localizers([i.attributes for i in instances])
        brought = Counter(instance.association for instance in instances)
        sent_by = origin(associations, brought, self.router.peers)
        evidence = self._evidence(series, split.volume, associations, sent_by.peer)
        verdict = completeness.judge(evidence, patience_with(sent_by.peer, self.policy), now)
        reasons = (*verdict.reasons, *([sent_by.reason] if sent_by.reason else ()))
        if series.conflicts:
            reasons = (*reasons, _kept_apart(series.conflicts))
        if split.others and split.volume:
            why = sorted({reason for _, reason in split.others})
            reasons = (*reasons, f"{len(split.others)} left out: {'; '.join(why)}")
        removed = sum(not instance.path for instance in instances)
        state = verdict.state
        if removed and state is SeriesState.COMPLETE:
            state = SeriesState.INCOMPLETE  # until they are sent again
            reasons = (_removed(removed, len(instances)), *reasons)
        judged = e.SeriesJudged(
            at=now,
            series_uid=series.series_uid,
            revision=series.revision,
            state=state,
            reasons=reasons,
            due_at=verdict.due_at,
            ask=verdict.ask,
            instances=series.instances,
            was_due_at=series.due_at,
        )
        if state is not SeriesState.COMPLETE:
            return [judged]
        mixed = subject.mixed(instance.attributes for instance in instances)
        return [judged, *self._routed(series, subject.chosen(split), sent_by, mixed, now)]

    def source_of(self, series_uid: str) -> Peer | None:
        """The peer that sent the Series, if it is one."""
        views = self.journal.catalog.views
        associations, brought = views.associations(series_uid), views.brought(series_uid)
        return origin(associations, brought, self.router.peers).peer

    def _evidence(
        self,
        series: Series,
        volume: Sequence[Attributes],
        associations: Sequence[Association],
        source: Peer | None,
    ) -> completeness.Evidence:
        ended = [a for a in associations if a.ended_at is not None]
        last = max(ended, key=lambda a: (a.ended_at or 0.0, a.number), default=None)
        found = stack_of(volume)
        fault = found if isinstance(found, NotAStack) else None
        return completeness.Evidence(
            instances=series.instances,
            planes=len(volume),
            first_at=series.first_at,
            last_at=series.last_at,
            associations=len(associations),
            open_associations=len(associations) - len(ended),
            broken_associations=sum(a.ended != "released" for a in ended),
            heard_since=self.started_at,
            last_end=last.ended if last else None,
            last_end_at=last.ended_at if last else None,
            hole=hole(found),
            doubt=fault.reason if fault is not None and fault.fault in _MAY_BE_MENDED else "",
            expected=_expected(volume),
            can_ask=self.ask_source and source is not None and source.can_be_asked,
            asking_since=series.ask_at,
            asked_at=series.source_at,
            source_count=series.source_count,
            source=series.source,
            released=series.released,
            missed=self.journal.catalog.views.missed(series.series_uid),
        )

    def _routed(
        self,
        series: Series,
        chosen: Sequence[Attributes],
        sent_by: Origin,
        mixed: Sequence[Finding],
        now: float,
    ) -> list[e.Event]:
        found = self.router.plan(series.series_uid, chosen, sent_by, mixed)
        events: list[e.Event] = [
            e.StepScheduled(at=now, step=self._replacing(_step(series, step, chosen, now)))
            for step in found.steps
        ]
        if found.reasons:
            events.append(
                e.SeriesUnrouted(
                    at=now,
                    series_uid=series.series_uid,
                    revision=series.revision,
                    reasons=found.reasons,
                )
            )
        return events

    def _replacing(self, step: Step) -> Step:
        """The step, with the earlier results that its own will replace."""
        views = self.journal.catalog.views
        steps, results = views.steps(step.series_uid), views.results(step.series_uid)
        return replace(step, replaces=supersede.replaces(step, steps, results))


def patience_with(source: Peer | None, policy: completeness.Policy) -> completeness.Policy:
    """The policy, with what the configuration says of this peer."""
    if source is None:
        return policy
    return replace(
        policy,
        release_s=policy.release_s if source.release_s is None else source.release_s,
        quiet_s=policy.quiet_s if source.quiet_s is None else source.quiet_s,
        give_up_s=policy.give_up_s if source.give_up_s is None else source.give_up_s,
    )


def _removed(count: int, of: int) -> str:
    files = "file was" if count == 1 else "files were"
    return f"{count} of its {of} {files} removed: have the Series sent again"


def _kept_apart(conflicts: int) -> str:
    if conflicts == 1:
        return "1 object with the UID of another and other content was kept apart"
    return f"{conflicts} objects with the UIDs of others and other content were kept apart"


def _expected(volume: Sequence[Attributes]) -> int | None:
    """Images in Acquisition (0020,1002), where every plane says the same; one acquisition only."""
    said = {attributes.get("ImagesInAcquisition") for attributes in volume}
    value = said.pop() if len(said) == 1 else None
    return value if isinstance(value, int) and value > 0 else None


def _step(
    series: Series,
    found: StepPlan,
    chosen: Sequence[Attributes],
    now: float,
) -> Step:
    return Step(
        step_id=0,  # the catalog numbers it
        series_uid=series.series_uid,
        revision=series.revision,
        route=found.route,
        tool_id=found.tool_id,
        results=found.results,
        destinations=found.destinations,
        instance_uids=tuple(sorted(str(a["SOPInstanceUID"]) for a in chosen)),
        state=StepState.SCHEDULED,
        attempt=0,
        priority=found.priority,
        due_at=now,
    )
