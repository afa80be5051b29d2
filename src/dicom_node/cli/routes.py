"""`routes`: which way would this series go?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from dicom_node.cli.asking import counted
from dicom_node.cli.common import EXIT_FAILED, complain, config_option, json_option, print_json
from dicom_node.cli.telling import say
from dicom_node.config.load import Config, load
from dicom_node.decide import subject
from dicom_node.decide.geometry import split_localizers
from dicom_node.decide.routing import Plan, Sender, plan
from dicom_node.domain.records import Attributes
from dicom_node.iod.header import read_attributes
from dicom_node.node.applicability import judges
from dicom_node.node.offline import find_series
from dicom_node.node.respool import sender_of
from dicom_node.tools.registry import load_models


@click.group()
def routes() -> None:
    """Test the routes against DICOM files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """left_out: reasons why some instances are no part of the volume."""

    header: Attributes
    left_out: tuple[str, ...]
    found: Plan


@routes.command("test")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--from", "sender", default="ANY@127.0.0.1", help="Peer, or AET@address. Who sends?")
@config_option
@json_option
def test(path: Path, sender: str, config_path: Path | None, as_json: bool) -> int:
    """Which steps each series in the folder (or of the one file) PATH would get, or why none.

    Nothing is sent and nothing is run; the node need not be running.
    """
    config = load(config_path)
    who = _sender(config, sender)
    tried = [_tried(config, who, some) for some in _series(path)]
    if as_json:
        print_json([_plain(one) for one in tried])
    else:
        for one in tried:
            _print(one)
    if not tried:
        complain(f"there is no DICOM series under {path}")
    elif path.is_file() and not as_json:
        say("One file was looked at: for clauses on InstancesInSeries give the series' folder.")
    return 0 if any(one.found.steps for one in tried) else EXIT_FAILED


def _sender(config: Config, text: str) -> Sender:
    known = sender_of(config.peer(text))
    title, _, address = text.partition("@")
    title, address = known or (title, address or "127.0.0.1")
    return Sender(ae_title=title, address=address)


def _series(path: Path) -> Iterator[Sequence[Attributes]]:
    if path.is_file():
        yield [read_attributes(path)]
        return
    for found in find_series(path)[0]:
        yield [source.attributes for source in found.sources]


def _tried(config: Config, sender: Sender, instances: Sequence[Attributes]) -> _Tried:
    """As the node does it when the series is complete."""
    split = split_localizers(instances)
    chosen = subject.chosen(split)
    header = subject.header(chosen, calling_ae=sender.ae_title, called_ae=config.node.ae_title)
    models = judges(load_models(config.models_dir))
    found = plan(
        attributes=header,
        sender=sender,
        peers=config.peers,
        applicability={name: judge(header) for name, judge in models.items()},
        routes=config.routes,
        mixed=subject.mixed(instances),
    )
    left_out = tuple(reason for _, reason in split.others) if split.volume else ()
    return _Tried(header=header, left_out=left_out, found=found)


def _print(tried: _Tried) -> None:
    header = tried.header
    name = " ".join(str(header.get(k) or "") for k in ("Modality", "SeriesDescription")).strip()
    say(f"series {header.get('SeriesInstanceUID') or '?'}", bold=True)
    count = counted(int(str(header["InstancesInSeries"])), "image")
    others = f", {len(tried.left_out)} left out: {'; '.join(sorted(set(tried.left_out)))}"
    say(f"{name or '?'}, {count}{others if tried.left_out else ''}", head="  ", indent=2)
    for step in tried.found.steps:
        to = ", ".join(step.destinations) or "nobody"
        say(f"{step.route}: {step.tool_id} -> {to}", head="  ", indent=2, colour="green")
    for reason in tried.found.reasons:
        say(reason, head="  ", indent=2)


def _plain(tried: _Tried) -> dict[str, Any]:
    return {
        "series_uid": tried.header.get("SeriesInstanceUID"),
        "images": tried.header["InstancesInSeries"],
        "left_out": tried.left_out,
        "steps": [
            {"route": s.route, "tool": s.tool_id, "to": s.destinations} for s in tried.found.steps
        ],
        "reasons": tried.found.reasons,
    }
