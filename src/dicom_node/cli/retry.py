"""`retry`: an operator's second chance."""

from __future__ import annotations

from pathlib import Path

import click

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
    catalog = open_catalog(config)
    now = SystemClock().now()
    events: list[e.Event] = []
    for series in catalog.views.find_series(what):
        steps = catalog.views.steps(series.series_uid)
        events += [
            e.StepReset(at=now, step_id=step.step_id)
            for step in steps
            if step.state in _STEPS and step.revision == series.revision
        ]
        for result in catalog.views.results(series.series_uid):
            events += [
                e.DeliveryReset(at=now, delivery_id=delivery.delivery_id)
                for delivery in catalog.views.deliveries(result.sop_instance_uid)
                if delivery.state in _DELIVERIES
            ]
    if events:
        Journal(catalog, bells.Bell(config.data_dir)).commit(*events)
    steps_reset = sum(isinstance(event, e.StepReset) for event in events)
    counts = {"steps": steps_reset, "deliveries": len(events) - steps_reset}
    if as_json:
        print_json(counts)
    elif events:
        click.echo(f"{counts['steps']} steps and {counts['deliveries']} deliveries are due again")
    else:
        complain(f"nothing of {what} has failed")
    return 0 if events else EXIT_FAILED
