"""The diseases that the network is tested with are not those that it is trained on."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import trials

SPACING = (5.0, 4.0, 4.0)


@pytest.fixture
def lung() -> np.ndarray:
    z, y, x = np.ogrid[0:14, 0:80, 0:96]
    return ((z - 7) / 6.5) ** 2 + ((y - 40) / 16.0) ** 2 + ((x - 28) / 11.0) ** 2 <= 1


@pytest.mark.parametrize("trial", sorted(trials.TRIALS))
def test_a_trial_lies_in_the_lung(lung: np.ndarray, trial: str) -> None:
    where = trials.TRIALS[trial](lung, SPACING)
    assert where.any()
    assert not (where & ~lung).any()
    assert where.sum() < 0.7 * lung.sum()


def test_a_level_is_level(lung: np.ndarray) -> None:
    where = trials.level(lung, SPACING)
    top = int(np.flatnonzero(where.any(axis=(0, 2)))[0])
    assert np.array_equal(where[:, top:], lung[:, top:])
    assert 0.25 < where.sum() / lung.sum() < 0.5


def test_a_ball_is_a_ball_in_millimetres(lung: np.ndarray) -> None:
    everywhere = np.ones((40, 80, 96), bool)
    z, y, x = np.nonzero(trials.ball(lung, SPACING))
    assert x.min() == np.nonzero(lung)[2].min()
    assert np.ptp(x) * SPACING[2] <= 30.0
    assert np.ptp(y) * SPACING[1] <= 60.0
    assert np.ptp(z) * SPACING[0] <= 60.0
    everywhere[:20, 0] = everywhere[21:, 0] = False  # slice 20 is the widest
    assert trials.cube(everywhere, SPACING).sum() == 7 * 9 * 9


@pytest.mark.parametrize("texture", ["grain", "stripes"])
def test_a_trial_is_dense_there_and_nothing_changes_elsewhere(
    lung: np.ndarray, texture: str
) -> None:
    hu = np.where(lung, -850.0, 40.0).astype(np.float32)
    where = trials.cube(lung, SPACING)
    sick = trials.filled(hu, where, texture)
    assert np.array_equal(sick[~where], hu[~where])
    assert sick[where].min() > -60
    assert sick[where].max() < 130
    assert np.array_equal(sick, trials.filled(hu, where, texture))


def test_trials_share_no_code_with_what_the_training_paints() -> None:
    tree = ast.parse(Path(trials.__file__).read_text("utf-8"))
    imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    imported |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert not imported & {"disease", "noise", "augment", "torch"}
