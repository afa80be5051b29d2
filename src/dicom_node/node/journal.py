"""What is worth logging is worth committing: one place does both, and wakes who is concerned."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dicom_node.catalog import Catalog
from dicom_node.domain import events as e
from dicom_node.domain import keeping as k
from dicom_node.domain.errors import CatalogDamaged
from dicom_node.domain.states import SeriesState
from dicom_node.domain.text import printable
from dicom_node.node import bell as bells
from dicom_node.node import words
from dicom_node.node.audited import AUDITED

_log = logging.getLogger("dicom_node")
_SHOUT_S = 60.0


class Journal:
    """Commits events to the catalog, logs a line for each, and rings the stage that comes next."""

    def __init__(
        self, catalog: Catalog, bell: bells.Bell, performers: int = bells.PERFORMERS_MAX
    ) -> None:
        self.catalog = catalog
        self._bell = bell
        self._performers = performers
        self._shouted_at = float("-inf")

    def _shout(self, error: CatalogDamaged, at: float) -> None:
        """Once a minute: a sender may try hundreds of times."""
        if at - self._shouted_at >= _SHOUT_S:
            self._shouted_at = at
            _log.critical("%s", error)

    def commit(self, *events: e.Event) -> list[str]:
        """As Catalog.commit. Raises CatalogError."""
        try:
            outcomes = self.catalog.commit(*events)
        except CatalogDamaged as error:
            self._shout(error, max((event.at for event in events), default=0.0))
            raise
        for event, outcome in zip(events, outcomes, strict=True):
            self.log(event, outcome)
        if any(isinstance(event, AUDITED) for event in events):
            self._bell.ring(bells.AUDIT)
        for stage in {stage for event in events for stage in _concerned(event)}:
            if stage == bells.PERFORM:
                for number in range(self._performers):
                    self._bell.ring(stage, number)
            else:
                self._bell.ring(stage)
        return outcomes

    def log(self, event: e.Event, outcome: str = "") -> None:
        """Write the line of an event: UIDs and AE titles, no patient data.

        outcome: as Catalog.commit gives it.
        """
        level = _level(event, outcome)
        if _log.isEnabledFor(level):
            names = words.Names(views=self.catalog.views)
            text = _about(event, names) + words.sentence(event, names, outcome)
            _log.log(level, "%s", printable(text))


def _concerned(event: e.Event) -> Sequence[str]:  # noqa: PLR0911  # a table
    match event:
        case e.InstanceArrived() | e.AssociationEnded():
            return (bells.ASSEMBLE, bells.PERFORM)  # performers work ahead
        case e.SourceCounted() | e.SeriesReopened():
            return (bells.ASSEMBLE,)
        case e.SeriesJudged(ask=True):
            return (bells.ASK,)
        case e.SeriesReleased():
            return (bells.ASSEMBLE, bells.PERFORM, bells.DELIVER)
        case e.StepScheduled() | e.StepFailed() | e.StepReset():
            return (bells.PERFORM,)
        case e.DeliveryQueued() | e.DeliveryReset():
            return (bells.DELIVER,)
        case e.DeliveryEnded():
            # a result may have been replaced while it was sent: a performer settles that
            return (bells.CONFIRM, bells.RETAIN, bells.PERFORM)
        case k.PeerReached():
            return (bells.DELIVER,)
        case k.DeliveryConfirmed():
            return (bells.DELIVER, bells.RETAIN)
        case k.CommitmentAsked() | k.CommitmentReportEnded():
            return (bells.PROMISE,)
    return ()


def _level(event: e.Event, outcome: str) -> int:
    """How loud: DEBUG for each instance and each attempt, WARNING for what did not go well."""
    if not words.is_well(event) or outcome == "conflict":
        return logging.WARNING
    match event:
        case e.SeriesJudged(state=SeriesState.RECEIVING):
            return logging.DEBUG
        case (
            e.InstanceArrived() | e.StepClaimed() | e.ResultStored() | e.DeliveryQueued()
            | e.DeliveryClaimed() | k.ProofAwaited() | k.SeriesPromised()
        ):  # fmt: skip
            return logging.DEBUG
    return logging.INFO


def _about(event: e.Event, names: words.Names) -> str:
    """The Series, and the result, that the line is about: `why` takes either."""
    match event:
        case (
            e.SeriesJudged() | e.SeriesUnrouted() | e.SourceCounted() | e.SeriesHeld()
            | e.SeriesReleased() | e.SeriesReopened() | k.SeriesPromised() | k.SeriesPurged()
            | k.FilesRemoved() | k.InstanceRestored() | k.ResultLost()
        ):  # fmt: skip
            return f"series {event.series_uid}: "
        case e.StepScheduled(step=step):
            return f"series {step.series_uid}: "
        case (
            e.StepClaimed() | e.StepCompleted() | e.StepCanceled() | e.StepFailed()
            | e.StepReturned() | e.StepReset()
        ):  # fmt: skip
            return f"series {names.series_of_step(event.step_id)}: "
        case e.ResultStored(result=result):
            return f"series {result.source_series_uid}: "
        case e.DeliveryQueued(delivery=delivery):
            return f"result {delivery.result_uid}: "
        case (
            e.DeliveryClaimed() | e.DeliveryEnded() | e.DeliveryWithdrawn() | e.DeliveryReset()
            | e.RejectionOwed() | k.ProofAwaited() | k.DeliveryConfirmed()
        ):  # fmt: skip
            uid, series_uid = names.views.result_of_delivery(event.delivery_id)
            return f"series {series_uid}: result {uid}: "
    return ""
