"""The training slices: chosen by licence, turned into what the augmentation cuts from."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dicom_node.tools.body import Box, body_box

FREE = re.compile(r"^(CC BY \d|CC0|MIT|Apache)")
RIGHT, LEFT = 1, 2  # as in model.toml; the archives have 1 = left, 2 = right


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """hu float32 (H, W); labels uint8 (H, W) 0, RIGHT, LEFT; canonical axes."""

    hu: Tensor
    labels: Tensor
    box: Box
    volume: str
    single: bool


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


def load(folder: Path) -> list[Slice]:
    """All slices of one archive. Single slices of many patients get a body box each."""
    meta = json.loads((folder / "meta.json").read_text("utf-8"))
    hu = np.load(folder / "hu.npy")
    stored = np.load(folder / "mask.npy")
    labels = np.select([stored == 2, stored == 1], [RIGHT, LEFT], 0).astype(np.uint8)
    single = bool(meta.get("single_slices"))
    spacing = meta["spacing_zyx"][1:]
    whole = body_box(hu, spacing)
    boxes = [body_box(hu[z : z + 1], spacing) if single else whole for z in range(len(hu))]
    return [
        Slice(
            hu=torch.from_numpy(hu[z].astype(np.float32)),
            labels=torch.from_numpy(labels[z]),
            box=boxes[z],
            volume=folder.name,
            single=single,
        )
        for z in range(len(hu))
    ]


class Sampler:
    """Draws batches: so many single slices, slices with lung, slices without."""

    def __init__(self, slices: list[Slice], shares: dict[str, float], seed: int) -> None:
        self._random = np.random.default_rng(seed)
        lung = np.array([bool((s.labels > 0).any()) for s in slices])
        single = np.array([s.single for s in slices])
        self._slices = slices
        groups = (np.flatnonzero(lung & single), np.flatnonzero(lung & ~single))
        self._groups = (*groups, np.flatnonzero(~lung))
        self._shares = (shares["single_slices"], shares["lung"], shares["empty"])
        self._weights = [self._by_volume(group) for group in self._groups]

    def batch(self, size: int) -> list[tuple[Slice, Slice]]:
        """Pairs of a slice and a neighbour of it (itself where there is none)."""
        return [self._draw() for _ in range(size)]

    def _draw(self) -> tuple[Slice, Slice]:
        group = int(self._random.choice(3, p=self._shares))
        chosen = int(self._random.choice(self._groups[group], p=self._weights[group]))
        this = self._slices[chosen]
        beside = self._slices[min(chosen + 1, len(self._slices) - 1)]
        alike = beside.volume == this.volume and not this.single
        return this, beside if alike else this

    def _by_volume(self, group: np.ndarray) -> np.ndarray:
        """A volume of four times the slices is drawn twice as often."""
        names = np.array([self._slices[i].volume for i in group])
        counts = {str(n): float((names == n).sum()) for n in np.unique(names)}
        weights = np.array([counts[str(n)] ** -0.5 for n in names])
        return weights / weights.sum()
