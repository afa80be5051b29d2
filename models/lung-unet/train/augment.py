"""What may happen to a CT slice: other bodies, other scanners, other fields of view, disease.

Images are HU, float32 (256, 256); labels long (256, 256). Disease is painted inside the label and
stays lung; gas is painted outside and stays background.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812  (its name everywhere)
from data import Slice
from torch import Tensor

from dicom_node.tools.unet import SIDE

AIR = -1024.0


def uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def chance(p: float) -> bool:
    return float(torch.rand(())) < p


def field(cells: int) -> Tensor:
    """Smooth noise (256, 256), about -2..2, with so many cells along a side."""
    coarse = torch.randn(1, 1, cells + 3, cells + 3)
    shape = (SIDE, SIDE)
    return F.interpolate(coarse, size=shape, mode="bicubic", align_corners=False)[0, 0]


def blurred(image: Tensor, sigma: float) -> Tensor:
    if sigma < 0.2:
        return image
    r = max(1, math.ceil(2.5 * sigma))
    x = torch.arange(-r, r + 1, dtype=torch.float32)
    k = torch.exp(-0.5 * (x / sigma) ** 2)
    k = k / k.sum()
    padded = F.pad(image[None, None], (r, r, r, r), mode="replicate")
    rows = F.conv2d(padded, k[None, None, :, None])
    return F.conv2d(rows, k[None, None, None, :])[0, 0]


def grid_for(this: Slice, scale: float, gentle: float) -> Tensor:
    """Where in the stored slice each pixel of the network's input lies, (1, 256, 256, 2)."""
    angle = math.radians(uniform(-15, 15) * gentle)
    aspect = math.exp(uniform(-0.12, 0.12) * gentle)
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    line = (torch.arange(SIDE) + 0.5) * (2.0 / SIDE) - 1.0
    y, x = torch.meshgrid(line, line, indexing="ij")
    bend_y, bend_x = torch.zeros(()), torch.zeros(())
    if gentle and chance(0.3):
        bend_y, bend_x = 0.02 * field(4), 0.02 * field(4)
    shift_y, shift_x = (uniform(-0.3, 0.3) * gentle * min(1.0, scale) for _ in range(2))
    u = (cos * x - sin * y) * aspect + shift_x + bend_x
    v = (sin * x + cos * y) / aspect + shift_y + bend_y
    rows, columns, box = *this.hu.shape, this.box
    u = ((box.left + box.right) + u * (box.right - box.left)) / columns - 1.0
    v = ((box.top + box.bottom) + v * (box.bottom - box.top)) / rows - 1.0
    return torch.stack((u, v), dim=-1)[None]


