"""The chest phantom: a CT of a body that never was, with the truth about its lungs.

It is drawn, not scanned: no patient's data is in it. Everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dicom_node.domain.volume import Volume
from dicom_node.testing import anatomy, skeleton, vessels
from dicom_node.testing.anatomy import LEFT, RIGHT, Grid, Physique
from dicom_node.testing.shapes import ellipsoid, smooth_union

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Field = NDArray[np.float32]

RIGHT_LUNG, LEFT_LUNG = 1, 2
COARSE_MM = 3.0  # the organs are computed on a grid of about this and interpolated
WALL_MM = 1.6  # of the airways
FAR_MM = 4.0  # beyond this a layer leaves no trace


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """One organ: painted over what was there before, by the share of the voxel that it fills.

    distance_mm: on the coarse grid; hu: its density; edge_mm: how soft its edge is.
    """

    distance_mm: Field
    hu: float
    edge_mm: float = 1.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Organs:
    """All that is drawn: what lies under the lungs, the lungs (right, left), what lies over."""

    under: list[Layer]
    lungs: tuple[Field, Field]
    over: list[Layer]
    lumen: Field
    fissures: tuple[Field, Field]


def chest_phantom(
    slices: int = 93,
    size: int = 512,
    spacing_mm: tuple[float, float, float] = (3.0, 0.75, 0.75),
    *,
    seed: int = 0,
    physique: Physique | None = None,
    noise_hu: float = 18.0,
) -> tuple[Volume, NDArray[np.uint8]]:
    """A supine chest CT, feet to head, and labels_zyx: uint8, 1 = right lung, 2 = left lung.

    voxels_zyx: int16 HU; rows front to back, columns patient right to left; the lungs take about
    255 mm, and the stack lies around their middle. spacing_mm: slice, row, column. Without a
    physique the body is drawn from the seed. Vessels inside the lungs belong to them in the truth;
    trachea, main bronchi and the hila do not.
    """
    shape = (slices, size, size)
    who = Physique.drawn(seed) if physique is None else physique
    rng = np.random.default_rng([seed, 2])
    z_mm, y_mm, x_mm = (
        (np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing_mm, strict=True)
    )
    z_mm = z_mm + 127.0 * who.height
    step = max(1, round(COARSE_MM / spacing_mm[1]))
    nodes = np.arange(-1, -(-size // step) + 2) * step
    y_nodes, x_nodes = y_mm[0] + nodes * spacing_mm[1], x_mm[0] + nodes * spacing_mm[2]
    coarse = anatomy.grid(x_nodes, y_nodes, z_mm, who)
    organs = _organs(coarse, who)
    tree = np.zeros(shape, np.uint8)
    for branches in _trees(organs, coarse, (z_mm, y_nodes, x_nodes), rng):
        vessels.draw(tree, branches, (z_mm[0], y_mm[0], x_mm[0]), spacing_mm)
    painter = _Painter(step, who, noise_hu, spacing_mm[1])
    voxels = np.empty(shape, np.int16)
    labels = np.zeros(shape, np.uint8)
    for k in range(slices):
        voxels[k], labels[k] = painter.paint(organs, tree[k], k, rng)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing_mm, 1.0
    affine[:3, 3] = x_mm[0], y_mm[0], z_mm[0]
    return Volume(voxels_zyx=voxels, affine_lps_mm=affine), labels


def _organs(g: Grid, who: Physique) -> Organs:
    trunk, inside = anatomy.trunk(g, who), anatomy.cavity(g)
    breasts = anatomy.breasts(g, who)
    skin = trunk if breasts is None else smooth_union(trunk, breasts, 14.0)
    heart, aorta, pipes = anatomy.heart(g, who), anatomy.aorta(g), anatomy.great_vessels(g)
    lumen, column = anatomy.airways(g), anatomy.mediastinum(g)
    core = smooth_union(smooth_union(column, heart - 4.0, 9.0), aorta - 2.0, 7.0)
    core = smooth_union(core, np.minimum(pipes, lumen - WALL_MM) - 1.0, 5.0)
    right, left = (
        anatomy.lung(inside, smooth_union(core, anatomy.hilum(g, s), 8.0), g, who, s)
        for s in (RIGHT, LEFT)
    )
    return Organs(
        under=[
            *_wall(g, who, (skin, trunk), inside),
            *_abdomen(g, who, inside),
            *_centre(who, heart, aorta, pipes, g),
        ],
        lungs=(right, left),
        over=[
            Layer(distance_mm=lumen - WALL_MM, hu=20.0),
            Layer(distance_mm=lumen, hu=-995.0),
            *_bones(g, inside),
            *_table(g, who, skin),
        ],
        lumen=lumen,
        fissures=(anatomy.fissure(g, RIGHT), anatomy.fissure(g, LEFT)),
    )


def _wall(g: Grid, who: Physique, skins: tuple[Field, Field], inside: Field) -> Iterator[Layer]:
    """Skin, fat, muscle with the fat between its sheets, and the fat inside the chest."""
    skin, trunk = skins  # with and without breasts
    yield Layer(distance_mm=skin, hu=10.0, edge_mm=1.4)
    yield Layer(distance_mm=skin + 2.0, hu=-104.0)
    thin = np.clip((300.0 - g.z) / 90.0, 0.35, 1.0)
    muscle = np.maximum(trunk + who.fat_mm * 0.85 * thin + 2.0, -inside)
    if who.breast_mm:
        for side in (RIGHT, LEFT):
            gland = ellipsoid(g.x, g.y, g.z, (side * 84, -106 - who.fat_mm, 124), (32, 18, 34))
            strands = gland + 7.0 * np.sin(g.x / 5.0 + 2.0 * np.sin(g.z / 9.0)) * np.sin(g.y / 6.0)
            strands = np.maximum(strands, skin + 5.0).astype(np.float32)
            yield Layer(distance_mm=strands, hu=20.0, edge_mm=5.0)
    yield Layer(distance_mm=muscle, hu=52.0, edge_mm=1.6)
    sheets = np.abs(inside - 14.0 - 2.5 * np.sin(g.z / 23.0 + g.x / 31.0)) - 0.8
    wave = np.sin(g.x / 17.0 + 1.4 * np.sin(g.z / 37.0 + g.y / 41.0))
    wave = wave + np.sin(g.y / 13.0 + 1.2 * np.sin(g.x / 27.0))
    deep = (np.abs(wave - 0.35) - 0.09) * 9.0
    between = np.minimum(sheets, np.maximum(deep, 13.0 - inside))
    yield Layer(distance_mm=np.maximum(between, muscle + 1.0).astype(np.float32), hu=-70.0)
    yield Layer(distance_mm=inside + 1.5, hu=-98.0)


def _abdomen(g: Grid, who: Physique, inside: Field) -> Iterator[Layer]:
    """The diaphragm and what hangs under it."""
    domes = [anatomy.diaphragm(g, who, s) for s in (RIGHT, LEFT)]
    below = np.where(g.x < 0, domes[0], domes[1])
    muscle = np.maximum(np.abs(below - 1.5) - 2.5, inside + 0.5)
    yield Layer(distance_mm=muscle, hu=48.0)
    yield Layer(distance_mm=anatomy.liver(inside, g, who), hu=58.0 + 0.25 * (who.contrast_hu - 42))
    yield Layer(distance_mm=anatomy.spleen(inside, g, who), hu=50.0 + 0.4 * (who.contrast_hu - 42))
    stomach = anatomy.stomach(g, who)
    yield Layer(distance_mm=stomach, hu=40.0)
    yield Layer(distance_mm=stomach + 4.0, hu=18.0)
    yield Layer(distance_mm=np.maximum(stomach + 4.0, g.y + 28.0), hu=-985.0)


def _centre(who: Physique, heart: Field, aorta: Field, pipes: Field, g: Grid) -> Iterator[Layer]:
    """Heart, vessels, the roots of the lungs, the gullet."""
    blood = who.contrast_hu
    for side in (RIGHT, LEFT):
        yield Layer(distance_mm=anatomy.hilum(g, side) + 5.0, hu=-20.0, edge_mm=8.0)
    yield Layer(distance_mm=heart, hu=46.0 + 0.35 * (blood - 42.0))
    yield Layer(distance_mm=heart + 12.0, hu=blood, edge_mm=9.0)
    yield Layer(distance_mm=pipes, hu=blood)
    yield Layer(distance_mm=aorta, hu=blood)
    yield Layer(
        distance_mm=(np.hypot(g.x - 9.0, (g.y - 36.0) * 1.3) - 7.5).astype(np.float32), hu=38.0
    )


def _bones(g: Grid, inside: Field) -> Iterator[Layer]:
    bones, discs = skeleton.vertebrae(g)
    bony, cartilage = skeleton.ribs(inside, g)
    yield Layer(distance_mm=cartilage, hu=105.0)
    yield Layer(distance_mm=discs, hu=82.0)
    yield Layer(distance_mm=skeleton.spinal_canal(g), hu=22.0)
    shells = (
        (bones, 420.0, 1.7, 165.0),
        (bony, 720.0, 1.7, 230.0),
        (skeleton.breastbone(inside, g), 380.0, 1.5, 130.0),
        (skeleton.shoulder_blades(inside, g), 560.0, 1.8, 220.0),
        (anatomy.humerus(g), 640.0, 2.6, 210.0),
    )
    for distance, cortex, thick, marrow in shells:
        yield Layer(distance_mm=distance, hu=cortex)
        yield Layer(distance_mm=distance + thick, hu=marrow, edge_mm=1.6)


def _table(g: Grid, who: Physique, skin: Field) -> Iterator[Layer]:
    """A cradle of two thin shells with foam between, and a mat; never inside the body."""
    back = 131.0 + who.shift_mm[1] + who.table_mm + max(0.0, who.fat_mm - 13.0)
    depth = g.patient_y * np.ones_like(g.x) - back + who.table_curve * g.patient_x**2
    free = np.maximum(2.0 - skin, np.abs(g.patient_x) - 205.0)
    # each sheet covers what is below it, the next covers that again: no thin shapes to interpolate
    for top, hu in ((0, -925), (16, -310), (19, -955), (45, -260), (48, -1000)):
        yield Layer(distance_mm=np.maximum(top - depth, free).astype(np.float32), hu=hu)


def _trees(
    organs: Organs, g: Grid, axes: tuple[NDArray[np.floating], ...], rng: np.random.Generator
) -> Iterator[list[vessels.Branch]]:
    """Arteries and veins of both lungs; the leaves are strewn evenly over the lung."""
    roots = (
        (organs.lungs[0], ((-50.0, 12.0, 143.0), (-48.0, 22.0, 118.0))),
        (organs.lungs[1], ((47.0, 27.0, 147.0), (48.0, 28.0, 120.0))),
    )
    for lung, starts in roots:
        places = np.argwhere(lung < -3.0)
        for start, leaves in zip(starts, (1000, 620), strict=True):
            if len(places) < leaves:
                continue
            off = np.abs(g.x - start[0]) + np.abs(g.y - start[1]) + np.abs(g.z - start[2])
            root = np.unravel_index(int(np.argmin(off)), off.shape)
            picked = places[rng.choice(len(places), leaves, replace=False)]
            ends: NDArray[np.float64] = np.stack([axes[a][picked[:, a]] for a in range(3)], axis=1)
            ends = ends + rng.normal(0.0, 1.0, ends.shape)
            yield vessels.grow((axes[0][root[0]], axes[1][root[1]], axes[2][root[2]]), ends)


class _Painter:
    """Turns the organs into slices of Hounsfield units, one at a time."""

    def __init__(self, step: int, who: Physique, noise_hu: float, pixel_mm: float) -> None:
        self._step = step
        self._who = who
        self._noise_hu = noise_hu
        self._pixel_mm = pixel_mm

    def paint(
        self, organs: Organs, tree: NDArray[np.uint8], k: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """Slice k and its labels."""
        size = tree.shape[0]
        hu = np.full((size, size), -1000.0, np.float32)
        for layer in organs.under:
            self._lay(hu, layer, k)
        labels = np.zeros((size, size), np.uint8)
        for number in (RIGHT_LUNG, LEFT_LUNG):
            lung = organs.lungs[number - 1]
            if (lung[k] < FAR_MM).any():
                inner = self._lung_hu(organs.fissures[number - 1][k], tree, rng)
                labels[self._fine(lung[k], size) < 0] = number
                hu += self._breath(lung, k, size) * (inner - hu)
        for layer in organs.over:
            self._lay(hu, layer, k)
        labels[self._fine(organs.lumen[k] - WALL_MM, size) < 0] = 0
        hu += self._noise(hu, rng)
        return np.clip(np.rint(hu), -1024, 3071).astype(np.int16), labels

    def _breath(self, lung: Field, k: int, size: int) -> Field:
        """The share of lung in each voxel: less sharp where the lung's edge slants through."""
        slant = np.abs(lung[min(k + 1, len(lung) - 1)] - lung[max(k - 1, 0)]) / 2.0
        edge = 1.1 * self._pixel_mm + self._fine(slant, size)
        return _share(self._fine(lung[k], size), edge)

    def _lung_hu(self, fissure: Field, tree: NDArray[np.uint8], rng: np.random.Generator) -> Field:
        """Parenchyma, denser towards the back, with its vessels and a fissure."""
        size = tree.shape[0]
        rows = np.linspace(-1.0, 1.0, size, dtype=np.float32)[:, None]
        hu = self._who.lung_hu + 55.0 * rows + 14.0 * _smoothed(_white(rng, tree.shape), 2)
        hu += 90.0 * np.clip(1.0 - self._fine(fissure, size) / 1.6, 0.0, 1.0)
        hu += tree.astype(np.float32) / 255.0 * (self._who.contrast_hu - hu)
        return hu

    def _lay(self, hu: Field, layer: Layer, k: int) -> None:
        coarse = layer.distance_mm[k]
        near = coarse < FAR_MM
        if not near.any():
            return
        (r0, r1), (c0, c1) = (_span(near, axis) for axis in (1, 0))
        fine = _finer(coarse[r0 : r1 + 3, c0 : c1 + 3], self._step)
        part = hu[r0 * self._step : r1 * self._step, c0 * self._step : c1 * self._step]
        fine = fine[: part.shape[0], : part.shape[1]]
        share = _share(fine, max(layer.edge_mm, self._pixel_mm))
        part += share * (layer.hu - part)

    def _fine(self, coarse: Field, size: int) -> Field:
        return _finer(coarse, self._step)[:size, :size]

    def _noise(self, hu: Field, rng: np.random.Generator) -> Field:
        """Quantum noise: grains a little larger than a pixel, stronger where the body is dense."""
        grain = _smoothed(_white(rng, hu.shape), 1)
        grain -= 0.6 * _smoothed(grain, 3)
        tissue = float(np.mean(hu > -500.0))
        strength = self._noise_hu * (0.55 + 0.9 * tissue)
        streaks = 1.0 + 2.5 * max(0.0, float(np.mean(hu > 250.0)) - 0.02)
        return grain * (strength * streaks / max(float(grain.std()), 1e-6))


