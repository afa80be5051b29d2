"""`why`: the story of a series, or of a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dicom_node.cli.common import EXIT_FAILED, complain, config_option, json_option, print_json
from dicom_node.cli.common import console as out
from dicom_node.cli.opened import open_catalog
from dicom_node.config.load import load
from dicom_node.node.journal import printable
from dicom_node.node.why import Story, clock_text, stories


@click.command()
@click.argument("what")
@config_option
@json_option
def why(what: str, config_path: Path | None, as_json: bool) -> int:
    """Tell the story of WHAT, or why there is no result.

    WHAT is a UID (study, series, instance or result), an accession number, a patient ID, or the AE
    title of a peer that was turned away.
    """
    with open_catalog(load(config_path)) as catalog:
        found = stories(catalog, what)
    if as_json:
        print_json([_plain(story) for story in found])
        return 0 if found else EXIT_FAILED
    if not found:
        complain(
            f"the node has never heard of {what}: nothing with it was received, made or refused"
        )
        return EXIT_FAILED
    for story in found:
        _print(story)
    return 0


def _print(story: Story) -> None:
    console = out()
    if story.series is not None:
        s = story.series
        plural = "instance" if s.instances == 1 else "instances"
        head = f"series {s.series_uid} ({s.modality or '?'}, {s.instances} {plural})"
        console.print(printable(head), style="bold", markup=False)
    console.print(printable(story.verdict), style="cyan", markup=False)
    for line in story.lines:
        text = f"  {clock_text(line.at)[11:]}  {printable(line.text)}"
        console.print(text, markup=False)
    console.print()


def _plain(story: Story) -> dict[str, Any]:
    return {
        "series_uid": story.series.series_uid if story.series else None,
        "study_uid": story.series.study_uid if story.series else None,
        "state": str(story.series.state) if story.series else None,
        "verdict": story.verdict,
        "lines": [{"at": clock_text(line.at), "text": line.text} for line in story.lines],
    }
