"""Chance and smooth noise, from torch's own generator: one seed gives one training."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812  (its name everywhere)
from torch import Tensor


def uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def log_uniform(low: float, high: float) -> float:
    return math.exp(uniform(math.log(low), math.log(high)))


def chance(p: float) -> bool:
    return float(torch.rand(())) < p


def field(cells: int, side: int) -> Tensor:
    """Smooth noise (side, side), about -2..2, with so many cells along a side."""
    coarse = torch.randn(1, 1, cells + 3, cells + 3)
    return F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)[0, 0]


def blurred(image: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur of (rows, columns), sigma in pixels; wide ones on a coarser grid."""
    if sigma < 0.2:
        return image
    if sigma > 5:
        step = int(sigma // 2.5)
        coarse = F.avg_pool2d(image[None, None], step, ceil_mode=True)
        out = blurred(coarse[0, 0], sigma / step)[None, None]
        return F.interpolate(out, size=image.shape, mode="bilinear", align_corners=False)[0, 0]
    r = max(1, math.ceil(2.5 * sigma))
    x = torch.arange(-r, r + 1, dtype=torch.float32)
    k = torch.exp(-0.5 * (x / sigma) ** 2)
    k = k / k.sum()
    padded = F.pad(image[None, None], (r, r, r, r), mode="replicate")
    rows = F.conv2d(padded, k[None, None, :, None])
    return F.conv2d(rows, k[None, None, None, :])[0, 0]