def _share(distance: Field, edge: Field | float) -> Field:
    share: Field = np.clip(0.5 - distance / edge, 0.0, 1.0)
    return share


def _white(rng: np.random.Generator, shape: tuple[int, ...]) -> Field:
    return rng.standard_normal(shape, dtype=np.float32)


def _smoothed(field: Field, times: int) -> Field:
    """A binomial blur, three pixels wide, so many times; scaled back to about the same spread."""
    for _ in range(times):
        for axis in (0, 1):
            field = 0.5 * field + 0.25 * (np.roll(field, 1, axis) + np.roll(field, -1, axis))
    return field


def _span(near: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """First and last (exclusive) cell with a node of `near` at a corner;

    node i + 1 begins cell i.
    """
    hit = np.flatnonzero(near.any(axis=axis))
    cells = near.shape[1 - axis] - 3
    return max(int(hit[0]) - 2, 0), min(int(hit[-1]) + 1, cells)


def _finer(coarse: Field, step: int) -> Field:
    """Cubic interpolation (Catmull-Rom): (cells + 3) nodes along each axis to cells * step pixels.

    Pixel 0 lies on node 1.
    """
    return _finer_rows(_finer_rows(coarse, step).T, step).T


def _finer_rows(coarse: Field, step: int) -> Field:
    cells = coarse.shape[0] - 3
    fine = np.empty((cells, step, coarse.shape[1]), np.float32)
    for phase in range(step):
        t = phase / step
        taps = (
            -0.5 * t + t**2 - 0.5 * t**3,
            1.0 - 2.5 * t**2 + 1.5 * t**3,
            0.5 * t + 2.0 * t**2 - 1.5 * t**3,
            -0.5 * t**2 + 0.5 * t**3,
        )
        fine[:, phase] = sum(w * coarse[k : k + cells] for k, w in enumerate(taps) if w)
    return fine.reshape(cells * step, coarse.shape[1])
