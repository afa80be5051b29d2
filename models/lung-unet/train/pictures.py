"""Pictures of what a model found: the best and the worst slices of each test series.

    python models/lung-unet/train/pictures.py --data DIR --manifest FILE --out FOLDER

Draws every series, into FOLDER. Pictures of real patients are data: only those of series whose
licence is CC BY go into the model card (publish.py), with their attribution; others stay private.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import evaluate
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scores import SIDES, by_slice
from trials import TRIALS, filled

from dicom_node.domain.tool import ImageProcessingTool, ToolContext
from dicom_node.domain.volume import Volume, canonical
from dicom_node.tools.body import body_box

WINDOW_HU = (-1150.0, 350.0)
TRUTH, FOUND = "#00c000", {1: "#3090ff", 2: "#ff9020"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A slice with outlines; canonical axes: the patient's right is on the left."""

    title: str
    hu: NDArray[np.generic]
    truth: NDArray[np.bool_]
    found: NDArray[np.uint8]


def panels(tool: ImageProcessingTool, this: evaluate.Labelled) -> list[Panel]:
    """The best slice, the worst one of each side, and one with a painted mass."""
    turned, order = canonical(this.volume)
    truth = np.asarray(order.apply(this.truth))
    found = tool.process(turned, ToolContext())[0].labels_zyx
    right, left = (by_slice(found, truth, side) for side in SIDES)
    if not right or not left:
        return []
    of_right, of_left = ({z: d for d, z in each} for each in (right, left))
    best = max(of_right.keys() & of_left.keys(), key=lambda z: min(of_right[z], of_left[z]))
    chosen = [
        (f"best: {of_right[best]:.2f} / {of_left[best]:.2f}", best),
        (f"worst right: {right[0][0]:.2f}", right[0][1]),
        (f"worst left: {left[0][0]:.2f}", left[0][1]),
    ]
    backwards = order.flips[0]
    made = []
    for title, z in chosen:
        number = len(truth) - 1 - z if backwards else z
        lung = (truth[z] == 1) | (truth[z] == 2)
        hu = turned.voxels_zyx[z]
        made.append(Panel(title=f"{title} (slice {number})", hu=hu, truth=lung, found=found[z]))
    return [*made, painted(tool, turned, truth)]


def painted(tool: ImageProcessingTool, turned: Volume, truth: NDArray[np.uint8]) -> Panel:
    """The ball of trials.py in the right lung, where it is largest."""
    where = TRIALS["ball"](truth == 2, turned.spacing_zyx_mm)
    voxels = filled(turned.voxels_zyx.astype(np.float32), where, "grain")
    sick = Volume(voxels_zyx=voxels, affine_lps_mm=turned.affine_lps_mm)
    found = tool.process(sick, ToolContext())[0].labels_zyx
    z = int(np.count_nonzero(where, axis=(1, 2)).argmax())
    share = float((found[where] == 1).mean())
    title = f"painted ball: {share:.0%} found"
    return Panel(title=title, hu=voxels[z], truth=where[z], found=found[z])


def draw(shown: Sequence[Panel], spacing_yx: tuple[float, float], path: Path) -> None:
    """Side by side, as a PNG of few colours."""
    figure = Figure(figsize=(3.0 * len(shown), 3.2), dpi=100, facecolor="black")
    for n, panel in enumerate(shown):
        axes = figure.add_axes((n / len(shown), 0.0, 1 / len(shown), 0.93))
        axes.imshow(panel.hu, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
        axes.set_aspect(spacing_yx[0] / spacing_yx[1])
        outline(axes, panel.truth, TRUTH, 1.6)
        for segment, colour in FOUND.items():
            outline(axes, panel.found == segment, colour, 0.7)
        box = body_box(panel.hu[None], spacing_yx)
        axes.set_xlim(box.left, box.right)
        axes.set_ylim(box.bottom, box.top)
        axes.set_axis_off()
        axes.set_title(panel.title, color="white", fontsize=9)
    figure.savefig(path, facecolor="black")
    with Image.open(path) as image:
        few = image.convert("RGB").quantize(96)
    few.save(path, optimize=True)


def outline(axes: Axes, mask: NDArray[np.bool_], colour: str, width: float) -> None:
    if mask.any() and not mask.all():
        axes.contour(mask.astype(np.float32), levels=[0.5], colors=[colour], linewidths=width)


def curves(training: dict, path: Path) -> None:
    """Loss, Dice and painted disease found, over the iterations."""
    history = training["history"]
    at = [h["iteration"] for h in history]
    figure = Figure(figsize=(9.0, 3.2), dpi=100, layout="constrained")
    loss, score = figure.subplots(1, 2)
    every = training.get("losses_every", 0)
    if every:
        fine = training["losses"]
        loss.plot([(i + 1) * every for i in range(len(fine))], fine, color="0.7", linewidth=0.8)
    loss.plot(at, [h["loss"] for h in history], "k.-")
    loss.set(xlabel="iteration", ylabel="loss", ylim=(0, None))
    for name in ("right", "left", *TRIALS):
        if name in history[-1]:
            style = "-" if name in SIDES else "--"
            score.plot(at, [h[name] for h in history], style, marker=".", label=name)
    score.set(xlabel="iteration", ylabel="Dice; share found", ylim=(0, 1))
    score.legend(fontsize=7)
    figure.savefig(path)


def picture(tool: ImageProcessingTool, this: evaluate.Labelled, path: Path) -> None:
    turned, _ = canonical(this.volume)
    shown = panels(tool, this)
    if shown:
        _, row, column = turned.spacing_zyx_mm
        draw(shown, (row, column), path)


def main() -> None:
    ask = evaluate.arguments(__doc__.split("\n", maxsplit=1)[0])
    ask.add_argument("--out", type=Path, required=True)
    args: argparse.Namespace = ask.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with evaluate.the_tool(args) as (tool, _):
        for this in evaluate.labelled(args.data, args.manifest, args.only):
            picture(tool, this, args.out / f"{this.name}.png")
            print(args.out / f"{this.name}.png", flush=True)


if __name__ == "__main__":
    main()
