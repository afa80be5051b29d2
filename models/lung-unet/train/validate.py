"""How a network in training does on archives that it is not trained on."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from augment import plain
from data import LEFT, RIGHT, Archive, stack_at
from mend import IGNORED
from torch import Tensor
from trials import TRIALS, filled

from dicom_node.tools.engine import Engine
from dicom_node.tools.predictor import Predictor
from dicom_node.tools.unet import UNet

_SMALL = 300  # pixels: a slice with less of a lung is not called the worst
_EVERY = 6  # slices with lung; all would take longer than the training


class Validation:
    """Chosen slices, as they are, and with the diseases of `trials` in them."""

    def __init__(
        self, archives: list[Archive], window_hu: tuple[float, float], *, painted: bool = True
    ) -> None:
        self._window = window_hu
        self._plain: dict[str, tuple[Tensor, Tensor]] = {}
        self._painted: dict[str, tuple[Tensor, Tensor]] = {}
        for archive in archives:
            self._plain[archive.name] = _chosen(
                archive, (archive.labels == RIGHT) | (archive.labels == LEFT)
            )
        whole = [a for a in archives if not a.single and sum(a.has_lung()) > 40]
        for trial in TRIALS if painted else ():
            made = [_sick(archive, trial, side) for archive in whole for side in (RIGHT, LEFT)]
            if made:
                stacks, truths = zip(*made, strict=True)
                self._painted[trial] = (torch.cat(stacks), torch.cat(truths))

    def score(self, network: UNet, engine: Engine) -> dict[str, float]:
        """Dice a side over all archives, share of each painted disease found on its side."""
        predictor = Predictor(copy.deepcopy(network), engine, self._window)
        counts = [_counts(predictor, *pair) for pair in self._plain.values()]
        total = np.concatenate(counts).sum(axis=0)
        score = {"right": _dice(total[0]), "left": _dice(total[1])}
        for trial, (hu, truth) in self._painted.items():
            found = _classes(predictor, hu)
            score[trial] = round(float((found == truth)[truth > 0].float().mean()), 4)
        return score

    def by_archive(self, network: UNet, engine: Engine) -> dict[str, dict[str, float]]:
        """Dice a side of each archive, and of its worst slice; the false share where is no lung."""
        predictor = Predictor(copy.deepcopy(network), engine, self._window)
        table: dict[str, dict[str, float]] = {}
        for name, (hu, labels) in self._plain.items():
            each = [
                _counts(predictor, *one) for one in zip(hu.split(8), labels.split(8), strict=True)
            ]
            counts = np.concatenate(each)
            right, left = counts.sum(axis=0)
            row = {"slices": len(labels)}
            if bool(((labels == RIGHT) | (labels == LEFT)).any()):
                large = [c for pair in counts for c in pair if c[2] > _SMALL]
                worst = min((_dice(c) for c in large), default=1.0)
                table[name] = {**row, "right": _dice(right), "left": _dice(left), "worst": worst}
            else:
                wrong = float(right[1] + left[1]) / labels.numel()
                table[name] = {**row, "false_percent": round(100 * wrong, 3)}
        return table


def _counts(predictor: Predictor, hu: Tensor, labels: Tensor) -> np.ndarray:
    """(B, 2, 3): overlap, found, true pixels of each side in each slice."""
    found = _classes(predictor, hu).masked_fill(labels == IGNORED, 0)
    sides = [
        torch.stack([(found == s) & (labels == s), found == s, labels == s], dim=1)
        for s in (RIGHT, LEFT)
    ]
    return torch.stack(sides, dim=1).sum(dim=(3, 4)).numpy()


def _chosen(archive: Archive, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, SIDE, SIDE) HU and labels (B, SIDE, SIDE) of some slices with what is wanted."""
    at = torch.nonzero(wanted.any(dim=2).any(dim=1))[:, 0].tolist()
    at = at[:: _EVERY if len(at) > 2 * _EVERY else 1] or list(range(0, len(archive.hu), _EVERY))
    reach = 0 if archive.single else max(1, round(8.0 / archive.spacing_zyx_mm[0]))
    scenes = [plain(stack_at(archive, i, reach, reach)) for i in at]
    return torch.stack([s.hu for s in scenes]), torch.stack([s.labels[1] for s in scenes])


def _sick(archive: Archive, trial: str, side: int) -> tuple[Tensor, Tensor]:
    """Slices of an archive with a disease in one lung; the truth is that lung where it is."""
    where = TRIALS[trial]((archive.labels == side).numpy(), archive.spacing_zyx_mm)
    hu = filled(archive.hu.numpy(), where, "grain" if side == RIGHT else "stripes")
    painted = torch.from_numpy(where)
    sick = replace(archive, hu=torch.from_numpy(hu), labels=(painted * side).to(torch.uint8))
    return _chosen(sick, painted)


def _classes(predictor: Predictor, hu: Tensor) -> Tensor:
    return torch.cat([predictor.logits(part).argmax(dim=1) for part in hu.split(8)]).cpu()


def _dice(counts: np.ndarray) -> float:
    return round(float(2 * counts[0] / max(1, counts[1] + counts[2])), 4)
