"""`retry`: an operator's second chance, for one patient or for everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from dicom_node.catalog import Catalog
from dicom_node.cli.asking import counted
from dicom_node.cli.common import EXIT_FAILED, complain, config_option, json_option, print_json
from dicom_node.cli.examine import node_runs
from dicom_node.cli.opened import open_catalog
from dicom_node.cli.what import list_them, named, what_argument
from dicom_node.config.load import Config, load
from dicom_node.domain import events as e
from dicom_node.domain.records import Delivery, Series
from dicom_node.domain.states import DELIVERY_TRANSITIONS, DeliveryState, SeriesState, StepState
from dicom_node.node import bell as bells
from dicom_node.node.clock import SystemClock
from dicom_node.node.journal import Journal

_STEPS = {StepState.CANCELED, StepState.QUARANTINED}
_FAILED = {DeliveryState.PARKED, DeliveryState.DEAD, DeliveryState.DEFERRED}
_AGAIN = {
    state
    for state, following in DELIVERY_TRANSITIONS.items()
    if DeliveryState.QUEUED in following and state not in (*_FAILED, DeliveryState.WITHDRAWN)
}
_ASKED = "an operator asked for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is wanted beside the failed: again, what peers have; judge, what routes took."""

    again: bool
    judge: bool
    to: str | None
    now: float


@click.command()
@what_argument(required=False)
@click.option("--all", "everything", is_flag=True, help="All that failed, of every series.")
@click.option("--to", metavar="PEER", help="Only deliveries, and only those to this peer.")
@click.option("--again", is_flag=True, help="Send also what the peer has taken already.")
@click.option("--judge", is_flag=True, help="Ask the routes anew, also where they gave steps.")
@config_option
@json_option
def retry(
    what: str | None,
    everything: bool,
    to: str | None,
    again: bool,
    judge: bool,
    config_path: Path | None,
    as_json: bool,
) -> int:
    """Try again what failed for WHAT, or --all that failed.

    Tried again are steps that failed, were canceled or are quarantined, and deliveries that were
    parked, deferred or given up. A complete series that no route took is judged anew: by the routes
    and models that the node has read at its start, so restart it after a change. --all leaves out
    canceled steps, and, without --judge, the series that no route took.

    WHAT is a UID (study, series, instance or result), an accession number or a patient ID.
    """
    if (what is not None) == everything:
        raise click.UsageError("Say what to try again: a UID, an accession number, or --all.")
    if everything and again:
        raise click.UsageError("--again is for one WHAT: not everything is sent anew at once.")
    config = load(config_path)
    if to is not None and config.peer(to) is None:
        known = ", ".join(peer.name for peer in config.peers) or "none"
        raise click.UsageError(f"No peer is named {to}; known: {known}.")
    wish = Wish(again=again, judge=judge, to=to, now=SystemClock().now())
    with open_catalog(config) as catalog:
        found = catalog.views.find_series(what) if what else []
        events = list(_of_all(catalog, wish) if everything else _of(catalog, found, wish))
        sending = catalog.attention.sending(wish.to) if everything else _sending(catalog, found)
        _commit(config, catalog, events)
        reason = "" if events else _nothing(catalog, what, found, wish)
        hit = _hit(catalog, events)
    counts = _counts(events)
    meanwhile = (
        f"; {sending} {'is' if sending == 1 else 'are'} being sent right now" if sending else ""
    )
    if as_json:
        print_json({**counts, "sending": sending, "hit": named(hit), "reason": reason})
    elif events:
        _say(counts, runs=node_runs(config), meanwhile=meanwhile)
        list_them(hit)
    else:
        complain(f"{reason}{meanwhile}")
    return 0 if events else EXIT_FAILED


def _of(catalog: Catalog, found: Iterable[Series], wish: Wish) -> Iterator[e.Event]:
    for series in found:
        uid = series.series_uid
        if series.purged_at is not None:
            continue
        if wish.to is None:
            judged = wish.judge and series.state is SeriesState.COMPLETE
            if judged or catalog.attention.is_unrouted(uid):
                yield e.SeriesReopened(at=wish.now, series_uid=uid, reason=_ASKED)
            else:
                yield from _steps(catalog, series, wish)
        for delivery in _deliveries(catalog, uid):
            wanted = wish.to in (None, delivery.destination)
            if wanted and (delivery.state in _FAILED or (wish.again and _again(catalog, delivery))):
                yield e.DeliveryReset(at=wish.now, delivery_id=delivery.delivery_id)


