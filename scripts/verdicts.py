"""What `dicom-node process` makes of each series under a folder: docs/verdicts.md.

python scripts/verdicts.py DIR --labels DIR --out docs/verdicts.md

DIR has folders of folders; see collection.py for what each may hold. A volume is made a CT series
first, and one of single slices of many patients is left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from click.testing import CliRunner
from collection import Truth, as_series, folders, is_volume, truth_of

from dicom_node.cli.process import process
from dicom_node.decide.gate import KEYS, treatment_of
from dicom_node.decide.geometry import Finding, hole, split_localizers, stack_of
from dicom_node.domain.errors import NodeError
from dicom_node.domain.policy import InputPolicy
from dicom_node.iod.image import read_volume
from dicom_node.node.encode import Source
from dicom_node.node.offline import FoundSeries, find_series
from dicom_node.node.produce import judge, judge_values
from dicom_node.tools.registry import load_models

ROOT = Path(__file__).parents[1]
MODEL = "lung-unet"
SIDES = {1: ("R", 2), 2: ("L", 1)}  # segment: what to call it, its value in the labels
IGNORED = 3
HEADS = (
    "series", "instances", "planes missing?", "findings, and what the policy says", "result",
    "doubts of the guard", "Dice", "seconds",
)  # fmt: skip
INTRODUCTION = f"""# Verdicts

What `dicom-node process` makes of each series of a collection of real ones with `{MODEL}`: chest
series for testing, series with something odd about them, and volumes for training that were written
as DICOM series. `make verdicts DATA=DIR LABELS=DIR` makes this table; the pictures of these series
are not part of this project.

A series with *planes missing* does not count as complete while it is received: it waits for them.
A finding is what the [policy](models.md) of the model speaks about, with what it says of it. What
the [guard](guard.md) doubts stands in the result, and `doubtful = "hold"` holds it. *Dice* is that
of the right and the left lung against labels, read back from the segmentation object. Of the test
series only `lung1-001` was labelled by hand; the other labels come from a threshold and are no
radiologist's. The network was trained on most of the volumes under *train*: there the number only
says that nothing broke.
"""


def main() -> int:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="folders of folders of series")
    parser.add_argument("--labels", type=Path, help="folder of NAME.*.npz")
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    manifest = load_models(given.models)[MODEL]
    text = f"{INTRODUCTION}\n`{MODEL}` {manifest.version}, weights {str(manifest.sha256)[:12]}.\n"
    for group in folders(given.folder):
        text += f"\n## {group.name}\n\n"
        text += "".join(f"| {' | '.join(cells)} |\n" for cells in (HEADS, ["---"] * len(HEADS)))
        for folder in folders(group):
            truth = truth_of(folder, given.labels)
            alike = Counter(rows(folder, truth, given.models, manifest.policy))
            for (name, *cells), times in alike.items():
                named = f"{name} ({times} series)" if times > 1 else name
                print(named, *cells, sep=" | ", flush=True)
                text += f"| {' | '.join(c.replace('|', '/') for c in (named, *cells))} |\n"
    given.out.write_text(text, "utf-8")
    return 0


def rows(
    folder: Path, truth: Truth, models: Path, policy: InputPolicy
) -> Iterator[tuple[str, ...]]:
    """The cells of each series in it."""
    with tempfile.TemporaryDirectory() as made:
        where = folder
        if is_volume(folder):
            where = Path(made) / "ct"
            if not as_series(folder, where):
                return
        told = processed(where, Path(made), models)
        for series in find_series(where)[0]:
            yield cells_of(folder.name, series, told[series.series_uid], policy, truth)


def processed(folder: Path, work: Path, models: Path) -> dict[str, dict[str, Any]]:
    """What `dicom-node process` says of each series, by UID."""
    config = work / "ae_config.toml"
    config.write_text(f'[node]\nmodels_dir = "{models.resolve()}"\ndata_dir = "var"\n', "utf-8")
    words = [str(folder), "--out", str(work / "out"), "--config", str(config), "--json"]
    done = CliRunner().invoke(process, words)
    return {row["series_uid"]: row for row in json.loads(done.stdout)["series"]}


def cells_of(
    name: str, series: FoundSeries, told: Mapping[str, Any], policy: InputPolicy, truth: Truth
) -> tuple[str, ...]:
    """One row."""
    first = series.sources[0].attributes
    words = [name, str(first.get("Modality", "")), str(first.get("SeriesDescription", ""))]
    split = split_localizers([source.attributes for source in series.sources])
    missing = hole(stack_of(split.volume)) if split.volume else ""
    count = str(len(series.sources))
    if split.others and split.volume:
        count += f", {len(split.others)} of them set aside"
    findings = findings_of(series, policy) if first.get("Modality") == "CT" else ()
    said = [f"{finding.reason} ({said_about(finding, policy)})" for finding in findings]
    segs = [Path(file) for file in told["files"] if file.endswith(".dcm")]
    dices = [text for seg in segs for text in dice(seg, truth)]
    return (
        " ".join(word for word in words if word),
        count,
        "yes" if missing else "no",
        "; ".join(said) or "-",
        result_of(told),
        " ".join(told.get("doubts", ())) or "-",
        ", ".join(dices) or "-",
        f"{sum(told['seconds'].values()):.1f}" if "seconds" in told else "-",
    )


def dice(seg: Path, truth: Truth) -> list[str]:
    """Of each side that is labelled or found, of the slices with labels."""
    dataset = pydicom.dcmread(seg)
    frames = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    shape = (int(dataset.NumberOfFrames), int(dataset.Rows), int(dataset.Columns))
    masks = frames[: np.prod(shape)].reshape(shape)
    found: dict[tuple[int, str], np.ndarray] = {}
    for item, mask in zip(dataset.PerFrameFunctionalGroupsSequence, masks, strict=True):
        number = int(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        found[number, str(source.ReferencedSOPInstanceUID)] = mask
    if not truth:
        return []
    said = []
    for number, (side, value) in SIDES.items():
        both = sizes = 0
        for uid, labels in truth.items():
            mask = found.get((number, uid), np.zeros(labels.shape, np.uint8)) > 0
            valid = labels != IGNORED
            both += np.count_nonzero(mask & (labels == value))
            sizes += np.count_nonzero(mask & valid) + np.count_nonzero(labels == value)
        if sizes:
            said.append(f"{side} {2 * both / sizes:.3f}")
    return said


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


def result_of(told: Mapping[str, Any]) -> str:
    """Volumes and notes, or why there are none."""
    if told["reason"]:
        return f"none: {told['reason'].rstrip('.')}"
    found = [f"{label} {ml:g} mL" for label, ml in told["measurements"].items()]
    notes = [n.rstrip(".") for n in told["notes"] if not n.startswith(("Doubtful: ", "Warning: "))]
    return "; ".join(("SEG: " + (", ".join(found) or "empty"), *notes))


if __name__ == "__main__":
    sys.exit(main())
