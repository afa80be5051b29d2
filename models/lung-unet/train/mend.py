"""Labels that are visibly wrong, mended or left out of the score, as mend.toml says."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813  (as its own examples do)
from numpy.typing import NDArray

IGNORED = 3
SIDES = {"right": 1, "left": 2}
_BAND = 6


def mended(name: str, labels: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """0, RIGHT, LEFT -> the same with IGNORED; patient axes: the right is at low columns."""
    out = labels.copy()
    for entry in tomllib.loads(path.read_text("utf-8"))["mend"]:
        if entry["archive"] == name:
            first, last = entry["slices"]
            for z in range(first, last + 1):
                out[z] = _HOW[entry["how"]](out[z], entry)
    return out


def _ignore(plane: NDArray[np.uint8], entry: dict[str, Any]) -> NDArray[np.uint8]:
    columns = np.arange(plane.shape[1])
    half = columns < entry["middle"] if entry["side"] == "right" else columns > entry["middle"]
    return np.where((plane == 0) & half, IGNORED, plane).astype(np.uint8)


def _mirror(plane: NDArray[np.uint8], entry: dict[str, Any]) -> NDArray[np.uint8]:
    side = SIDES[entry["side"]]
    other = plane == 3 - side
    columns = 2 * int(entry["middle"]) - np.arange(plane.shape[1])
    valid = (columns >= 0) & (columns < plane.shape[1])
    seen = np.zeros_like(other)
    seen[:, valid] = other[:, columns[valid]]
    image = sitk.GetImageFromArray((seen | (plane == side)).astype(np.uint8))
    closed = sitk.BinaryMorphologicalClosing(image, (3, 3))
    inner = sitk.GetArrayFromImage(sitk.BinaryErode(closed, (_BAND, _BAND))) > 0
    outer = sitk.GetArrayFromImage(sitk.BinaryDilate(closed, (_BAND, _BAND))) > 0
    out = np.where((plane == 0) & outer, IGNORED, plane)
    return np.where(inner & (plane != 3 - side), side, out).astype(np.uint8)


_HOW = {"ignore": _ignore, "mirror": _mirror}


def described(path: Path) -> str:
    """One line for each."""
    entries = tomllib.loads(path.read_text("utf-8"))["mend"]
    return "\n".join(
        f"* {e['archive']}, slices {e['slices'][0]} to {e['slices'][1]}, {e['side']}: "
        f"{e['why']} ({e['how']})"
        for e in entries
    )