def _again(catalog: Catalog, delivery: Delivery) -> bool:
    """What a peer has taken; and what it was not sent, for it got another kind, or its file was
    gone, and can be sent now."""
    if delivery.state is not DeliveryState.WITHDRAWN:
        return delivery.state in _AGAIN
    result = catalog.views.result(delivery.result_uid)
    return result is not None and bool(result.path)


def _steps(catalog: Catalog, series: Series, wish: Wish) -> Iterator[e.Event]:
    for step in catalog.views.steps(series.series_uid):
        waits = step.state is StepState.SCHEDULED and step.attempt > 0
        if (waits or step.state in _STEPS) and step.revision == series.revision:
            yield e.StepReset(at=wish.now, step_id=step.step_id)


def _deliveries(catalog: Catalog, series_uid: str) -> Iterator[Delivery]:
    """What is owed of a Series; what was replaced is not sent any more, whatever became of it."""
    for result in catalog.views.results(series_uid):
        for delivery in catalog.views.deliveries(result.sop_instance_uid):
            if delivery.replaced_by is None:
                yield delivery


def _sending(catalog: Catalog, found: Iterable[Series]) -> int:
    return sum(
        delivery.state is DeliveryState.SENDING
        for series in found
        for delivery in _deliveries(catalog, series.series_uid)
    )


def _hit(catalog: Catalog, events: Iterable[e.Event]) -> list[Series]:
    """The Series that the events belong to."""
    uids: dict[str, None] = {}
    for event in events:
        match event:
            case e.SeriesReopened():
                uids[event.series_uid] = None
            case e.StepReset():
                uids[catalog.views.series_of_step(event.step_id)] = None
            case e.DeliveryReset():
                uids[catalog.views.result_of_delivery(event.delivery_id)[1]] = None
    return [series for uid in uids if (series := catalog.views.series(uid)) is not None]


def _of_all(catalog: Catalog, wish: Wish) -> Iterator[e.Event]:
    if wish.to is None:
        for step_id in catalog.attention.failed_steps():
            yield e.StepReset(at=wish.now, step_id=step_id)
    for delivery_id, destination in catalog.attention.undelivered():
        if wish.to in (None, destination):
            yield e.DeliveryReset(at=wish.now, delivery_id=delivery_id)
    if wish.judge:
        for uid in catalog.attention.unrouted():
            yield e.SeriesReopened(at=wish.now, series_uid=uid, reason=_ASKED)


def _commit(config: Config, catalog: Catalog, events: list[e.Event]) -> None:
    if events:
        bell = bells.Bell(config.data_dir)
        Journal(catalog, bell).commit(*events)
        bell.close()


def _nothing(catalog: Catalog, what: str | None, found: list[Series], wish: Wish) -> str:
    """Why there is nothing to do."""
    if what is None:
        return "nothing has failed"
    if not found:
        return f"the node has received nothing with {what}"
    lacking = {
        series.series_uid
        for series in found
        if series.purged_at is not None or catalog.keeping.removed_of(series.series_uid)
    }
    for series in found:
        lacks = series.series_uid in lacking
        if series.state is SeriesState.HELD or (
            series.state is SeriesState.INCOMPLETE and not lacks
        ):
            return f"nothing of {what} has failed; to let it go on: dicom-node release {what}"
    if lacking:
        return f"the files of {what} were removed from the disk: have the images sent again"
    fates = {d.state for series in found for d in _deliveries(catalog, series.series_uid)}
    if fates & _AGAIN and not wish.again:
        return (
            f"nothing of {what} has failed; to send it once more: dicom-node retry {what} --again"
        )
    return f"nothing of {what} has failed"


def _counts(events: list[e.Event]) -> dict[str, int]:
    kinds = Counter(type(event) for event in events)
    return {
        "steps": kinds[e.StepReset],
        "deliveries": kinds[e.DeliveryReset],
        "series": kinds[e.SeriesReopened],
    }


def _say(counts: dict[str, int], *, runs: bool, meanwhile: str) -> None:
    deliveries = "1 delivery" if counts["deliveries"] == 1 else f"{counts['deliveries']} deliveries"
    parts = {
        "steps": counted(counts["steps"], "step"),
        "deliveries": deliveries,
        "series": f"the judgment of {counts['series']} series",
    }
    text = ", ".join(part for kind, part in parts.items() if counts[kind])
    due = "due again" if runs else "due when the node runs: it is not running"
    click.echo(f"{text}: {due}{meanwhile}")
