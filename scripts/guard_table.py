"""What the guard says of real series, whole and deliberately damaged: docs/guard.md.

    python scripts/guard_table.py DIR --out docs/guard.md

DIR has test/, quirks/ and train/, each with folders as collection.py reads them. Those with at
least 500 ml of lung in 20 slices are damaged, too.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
from collection import folders, volumes_of
from damages import DAMAGES, MISTAKES, Damage, Labels

from dicom_node.decide.plausibility import values_finding
from dicom_node.domain.tool import ImageProcessingTool, ToolContext
from dicom_node.domain.volume import Volume, canonical
from dicom_node.iod.image import values_of
from dicom_node.tools import guard
from dicom_node.tools.registry import build_tool, load_models

ROOT = Path(__file__).parents[1]
MODEL = "lung-unet"
BEGINS = "<!-- measured -->"
ENDS = "<!-- measured: end -->"
GROUPS = ("test", "quirks", "train")
LEAST_ML, LEAST_SLICES = 500.0, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What is said of one series. refused: by the gate, for its values."""

    refused: str = ""
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    labels: Labels | None = None

    def against(self, whole: Said) -> str:
        """One letter: Refused, Doubted for a new reason, remarked, or nothing."""
        if self.refused:
            return "R"
        if self.new(whole):
            return "D"
        return "r" if _kinds(self.notes) - _kinds(whole.notes) else "-"

    def new(self, whole: Said) -> set[str]:
        """The sorts of doubt that the whole series does not raise."""
        return _kinds(self.doubts) - _kinds(whole.doubts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looker:
    """Runs the model as the node does, less the reading and the writing of objects."""

    tool: ImageProcessingTool
    memory: dict[tuple[str, ...], object] = field(default_factory=dict)

    def said(self, volume: Volume) -> Said:
        finding = values_finding(values_of(volume))
        if finding is not None:
            return Said(refused=finding.reason)
        grid = str(volume.spacing_zyx_mm)
        keys = tuple(
            blake2b(np.ascontiguousarray(plane).tobytes(), digest_size=16).hexdigest() + grid
            for plane in volume.voxels_zyx
        )
        keyed = replace(volume, slice_keys=keys)
        context = ToolContext(header={"Modality": "CT"}, memory=self.memory)
        if hasattr(self.tool, "ahead"):
            self.tool.ahead(keyed, context)  # slices that were seen before are not judged again
        (result,) = self.tool.process(keyed, context)
        return Said(doubts=result.doubts, notes=result.notes, labels=result.labels_zyx)


def main() -> int:
    """Write the tables into the document, between its marks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    parser.add_argument("--quick", action="store_true", help="at most 40 slices of a series")
    parser.add_argument("--whole", action="store_true", help="nothing is damaged")
    given = parser.parse_args()
    tool = build_tool(load_models(given.models)[MODEL], device="auto", runtime="auto")
    began = time.perf_counter()
    whole: dict[str, Said] = {}
    damaged: dict[str, dict[str, Said]] = {}
    for name, volume in series(given.folder, quick=given.quick):
        looker = Looker(tool=tool)
        whole[name] = looker.said(volume)
        told(name, "whole", whole[name])
        labels = whole[name].labels
        if labels is None or given.whole or not worth(labels, volume):
            continue
        damaged[name] = dict(damages(looker, volume, labels))
        for what, seen in damaged[name].items():
            told(name, what, seen)
    minutes = (time.perf_counter() - began) / 60
    text = "\n".join((*of_whole(whole), *of_damaged(whole, damaged)))
    head = f"Made with `{tool.version_id()}` in {minutes:.0f} minutes.\n"
    write(given.out, f"{head}\n{text}")
    return 0


def series(folder: Path, *, quick: bool) -> Iterator[tuple[str, Volume]]:
    """Every CT volume, in canonical axes; of a long one every second slice or fewer, if quick."""
    for group in GROUPS:
        for where in folders(folder / group):
            for number, volume in enumerate(volumes_of(where)):
                turned, _ = canonical(volume)
                if quick and len(turned.voxels_zyx) > 40:
                    turned = thinned(turned, -(-len(turned.voxels_zyx) // 40))
                yield where.name + (f" ({number + 1})" if number else ""), turned


def thinned(volume: Volume, step: int) -> Volume:
    affine = volume.affine_lps_mm.copy()
    affine[:, 0] *= step
    return Volume(voxels_zyx=np.asarray(volume.voxels_zyx)[::step], affine_lps_mm=affine)


def worth(labels: Labels, volume: Volume) -> bool:
    levels = np.flatnonzero(labels.any(axis=(1, 2)))
    return len(levels) >= LEAST_SLICES and sum(volume.ml_of(labels).values()) >= LEAST_ML


def damages(looker: Looker, volume: Volume, labels: Labels) -> Iterator[tuple[str, Said]]:
    """What is said of the images when they are damaged, and of the mask when it is."""
    for what, damage in DAMAGES.items():
        yield what, looker.said(_done(damage, volume, labels))
    for what, mistake in MISTAKES.items():
        yield what, Said(doubts=guard.doubts(mistake(labels), volume))


def _done(damage: Damage, volume: Volume, labels: Labels) -> Volume:
    return damage(replace(volume, heights_mm=(), instance_uids=(), slice_keys=()), labels)


def of_whole(whole: dict[str, Said]) -> Iterator[str]:
    """The table of whole series."""
    doubted = sum(bool(said.doubts) for said in whole.values())
    yield "### Whole series\n"
    yield f"{doubted} of {len(whole)} are doubted.\n"
    yield "| series | doubts | remarks |\n| --- | --- | --- |"
    for name, said in whole.items():
        doubts = f"refused: {said.refused}" if said.refused else " ".join(said.doubts) or "-"
        yield f"| {name} | {doubts} | {' '.join(said.notes) or '-'} |"
    yield ""


def of_damaged(whole: dict[str, Said], damaged: dict[str, dict[str, Said]]) -> Iterator[str]:
    """The tables of damaged series: totals, then each."""
    if not damaged:
        return
    count = len(damaged)
    yield f"### Damaged series\n\n{count} series each. Numbers of series.\n"
    yield "| damage | refused | doubted | remarked | nothing | the doubts |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for what in (*DAMAGES, *MISTAKES):
        letters = Counter(rows[what].against(whole[n]) for n, rows in damaged.items())
        why = Counter(kind for n, rows in damaged.items() for kind in rows[what].new(whole[n]))
        reasons = "; ".join(f"{kind} ({times})" for kind, times in why.most_common(4))
        cells = " | ".join(str(letters[letter]) for letter in "RDr-")
        yield f"| {what} | {cells} | {reasons or '-'} |"
    yield "\nEach series: R refused, D doubted, r remarked, - nothing. In this order:\n"
    yield "\n".join(f"{i}. {name}" for i, name in enumerate(damaged, start=1)) + "\n"
    yield "| damage | " + " | ".join(str(i) for i in range(1, count + 1)) + " |"
    yield "| --- |" + " --- |" * count
    for what in (*DAMAGES, *MISTAKES):
        letters = [rows[what].against(whole[n]) for n, rows in damaged.items()]
        yield f"| {what} | {' | '.join(letters)} |"


def _kinds(sentences: tuple[str, ...]) -> set[str]:
    """Sentences without their numbers and sides."""
    shortened = (re.split(r"[:;,]", sentence)[0] for sentence in sentences)
    return {re.sub(r"-?\d+|\b(right|left)\b", "_", s).rstrip(".") for s in shortened}


def told(name: str, what: str, said: Said) -> None:
    """A line while it works."""
    text = f"refused: {said.refused}" if said.refused else " ".join((*said.doubts, *said.notes))
    print(f"{name} | {what} | {text or '-'}", flush=True)


def write(path: Path, text: str) -> None:
    """Between the marks of the document."""
    before, _, rest = path.read_text("utf-8").partition(BEGINS)
    _, _, after = rest.partition(ENDS)
    path.write_text(f"{before}{BEGINS}\n\n{text.rstrip()}\n\n{ENDS}{after}", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
