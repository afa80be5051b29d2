"""What becomes of a result when a newer one is made of the same Series.

From more images, by another version of the tool or the node, or with other settings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from dicom_node.domain.records import Result, Step
from dicom_node.domain.states import DeliveryState, StepState

DELIVERED = frozenset(
    {
        DeliveryState.SENT,
        DeliveryState.COMMITTED,
        DeliveryState.VERIFIED,
        DeliveryState.UNCONFIRMED,
    }
)
UNSENT = frozenset(
    {DeliveryState.QUEUED, DeliveryState.DEFERRED, DeliveryState.PARKED, DeliveryState.DEAD}
)
_ON_THEIR_WAY = frozenset({DeliveryState.QUEUED, DeliveryState.DEFERRED, DeliveryState.SENDING})

SUPERSEDED = "superseded before it was sent: a newer result was made"
OUTDATED = "outdated before it was sent: more images came while its Series was held"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """One delivery of a result that was replaced.

    series_uid: of the result. step_id: the step that replaced it. newer: the states of what is owed
    to the same peer of the same kind, of that step and later ones.
    """

    delivery_id: int
    destination: str
    state: DeliveryState
    result_uid: str
    series_uid: str
    step_id: int
    newer: frozenset[DeliveryState] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteDue:
    """A rejection note that is due: about a Series of results, for peers that have some of it."""

    series_uid: str
    step_id: int
    destinations: tuple[str, ...]
    delivery_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """withdrawn: deliveries that are not to be made any more."""

    withdrawn: tuple[int, ...] = ()
    notes: tuple[NoteDue, ...] = ()


def settle(replaced: Iterable[Replaced], told: Collection[str]) -> Settlement:
    """What is to be done now about results that were replaced.

    told: the peers that honour rejection notes. What was not sent is withdrawn. A peer that has it
    is told once it has the newer one and no part of that is on its way: it is never left without.
    What is being sent is looked at again when it has ended.
    """
    withdrawn: list[int] = []
    due: dict[str, list[Replaced]] = {}
    for one in replaced:
        if one.state in UNSENT:
            withdrawn.append(one.delivery_id)
        elif one.state in DELIVERED and one.destination in told and _has_newer(one):
            due.setdefault(one.series_uid, []).append(one)
    notes = tuple(
        NoteDue(
            series_uid=series_uid,
            step_id=min(one.step_id for one in group),
            destinations=tuple(dict.fromkeys(one.destination for one in group)),
            delivery_ids=tuple(one.delivery_id for one in group),
        )
        for series_uid, group in sorted(due.items())
    )
    return Settlement(withdrawn=tuple(withdrawn), notes=notes)


def _has_newer(one: Replaced) -> bool:
    return bool(one.newer & DELIVERED) and not one.newer & _ON_THEIR_WAY


def replaces(step: Step, steps: Sequence[Step], results: Sequence[Result]) -> tuple[str, ...]:
    """SOP Instance UIDs of the results that those of a step will replace.

    steps, results: of its Series, so far. Results of its tool and its kinds from other judgments,
    without those that were replaced already. One that it makes again it does not replace: see
    `again`.
    """
    fellows = _fellows(step, steps)
    gone = {uid for s in _completed(step, steps) for uid in s.replaces}
    made = {
        r.sop_instance_uid
        for r in results
        if r.tool_id == step.tool_id and r.kind in step.results and r.step_id not in fellows
    }
    return tuple(sorted(made - gone))


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """What a step may make once more: Series UIDs of results that are valid, and what they may have
    replaced when they were made (SOP Instance UIDs), the latest first."""

    series: frozenset[str]
    replaced: tuple[tuple[str, ...], ...]


def again(step: Step, steps: Sequence[Step], results: Sequence[Result]) -> Again:
    """Of a step that replaces what `replaces` said, or makes the very same once more.

    The same input, tool, version and settings make the same object, if it names what the first one
    named. So nothing is replaced by itself, and no node makes two of one.
    """
    fellows = _fellows(step, steps)
    valid = {
        r.series_uid
        for r in results
        if r.tool_id == step.tool_id
        and (r.sop_instance_uid in step.replaces or r.step_id in fellows)
    }
    replaced = [s.replaces for s in reversed(_completed(step, steps))]
    return Again(series=frozenset(valid), replaced=tuple(dict.fromkeys((*replaced, ()))))


def _fellows(step: Step, steps: Sequence[Step]) -> frozenset[int]:
    """Steps of the same judgment: for another peer, or another route."""
    return frozenset(s.step_id for s in steps if s.revision == step.revision)


def _completed(step: Step, steps: Sequence[Step]) -> list[Step]:
    return [s for s in steps if s.tool_id == step.tool_id and s.state is StepState.COMPLETED]
