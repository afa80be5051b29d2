"""Score a model as the product runs it, on real series that it was not trained on.

    python models/lung-unet/train/evaluate.py --data DIR --manifest FILE --out evaluation.json
    python models/lung-unet/train/evaluate.py ... --weights FILE     # not yet published ones

DIR holds test/NAME/ and quirks/NAME/ with DICOM files, and train/NAME/ with volumes; FILE is
MANIFEST.toml, the labels beside it. --quick takes a few minutes on two cores: painted disease,
other positions and other fields of view on the shortest series only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import data
import drawn
import numpy as np
import situations
from model_folder import copy_with
from numpy.typing import NDArray
from reading import as_text
from scores import SIDES, dice, scored, truth_for, worst_slice
from trials import TRIALS, filled

from dicom_node.domain.errors import NodeError
from dicom_node.domain.tool import ImageProcessingTool, SegmentationResult, ToolContext
from dicom_node.domain.volume import Volume, canonical
from dicom_node.iod.image import read_headers, read_volume
from dicom_node.tools.registry import build_tool, load_models

MODELS = Path(__file__).parents[2]
QUIRKS = {  # series without lung: what they show; whether the same patient was trained on
    "head-c3n": ("head", True),
    "pelvis-acrin001": ("pelvis", True),
    "cerr-hn-511": ("neck", False),
    "no-sop-class": ("abdomen", True),
}
VOLUMES = {  # archives of train/: what they show beyond lung; whether they were trained on
    "head-cerebrix": ("head", False),
    "rtog0522": ("neck in a mask, with cloth about it", False),
    "totalseg-abdomen": ("abdomen", True),
    "sts-limbs": ("limbs, single slices", True),
}
UNLABELLED = {  # series with lung, but without a label: what they show
    "prone-single-slices": "prone, single slices",
    "ibsi-phantom-one-lung": "one half of a chest",
    "lungdx-a0001-second-series": "another kernel",
}
BEYOND_MM = 20.0  # from the next slice with lung: what is called so there is not
SHORT = 40  # slices: a series that is done in a moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A test series; truth in its slice order, with the values of the label files."""

    name: str
    kind: str
    volume: Volume
    truth: NDArray[np.uint8]


def series_of(folder: Path) -> list[list[Path]]:
    """The CT files under a folder, one list a Series."""
    found = defaultdict(list)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        try:
            header = read_headers([path])[0]
        except NodeError:
            continue
        if header.get("Modality", "CT") == "CT":
            found[header.get("SeriesInstanceUID", "")].append(path)
    return list(found.values())


def labelled(folder: Path, manifest: Path, only: str | None = None) -> Iterator[Labelled]:
    """Every test series that has a label, or one of them."""
    for entry in data.entries(manifest, "test"):
        name, label = str(entry["name"]), str(entry["label"]).split()[0]
        if label == "none" or only not in (None, name):
            continue
        volume = read_volume(series_of(folder / "test" / name)[0])
        truth = truth_for(volume, manifest.parent / label)
        yield Labelled(name=name, kind=label.split(".")[-2], volume=volume, truth=truth)


def run(tool: ImageProcessingTool, volume: Volume) -> SegmentationResult:
    return tool.process(volume, ToolContext())[0]


def plain(tool: ImageProcessingTool, this: Labelled) -> dict[str, object]:
    began = time.perf_counter()
    made = run(tool, this.volume)
    seconds = time.perf_counter() - began
    row = {"label": this.kind, **scored(made.labels_zyx, this.truth, this.volume)}
    row["seconds_per_slice"] = round(seconds / len(this.truth), 4)
    row["doubts"] = list(made.doubts)
    return row


def recalls(
    tool: ImageProcessingTool, volume: Volume, truth: NDArray[np.uint8], chosen: Sequence[str]
) -> dict[str, float]:
    """Share of the voxels of each trial disease that is found on its side, by trial and side."""
    turned, order = canonical(volume)
    lungs = order.apply(truth)
    found = {}
    for trial in chosen:
        for side, (segment, value) in SIDES.items():
            where = TRIALS[trial](lungs == value, turned.spacing_zyx_mm)
            if not where.any():
                continue
            texture = "grain" if side == "right" else "stripes"
            voxels = filled(turned.voxels_zyx.astype(np.float32), where, texture)
            sick = replace(
                volume, voxels_zyx=np.ascontiguousarray(order.undo(voxels)), slice_keys=()
            )
            hit = run(tool, sick).labels_zyx[np.asarray(order.undo(where))] == segment
            found[f"{trial} {side}"] = round(float(hit.mean()), 3)
    return found


