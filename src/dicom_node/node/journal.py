"""What is worth logging is worth committing: one place does both, and wakes who is concerned."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dicom_node.catalog import Catalog
from dicom_node.domain import events as e
from dicom_node.domain.states import DeliveryState, SeriesState
from dicom_node.node import bell as bells

_log = logging.getLogger("dicom_node")


class Journal:
    """Commits events to the catalog, logs a line for each, and rings the stage that comes next."""

    def __init__(self, catalog: Catalog, bell: bells.Bell, performers: int = 1) -> None:
        self.catalog = catalog
        self._bell = bell
        self._performers = performers

    def commit(self, *events: e.Event) -> list[str]:
        """As Catalog.commit. Raises CatalogError."""
        outcomes = self.catalog.commit(*events)
        for event, outcome in zip(events, outcomes, strict=True):
            write_line(event, outcome)
        for stage in {stage for event in events for stage in _concerned(event)}:
            if stage == bells.PERFORM:
                for number in range(self._performers):
                    self._bell.ring(stage, number)
            else:
                self._bell.ring(stage)
        return outcomes


def _concerned(event: e.Event) -> Sequence[str]:
    match event:
        case e.AssociationEnded() | e.InstanceArrived() | e.SourceCounted():
            return (bells.ASSEMBLE,)
        case e.SeriesJudged(ask=True):
            return (bells.ASK,)
        case e.SeriesReleased():
            return (bells.ASSEMBLE, bells.PERFORM, bells.DELIVER)
        case e.StepScheduled() | e.StepFailed() | e.StepReset():
            return (bells.PERFORM,)
        case e.DeliveryQueued() | e.DeliveryReset():
            return (bells.DELIVER,)
    return ()


def write_line(event: e.Event, outcome: str = "") -> None:
    """The log line of an event: UIDs and AE titles, no patient data."""
    level, text = _line(event, outcome)
    if text:
        _log.log(level, "%s", printable(text))


def printable(text: str) -> str:
    """Control characters escaped: what a peer sends cannot forge a line or drive a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _line(event: e.Event, outcome: str) -> tuple[int, str]:  # noqa: C901, PLR0911, PLR0912  # a table
    info, warning, debug = logging.INFO, logging.WARNING, logging.DEBUG
    match event:
        case e.NodeStarted():
            return info, f"dicom-node {event.version} started"
        case e.AssociationOpened():
            return info, f"association {event.number} from {event.calling_ae} at {event.address}"
        case e.AssociationEnded():
            return info, f"association {event.number} {event.how}"
        case e.AssociationRejected():
            return warning, f"rejected {event.calling_ae} at {event.address}: {event.reason}"
        case e.InstanceArrived(instance=i) if outcome == "conflict":
            uid = i.sop_instance_uid
            return warning, f"instance {uid} came with other content: kept apart"
        case e.InstanceArrived(instance=i):
            return debug, f"instance {i.sop_instance_uid} {outcome}"
        case e.InstanceRefused():
            uid, who = event.sop_instance_uid, event.calling_ae
            return warning, f"refused {uid} of {who} with 0x{event.status:04X}: {event.reason}"
        case e.SeriesJudged():
            level = debug if event.state is SeriesState.RECEIVING else info
            return level, f"series {event.series_uid} {event.state}: {'; '.join(event.reasons)}"
        case e.SourceCounted():
            return info, f"series {event.series_uid}: {event.source}"
        case e.SeriesHeld():
            return warning, f"series {event.series_uid} HELD: {event.reason}"
        case e.SeriesReleased():
            return info, f"series {event.series_uid} released: {event.reason}"
        case e.SeriesUnrouted():
            return info, f"series {event.series_uid} not routed: {'; '.join(event.reasons)}"
        case e.StepScheduled(step=s):
            return info, f"series {s.series_uid}: {s.tool_id} scheduled by route {s.route}"
        case e.StepCompleted():
            times = ", ".join(f"{name} {value:.2f} s" for name, value in event.seconds.items())
            return info, f"step {event.step_id} completed: {times}"
        case e.StepCanceled():
            return warning, f"step {event.step_id} canceled: {event.reason}"
        case e.StepFailed():
            what = "failed" if event.retry_at is not None else "quarantined"
            return warning, f"step {event.step_id} {what}: {event.reason}"
        case e.DeliveryEnded():
            level = info if event.state is DeliveryState.SENT else warning
            return level, f"delivery {event.delivery_id} {event.state} {event.reason}".rstrip()
        case e.StepClaimed() | e.DeliveryQueued() | e.ResultStored() | e.DeliveryClaimed():
            return debug, f"{type(event).__name__} {event}"
        case e.StepReset():
            return info, f"step {event.step_id} reset by an operator"
        case e.DeliveryReset():
            return info, f"delivery {event.delivery_id} reset by an operator"
