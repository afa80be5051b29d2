"""`status`: what came in, what was made of it, where it went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from dicom_node.catalog import Catalog
from dicom_node.cli.common import config_option, console, json_option, print_json
from dicom_node.cli.opened import open_catalog
from dicom_node.config.load import load
from dicom_node.domain.records import Series
from dicom_node.node.why import clock_text

_MARKS = {"COMPLETE": "green", "RECEIVING": "cyan", "INCOMPLETE": "red", "HELD": "yellow"}


@click.command()
@config_option
@json_option
@click.option("--limit", default=20, show_default=True, help="How many series, newest first.")
def status(config_path: Path | None, as_json: bool, limit: int) -> None:
    """What the node has received, made and delivered; also while it runs."""
    with open_catalog(load(config_path)) as catalog:
        rows = [_row(catalog, series) for series in catalog.views.all_series(limit)]
        counts, unhappy = catalog.views.counts(), catalog.views.unhappy()
    if as_json:
        print_json({"counts": counts, "needs_attention": dict(unhappy), "series": rows})
        return
    out = console()
    if not rows:
        out.print("nothing has been received yet")
        return
    table = Table(title=f"{counts['series']} series, newest first", title_justify="left")
    table.add_column("last image (UTC)")
    table.add_column("series", overflow="ellipsis", max_width=24)
    table.add_column("images", justify="right")
    table.add_column("state")
    table.add_column("results", overflow="fold")
    for row in rows:
        mark = _MARKS[row["state"]]
        name = f"{row['modality']} {row['description']}".strip() or row["series_uid"]
        table.add_row(
            row["last_at"][:19].replace(" ", "\n"),
            name,
            str(row["instances"]),
            f"[{mark}]{row['state']}[/]",
            "\n".join(row["results"]),
        )
    out.print(table)
    for state, number in unhappy:
        out.print(f"[yellow]{number} {state}[/]: see [bold]dicom-node why UID[/] for the reason")


def _row(catalog: Catalog, series: Series) -> dict[str, Any]:
    results = [
        f"{result.tool_id} -> {d.destination} {d.state}"
        for result in catalog.views.results(series.series_uid)
        for d in catalog.views.deliveries(result.sop_instance_uid)
    ]
    open_steps = [
        f"{step.tool_id} {step.state}"
        for step in catalog.views.steps(series.series_uid)
        if step.state != "COMPLETED"
    ]
    return {
        "series_uid": series.series_uid,
        "study_uid": series.study_uid,
        "modality": series.modality,
        "description": series.description,
        "instances": series.instances,
        "state": str(series.state),
        "reason": series.reason,
        "last_at": clock_text(series.last_at),
        "results": [*results, *open_steps] or ["-"],
    }
