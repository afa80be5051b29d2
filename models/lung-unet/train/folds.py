"""Cross-validation: each archive is scored by a network that saw none of its patients."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data import Archive
from validate import Validation

from dicom_node.tools.engine import Engine
from dicom_node.tools.unet import UNet

PATIENTS = {  # archives of one patient, or perhaps of one, are never on both sides
    "acrin001-b": "acrin001-a",
    "totalseg-abdomen": "totalseg-example",
    "totalseg-cta-crop": "totalseg-example",
    "tcga-slices-b": "tcga-slices-a",
}


def fold_of(name: str, names: list[str], folds: int) -> int:
    """In which fold an archive is held back; the same for all archives of a patient."""
    patients = sorted({PATIENTS.get(n, n) for n in names})
    return patients.index(PATIENTS.get(name, name)) % folds


def parted(names: list[str], folds: int) -> list[tuple[list[str], list[str]]]:
    """Of each fold, what is trained on and what is held back."""
    number = {name: fold_of(name, names, folds) for name in names}
    return [
        ([n for n in names if number[n] != k], [n for n in names if number[n] == k])
        for k in range(folds)
    ]


def cross_validated(
    config: dict[str, Any],
    archives: list[Archive],
    folds: int,
    out: Path,
    engine: Engine,
    trained: Callable[[list[Archive], Path], UNet],
) -> dict[str, dict[str, float]]:
    """folds.json in `out`, as it grows; a fold that is in it is not trained again.

    trained(archives, folder): a network trained on these. Its weights stay in a folder of its own:
    it may have seen what may not be published.
    """
    path = out / "folds.json"
    facts = {"folds": folds, "iterations": config["iterations"], "config": config}
    table: dict[str, dict[str, float]] = {}
    if path.exists():
        before = json.loads(path.read_text("utf-8"))
        table = before.pop("archives")
        if before != json.loads(json.dumps(facts)):
            raise SystemExit(
                f"{path} is of another configuration: remove it, or take another --out."
            )
    window = (float(config["window_hu"][0]), float(config["window_hu"][1]))
    for n, (seen, held) in enumerate(parted([a.name for a in archives], folds), start=1):
        if set(held) <= set(table):
            continue
        print(f"fold {n} of {folds}: without {', '.join(held)}", flush=True)
        folder = out / f"fold-{n}"
        folder.mkdir(parents=True, exist_ok=True)
        network = trained([a for a in archives if a.name in seen], folder)
        validation = Validation([a for a in archives if a.name in held], window, painted=False)
        table |= validation.by_archive(network, engine)
        path.write_text(json.dumps({**facts, "archives": table}, indent=1) + "\n", "utf-8")
    return table


def summary(table: dict[str, dict[str, float]]) -> str:
    """n, mean, worst of the sides of archives with lung; the largest share of false lung."""
    sides = [r[side] for r in table.values() if "right" in r for side in ("right", "left")]
    wrong = [r["false_percent"] for r in table.values() if "false_percent" in r]
    mean = sum(sides) / max(1, len(sides))
    return (
        f"{len(sides) // 2} archives with lung: mean Dice of a side {mean:.3f}, "
        f"worst {min(sides, default=0.0):.3f}; {len(wrong)} without: at most "
        f"{max(wrong, default=0.0):g} % of their pixels called lung"
    )
