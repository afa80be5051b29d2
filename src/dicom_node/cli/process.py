"""`process`: a model on a folder of files, no node needed."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from dicom_node.cli.bars import bar
from dicom_node.cli.common import (
    EXIT_FAILED,
    complain,
    config_option,
    console,
    json_option,
    print_json,
    progress_console,
)
from dicom_node.config.load import load
from dicom_node.domain.errors import ConfigurationError
from dicom_node.domain.tool import ImageProcessingTool
from dicom_node.iod.image import Reading
from dicom_node.iod.picture import contact_sheet
from dicom_node.node.applicability import judges
from dicom_node.node.decode import Decoders
from dicom_node.node.devices import alone, cores
from dicom_node.node.layout import seg_settings
from dicom_node.node.offline import Answer, answers, find_series
from dicom_node.node.toolbox import load_tool
from dicom_node.tools.registry import load_models


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--out", "out", required=True, type=click.Path(path_type=Path, file_okay=False),
              help="Where results and pictures go; made where missing.")  # fmt: skip
@click.option("--tool", "tool_id", default="lung-unet", show_default=True, help="Id of a model.")
@config_option
@json_option
def process(folder: Path, out: Path, tool_id: str, config_path: Path | None, as_json: bool) -> int:
    """Run a model on every series under FOLDER.

    Each series gets a result (a SEG and a picture) or the reason why not. Exit 0 if at least one
    result was made.
    """
    config = load(config_path)
    manifests = load_models(config.models_dir)
    if tool_id not in manifests:
        raise ConfigurationError(
            [f"there is no model {tool_id!r}: known are {', '.join(manifests)}"], "--tool"
        )

    place = alone(config.engine.device)

    @cache
    def tool() -> ImageProcessingTool:
        return load_tool(manifests[tool_id], config, place)

    found, unused = find_series(folder)
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    threads = place.threads(config.engine.threads, cores())
    with Decoders() as decoders, bar(progress_console()) as shown:
        task = shown.add_task("slices", total=None)
        for answer in answers(
            found,
            tool,
            judges(manifests)[tool_id],
            seg_settings(config),
            reading=Reading(threads=threads, decode=decoders),
            progress=lambda done, total: shown.update(task, completed=done, total=total),
        ):
            rows.append(_written(answer, out))
            if not as_json:
                _print(rows[-1], shown.console if console().is_terminal else console())
    if as_json:
        print_json({"series": rows, "unused": {str(p): why for p, why in unused.items()}})
    elif unused:
        for path, why in list(unused.items())[:10]:
            complain(f"{path.name}: {why}")
        if len(unused) > 10:
            complain(f"and {len(unused) - 10} more files of no use")
    if not rows and not as_json:
        complain(f"there is no DICOM series in {folder}")
    return 0 if any(row["files"] for row in rows) else EXIT_FAILED


def _written(answer: Answer, out: Path) -> dict[str, Any]:
    """The result's files in `out`, named by its UID; and what to say of the series."""
    first = answer.series.sources[0].attributes
    row: dict[str, Any] = {
        "series_uid": answer.series.series_uid,
        "modality": first.get("Modality", ""),
        "description": first.get("SeriesDescription", ""),
        "instances": len(answer.series.sources),
        "folder": str(answer.series.sources[0].path.parent),
        "reason": answer.reason,
        "files": [],
    }
    outcome = answer.outcome
    if outcome is None:
        return row
    for produced, result in zip(outcome.produced, outcome.results, strict=True):
        seg = out / f"{produced.sop_instance_uid}.dcm"
        seg.write_bytes(produced.data)
        picture = seg.with_suffix(".png")
        picture.write_bytes(contact_sheet(outcome.volume, result.labels_zyx, result.segments))
        row["files"] += [str(seg), str(picture)]
        row["measurements"] = dict(produced.summary)
    row["seconds"] = {name: round(value, 3) for name, value in outcome.seconds.items()}
    row["notes"] = list(outcome.notes)
    row["doubts"] = list(outcome.doubts)
    return row


def _print(row: dict[str, Any], to: Console) -> None:
    name = f"{row['modality']} {row['description']}".strip()
    to.print(f"{name or 'series'}, {row['instances']} instances", style="bold", markup=False)
    to.print(f"  {row['series_uid']}", markup=False)
    to.print(f"  in {row['folder']}", markup=False)
    if row["reason"]:
        to.print(f"  no result: {row['reason']}", style="yellow", markup=False)
        return
    volumes = ", ".join(f"{label} {ml:g} mL" for label, ml in row["measurements"].items())
    times = ", ".join(f"{part} {s:.2f} s" for part, s in row["seconds"].items())
    to.print(f"  {volumes or 'nothing found'} ({times})", markup=False)
    for note in row["notes"]:
        to.print(f"  note: {note}", style="yellow", markup=False)
    for file in row["files"]:
        to.print(f"  {file}", markup=False)
