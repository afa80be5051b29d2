"""Disease painted into a stack of three neighbouring slices: it is inside the lung, and stays lung.

Silver labels hold almost no dense lung, so a network learns from them that lung is dark. Everything
here is made in millimetres and in three dimensions, so that the neighbours of a slice show the same
mass at another height of it. Images are HU, float32 (3, rows, columns): the slice below, the slice,
the slice above.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from noise import blurred, chance, field, log_uniform, uniform
from torch import Tensor

OPAQUE, HAZE, DARK = "opaque", "haze", "dark"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """hu, labels: (3, rows, columns); heights_mm: of each slice above the middle one."""

    hu: Tensor
    labels: Tensor
    pixel_mm: float
    heights_mm: tuple[float, float, float]

    @property
    def side(self) -> int:
        return int(self.hu.shape[-1])


def with_disease(scene: Scene) -> tuple[Tensor, Tensor]:
    """The painted slices, and where (rows, columns) of the middle one lung was made dense."""
    lung = _one_or_both(scene.labels)
    kind = float(torch.rand(()))
    if kind < 0.08:
        return _emphysema(scene, lung), torch.zeros_like(lung[1])
    if kind < 0.16:
        return _fibrosis(scene, lung), torch.zeros_like(lung[1])
    where = _shape(scene, lung)
    if kind < 0.30:
        return _haze(scene, where, lung), torch.zeros_like(lung[1])
    return _opaque(scene, where, lung)


def _one_or_both(labels: Tensor) -> Tensor:
    side = int(torch.randint(4, ()))
    lung = labels == side if side in (1, 2) else labels > 0
    return lung if lung[1].any() else labels > 0


def _grid(scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
    """Millimetres from the middle of the middle slice: z (3, 1, 1), y (1, n, 1), x (1, 1, n)."""
    line = (torch.arange(scene.side, dtype=torch.float32) - scene.side / 2) * scene.pixel_mm
    return torch.tensor(scene.heights_mm)[:, None, None], line[None, :, None], line[None, None, :]


def _shape(scene: Scene, lung: Tensor) -> Tensor:
    """Where the disease is, 0 or 1 (3, rows, columns), not yet cut to the lung."""
    kind = float(torch.rand(()))
    if kind < 0.62:
        where = _mass(scene, lung)
        for _ in range(int(torch.randint(1, 4, ())) if chance(0.6) else 0):
            where = torch.maximum(where, _mass(scene, lung))
        return where
    if kind < 0.82:
        return _level(scene, lung)
    if kind < 0.92:
        return _patches(scene)
    if kind < 0.95:
        return _rind(scene, lung)
    if kind < 0.98:
        return _part(scene, lung)
    return (1.0 - (field(5, scene.side) > uniform(0.8, 2.5)).float()).expand(3, -1, -1)


def _mass(scene: Scene, lung: Tensor) -> Tensor:
    """An ellipsoid, smooth or lobed, that the slices cut somewhere; often at the pleura."""
    z, y, x = _grid(scene)
    rows, columns = torch.nonzero(lung[1], as_tuple=True)
    if chance(0.75):  # at the pleura: where little lung is around
        weight = (1.02 - blurred(lung[1].float(), 6.0 / scene.pixel_mm)[rows, columns]) ** 4
    else:
        weight = torch.ones(len(rows))
    at = int(torch.multinomial(weight, 1))
    cy, cx = y[0, rows[at], 0], x[0, 0, columns[at]]
    a = log_uniform(8, 50)
    b, c = a * log_uniform(0.6, 1.6), a * log_uniform(0.7, 1.4)
    height = c * uniform(-0.8, 0.8)
    turn = uniform(0, math.pi)
    u = (math.cos(turn) * (x - cx) + math.sin(turn) * (y - cy)) / a
    v = (-math.sin(turn) * (x - cx) + math.cos(turn) * (y - cy)) / b
    w = (z - height) / c
    wave = field(int(torch.randint(3, 12, ())), scene.side) * (uniform(0, 0.4) * chance(0.5))
    return (torch.sqrt(u * u + v * v + w * w) + wave < 1).float()


def _level(scene: Scene, lung: Tensor) -> Tensor:
    """Fluid: behind mostly, in front of a prone patient, at the side of one who lies on it."""
    z, y, x = _grid(scene)
    turn = 0.0
    if chance(0.25):
        turn = float(torch.tensor([math.pi, math.pi / 2, -math.pi / 2])[torch.randint(3, ())])
    turn += uniform(-0.25, 0.25) if chance(0.5) else 0.0
    down = math.cos(turn) * y + math.sin(turn) * x
    across = math.cos(turn) * x - math.sin(turn) * y
    depth = down[0][lung[1]]
    level = float(torch.quantile(depth, uniform(0.02, 0.95)))
    middle = float(across[0][lung[1]].mean())
    bend = uniform(0, 0.006) * (across - middle) ** 2 if chance(0.4) else 0.0  # a meniscus
    wave = field(6, scene.side) * (uniform(0, 12) * chance(0.5))
    return (down + bend + wave + z * uniform(-0.3, 0.3) > level).float()


def _patches(scene: Scene) -> Tensor:
    size = scene.side
    first = field(int(torch.randint(3, 24, ())), size)
    drift = 0.5 * field(6, size)
    reach = max(1.0, *(abs(h) for h in scene.heights_mm))
    stack = torch.stack([first + drift * (h / reach) for h in scene.heights_mm])
    return (stack > uniform(-0.8, 1.0)).float()


def _rind(scene: Scene, lung: Tensor) -> Tensor:
    wave = 0.3 * field(int(torch.randint(3, 8, ())), scene.side)
    core = torch.stack([blurred(s.float(), uniform(4, 16) / scene.pixel_mm) for s in lung])
    return (core + wave < uniform(0.55, 0.9)).float()


def _part(scene: Scene, lung: Tensor) -> Tensor:
    """A lobe or a segment: up to a border across the lung, in any direction."""
    z, y, x = _grid(scene)
    turn = uniform(0, 2 * math.pi)
    along = math.cos(turn) * x + math.sin(turn) * y + z * uniform(-0.8, 0.8)
    along = along + field(5, scene.side) * uniform(0, 10)
    return (along > float(torch.quantile(along[1][lung[1]], uniform(0.2, 0.9)))).float()


def _tissue(scene: Scene) -> Tensor:
    """What is painted, (3, rows, columns) HU: as in the same image, or smooth, or plain noise."""
    size, kind = scene.side, float(torch.rand(()))
    base = uniform(-20, 110) if chance(0.6) else uniform(20, 60)
    soft = (scene.hu[1] > -60) & (scene.hu[1] < 140) & (scene.labels[1] == 0)
    if kind < 0.5 and int(soft.sum()) > 400:
        rest = scene.hu - torch.stack([blurred(s, 2.0) for s in scene.hu])
        found = rest[:, soft]
        spread = float(found.abs().median()) * 1.48
        grain = torch.randn(3, size, size)
        if chance(0.6):
            grain = torch.stack([blurred(s, 0.7) for s in grain]) * 2.2
        return base + grain * spread + field(10, size) * uniform(0, 8)
    if kind < 0.75:
        grain = torch.stack([blurred(s, uniform(0.3, 0.9)) for s in torch.randn(3, size, size)])
        coarse = field(int(torch.randint(8, 40, ())), size) * uniform(0, 20)
        return base + grain * uniform(4, 40) + coarse
    return base + torch.randn(3, size, size) * uniform(0, 30)


def _opaque(scene: Scene, where: Tensor, lung: Tensor) -> tuple[Tensor, Tensor]:
    """Dense as tissue. At the pleura no dark rim may stay: it would show where to stop."""
    room = lung.float()
    if chance(0.75):
        near = torch.nn.functional.max_pool2d(room[:, None], 5, stride=1, padding=2)[:, 0]
        rim = (near > 0) & (scene.labels == 0) & (scene.hu > -800) & (scene.hu < 100)
        room = torch.maximum(room, rim.float())
    if chance(0.3):  # air bronchograms
        branches = (field(20, scene.side) + 0.5 * field(40, scene.side)).abs() > uniform(0.03, 0.2)
        where = where * branches.float()
    softness = uniform(0.3, 1.8)
    share = torch.stack([blurred(s, softness) for s in where]) * room
    hu = scene.hu * (1 - share) + share * _tissue(scene)
    dense = (share[1] > 0.5) & (scene.hu[1] < -300) & lung[1]
    return hu, dense


def _haze(scene: Scene, where: Tensor, lung: Tensor) -> Tensor:
    """Ground glass: what was there still shows."""
    soft = torch.stack([blurred(s, uniform(0.8, 3.0)) for s in where * lung])
    share = soft * lung * uniform(0.25, 0.85)
    grain = field(int(torch.randint(8, 40, ())), scene.side) * uniform(0, 40)
    return scene.hu * (1 - share) + share * (uniform(-500, -50) + grain)


def _fibrosis(scene: Scene, lung: Tensor) -> Tensor:
    """Lines and honeycombs, more of them at the pleura."""
    cells = int(torch.randint(30, 70, ()))
    lines = (field(cells, scene.side).abs() < uniform(0.1, 0.5)).float()
    edge = 1 - torch.stack([blurred(s.float(), uniform(6, 25) / scene.pixel_mm) for s in lung])
    share = blurred(lines, uniform(0.4, 0.9))[None] * lung * (edge * 2).clamp(0, 1)
    return scene.hu * (1 - share) + share * uniform(-300, 50)


def _emphysema(scene: Scene, lung: Tensor) -> Tensor:
    """Bullae, and lung that is darker as a whole."""
    hu = torch.where(lung, scene.hu - uniform(0, 70), scene.hu)
    holes = (field(int(torch.randint(4, 30, ())), scene.side) > uniform(0.5, 1.5)).float()
    share = blurred(holes, uniform(0.4, 1.2))[None] * lung
    return hu * (1 - share) + share * uniform(-1015, -960)


def with_gas(scene: Scene) -> Tensor:
    """Bowel and stomach gas, air cells: in groups, with fluid levels, with stool; never lung."""
    room = (scene.labels == 0) & (scene.hu > -200)
    found = torch.nonzero(room[1])
    if not len(found):
        return scene.hu
    z, y, x = _grid(scene)
    hu = scene.hu
    centre = found[int(torch.randint(len(found), ()))]
    my, mx = float(y[0, centre[0], 0]), float(x[0, 0, centre[1]])
    for _ in range(int(torch.randint(1, 6, ()))):
        cy, cx = my + uniform(-30, 30), mx + uniform(-30, 30)
        a, b, c = log_uniform(3, 55), log_uniform(3, 40), log_uniform(6, 60)
        wave = 0.3 * field(6, scene.side)
        v, u, w = (y - cy) / b, (x - cx) / a, (z - c * uniform(-0.8, 0.8)) / c
        where = (u * u + v * v + w * w + wave < 1) & room
        if chance(0.4):
            where = where & (v < uniform(-0.3, 0.8))
        air = torch.full_like(hu[0], uniform(-1010, -850))
        if chance(0.3):
            air = air + 500 * (field(24, scene.side) + 0.5).clamp(0, 2)
        soft = torch.stack([blurred(s.float(), uniform(0.4, 1.0)) for s in where])
        soft = soft * (scene.labels == 0)
        hu = hu * (1 - soft) + soft * air
    return hu