def stomach_gas(tool: ImageProcessingTool, this: Labelled) -> dict[str, object]:
    """Lung found in gas that was painted beside the left lung's base; {} where there is no room."""
    turned, order = canonical(this.volume)
    painted = situations.with_stomach_gas(turned, np.asarray(order.apply(this.truth)))
    if painted is None:
        return {}
    volume, gas = painted
    wrong = (run(tool, volume).labels_zyx > 0) & gas
    _, row, column = turned.spacing_zyx_mm
    in_all = round(int(np.count_nonzero(gas)) * turned.voxel_ml, 1)
    worst = worst_slice(np.count_nonzero(wrong, axis=(1, 2)) * row * column / 100)
    return {"ml": in_all, **worst}


def against_contours(tool: ImageProcessingTool, this: Labelled) -> dict[str, object]:
    """What drawn contours leave out, and what it would cost to follow them."""
    found = run(tool, this.volume).labels_zyx
    return {
        "sides": drawn.left_out(found, this.truth, this.volume),
        "trade": drawn.trade(
            lambda: run(tool, this.volume).labels_zyx,
            lambda: recalls(tool, this.volume, this.truth, ["level", "ball"]),
            this.truth,
        ),
    }


def positions(tool: ImageProcessingTool, this: Labelled) -> dict[str, dict[str, object]]:
    """The same patient in other arrays: how many voxels differ, how many are on the wrong side."""
    plain_labels = run(tool, this.volume).labels_zyx
    table = {}
    for position in situations.POSITIONS:
        stored = situations.stored_otherwise(this.volume, position)
        labels = situations.stored_back(run(tool, stored).labels_zyx, position)
        swapped = (labels > 0) & (plain_labels > 0) & (labels != plain_labels)
        table[position] = {
            "other_voxels": int(np.count_nonzero(labels != plain_labels)),
            "other_side": int(np.count_nonzero(swapped)),
        }
    return table


def fields(tool: ImageProcessingTool, this: Labelled) -> dict[str, dict[str, object]]:
    """Parts of the chest: Dice of what is left of each lung, and what the result says of itself."""
    turned, order = canonical(this.volume)
    truth = np.asarray(order.apply(this.truth))
    table = {}
    for field, crop in situations.FIELDS.items():
        window = crop(truth)
        part, rest = situations.cropped(turned, window), truth[window]
        made = run(tool, part)
        row: dict[str, object] = {}
        for side, (segment, value) in SIDES.items():
            of_side = made.labels_zyx == segment
            if np.count_nonzero(rest == value) * part.voxel_ml > 20.0:
                row[side] = dice(of_side, rest == value, rest != 3)
            else:
                wrong = np.count_nonzero(of_side & (rest != value))
                row[f"false_{side}_ml"] = round(int(wrong) * part.voxel_ml, 1)
        table[field] = {**row, "doubts": list(made.doubts), "notes": list(made.notes)}
    return table


def false_lung(
    tool: ImageProcessingTool, volumes: Sequence[Volume], judged: NDArray[np.bool_] | None = None
) -> dict[str, object]:
    """The worst slice of volumes that show no lung, at least in the slices that are judged."""
    worst: dict[str, object] = {"cm2": 0.0, "slice": 0}
    for n, volume in enumerate(volumes):
        labels = run(tool, volume).labels_zyx
        if judged is not None:
            labels = labels * judged[:, None, None]
        _, row, column = volume.spacing_zyx_mm
        here = worst_slice(np.count_nonzero(labels, axis=(1, 2)) * row * column / 100)
        if len(labels) == 1:
            here["slice"] = n
        worst = max(worst, here, key=lambda w: float(str(w["cm2"])))
    return worst


def without_lung(tool: ImageProcessingTool, folder: Path) -> dict[str, dict[str, object]]:
    table: dict[str, dict[str, object]] = {}
    for name, (shows, known) in QUIRKS.items():
        row: dict[str, object] = {"shows": shows, "patient_trained_on": known}
        try:
            volumes = [read_volume(paths) for paths in series_of(folder / "quirks" / name)]
            table[name] = row | false_lung(tool, volumes)
        except NodeError as refused:
            table[name] = row | {"refused": str(refused)}
    for name, (shows, known) in VOLUMES.items():
        if (folder / "train" / name).is_dir():
            row = {"shows": shows, "patient_trained_on": known}
            at = folder / "train" / name
            table[name] = row | false_lung(tool, stored_volumes(at), beyond_lung(data.load(at)))
    return table


