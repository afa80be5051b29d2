"""Cross-validation: no patient on both sides, and nothing of it is published by mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data
import folds
import pytest
import torch

from dicom_node.tools.engine import Engine
from dicom_node.tools.unet import UNet

ENGINE = Engine(device="cpu", precision="fp32")
NAMES = [
    "acrin001-a", "acrin001-b", "acrin013", "lidc2", "lidc314", "luna-1", "luna-2", "tcga-slices-a",
    "tcga-slices-b", "totalseg-abdomen", "totalseg-cta-crop", "totalseg-example",
]  # fmt: skip


@pytest.mark.parametrize("count", [2, 3, 5])
def test_each_archive_is_held_back_once_and_no_patient_is_on_both_sides(count: int) -> None:
    parts = folds.parted(NAMES, count)
    assert sorted(name for _, held in parts for name in held) == sorted(NAMES)
    for seen, held in parts:
        assert sorted((*seen, *held)) == sorted(NAMES)
        patients = [{folds.PATIENTS.get(n, n) for n in names} for names in (seen, held)]
        assert not patients[0] & patients[1]


def test_an_archive_of_a_patient_is_named_after_one_that_is_named_after_none() -> None:
    assert not set(folds.PATIENTS) & set(folds.PATIENTS.values())


def test_a_fold_is_scored_by_what_did_not_see_it_and_not_trained_twice(
    an_archive: Callable[..., data.Archive], a_config: dict[str, Any], tmp_path: Path
) -> None:
    archives = [an_archive(name) for name in ("acrin001-a", "acrin001-b", "luna-1")]
    asked: list[list[str]] = []

    def trained(some: list[data.Archive], folder: Path) -> UNet:
        assert folder.parent == tmp_path
        asked.append([a.name for a in some])
        torch.manual_seed(0)
        return UNet((2, 4))

    for _ in range(2):
        table = folds.cross_validated(a_config, archives, 2, tmp_path, ENGINE, trained)
    assert asked == [["luna-1"], ["acrin001-a", "acrin001-b"]]
    assert set(table) == {"acrin001-a", "acrin001-b", "luna-1"}
    assert all(0 <= row["worst"] <= 1 and row["slices"] > 0 for row in table.values())
    assert json.loads((tmp_path / "folds.json").read_text("utf-8"))["archives"] == table
    assert not (tmp_path / "weights.safetensors").exists()
    assert "3 archives with lung" in folds.summary(table)
    with pytest.raises(SystemExit, match="another"):
        folds.cross_validated(a_config | {"seed": 9}, archives, 2, tmp_path, ENGINE, trained)
