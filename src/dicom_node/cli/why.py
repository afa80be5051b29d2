"""`why`: the story of a series, or of a refusal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from dicom_node.catalog import Catalog
from dicom_node.cli.asking import counted
from dicom_node.cli.common import EXIT_FAILED, complain, config_option, json_option, print_json
from dicom_node.cli.opened import open_catalog
from dicom_node.cli.telling import say
from dicom_node.cli.what import what_argument
from dicom_node.config.load import load
from dicom_node.domain.records import Series
from dicom_node.node.digest import digest
from dicom_node.node.why import Line, Story, clock_text, stories

_WHOLE = 3  # more stories than that are told by their verdicts
_INDENT = 12


@click.command()
@what_argument()
@click.option("--all", "everything", is_flag=True, help="Every event, and every story, in full.")
@config_option
@json_option
def why(what: str, everything: bool, config_path: Path | None, as_json: bool) -> int:
    """Tell the story of WHAT, or why there is no result.

    WHAT is a UID (study, series, instance or result), an accession number, a patient ID, or the AE
    title or the address of a peer that was turned away. Times are UTC.
    """
    with open_catalog(load(config_path)) as catalog:
        found = stories(catalog, what)
        if as_json:
            print_json([_plain(catalog, story) for story in found])
        rejected = catalog.attention.rejected() if not found else []
    if found and not as_json:
        _tell(found, everything=everything)
    elif not found:
        complain(
            f"the node knows nothing of {what}: nothing with it was received or made, and of what "
            "was refused it knows the UIDs alone",
            *(
                f"{title} was rejected {counted(times, 'time')}, last at {clock_text(at)[:19]}: "
                f"dicom-node why {title}"
                for title, times, at in rejected[:_WHOLE]
            ),
        )
    return 0 if found else EXIT_FAILED


def _tell(found: Sequence[Story], *, everything: bool) -> None:
    if len(found) <= _WHOLE or everything:
        for story in found:
            _print(story, everything=everything)
        return
    for story in found:
        _head(story)
        click.echo()
    say(f"{len(found)} series; dicom-node why SERIES_UID tells the story of one")


def _print(story: Story, *, everything: bool) -> None:
    _head(story)
    day = ""
    for line in story.lines if everything else digest(story.lines):
        date, clock = clock_text(line.at)[:-1].split(" ")
        if date != day:
            say(f"{date} UTC", head="  ", indent=2)
            day = date
        say(line.text, head=f"  {clock[:8]}", indent=_INDENT)
    click.echo()


def _head(story: Story) -> None:
    if story.series is not None:
        s = story.series
        say(f"series {s.series_uid}", bold=True)
        say(_described(s), head="  ", indent=2)
        say(f"study {s.study_uid}", head="  ", indent=2)
    for text in story.about:
        say(text)
    say(story.verdict, colour="cyan")


def _described(s: Series) -> str:
    """What it is and whose, as far as the header says."""
    name = f" {s.description}" if s.description else ""
    revision = f" (revision {s.revision})" if s.revision > 1 else ""
    parts = [
        f"{s.modality or '?'}{name}",
        counted(s.instances, "instance"),
        f"{s.state}{revision}",
        f"patient {s.patient_id}" if s.patient_id else "",
        f"accession {s.accession_number}" if s.accession_number else "",
    ]
    return ", ".join(part for part in parts if part)


def _plain(catalog: Catalog, story: Story) -> dict[str, Any]:
    """Everything that is known, for programs: no line is left out."""
    told: dict[str, Any] = {
        "verdict": story.verdict,
        "about": story.about,
        "lines": [_plain_line(line) for line in story.lines],
        "kept_apart": [asdict(c) for c in story.kept_apart],
    }
    s = story.series
    if s is None:
        return {"series_uid": None, "study_uid": None, "state": None, **told}
    return {
        **asdict(s),
        **told,
        "steps": [asdict(step) for step in catalog.views.steps(s.series_uid)],
        "results": [
            {
                **asdict(result),
                "deliveries": [
                    asdict(d) for d in catalog.views.deliveries(result.sop_instance_uid)
                ],
            }
            for result in catalog.views.results(s.series_uid)
        ],
    }


def _plain_line(line: Line) -> dict[str, Any]:
    return {
        "at": clock_text(line.at),
        "kind": line.kind,
        "text": line.text,
        "detail": line.detail,
    }
