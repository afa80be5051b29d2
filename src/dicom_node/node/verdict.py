"""Where a Series stands, in one sentence: the first thing that `why` says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from dicom_node.catalog import Catalog
from dicom_node.decide import supersede
from dicom_node.domain import events as e
from dicom_node.domain import keeping as k
from dicom_node.domain.records import Conflict, Delivery, Series, Step
from dicom_node.domain.states import DeliveryState, SeriesState, StepState
from dicom_node.domain.tool import DOUBTFUL, WARNING
from dicom_node.node.words import counted, joined

_SAID = {WARNING: "with a warning", DOUBTFUL: "which is doubtful"}
_NOTE = "rejection"


def verdict(catalog: Catalog, series: Series, events: Sequence[e.Event]) -> str:
    """What became of the Series, or why there is no result, and what to do about it."""
    parts = [
        _state(catalog, series, events),
        *_earlier(catalog, series, events),
        *_lacking(catalog, series, events),
    ]
    return "; ".join(part for part in parts if part)


def results_of(catalog: Catalog, step: Step, events: Sequence[e.Event]) -> list[str]:
    """What a step made; one that ran again on the same input made the same objects."""
    made = [
        event.result.sop_instance_uid
        for event in events
        if isinstance(event, e.ResultStored) and event.result.step_id == step.step_id
    ]
    known = [
        result.sop_instance_uid
        for result in catalog.views.results(step.series_uid)
        if result.step_id == step.step_id
    ]
    return list(dict.fromkeys((*made, *known)))


def _state(catalog: Catalog, series: Series, events: Sequence[e.Event]) -> str:
    release = f"dicom-node release {series.series_uid}"
    match series.state:
        case SeriesState.RECEIVING:
            again = f" (judged again by {_clock(series.due_at)} UTC)" if series.due_at else ""
            return f"still receiving: {series.reason or 'not judged yet'}{again}"
        case SeriesState.HELD:
            more = "; more images came: then a result is made anew"
            since = more if catalog.supersession.outdated(series.series_uid) else ""
            return f"HELD: {series.reason} (to let it go on: {release}{since})"
        case SeriesState.INCOMPLETE:
            if catalog.keeping.removed_of(series.series_uid):
                return f"INCOMPLETE: {series.reason}"  # what was removed cannot be released
            return f"INCOMPLETE: {series.reason} (to process it as it is: {release})"
    steps = _steps(catalog, series)
    if not steps:
        reasons = [event.reasons for event in events if isinstance(event, e.SeriesUnrouted)]
        why = joined(reasons[-1]) if reasons else "no step was scheduled"
        return f"complete, no result: {why}"
    return "; ".join(_of_step(catalog, step, events) for step in steps)


def _steps(catalog: Catalog, series: Series) -> list[Step]:
    """Those on what the Series is now."""
    return [s for s in catalog.views.steps(series.series_uid) if s.revision == series.revision]


def _earlier(catalog: Catalog, series: Series, events: Sequence[e.Event]) -> list[str]:
    """Results that the sentence about its steps leaves out, and where they are."""
    steps = catalog.views.steps(series.series_uid)
    told = {uid for s in steps if s.state is StepState.COMPLETED for uid in s.replaces}
    if series.state is SeriesState.COMPLETE:
        for step in _steps(catalog, series):
            told.update(results_of(catalog, step, events), step.replaces)
    left: dict[str, list[str]] = {}
    for result in catalog.views.results(series.series_uid):
        if result.kind != _NOTE and result.sop_instance_uid not in told:
            left.setdefault(result.tool_id, []).append(result.sop_instance_uid)
    return [
        f"its earlier result of {tool_id}: {', '.join(where) or 'owed to nobody'}"
        for tool_id, uids in left.items()
        for where in [fates(catalog, uids)]
    ]


def _lacking(catalog: Catalog, series: Series, events: Sequence[e.Event]) -> list[str]:
    """What it lacks because it was refused and did not come in a better state, or was removed."""
    parts: list[str] = []
    refused = {
        uid: event.reason
        for event in events
        if isinstance(event, e.InstanceRefused)
        for uid in (event.sop_instance_uid, *event.others)
        if catalog.views.instance(uid) is None
    }
    if refused:
        count = "1 instance was" if len(refused) == 1 else f"{len(refused)} instances were"
        parts.append(f"{count} refused: {joined(dict.fromkeys(refused.values()))}")
    uid = series.series_uid
    apart = [c for c in catalog.views.conflicts(uid) if c.own_series_uid == uid != c.series_uid]
    if apart:
        parts.append(kept_apart(apart))
    last = next((x for x in reversed(events) if isinstance(x, k.SeriesPurged)), None)
    when = "" if last is None else f" on {_day(last.at)} ({joined([last.reason])})"
    lacking = catalog.keeping.removed_of(uid)
    if series.purged_at is not None:
        parts.append(f"its files were removed{when}")
    elif lacking:
        are = "is" if lacking == 1 else "are"
        parts.append(f"{lacking} of its {series.instances} files {are} lacking, removed{when}")
    return parts


def kept_apart(conflicts: Sequence[Conflict]) -> str:
    """What became of objects that another Series had already, by their UIDs."""
    where = ", ".join(dict.fromkeys(c.series_uid for c in conflicts))
    if len(conflicts) == 1:
        return f"1 object was answered 0111 and kept apart: another with its UID is in {where}"
    return (
        f"{len(conflicts)} objects were answered 0111 and kept apart: others with their UIDs are "
        f"in {where}"
    )


def _of_step(catalog: Catalog, step: Step, events: Sequence[e.Event]) -> str:
    if step.state is not StepState.COMPLETED:
        return _unfinished(catalog, step)
    results = [catalog.views.result(uid) for uid in results_of(catalog, step, events)]
    uids = [r.sop_instance_uid for r in results if r is not None and r.kind != _NOTE]
    where = ", ".join(fates(catalog, uids)) or "it stays here: its route sends it to nobody"
    made = f"{step.tool_id} made its result{_warned(step, events)}"
    if step.replaces:
        made += f", which replaces {counted(len(step.replaces), 'earlier one')}"
    return "; ".join([made, where, *_beside(catalog, step, events)])


def _warned(step: Step, events: Sequence[e.Event]) -> str:
    """What the gate let pass with a warning, and what the tool itself doubts."""
    notes = [
        note
        for event in events
        if isinstance(event, e.StepCompleted) and event.step_id == step.step_id
        for note in event.notes
    ]
    parts = []
    for prefix, words in _SAID.items():
        said = [note.removeprefix(prefix) for note in notes if note.startswith(prefix)]
        if said:
            parts.append(f", {words} ({joined(dict.fromkeys(said))})")
    return "".join(parts)


def fates(catalog: Catalog, uids: Sequence[str]) -> list[str]:
    """What became of results at each destination; of many that went the same way, of the first."""
    same: dict[tuple[str, str], list[Delivery]] = {}
    for uid in uids:
        for d in catalog.views.deliveries(uid):
            same.setdefault((d.destination, d.state), []).append(d)
    return [
        f"{to} {fate(group[0])}" + (f" ({counted(len(group), 'object')})" if len(group) > 1 else "")
        for (to, _), group in same.items()
    ]


def _beside(catalog: Catalog, step: Step, events: Sequence[e.Event]) -> list[str]:
    """Who has what was replaced, and whether he was told."""
    notes = {x.delivery_id: x.note_uid for x in events if isinstance(x, e.RejectionOwed)}
    return list(
        dict.fromkeys(
            _told(catalog, d, notes.get(d.delivery_id, ""))
            for uid in step.replaces
            for d in catalog.views.deliveries(uid)
            if d.state in supersede.DELIVERED
        )
    )


def _told(catalog: Catalog, replaced: Delivery, note_uid: str) -> str:
    """What a peer knows of a result that was replaced, and that it has."""
    to = replaced.destination
    note = next((d for d in catalog.views.deliveries(note_uid) if d.destination == to), None)
    if note is None:
        return f"{to} has the earlier one beside it"
    if note.state in supersede.DELIVERED:
        return f"{to} was told to hide the earlier one"
    return f"{to} has the earlier one beside it: the note that tells it to hide it {fate(note)}"


def _unfinished(catalog: Catalog, step: Step) -> str:
    """Why there is no result of a step, and whether there will be one."""
    if not step.replaces:
        return _ending(step)
    where = ", ".join(fates(catalog, step.replaces)) or "owed to nobody"
    return f"{_ending(step)}; its earlier result stays valid: {where}"


def _ending(step: Step) -> str:
    reason = joined([step.reason])
    failed = f"{counted(step.attempt, 'attempt')} failed"
    match step.state:
        case StepState.CANCELED:
            return f"no result of {step.tool_id}: its step was canceled: {reason}"
        case StepState.QUARANTINED:
            return (
                f"no result of {step.tool_id}: its step is quarantined, {failed}: {reason} "
                f"(once that is mended: dicom-node retry {step.series_uid})"
            )
        case StepState.IN_PROGRESS:
            return f"no result of {step.tool_id} yet: its step is in progress"
    if not step.reason:
        return f"no result of {step.tool_id} yet: its step waits for its turn"
    if not step.attempt:
        return f"no result of {step.tool_id} yet: its step waits for its turn ({reason})"
    return (
        f"no result of {step.tool_id} yet: it is tried again at {_clock(step.due_at)} UTC, "
        f"{failed}: {reason} (once that is mended, at once: dicom-node retry {step.series_uid})"
    )


def fate(delivery: Delivery) -> str:
    """What became of a result at its destination, and what can be done about it."""
    reason = joined([delivery.reason])
    because = f" ({reason})" if reason else ""
    match delivery.state:
        case DeliveryState.SENT:
            return "has it"
        case DeliveryState.COMMITTED:
            return "has it, and has committed to keep it"
        case DeliveryState.VERIFIED:
            return "has it, and lists it"
        case DeliveryState.UNCONFIRMED:
            return f"has it, without proof{because}"
        case DeliveryState.DEFERRED:
            attempts = counted(delivery.attempt, "attempt")
            then = f"{attempts}, next at {_clock(delivery.due_at)} UTC"
            return f"is DEFERRED ({reason}; {then})" if reason else f"is DEFERRED ({then})"
        case DeliveryState.PARKED | DeliveryState.DEAD:
            mend = f"once that is mended: dicom-node retry {delivery.result_uid}"
            return f"is {delivery.state} ({reason}; {mend})"
    return f"is {delivery.state}{because}"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