def unlabelled(tool: ImageProcessingTool, folder: Path) -> dict[str, dict[str, object]]:
    """Real series to which only anatomy is the judge: is the right lung on the patient's right?"""
    table: dict[str, dict[str, object]] = {}
    for name, shows in UNLABELLED.items():
        for n, paths in enumerate(series_of(folder / "quirks" / name), start=1):
            key = f"{name} {n}"
            try:
                volume = read_volume(paths)
            except NodeError as refused:
                table[key] = {"shows": shows, "refused": str(refused)}
                continue
            made = run(tool, volume)
            labels = np.asarray(canonical(volume)[1].apply(made.labels_zyx))
            columns = [np.nonzero(labels == side)[2] for side in (1, 2)]
            cm2 = [
                len(c) * volume.spacing_zyx_mm[1] * volume.spacing_zyx_mm[2] / 100 for c in columns
            ]
            both = all(len(c) for c in columns)
            table[key] = {
                "shows": shows,
                "slices": len(labels),
                "right_cm2": round(cm2[0] / len(labels), 1),
                "left_cm2": round(cm2[1] / len(labels), 1),
                "sides_right": bool(columns[0].mean() < columns[1].mean()) if both else None,
                "doubts": list(made.doubts),
                "notes": list(made.notes),
            }
    return table


def stored_volumes(folder: Path) -> list[Volume]:
    """An archive of train/ as one volume; single slices as volumes of one slice."""
    archive = data.load(folder)
    z, y, x = archive.spacing_zyx_mm
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = z, y, x, 1.0
    hu = archive.hu.numpy().astype(np.int16)
    parts = [hu[i : i + 1] for i in range(len(hu))] if archive.single else [hu]
    return [Volume(voxels_zyx=part, affine_lps_mm=affine) for part in parts]


def beyond_lung(archive: data.Archive) -> NDArray[np.bool_] | None:
    """Which slices are far from all that is labelled; None: all of them."""
    lung = np.flatnonzero(archive.labels.flatten(1).any(dim=1).numpy())
    if not len(lung):
        return None
    away = np.abs(np.arange(len(archive.labels))[:, None] - lung).min(axis=1)
    return np.asarray(away * archive.spacing_zyx_mm[0] > BEYOND_MM)


@contextmanager
def the_tool(args: argparse.Namespace) -> Iterator[tuple[ImageProcessingTool, str]]:
    """The model in --models, with --weights instead of its own where given; and their digest."""
    with tempfile.TemporaryDirectory() as made:
        models = args.models
        if args.weights:
            models = Path(made)
            copy_with(args.models / args.model, args.weights, models / args.model)
        manifest = load_models(models)[args.model]
        digest = hashlib.sha256(
            (models / args.model / "weights.safetensors").read_bytes()
        ).hexdigest()
        yield build_tool(manifest, device=args.device, threads=args.threads), digest


def evaluated(tool: ImageProcessingTool, args: argparse.Namespace) -> Iterator[dict[str, dict]]:
    """The report as it grows."""
    names = ("test", "drawn", "positions", "fields", "without_lung", "unlabelled")
    report: dict[str, dict] = {name: {} for name in names}
    for this in labelled(args.data, args.manifest, args.only):
        row = plain(tool, this)
        if not args.quick or len(this.truth) <= SHORT:
            row["painted"] = recalls(tool, this.volume, this.truth, list(TRIALS))
            row["stomach_gas"] = stomach_gas(tool, this)
            report["positions"][this.name] = positions(tool, this)
            report["fields"][this.name] = fields(tool, this)
            if this.kind == "manual":
                report["drawn"][this.name] = against_contours(tool, this)
        report["test"][this.name] = row
        yield report
    if not args.only:
        report["without_lung"] = without_lung(tool, args.data)
        report["unlabelled"] = unlabelled(tool, args.data)
    yield report


def main() -> None:
    ask = arguments(__doc__.split("\n", maxsplit=1)[0])
    ask.add_argument("--out", type=Path)
    ask.add_argument("--quick", action="store_true", help="a few minutes")
    args = ask.parse_args()
    with the_tool(args) as (tool, digest):
        facts = {"version": tool.version_id(), "digest": digest, "quick": args.quick}
        for report in evaluated(tool, args):
            if args.out:
                text = json.dumps({"tool": facts, **report}, indent=1)
                args.out.write_text(text + "\n", "utf-8")
            print(f"{', '.join(report['test'])} ...", flush=True)
    print(as_text(report))


def arguments(about: str) -> argparse.ArgumentParser:
    """Which data, which model."""
    ask = argparse.ArgumentParser(description=about)
    ask.add_argument("--data", type=Path, required=True)
    ask.add_argument("--manifest", type=Path, required=True)
    ask.add_argument("--models", type=Path, default=MODELS)
    ask.add_argument("--model", default="lung-unet")
    ask.add_argument("--weights", type=Path, help="instead of those of the model")
    ask.add_argument("--device", default="cpu")
    ask.add_argument("--threads", type=int, default=2)
    ask.add_argument("--only", help="one test series, and nothing else")
    return ask


if __name__ == "__main__":
    main()
