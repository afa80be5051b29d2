"""A peer does not take a Segmentation: it gets pictures of it, if it is configured so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from dicom_node.catalog import Catalog
from dicom_node.decide.supersede import replaces
from dicom_node.domain import events as e
from dicom_node.domain.records import Delivery, Peer, Result, Series, Step
from dicom_node.domain.states import SeriesState, StepState
from dicom_node.node.clock import Clock
from dicom_node.node.encode import SC, SEG


def instead(catalog: Catalog, clock: Clock) -> Callable[[Delivery, Result, Peer], list[e.Event]]:
    """`instead_of` with a catalog and a clock, as the deliverer calls it."""

    def events(delivery: Delivery, result: Result, peer: Peer) -> list[e.Event]:
        return instead_of(catalog, delivery=delivery, result=result, peer=peer, now=clock.now())

    return events


def instead_of(
    catalog: Catalog, *, delivery: Delivery, result: Result, peer: Peer, now: float
) -> list[e.Event]:
    """What follows where a peer refuses this result for its kind; nothing if nothing else goes.

    To be committed behind the DeliveryEnded that parks the delivery: it is withdrawn, and a step
    scheduled on the same input with the same tool, that makes the other kind for this peer alone.
    No step where the peer is owed that kind by its route, or one was scheduled for another object
    of the same step. Where a newer result is still to be expected, the delivery stays parked: that
    replaces it, or a person tries it again.
    """
    step = catalog.views.step(result.step_id)
    if step is None or result.kind != SEG or peer.fallback != SC:
        return []
    withdrawn = e.DeliveryWithdrawn(
        at=now,
        delivery_id=delivery.delivery_id,
        reason=f"{peer.name} did not take this Segmentation: Secondary Captures go instead",
    )
    if SC in step.results and peer.name in step.destinations:
        return [withdrawn]
    series = catalog.views.series(result.source_series_uid)
    steps = catalog.views.steps(step.series_uid)
    if series is None or _newer_expected(step, series, steps):
        return []
    wanted = _step(step, peer, series.revision, now)
    if any(s.route == wanted.route and s.revision == wanted.revision for s in steps):
        return [withdrawn]
    results = catalog.views.results(step.series_uid)
    wanted = replace(wanted, replaces=replaces(wanted, steps, results))
    return [withdrawn, e.StepScheduled(at=now, step=wanted)]


def _newer_expected(step: Step, series: Series, steps: Sequence[Step]) -> bool:
    """Whether the Series has gone on to other images, of which there is or may be a result."""
    if series.revision == step.revision:
        return False
    newer = [
        s
        for s in steps
        if s.revision > step.revision
        and s.tool_id == step.tool_id
        and s.instance_uids != step.instance_uids
        and s.state not in (StepState.CANCELED, StepState.QUARANTINED)
    ]
    return series.state is not SeriesState.COMPLETE or bool(newer)


def _step(step: Step, peer: Peer, revision: int, now: float) -> Step:
    return Step(
        step_id=0,  # the catalog numbers it
        series_uid=step.series_uid,
        revision=revision,
        route=f"{step.route}, pictures for {peer.name}",
        tool_id=step.tool_id,
        results=(SC,),
        destinations=(peer.name,),
        instance_uids=step.instance_uids,
        state=StepState.SCHEDULED,
        attempt=0,
        priority=step.priority,
        due_at=now,
    )
