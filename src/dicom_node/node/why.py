"""The story of a Series in plain words, from its first association to the fate of its results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dicom_node.catalog import Catalog
from dicom_node.domain import events as e
from dicom_node.domain.records import Series, Step
from dicom_node.domain.states import DeliveryState, SeriesState, StepState


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One sentence of a story; `at` in UTC seconds."""

    at: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """verdict: the whole in one sentence. lines: what happened, in order."""

    series: Series | None
    verdict: str
    lines: tuple[Line, ...]


def stories(catalog: Catalog, text: str) -> list[Story]:
    """A story for each Series that `text` leads to: a UID of any level, an accession number, a
    patient ID. Refused instances and rejected AE titles are found by their own UID or title."""
    found = [_story(catalog, series) for series in catalog.views.find_series(text)]
    known = {story.series.series_uid for story in found if story.series}
    events = [*catalog.views.events_about(text), *catalog.views.events_of(text)]
    alone = [
        event
        for _, event in events
        if isinstance(event, e.AssociationRejected)
        or (isinstance(event, e.InstanceRefused) and event.series_uid not in known)
    ]
    if alone:
        lines = tuple(line for event in alone for line in _lines(event, None))
        found.append(Story(series=None, verdict=lines[-1].text, lines=lines))
    return found


def _story(catalog: Catalog, series: Series) -> Story:
    events = [event for _, event in catalog.views.events_of(series.series_uid)]
    lines: list[Line] = []
    for association in catalog.views.associations(series.series_uid):
        lines.append(
            Line(
                at=association.opened_at,
                text=f"{association.calling_ae} at {association.address} opened association "
                f"{association.number}",
            )
        )
        if association.ended_at is not None:
            lines.append(
                Line(
                    at=association.ended_at,
                    text=f"association {association.number} was {association.ended}",
                )
            )
    lines.extend(_arrivals([event for event in events if isinstance(event, e.InstanceArrived)]))
    lines.extend(
        Line(
            at=conflict.received_at,
            text=f"instance {conflict.sop_instance_uid} came over association "
            f"{conflict.association} with other content: kept apart as {conflict.path}",
        )
        for conflict in catalog.views.conflicts(series.series_uid)
    )
    for event in events:
        lines.extend(_lines(event, catalog))
    lines.sort(key=lambda line: line.at)
    verdict = _verdict(catalog, series, events) + _refused(catalog, events)
    return Story(series=series, verdict=verdict, lines=tuple(lines))


def _arrivals(events: Sequence[e.InstanceArrived]) -> Iterator[Line]:
    """One line an association, not one an instance."""
    by_association: dict[int, list[e.InstanceArrived]] = {}
    for event in events:
        by_association.setdefault(event.instance.association, []).append(event)
    for number, arrived in by_association.items():
        plural = "instance" if len(arrived) == 1 else "instances"
        yield Line(
            at=arrived[-1].at,
            text=f"{len(arrived)} {plural} stored over association {number}",
        )


def _lines(event: e.Event, catalog: Catalog | None) -> Iterator[Line]:  # noqa: C901, PLR0912  # a table
    text = ""
    match event:
        case e.AssociationRejected():
            text = (
                f"{event.calling_ae} at {event.address}, calling {event.called_ae}, was rejected: "
                f"{event.reason}"
            )
        case e.InstanceRefused():
            text = (
                f"instance {event.sop_instance_uid} from {event.calling_ae} was refused with "
                f"0x{event.status:04X}: {event.reason}"
            )
        case e.SeriesJudged():
            verb = "waits" if event.state is SeriesState.RECEIVING else f"is {event.state}"
            text = f"the Series {verb}: {_joined(event.reasons)}"
        case e.SourceCounted():
            text = f"asked the source: {event.source}"
        case e.SeriesHeld():
            text = f"the Series was held: {event.reason}"
        case e.SeriesReleased():
            text = f"the Series was released: {event.reason}"
        case e.SeriesUnrouted():
            text = f"routing: {_joined(event.reasons)}"
        case e.StepScheduled(step=step):
            text = f"{step.tool_id} was scheduled by route '{step.route}' on {_inputs(step)}"
        case e.StepClaimed():
            text = f"step {event.step_id} was taken by {event.performer}"
        case e.StepCompleted():
            notes = f" ({_joined(event.notes)})" if event.notes else ""
            text = f"step {event.step_id} took {sum(event.seconds.values()):.2f} s{notes}"
        case e.StepCanceled():
            text = f"step {event.step_id} was canceled: {_joined([event.reason])}"
        case e.StepFailed():
            then = "it is tried again" if event.retry_at is not None else "it is quarantined"
            text = f"step {event.step_id} failed: {_joined([event.reason])}; {then}"
        case e.StepReset():
            text = f"an operator asked for step {event.step_id} again"
        case e.ResultStored(result=result):
            text = f"result {result.sop_instance_uid} ({result.kind}) was made"
        case e.DeliveryEnded() | e.DeliveryClaimed() | e.DeliveryReset() if catalog is not None:
            text = _of_delivery(event, catalog)
    if text:
        yield Line(at=event.at, text=text)