def sampled(this: Slice, hu: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    planes = torch.stack((hu - AIR, (this.labels == 1).float(), (this.labels == 2).float()))
    out = F.grid_sample(planes[None], grid, mode="bilinear", align_corners=False)[0]
    labels = torch.where(out[1] > 0.5, 1, 0) + torch.where(out[2] > 0.5, 2, 0)
    return out[0] + AIR, labels.clamp(0, 2)


def augmented(
    pair: tuple[Slice, Slice], p: dict[str, float], disease: bool
) -> tuple[Tensor, Tensor]:
    """One training image and its labels."""
    this, beside = pair
    hu = this.hu
    if chance(p["thick"]):
        weight = uniform(0.2, 0.5)
        hu = (1 - weight) * hu + weight * beside.hu
    gentle = 0.0 if chance(0.1) else 1.0
    scale = math.exp(
        uniform(math.log(0.65), math.log(1.4)) * (0.5 if chance(0.5) else 1.0) * gentle
    )
    image, labels = sampled(this, hu, grid_for(this, scale, gentle))
    has_lung = bool((labels > 0).any())
    if has_lung and disease and chance(p["disease"]):
        for _ in range(1 + chance(0.35)):
            image = with_disease(image, labels)
    if chance(p["gas_with_lung"] if has_lung else p["gas_without_lung"]):
        image = with_gas(image, labels)
    image = scanner(image, p)
    return field_of_view(image, labels, p)


def scanner(image: Tensor, p: dict[str, float]) -> Tensor:
    """Kernel, dose, calibration."""
    if chance(p["blur"]):
        image = blurred(image, uniform(0.4, 1.4))
    elif chance(p["sharpen"]):
        image = image + uniform(0.5, 1.8) * (image - blurred(image, uniform(0.8, 1.6)))
    inside = (image > -1010).float()
    if chance(p["noise"]):
        noise = torch.randn(SIDE, SIDE)
        noise = blurred(noise, uniform(0.5, 1.0)) * 2.0 if chance(0.5) else noise
        image = image + noise * uniform(5, 90) * inside
    if chance(p["streaks"]):
        image = image + inside * streaks()
    if chance(0.5):
        image = (image + 1000) * uniform(0.95, 1.05) - 1000 + uniform(-25, 25)
    return image


def streaks() -> Tensor:
    """Parallel horizontal-ish bands, as from shoulders or low dose."""
    lines = torch.randn(1, 1, SIDE + 64, 3)
    rows = F.interpolate(lines, size=(SIDE + 64, SIDE), mode="bilinear")[0, 0]
    return uniform(10, 80) * rows[32 : 32 + SIDE] * torch.sigmoid(2 * field(3))


def field_of_view(image: Tensor, labels: Tensor, p: dict[str, float]) -> tuple[Tensor, Tensor]:
    """The scan circle, and images that end inside the body."""
    line = torch.linspace(-1, 1, SIDE)
    y, x = line[:, None], line[None, :]
    outside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    if chance(p["circle"]):
        radius = uniform(0.7, 1.1)
        outside = (y - uniform(-0.1, 0.1)) ** 2 + (x - uniform(-0.1, 0.1)) ** 2 > radius**2
    if chance(p["truncation"]):
        cut = uniform(0.4, 0.95)
        side = int(torch.randint(4, ()))
        outside = outside | ((x, -x, y, -y)[side] > cut)
    return image.masked_fill(outside, AIR), labels.masked_fill(outside, 0)


def shape_of_disease(lung: Tensor) -> Tensor:
    """Where the opacity is: 0..1 (256, 256), not yet cut to the lung."""
    rows, columns = torch.nonzero(lung, as_tuple=True)
    kind = float(torch.rand(()))
    line = torch.arange(SIDE, dtype=torch.float32)
    y, x = line[:, None], line[None, :]
    wave = field(int(torch.randint(3, 9, ()))) * uniform(0.0, 0.35)
    if kind < 0.4:  # masses and nodules, a third of them at the pleura
        weight = blurred(lung.float(), 6.0)[rows, columns]
        weight = (1.02 - weight) ** 3 if chance(0.5) else torch.ones_like(weight)
        at = int(torch.multinomial(weight, 1))
        a = math.exp(uniform(math.log(5), math.log(55)))
        b = a * uniform(0.6, 1.6)
        turn = uniform(0, math.pi)
        dy, dx = y - rows[at], x - columns[at]
        u = (math.cos(turn) * dx + math.sin(turn) * dy) / a
        v = (-math.sin(turn) * dx + math.cos(turn) * dy) / b
        return (torch.sqrt(u * u + v * v) + wave < 1).float()
    if kind < 0.65:  # dependent, with a level or a meniscus
        level = torch.quantile(rows.float(), uniform(0.1, 0.95))
        tilt = uniform(-0.3, 0.3) if chance(0.5) else 0.0
        return (y + tilt * (x - SIDE / 2) + 20 * wave > level).float().expand(SIDE, SIDE)
    if kind < 0.85:  # patches
        noise = field(int(torch.randint(3, 24, ())))
        return (noise > uniform(-0.8, 0.9)).float()
    if kind < 0.95:  # along the pleura
        core = blurred(lung.float(), uniform(4, 12))
        return (core + 0.3 * wave < uniform(0.55, 0.9)).float()
    hole = (field(5) > uniform(0.8, 2.0)).float()  # nearly all of it
    return 1.0 - hole


def with_disease(image: Tensor, labels: Tensor) -> Tensor:
    """Opacity in one lung or both."""
    side = int(torch.randint(3, ()))
    lung = labels == side if side else labels > 0
    if not lung.any():
        lung = labels > 0
    where = shape_of_disease(lung) * lung
    where = blurred(where, uniform(0.4, 2.0)) * lung
    texture = field(int(torch.randint(8, 40, ()))) * uniform(0, 20)
    texture = texture + blurred(torch.randn(SIDE, SIDE), uniform(0.3, 0.9)) * uniform(4, 30)
    if chance(0.3):  # ground glass: what was there still shows
        share = where * uniform(0.3, 0.85)
        return image * (1 - share) + share * (uniform(-500, -100) + texture)
    if chance(0.35):  # air bronchograms
        where = where * ((field(20) + 0.5 * field(40)).abs() > uniform(0.03, 0.2)).float()
    return image * (1 - where) + where * (uniform(-40, 80) + texture)


def with_gas(image: Tensor, labels: Tensor) -> Tensor:
    """Bowel gas, air cells: round, in groups, some with a fluid level, some full of stool."""
    room = (labels == 0) & (image > -200)
    found = torch.nonzero(room)
    if not len(found):
        return image
    line = torch.arange(SIDE, dtype=torch.float32)
    centre = found[int(torch.randint(len(found), ()))].float()
    for _ in range(int(torch.randint(1, 6, ()))):
        cy, cx = (centre + torch.randn(2) * 15).tolist()
        a, b = uniform(2, 32), uniform(2, 22)
        dy, dx = (line[:, None] - cy) / b, (line[None, :] - cx) / a
        where = (dy * dy + dx * dx + 0.3 * field(6) < 1) & room
        if chance(0.4):
            where = where & (dy < uniform(-0.3, 0.8))
        air = torch.full((SIDE, SIDE), uniform(-1000, -850))
        if chance(0.3):
            air = air + 500 * (field(24) + 0.5).clamp(0, 2)
        soft = blurred(where.float(), uniform(0.4, 1.0)) * (labels == 0)
        image = image * (1 - soft) + soft * air
    return image
