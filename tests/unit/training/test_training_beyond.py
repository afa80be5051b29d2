"""False lung is looked for where there is none, also in series that have lung elsewhere."""

from __future__ import annotations

from types import SimpleNamespace

import evaluate
import numpy as np
import pytest
import torch

from dicom_node.domain.volume import Volume


def archive(lung: list[int]) -> SimpleNamespace:
    labels = torch.zeros(12, 4, 4, dtype=torch.uint8)
    labels[lung] = 1
    return SimpleNamespace(labels=labels, spacing_zyx_mm=(6.0, 1.0, 1.0))


def test_slices_near_to_lung_are_not_judged() -> None:
    judged = evaluate.beyond_lung(archive([0, 1, 2]))
    assert judged.tolist() == [False] * 6 + [True] * 6


def test_a_series_without_lung_is_judged_as_a_whole() -> None:
    assert evaluate.beyond_lung(archive([])) is None


def test_the_worst_of_the_judged_slices_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = np.zeros((12, 20, 20), np.uint8)
    found[3], found[8, :10], found[9, :5] = 1, 2, 2
    monkeypatch.setattr(evaluate, "run", lambda *_: SimpleNamespace(labels_zyx=found))
    affine = np.diag((1.0, 1.0, 6.0, 1.0))[:, [2, 1, 0, 3]]
    volume = Volume(voxels_zyx=np.zeros(found.shape, np.int16), affine_lps_mm=affine)
    judged = np.arange(12) > 5
    assert evaluate.false_lung(None, [volume], judged) == {"cm2": 2.0, "slice": 8}