def _inputs(step: object) -> str:
    count = len(getattr(step, "instance_uids", ()))
    return f"{count} instance" if count == 1 else f"{count} instances"


def _of_delivery(
    event: e.DeliveryEnded | e.DeliveryClaimed | e.DeliveryReset, catalog: Catalog
) -> str:
    uid, _ = catalog.views.result_of_delivery(event.delivery_id)
    to = next(
        (
            d.destination
            for d in catalog.views.deliveries(uid)
            if d.delivery_id == event.delivery_id
        ),
        "?",
    )
    match event:
        case e.DeliveryClaimed():
            return f"sending it to {to}"
        case e.DeliveryReset():
            return f"an operator asked for it to be sent to {to} again"
        case e.DeliveryEnded():
            status = f" with 0x{event.status:04X}" if event.status is not None else ""
            reason = f": {event.reason}" if event.reason else ""
            return f"{to}: {event.state}{status}{reason}"


def _verdict(catalog: Catalog, series: Series, events: Sequence[e.Event]) -> str:
    """Where the Series stands, in one sentence."""
    if series.state is SeriesState.RECEIVING:
        return f"still receiving: {series.reason or 'not judged yet'}"
    if series.state is SeriesState.HELD:
        return f"HELD: {series.reason} (to let it go on: dicom-node release {series.series_uid})"
    if series.state is SeriesState.INCOMPLETE:
        return (
            f"INCOMPLETE: {series.reason} (to process it as it is: "
            f"dicom-node release {series.series_uid})"
        )
    steps = [s for s in catalog.views.steps(series.series_uid) if s.revision == series.revision]
    if not steps:
        reasons = [event.reasons for event in events if isinstance(event, e.SeriesUnrouted)]
        why = _joined(reasons[-1]) if reasons else "no step was scheduled"
        return f"complete, no result: {why}"
    parts = [_step_verdict(catalog, series, step.step_id) for step in steps]
    return "; ".join(parts)


def _refused(catalog: Catalog, events: Sequence[e.Event]) -> str:
    """What the Series lacks because it was refused, and did not come in a better state since."""
    refused = {
        event.sop_instance_uid: event.reason
        for event in events
        if isinstance(event, e.InstanceRefused)
        and catalog.views.instance(event.sop_instance_uid) is None
    }
    if not refused:
        return ""
    count = "1 instance was" if len(refused) == 1 else f"{len(refused)} instances were"
    return f"; {count} refused: {_joined(dict.fromkeys(refused.values()))}"


def _joined(reasons: Iterable[str]) -> str:
    """Reasons as one sentence, whether or not they end with a full stop."""
    return "; ".join(reason.rstrip(". ") for reason in reasons)


def _step_verdict(catalog: Catalog, series: Series, step_id: int) -> str:
    step = catalog.views.step(step_id)
    if step is None:
        return ""
    if step.state is not StepState.COMPLETED:
        return _unfinished(step)
    results = [r for r in catalog.views.results(series.series_uid) if r.tool_id == step.tool_id]
    fates = [
        f"{d.destination} {_fate(d.state)}" + (f" ({d.reason})" if d.reason else "")
        for result in results
        for d in catalog.views.deliveries(result.sop_instance_uid)
    ]
    return f"{step.tool_id} made its result; " + (
        ", ".join(fates) or "it stays here: its route sends it to nobody"
    )


def _unfinished(step: Step) -> str:
    """Why there is no result of a step, and whether there will be one."""
    reason = _joined([step.reason])
    failed = f"{step.attempt} {'attempt' if step.attempt == 1 else 'attempts'} failed"
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
    return f"no result of {step.tool_id} yet: it is tried again, {failed}: {reason}"


def _fate(state: DeliveryState) -> str:
    return "has it" if state in (DeliveryState.SENT, DeliveryState.COMMITTED) else f"is {state}"


def clock_text(at: float) -> str:
    """A time as people read it: UTC, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
