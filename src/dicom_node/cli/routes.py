"""`routes`: which way would this object go?"""

from __future__ import annotations

from pathlib import Path

import click

from dicom_node.cli.common import EXIT_FAILED, config_option, json_option, print_json
from dicom_node.config.load import load
from dicom_node.decide.routing import Sender, plan
from dicom_node.iod.header import read_attributes
from dicom_node.node.applicability import judges
from dicom_node.tools.registry import load_models


@click.group()
def routes() -> None:
    """Test the routes against a DICOM file."""


@routes.command("test")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--from", "sender", default="ANY@127.0.0.1", help="Who sends it: AET@address.")
@config_option
@json_option
def test(file: Path, sender: str, config_path: Path | None, as_json: bool) -> int:
    """Which steps a series of objects like FILE would get, and why not the others."""
    config = load(config_path)
    ae_title, _, address = sender.partition("@")
    attributes = {
        **read_attributes(file),
        "CallingAE": ae_title,
        "CalledAE": config.node.ae_title,
        "InstancesInSeries": 1,
    }
    applicability = {
        name: judge(attributes) for name, judge in judges(load_models(config.models_dir)).items()
    }
    found = plan(
        attributes=attributes,
        sender=Sender(ae_title=ae_title, address=address or "127.0.0.1"),
        peers=config.peers,
        applicability=applicability,
        routes=config.routes,
    )
    if as_json:
        print_json(
            {
                "steps": [
                    {"route": s.route, "tool": s.tool_id, "to": s.destinations} for s in found.steps
                ],
                "reasons": found.reasons,
            }
        )
    for step in found.steps if not as_json else ():
        click.echo(f"{step.route}: {step.tool_id} -> {', '.join(step.destinations) or 'nobody'}")
    for reason in found.reasons if not as_json else ():
        click.echo(reason)
    return 0 if found.steps else EXIT_FAILED
