"""Score a model as the product runs it, on real DICOM series that it was not trained on.

    python models/lung-unet/train/evaluate.py --data DIR --manifest FILE --out evaluation.json

DIR holds test/NAME/ and quirks/NAME/ with DICOM files; FILE is MANIFEST.toml, the labels beside it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import data
import numpy as np
from trials import TRIALS, filled

from dicom_node.domain.errors import NodeError
from dicom_node.domain.tool import ImageProcessingTool, ToolContext
from dicom_node.domain.volume import Volume, canonical
from dicom_node.iod.image import read_headers, read_volume
from dicom_node.tools.registry import build_tool, load_models

SIDES = {"right": (1, 2), "left": (2, 1)}  # segment number; value in the label files
IGNORED = 3
WITHOUT_LUNG = ("head-c3n", "pelvis-acrin001", "cerr-hn-511", "no-sop-class")


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


def truth_for(volume: Volume, label_file: Path) -> np.ndarray:
    """The stored labels in the slice order of the volume."""
    stored = np.load(label_file)
    index = {str(uid): i for i, uid in enumerate(stored["sop_instance_uid"])}
    return stored["mask"][[index[uid] for uid in volume.instance_uids]]


def dice(found: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> float:
    both = np.count_nonzero(found & truth & valid)
    sizes = np.count_nonzero(found & valid) + np.count_nonzero(truth & valid)
    return round(2.0 * float(both) / float(max(sizes, 1)), 4)


def scored(tool: ImageProcessingTool, volume: Volume, truth: np.ndarray) -> dict[str, object]:
    """Dice a side, voxels on the wrong side, seconds."""
    began = time.perf_counter()
    labels = tool.process(volume, ToolContext())[0].labels_zyx
    seconds = time.perf_counter() - began
    valid = truth != IGNORED
    result: dict[str, object] = {"slices": len(labels)}
    for side, (segment, value) in SIDES.items():
        result[side] = dice(labels == segment, truth == value, valid)
        per_slice = [
            dice(labels[z] == segment, truth[z] == value, valid[z])
            for z in np.flatnonzero(np.count_nonzero(truth == value, axis=(1, 2)) > 500)
        ]
        result[f"{side}_worst_slice"] = min(per_slice, default=1.0)
    wrong = ((labels == 1) & (truth == 1)) | ((labels == 2) & (truth == 2))
    result["wrong_side_ml"] = round(int(np.count_nonzero(wrong)) * volume.voxel_ml, 2)
    result["seconds_per_slice"] = round(seconds / len(labels), 4)
    return result


def recalls(
    tool: ImageProcessingTool, volume: Volume, truth: np.ndarray, chosen: Sequence[str]
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
            sick = replace(volume, voxels_zyx=np.ascontiguousarray(order.undo(voxels)))
            labels = tool.process(sick, ToolContext())[0].labels_zyx
            hit = labels[np.asarray(order.undo(where))] == segment
            found[f"{trial} {side}"] = round(float(hit.mean()), 3)
    return found


def false_lung(tool: ImageProcessingTool, folder: Path) -> dict[str, object]:
    """The worst slice of the series of a folder that show no lung."""
    worst = 0.0
    for paths in series_of(folder):
        try:
            volume = read_volume(paths)
        except NodeError as refused:
            return {"refused": str(refused)}
        labels = tool.process(volume, ToolContext())[0].labels_zyx
        _, row, column = volume.spacing_zyx_mm
        pixels = np.count_nonzero(labels, axis=(1, 2)).max()
        worst = max(worst, float(pixels) * row * column / 100)
    return {"worst_slice_cm2": round(worst, 1)}


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--data", type=Path, required=True)
    ask.add_argument("--manifest", type=Path, required=True)
    ask.add_argument("--models", type=Path, default=Path(__file__).parents[2])
    ask.add_argument("--model", default="lung-unet")
    ask.add_argument("--device", default="cpu")
    ask.add_argument("--out", type=Path)
    ask.add_argument("--quick", action="store_true", help="Dice only")
    args = ask.parse_args()
    manifest = load_models(args.models)[args.model]
    tool = build_tool(manifest, device=args.device, threads=2)
    report: dict[str, dict] = {"tool": {"version": tool.version_id()}, "test": {}, "quirks": {}}
    for entry in data.entries(args.manifest, "test"):
        name, label = str(entry["name"]), str(entry["label"]).split()[0]
        if label == "none":
            continue
        volume = read_volume(series_of(args.data / "test" / name)[0])
        truth = truth_for(volume, args.manifest.parent / label)
        row = scored(tool, volume, truth)
        row["label"] = label.split(".")[-2]
        if not args.quick:
            row["painted"] = recalls(tool, volume, truth, sorted(TRIALS))
        report["test"][name] = row
        print(name, row, flush=True)
    for name in () if args.quick else WITHOUT_LUNG:
        report["quirks"][name] = false_lung(tool, args.data / "quirks" / name)
        print(name, report["quirks"][name], flush=True)
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
