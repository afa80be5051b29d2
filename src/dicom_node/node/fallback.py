"""A peer takes no Segmentation: it gets pictures of it, if it is configured so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dicom_node.catalog import Catalog
from dicom_node.decide.supersede import replaces
from dicom_node.domain import events as e
from dicom_node.domain.records import Delivery, Peer, Result, Step
from dicom_node.domain.states import StepState
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
    No step where the peer is owed that kind by its route, where one was scheduled for another
    object of the same step, and where more images have arrived: their result will be refused, too.
    """
    step = catalog.views.step(result.step_id)
    if step is None or result.kind != SEG or peer.fallback != SC:
        return []
    withdrawn = e.DeliveryWithdrawn(
        at=now,
        delivery_id=delivery.delivery_id,
        reason=f"{peer.name} does not take Segmentations: Secondary Captures go instead",
    )
    if SC in step.results and peer.name in step.destinations:
        return [withdrawn]
    series = catalog.views.series(result.source_series_uid)
    wanted = _step(step, peer, now)
    steps = catalog.views.steps(step.series_uid)
    known = any(s.route == wanted.route and s.revision == wanted.revision for s in steps)
    if known or series is None or series.revision != step.revision:
        return [withdrawn]
    results = catalog.views.results(step.series_uid)
    wanted = replace(wanted, replaces=replaces(wanted, steps, results))
    return [withdrawn, e.StepScheduled(at=now, step=wanted)]


def _step(step: Step, peer: Peer, now: float) -> Step:
    return Step(
        step_id=0,  # the catalog numbers it
        series_uid=step.series_uid,
        revision=step.revision,
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
