"""What the catalog knows and the spool lacks, though nobody removed it.

A received object cannot be made again: its Series is held, and a person has to bring it back. A
result can: its step is scheduled once more, where somebody still waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from dicom_node.decide.supersede import UNSENT
from dicom_node.domain import events as e
from dicom_node.domain.keeping import ResultLost
from dicom_node.domain.records import Result, Step
from dicom_node.domain.states import DeliveryState, SeriesState, StepState
from dicom_node.iod.provenance import REJECTION
from dicom_node.node.journal import Journal
from dicom_node.node.reasons import LOST

_log = logging.getLogger("dicom_node")

_LINES_MAX = 20  # of one kind, in the log


def hold_lacking(journal: Journal, lost: Mapping[str, int], now: float) -> None:
    """Shout about Series that lack files, and hold them. lost: Series -> how many."""
    for number, (series_uid, count) in enumerate(sorted(lost.items())):
        if number < _LINES_MAX:
            _log.critical("%s %s of series %s", LOST, _files(count), series_uid)
        _hold(journal, series_uid, count, now)
    if len(lost) > _LINES_MAX:
        _log.critical("%s files of %d series in all", LOST, len(lost))


def _hold(journal: Journal, series_uid: str, count: int, now: float) -> None:
    series = journal.catalog.views.series(series_uid)
    if series is None or series.state is SeriesState.HELD:
        return
    reason = (
        f"{LOST} {_files(count)} of it: restore them, or have the images sent again, "
        f"then dicom-node release {series_uid}"
    )
    journal.commit(e.SeriesHeld(at=now, series_uid=series_uid, reason=reason))


def note_lost_result(journal: Journal, result_uid: str, now: float) -> None:
    """Note it once, and schedule the step that makes it again, if somebody still waits for it."""
    result = journal.catalog.views.result(result_uid)
    if result is None or not result.path:
        return
    waiting = _waiting(journal, result)
    step = _step_again(journal, result, now) if waiting else None
    noted = ResultLost(
        at=now,
        sop_instance_uid=result_uid,
        series_uid=result.source_series_uid,
        reason=_what_follows(result, ", ".join(waiting), again=step is not None),
    )
    scheduled = step is not None and not _is_under_way(journal, step)
    journal.commit(noted, *([e.StepScheduled(at=now, step=step)] if step and scheduled else []))


def _what_follows(result: Result, waiting: str, *, again: bool) -> str:
    if again:
        return f"it is made again for {waiting}"
    if result.kind == REJECTION:
        return f"{waiting} did not get it: reject there by hand what was replaced" * bool(waiting)
    who = f"{waiting} did not get it" if waiting else "nobody waits for it"
    return f"{who}; to make it again: dicom-node retry --judge {result.source_series_uid}"


def _waiting(journal: Journal, result: Result) -> list[str]:
    """Who is still to get it; nobody, if a newer one has taken its place."""
    views, uid = journal.catalog.views, result.sop_instance_uid
    steps = views.steps(result.source_series_uid)
    if any(uid in step.replaces for step in steps if step.state is StepState.COMPLETED):
        return []
    to_send = UNSENT | {DeliveryState.SENDING}
    return sorted({d.destination for d in views.deliveries(uid) if d.state in to_send})


def _step_again(journal: Journal, result: Result, now: float) -> Step | None:
    """The step of a result, to be performed anew: the same tool makes the same objects, another
    version of it makes what replaces them.

    None where its Series has changed since, or no step made it.
    """
    views = journal.catalog.views
    series = views.series(result.source_series_uid)
    made_by = views.step(result.step_id)
    if series is None or made_by is None or result.kind == REJECTION:
        return None
    if SeriesState.COMPLETE not in (series.state, series.held_from):
        return None
    if series.revision != made_by.revision:
        return None
    lost = {r.sop_instance_uid for r in views.results(series.series_uid) if _is_of(r, made_by)}
    return replace(
        made_by,
        step_id=0,
        replaces=tuple(sorted(lost.union(made_by.replaces))),
        state=StepState.SCHEDULED,
        attempt=0,
        due_at=now,
        claimed_at=None,
        lease_until=None,
        transaction_uid=None,
        reason="",
        created_at=now,
    )


def _is_of(result: Result, step: Step) -> bool:
    return result.step_id == step.step_id and result.kind != REJECTION


def _is_under_way(journal: Journal, step: Step) -> bool:
    """One step may make several results."""
    return any(
        (one.route, one.revision) == (step.route, step.revision)
        and one.state in (StepState.SCHEDULED, StepState.IN_PROGRESS)
        for one in journal.catalog.views.steps(step.series_uid)
    )


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
