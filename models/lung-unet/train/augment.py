"""What may happen to CT slices: other bodies, other scanners, other fields of view, disease.

Images are HU, float32 (3, SIDE, SIDE): the slice between its neighbours; labels long (SIDE, SIDE).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812  (its name everywhere)
from data import Stack
from disease import Scene, with_disease, with_gas
from mend import IGNORED
from noise import blurred, chance, field, log_uniform, uniform
from torch import Tensor

from dicom_node.tools.unet import SIDE

AIR = -1024.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """hu (3, SIDE, SIDE); labels; whether a pixel counts; whether it is painted dense lung."""

    hu: Tensor
    labels: Tensor
    counts: Tensor
    dense: Tensor


def grid_for(this: Stack, scale: float, gentle: float, onto: tuple[float, float]) -> Tensor:
    """Where in the stored slice each pixel of the network's input lies, (1, SIDE, SIDE, 2).

    onto: the centre, in halves of the box from its centre.
    """
    angle = math.radians(uniform(-20, 20) * gentle)
    aspect = math.exp(uniform(-0.12, 0.12) * gentle)
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    line = (torch.arange(SIDE) + 0.5) * (2.0 / SIDE) - 1.0
    y, x = torch.meshgrid(line, line, indexing="ij")
    bend_y, bend_x = torch.zeros(()), torch.zeros(())
    if gentle and chance(0.3):
        bend_y, bend_x = 0.02 * field(4, SIDE), 0.02 * field(4, SIDE)
    u = (cos * x - sin * y) * aspect + onto[1] + bend_x
    v = (sin * x + cos * y) / aspect + onto[0] + bend_y
    (rows, columns), box = this.hu.shape[-2:], this.box
    u = ((box.left + box.right) + u * (box.right - box.left)) / columns - 1.0
    v = ((box.top + box.bottom) + v * (box.bottom - box.top)) / rows - 1.0
    return torch.stack((u, v), dim=-1)[None]


def sampled(this: Stack, grid: Tensor, scale: float = 1.0) -> Scene:
    """The stack as the network is shown it; labels may be mend.IGNORED."""
    right, left = (this.labels == 1).float(), (this.labels == 2).float()
    planes = torch.cat((this.hu - AIR, right, left, (this.labels == IGNORED).float()))
    out = F.grid_sample(planes[None], grid, mode="bilinear", align_corners=False)[0]
    labels = (out[3:6] > 0.5).long() + 2 * (out[6:9] > 0.5).long()
    labels = torch.where(out[9:] > 0.25, IGNORED, labels)
    mm = (this.box.bottom - this.box.top) * this.spacing_yx_mm[0] * scale / SIDE
    return Scene(hu=out[:3] + AIR, labels=labels, pixel_mm=mm, heights_mm=this.heights_mm)


def plain(this: Stack) -> Scene:
    """Nothing happens to it."""
    return sampled(this, grid_for(this, 1.0, 0.0, (0.0, 0.0)))


def augmented(this: Stack, p: dict[str, float]) -> Example:
    """One training example."""
    scene = _seen(this, p)
    scored = scene.labels[1] != IGNORED
    scene = replace(scene, labels=torch.where(scene.labels == IGNORED, 0, scene.labels))
    has_lung = bool((scene.labels[1] > 0).any())
    dense = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    if has_lung and chance(p["disease"]):
        for _ in range(1 + chance(0.3)):
            hu, more = with_disease(scene)
            scene, dense = replace(scene, hu=hu), dense | (more > 0)
    if chance(p["gas_with_lung"] if has_lung else p["gas_without_lung"]):
        scene = replace(scene, hu=with_gas(scene))
    hu, labels = field_of_view(scanner(scene.hu, p), scene.labels[1], p)
    return Example(hu=hu, labels=labels, counts=scored, dense=dense & (labels > 0))


def _seen(this: Stack, p: dict[str, float]) -> Scene:
    """Body size, position, field of view; slices as thick as their neighbours are away."""
    if chance(p["thick"]):
        weight = uniform(0.1, 0.5)
        beside = this.hu[[0, 0, 1]] * 0.5 + this.hu[[1, 2, 2]] * 0.5
        this = replace(this, hu=(1 - weight) * this.hu + weight * beside)
    if chance(0.1):
        return plain(this)
    if chance(p["part"]):  # a field of view around a part of the chest
        scale, onto = log_uniform(0.3, 0.65), (uniform(-0.35, 0.35), uniform(-0.5, 0.5))
    else:
        reach = 0.5 if chance(0.5) else 1.0
        scale = math.exp(uniform(math.log(0.65), math.log(1.45)) * reach)
        shift = 0.25 * min(1.0, scale)
        onto = (uniform(-shift, shift), uniform(-shift, shift))
    return sampled(this, grid_for(this, scale, 1.0, onto), scale)


def scanner(image: Tensor, p: dict[str, float]) -> Tensor:
    """Kernel, dose, calibration: alike in all three slices, but for the noise."""
    if chance(p["blur"]):
        sigma = uniform(0.4, 1.5)
        image = torch.stack([blurred(s, sigma) for s in image])
    elif chance(p["sharpen"]):
        gain, sigma = uniform(0.5, 2.0), uniform(0.8, 1.6)
        image = image + gain * (image - torch.stack([blurred(s, sigma) for s in image]))
    inside = (image > -1010).float()
    if chance(p["noise"]):
        noise = torch.randn(3, SIDE, SIDE)
        if chance(0.5):
            sigma = uniform(0.5, 1.0)
            noise = torch.stack([blurred(s, sigma) for s in noise]) * 2.0
        image = image + noise * uniform(5, 90) * inside
    if chance(p["streaks"]):
        image = image + inside * torch.stack([streaks() for _ in image])
    if chance(0.5):
        image = (image + 1000) * uniform(0.95, 1.05) - 1000 + uniform(-30, 30)
    return image


def streaks() -> Tensor:
    """Parallel horizontal-ish bands, as from shoulders or low dose."""
    lines = torch.randn(1, 1, SIDE + 64, 3)
    rows = F.interpolate(lines, size=(SIDE + 64, SIDE), mode="bilinear")[0, 0]
    return uniform(10, 80) * rows[32 : 32 + SIDE] * torch.sigmoid(2 * field(3, SIDE))


def field_of_view(image: Tensor, labels: Tensor, p: dict[str, float]) -> tuple[Tensor, Tensor]:
    """The scan circle, and images that end inside the body."""
    line = torch.linspace(-1, 1, SIDE)
    y, x = line[:, None], line[None, :]
    outside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    if chance(p["circle"]):
        radius = uniform(0.7, 1.1)
        outside = (y - uniform(-0.1, 0.1)) ** 2 + (x - uniform(-0.1, 0.1)) ** 2 > radius**2
    if chance(p["truncation"]):
        cut = uniform(0.0, 0.95)
        side = int(torch.randint(4, ()))
        outside = outside | ((x, -x, y, -y)[side] > cut)
    return image.masked_fill(outside, AIR), labels.masked_fill(outside, 0)
