"""Labels that are visibly wrong, left out of the score, as mend.toml says."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORED = 3


def mended(name: str, labels: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """0, RIGHT, LEFT -> the same with IGNORED; patient axes: the right is at low columns."""
    out = labels.copy()
    for entry in tomllib.loads(path.read_text("utf-8"))["mend"]:
        if entry["archive"] == name:
            first, last = entry["slices"]
            for z in range(first, last + 1):
                out[z] = _ignored(out[z], entry)
    return out


def _ignored(plane: NDArray[np.uint8], entry: dict[str, Any]) -> NDArray[np.uint8]:
    columns = np.arange(plane.shape[1])
    half = columns < entry["middle"] if entry["side"] == "right" else columns > entry["middle"]
    return np.where((plane == 0) & half, IGNORED, plane).astype(np.uint8)


def described(path: Path) -> str:
    """One line for each."""
    entries = tomllib.loads(path.read_text("utf-8"))["mend"]
    return "\n".join(
        f"* {e['archive']}, slices {e['slices'][0]} to {e['slices'][1]}, {e['side']}: {e['why']}"
        for e in entries
    )
