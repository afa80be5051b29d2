"""The training slices: chosen by licence, with their neighbours, ready for the augmentation."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mend import mended
from noise import chance, uniform
from torch import Tensor

from dicom_node.testing.phantom import chest_phantom
from dicom_node.tools.body import Box, body_box

FREE = re.compile(r"^(CC BY \d|CC0|MIT|Apache)")
MENDED = Path(__file__).parent / "mend.toml"
RIGHT, LEFT = 1, 2  # as in model.toml; the archives have 1 = left, 2 = right


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One archive, canonical axes: hu float32, labels uint8 (slices, rows, columns).

    labels: 0, RIGHT, LEFT, or mend.IGNORED.
    single: its slices are of many patients, in no order. boxes: of each slice. drawn: a phantom.
    """

    name: str
    hu: Tensor
    labels: Tensor
    spacing_zyx_mm: tuple[float, float, float]
    boxes: tuple[Box, ...]
    single: bool
    drawn: bool = False

    def has_lung(self) -> list[bool]:
        return [bool(((plane == RIGHT) | (plane == LEFT)).any()) for plane in self.labels]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A slice between two neighbours: hu, labels (3, rows, columns), from below to above."""

    hu: Tensor
    labels: Tensor
    box: Box
    spacing_yx_mm: tuple[float, float]
    heights_mm: tuple[float, float, float]


def is_free(licence: str) -> bool:
    """Whether weights trained on it may be published: CC BY, CC0, MIT, Apache."""
    doubtful = re.search(r"\bNC\b|\bND\b|\bSA\b|^unknown", licence) is not None
    return FREE.match(licence) is not None and not doubtful


def entries(manifest: Path, role: str) -> list[dict[str, object]]:
    """The tables of MANIFEST.toml with this role."""
    tables = tomllib.loads(manifest.read_text("utf-8"))["series"]
    return [table for table in tables if table["role"] == role]


def split(manifest: Path) -> tuple[list[str], list[str]]:
    """Names of the volumes to train on, and of those that may only validate."""
    named = {str(e["name"]): str(e["licence"]) for e in entries(manifest, "train")}
    train = [name for name, licence in named.items() if is_free(licence)]
    assert train, "no volume with a free licence"
    assert all("unknown" not in named[n].split("(")[0] and "NC" not in named[n] for n in train)
    return train, [name for name in named if name not in train]


def load(folder: Path) -> Archive:
    """One archive of the training data."""
    meta = json.loads((folder / "meta.json").read_text("utf-8"))
    hu = np.load(folder / "hu.npy")
    stored = np.load(folder / "mask.npy")
    labels = np.select([stored == 2, stored == 1], [RIGHT, LEFT], 0).astype(np.uint8)
    labels = mended(folder.name, labels, MENDED)
    z, y, x = (float(mm) for mm in meta["spacing_zyx"])
    return Archive(
        name=folder.name,
        hu=torch.from_numpy(hu.astype(np.float32)),
        labels=torch.from_numpy(labels),
        spacing_zyx_mm=(z, y, x),
        boxes=tuple(body_box(hu[i : i + 1], (y, x)) for i in range(len(hu))),
        single=bool(meta.get("single_slices")),
    )


def phantoms(
    seeds: Sequence[int], slices: int, size: int, spacing_mm: Sequence[float]
) -> list[Archive]:
    """Computed chests, one for each seed; a third of a minute each."""
    z, y, x = spacing_mm
    made = []
    for seed in seeds:
        volume, labels = chest_phantom(slices, size, (z, y, x), seed=seed)
        hu = volume.voxels_zyx
        made.append(
            Archive(
                name=f"phantom-{seed}",
                hu=torch.from_numpy(hu.astype(np.float32)),
                labels=torch.from_numpy(labels),
                spacing_zyx_mm=(z, y, x),
                boxes=tuple(body_box(hu[i : i + 1], (y, x)) for i in range(len(hu))),
                single=False,
                drawn=True,
            )
        )
    return made


def stack_at(archive: Archive, at: int, below: int, above: int) -> Stack:
    """Slice `at` between slices so many steps away; beyond the end there is the slice itself."""
    low, high = at - below, at + above
    chosen = [low if low >= 0 else at, at, high if high < len(archive.hu) else at]
    z, y, x = archive.spacing_zyx_mm
    heights = tuple((i - at) * z for i in chosen)
    return Stack(
        hu=archive.hu[chosen],
        labels=archive.labels[chosen],
        box=archive.boxes[at],
        spacing_yx_mm=(y, x),
        heights_mm=(heights[0], heights[1], heights[2]),
    )


class Sampler:
    """Draws slices: so many single ones, with lung, without, and of phantoms."""

    def __init__(self, archives: list[Archive], shares: dict[str, float], alone: float) -> None:
        self._archives = archives
        self._alone = alone
        places = [(a, i) for a in range(len(archives)) for i in range(len(archives[a].hu))]
        lung = np.array([held for archive in archives for held in archive.has_lung()])
        single = np.array([archives[a].single for a, _ in places])
        self._places = places
        drawn = np.array([archives[a].drawn for a, _ in places])
        kinds = (lung & single, lung & ~single & ~drawn, ~lung & ~drawn, drawn)
        self._groups = [np.flatnonzero(kind) for kind in kinds]
        self._shares = torch.tensor(
            [shares[kind] for kind in ("single_slices", "lung", "empty", "phantom")],
            dtype=torch.float64,
        )
        for n, group in enumerate(self._groups):
            self._shares[n] *= len(group) > 0
        self._weights = [self._by_archive(group) for group in self._groups]

    def draw(self) -> Stack:
        """One slice with neighbours 3 to 14 mm away, or with itself beside it."""
        group = int(torch.multinomial(self._shares, 1))
        chosen = int(torch.multinomial(self._weights[group], 1))
        a, at = self._places[int(self._groups[group][chosen])]
        archive = self._archives[a]
        if archive.single or chance(self._alone):
            return stack_at(archive, at, 0, 0)
        z = archive.spacing_zyx_mm[0]
        reach = max(1, round(uniform(3.0, 14.0) / z))
        one_sided = chance(0.1)
        return stack_at(archive, at, 0 if one_sided and chance(0.5) else reach, reach)

    def _by_archive(self, group: np.ndarray) -> Tensor:
        """An archive of four times the slices is drawn twice as often."""
        owners = np.array([self._places[i][0] for i in group])
        counts = np.bincount(owners, minlength=len(self._archives)) if len(group) else owners
        return torch.tensor([float(counts[o]) ** -0.5 for o in owners], dtype=torch.float64)
