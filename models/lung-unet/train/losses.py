"""What a network is to make small, and how fast it learns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (its name everywhere)
from torch import Tensor, nn


def loss_of(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Weighted cross-entropy, and the Dice of both lungs over what counts at all."""
    entropy = (F.cross_entropy(logits, labels, reduction="none") * weight).mean()
    counts = (weight > 0)[:, None]
    p = logits.softmax(dim=1)[:, 1:] * counts
    t = F.one_hot(labels, 3).permute(0, 3, 1, 2)[:, 1:] * counts
    overlap, sizes = (p * t).sum(dim=(0, 2, 3)), (p + t).sum(dim=(0, 2, 3))
    return entropy + (1 - (2 * overlap + 50) / (sizes + 50)).mean()


def distance_to(wanted: Tensor, logits: Tensor, weight: Tensor) -> Tensor:
    """How far the answer is from the teachers' probabilities (Kullback-Leibler).

    Where a pixel does not count for the labels, the teachers are all there is: it counts here.
    """
    far = F.kl_div(logits.log_softmax(dim=1), wanted, reduction="none").sum(dim=1)
    return (far * weight.clamp(min=1.0)).mean()


@torch.no_grad()
def opinion(teachers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """The mean of the teachers' probabilities, (B, classes, rows, columns)."""
    return torch.stack([teacher(x).float().softmax(dim=1) for teacher in teachers]).mean(dim=0)


def learning_rate(progress: float, config: dict[str, Any]) -> float:
    """Up in a line, down in a cosine."""
    warm, highest = float(config["warmup"]), float(config["learning_rate"])
    if progress < warm:
        return highest * (0.04 + 0.96 * progress / warm)
    falling = 0.5 * (1 + math.cos(math.pi * (progress - warm) / (1 - warm)))
    return highest * (0.002 + falling)


@torch.no_grad()
def follow(mean: nn.Module, network: nn.Module, keep: float) -> None:
    """A running mean of the weights."""
    for a, b in zip(mean.state_dict().values(), network.state_dict().values(), strict=True):
        if a.dtype.is_floating_point:
            a.lerp_(b, 1 - keep)
        else:
            a.copy_(b)
