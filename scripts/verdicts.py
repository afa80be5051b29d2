"""What the node makes of each series under a folder: docs/verdicts.md, made from real data.

python scripts/verdicts.py DIR --out docs/verdicts.md

DIR has folders of folders. Each of these holds either DICOM files, or a volume: hu.npy [slice, row,
column] from feet to head, front to back, patient right to left, and meta.json with its spacing_zyx;
it is made a CT series first. A volume of single slices of many patients is left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from dicom_node.decide.gate import KEYS, treatment_of
from dicom_node.decide.geometry import Finding, hole, split_localizers, stack_of
from dicom_node.domain.errors import NodeError
from dicom_node.domain.policy import InputPolicy
from dicom_node.domain.tool import ImageProcessingTool
from dicom_node.domain.volume import Volume
from dicom_node.iod.image import read_volume
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.node.applicability import Judge, judges
from dicom_node.node.encode import Source
from dicom_node.node.offline import Answer, FoundSeries, answers, find_series
from dicom_node.node.produce import judge, judge_values
from dicom_node.testing.series import Header, write_series
from dicom_node.tools.registry import build_tool, load_models

ROOT = Path(__file__).parents[1]
MODEL = "lung-unet"
HEADS = ("series", "instances", "planes missing?", "findings, and what the policy says", "result")
INTRODUCTION = f"""# Verdicts

What `{MODEL}` does with each series of a collection of real ones, made by `scripts/verdicts.py`:
chest series for testing, series with something odd about them, and volumes for training that were
written as DICOM series. The pictures of these series are not part of this project.

A series with *planes missing* does not count as complete while it is received: it waits for them.
A finding is what the [policy](models.md) of the model speaks about, with what it says of it.
"""


def main() -> int:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="folders of folders of series")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    manifests = load_models(ROOT / "models")
    suits, policy = judges(manifests)[MODEL], manifests[MODEL].policy

    @cache
    def tool() -> ImageProcessingTool:
        return build_tool(manifests[MODEL], device="cpu")

    text = INTRODUCTION
    for group in folders(given.folder):
        text += f"\n## {group.name}\n\n"
        text += "".join(f"| {' | '.join(cells)} |\n" for cells in (HEADS, ["---"] * len(HEADS)))
        for folder in folders(group):
            alike = Counter(rows(folder, tool, suits, policy))
            for (name, *cells), times in alike.items():
                named = f"{name} ({times} series)" if times > 1 else name
                print(named, *cells, sep=" | ")
                text += f"| {' | '.join(c.replace('|', '/') for c in (named, *cells))} |\n"
    given.out.write_text(text, "utf-8")
    return 0


def folders(folder: Path) -> list[Path]:
    """What is not hidden in it."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def rows(
    folder: Path, tool: Callable[[], ImageProcessingTool], suits: Judge, policy: InputPolicy
) -> Iterator[tuple[str, ...]]:
    """The cells of each series in it."""
    with tempfile.TemporaryDirectory() as made:
        where = as_series(folder, Path(made)) if (folder / "hu.npy").exists() else folder
        if where is None:
            return
        found, _ = find_series(where)
        given = answers(
            found, tool, suits, SegSettings(), threads=2, progress=lambda _done, _total: None
        )
        for answer in given:
            yield cells_of(folder.name, answer, policy)


def as_series(folder: Path, out: Path) -> Path | None:
    """A volume as a CT series, None where its slices do not belong together."""
    meta = json.loads((folder / "meta.json").read_text("utf-8"))
    if "single_slices" in meta:
        return None
    hu = np.load(folder / "hu.npy")
    spacing = meta["spacing_zyx"]
    affine = np.diag((*reversed(spacing), 1.0))[:, [2, 1, 0, 3]]
    volume = Volume(voxels_zyx=hu, affine_lps_mm=affine)
    write_series(out, volume, header=Header(series=folder.name, body_part=""))
    return out


def cells_of(name: str, answer: Answer, policy: InputPolicy) -> tuple[str, ...]:
    """One row."""
    series = answer.series
    first = series.sources[0].attributes
    words = [name, str(first.get("Modality", "")), str(first.get("SeriesDescription", ""))]
    split = split_localizers([source.attributes for source in series.sources])
    missing = hole(stack_of(split.volume)) if split.volume else ""
    count = str(len(series.sources))
    if split.others and split.volume:
        count += f", {len(split.others)} of them set aside"
    findings = findings_of(series, policy) if first.get("Modality") == "CT" else ()
    said = [f"{finding.reason} ({said_about(finding, policy)})" for finding in findings]
    return (
        " ".join(word for word in words if word),
        count,
        "yes" if missing else "no",
        "; ".join(said) or "-",
        result_of(answer),
    )


def findings_of(series: FoundSeries, policy: InputPolicy) -> Sequence[Finding]:
    """What headers and values tell of its volume."""
    split = split_localizers([source.attributes for source in series.sources])
    wanted = {str(attributes["SOPInstanceUID"]) for attributes in split.volume}
    sources: list[Source] = [source for source in series.sources if source.uid in wanted]
    if not sources:
        return ()
    judged = judge(sources, policy)
    if not judged.sources:
        return judged.findings
    try:
        every = frozenset(finding.code for finding in judged.findings)
        volume = read_volume([source.path for source in judged.sources], tolerate=every)
    except NodeError:
        return judged.findings
    return (*judged.findings, *judge_values(volume, judged.sources[0].attributes))


def said_about(finding: Finding, policy: InputPolicy) -> str:
    """The key of the policy, with its treatment."""
    key = KEYS.get(finding.code)
    return f"{key}={treatment_of(finding, policy)}" if key else "always refused"


def result_of(answer: Answer) -> str:
    """Volumes and notes, or why there are none."""
    if answer.outcome is None:
        return f"none: {answer.reason.rstrip('.')}"
    found = [f"{k} {v:g} mL" for made in answer.outcome.produced for k, v in made.summary.items()]
    notes = [n.rstrip(".") for r in answer.outcome.results for n in r.notes]
    return "; ".join(("SEG: " + (", ".join(found) or "empty"), *notes))


if __name__ == "__main__":
    sys.exit(main())
