"""`hold` and `release`: an operator stops a series, or lets it go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from dicom_node.catalog import Catalog
from dicom_node.cli.common import EXIT_FAILED, complain, config_option, json_option, print_json
from dicom_node.cli.opened import open_catalog
from dicom_node.cli.what import list_them, named, what_argument
from dicom_node.config.load import load
from dicom_node.decide.supersede import OUTDATED
from dicom_node.domain import events as e
from dicom_node.domain.records import Series
from dicom_node.domain.states import SeriesState
from dicom_node.node import bell as bells
from dicom_node.node.clock import SystemClock
from dicom_node.node.journal import Journal

_reason = click.option("--reason", default="", help="Why: kept, and shown by `why`.")


@click.command()
@what_argument()
@_reason
@config_option
@json_option
def hold(what: str, reason: str, config_path: Path | None, as_json: bool) -> int:
    """Stop WHAT: nothing of it is judged, processed or sent until it is released.

    WHAT is a UID (study, series, instance or result), an accession number or a patient ID.
    """
    text = f"an operator held it: {reason}" if reason else "an operator held it"

    def held(_catalog: Catalog, series: Series, now: float) -> list[e.Event] | str:
        if series.state is SeriesState.HELD:
            return "it is held already"
        return [e.SeriesHeld(at=now, series_uid=series.series_uid, reason=text)]

    return _change(what, config_path, held, as_json=as_json, done="held")


@click.command()
@what_argument()
@_reason
@config_option
@json_option
def release(what: str, reason: str, config_path: Path | None, as_json: bool) -> int:
    """Let WHAT go on: what was held, and what is INCOMPLETE or still waited for, as it is.

    What is INCOMPLETE because its files were removed cannot go on: have it sent again. Where images
    came while it was held, a result is made anew, and what was made of fewer images is not sent.

    WHAT is a UID (study, series, instance or result), an accession number or a patient ID.
    """
    text = f"an operator released it: {reason}" if reason else "an operator released it"

    def released(catalog: Catalog, series: Series, now: float) -> list[e.Event] | str:
        if series.state is SeriesState.COMPLETE:
            return "it is complete already"
        incomplete = series.state is SeriesState.INCOMPLETE
        if incomplete and catalog.keeping.removed_of(series.series_uid):
            return "files of it were removed from the disk: have the images sent again"
        outdated = catalog.supersession.outdated(series.series_uid)
        return [
            *(e.DeliveryWithdrawn(at=now, delivery_id=d, reason=OUTDATED) for d in outdated),
            e.SeriesReleased(
                at=now,
                series_uid=series.series_uid,
                reason=text,
                revision=series.revision if series.state is SeriesState.HELD else None,
            ),
        ]

    return _change(what, config_path, released, as_json=as_json, done="released")


def _change(
    what: str,
    config_path: Path | None,
    events_of: Callable[[Catalog, Series, float], list[e.Event] | str],
    *,
    as_json: bool,
    done: str,
) -> int:
    """Commit the events of each Series that `what` leads to, and say which changed.

    events_of: gives the events, or why there are none.
    """
    config = load(config_path)
    now = SystemClock().now()
    with open_catalog(config) as catalog:
        found = catalog.views.find_series(what)
        answers = [(series, events_of(catalog, series, now)) for series in found]
        events = [one for _, answer in answers if not isinstance(answer, str) for one in answer]
        if events:
            bell = bells.Bell(config.data_dir)
            Journal(catalog, bell).commit(*events)
            bell.close()
    hit = [series for series, answer in answers if not isinstance(answer, str)]
    reasons = dict.fromkeys(answer for _, answer in answers if isinstance(answer, str))
    if as_json:
        print_json({done: len(hit), "hit": named(hit)})
    elif hit:
        click.echo(f"{len(hit)} series {done}")
        list_them(hit)
    elif found:
        complain(f"nothing of {what} was {done}: {'; '.join(reasons)}")
    else:
        complain(f"the node has received nothing with {what}")
    return 0 if hit else EXIT_FAILED
