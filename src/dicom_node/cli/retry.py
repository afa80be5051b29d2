"""`retry`: an operator's second chance."""

from __future__ import annotations

from pathlib import Path

import click

from dicom_node.catalog import Catalog
from dicom_node.cli.common import EXIT_FAILED, complain, config_option, json_option, print_json
from dicom_node.cli.opened import open_catalog
from dicom_node.config.load import load
from dicom_node.domain import events as e
from dicom_node.domain.states import DeliveryState, StepState
from dicom_node.node import bell as bells
from dicom_node.node.clock import SystemClock
from dicom_node.node.journal import Journal

_STEPS = {StepState.CANCELED, StepState.QUARANTINED}
_DELIVERIES = {DeliveryState.PARKED, DeliveryState.DEAD, DeliveryState.DEFERRED}


@click.command()
@click.argument("what")
@config_option
@json_option
def retry(what: str, config_path: Path | None, as_json: bool) -> int:
    """Try again what failed for WHAT: its canceled or quarantined steps, its parked, deferred or
    dead deliveries.

    WHAT is a UID (study, series, instance or result), an accession number or a patient ID.
    """
    config = load(config_path)
    with open_catalog(config) as catalog:
        events = _resets(catalog, what, SystemClock().now())
        if events:
            bell = bells.Bell(config.data_dir)
            Journal(catalog, bell).commit(*events)
            bell.close()
    steps_reset = sum(isinstance(event, e.StepReset) for event in events)
    counts = {"steps": steps_reset, "deliveries": len(events) - steps_reset}
    if as_json:
        print_json(counts)
    elif events:
        click.echo(f"{counts['steps']} steps and {counts['deliveries']} deliveries are due again")
    else:
        complain(f"nothing of {what} has failed")
    return 0 if events else EXIT_FAILED


def _resets(catalog: Catalog, what: str, now: float) -> list[e.Event]:
    events: list[e.Event] = []
    for series in catalog.views.find_series(what):
        events += [
            e.StepReset(at=now, step_id=step.step_id)
            for step in catalog.views.steps(series.series_uid)
            if step.state in _STEPS and step.revision == series.revision
        ]
        for result in catalog.views.results(series.series_uid):
            events += [
                e.DeliveryReset(at=now, delivery_id=delivery.delivery_id)
                for delivery in catalog.views.deliveries(result.sop_instance_uid)
                if delivery.state in _DELIVERIES
            ]
    return events
