"""A small chest as an archive of training data, and a configuration that is done in a moment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data
import numpy as np
import pytest

SHAPE = (14, 80, 96)
SPACING = (5.0, 4.0, 4.0)
RIGHT_HU, LEFT_HU = -900, -750


def a_chest() -> tuple[np.ndarray, np.ndarray]:
    """hu, and a mask as it is stored: 1 = left, 2 = right; the right lung is darker."""
    z, y, x = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    hu = np.full(SHAPE, -1000, np.int16)
    body = ((y - 40) / 26.0) ** 2 + ((x - 46) / 36.0) ** 2 <= 1
    hu[:, body[0]] = 40
    right = ((z - 7) / 6.5) ** 2 + ((y - 40) / 16.0) ** 2 + ((x - 28) / 11.0) ** 2 <= 1
    left = ((z - 7) / 5.5) ** 2 + ((y - 40) / 15.0) ** 2 + ((x - 64) / 10.0) ** 2 <= 1
    hu[right], hu[left] = RIGHT_HU, LEFT_HU
    return hu, np.select([left, right], [1, 2], 0).astype(np.uint8)


@pytest.fixture(autouse=True)
def _one_thread(one_torch_thread: None) -> None:
    """All images here are small."""


@pytest.fixture
def an_archive(tmp_path: Path) -> Callable[..., data.Archive]:
    """Writes a chest as the archive of a name and loads it."""

    def load(name: str = "chest", **meta: object) -> data.Archive:
        folder = tmp_path / "train" / name
        folder.mkdir(parents=True)
        hu, mask = a_chest()
        np.save(folder / "hu.npy", hu)
        np.save(folder / "mask.npy", mask)
        text = json.dumps({"spacing_zyx": SPACING, **meta})
        (folder / "meta.json").write_text(text, "utf-8")
        return data.load(folder)

    return load


@pytest.fixture
def a_config() -> dict[str, Any]:
    """Of a training that is over in a moment."""
    often = ("alone", "disease", "gas_with_lung", "gas_without_lung", "part", "blur", "sharpen")
    more = ("noise", "circle", "truncation", "thick", "streaks")
    return {
        "seed": 5,
        "iterations": 4,
        "batch": 2,
        "channels": [2, 4],
        "learning_rate": 3e-3,
        "weight_decay": 1e-2,
        "warmup": 0.25,
        "ema": 0.9,
        "dense_weight": 3.0,
        "check_every": 2,
        "reach_of": 3,
        "window_hu": [-1024.0, 150.0],
        "mix": {"single_slices": 0.2, "lung": 0.6, "empty": 0.2, "phantom": 0.0},
        "probability": dict.fromkeys((*often, *more), 0.3),
        "finish": {"iterations": 2, "learning_rate": 1e-3, "dense_weight": 1.0},
        "teacher": {"seeds": [1, 2], "channels": [3, 6], "iterations": 2, "share": 0.5},
    }
