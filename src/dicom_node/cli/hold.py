"""`hold` and `release`: an operator stops a series, or lets it go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from dicom_node.cli.common import EXIT_FAILED, complain, config_option, json_option, print_json
from dicom_node.cli.opened import open_catalog
from dicom_node.cli.what import list_them, named, what_argument
from dicom_node.config.load import load
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

    def held(series: Series, now: float) -> e.Event | None:
        if series.state is SeriesState.HELD:
            return None
        return e.SeriesHeld(at=now, series_uid=series.series_uid, reason=text)

    return _change(what, config_path, held, as_json=as_json, done="held", already="held already")


@click.command()
@what_argument()
@_reason
@config_option
@json_option
def release(what: str, reason: str, config_path: Path | None, as_json: bool) -> int:
    """Let WHAT go on: what was held, and what is INCOMPLETE or still waited for, as it is.

    WHAT is a UID (study, series, instance or result), an accession number or a patient ID.
    """
    text = f"an operator released it: {reason}" if reason else "an operator released it"

    def released(series: Series, now: float) -> e.Event | None:
        if series.state is SeriesState.COMPLETE:
            return None
        return e.SeriesReleased(at=now, series_uid=series.series_uid, reason=text)

    return _change(
        what, config_path, released, as_json=as_json, done="released", already="complete already"
    )


def _change(
    what: str,
    config_path: Path | None,
    event_of: Callable[[Series, float], e.Event | None],
    *,
    as_json: bool,
    done: str,
    already: str,
) -> int:
    """Commit the event of each Series that `what` leads to, and say which changed."""
    config = load(config_path)
    now = SystemClock().now()
    with open_catalog(config) as catalog:
        found = catalog.views.find_series(what)
        changed = [
            (series, event) for series in found if (event := event_of(series, now)) is not None
        ]
        if changed:
            bell = bells.Bell(config.data_dir)
            Journal(catalog, bell).commit(*(event for _, event in changed))
            bell.close()
    hit = [series for series, _ in changed]
    if as_json:
        print_json({done: len(hit), "hit": named(hit)})
    elif hit:
        click.echo(f"{len(hit)} series {done}")
        list_them(hit)
    elif found:
        complain(f"all series of {what} are {already}")
    else:
        complain(f"the node has received nothing with {what}")
    return 0 if changed else EXIT_FAILED
