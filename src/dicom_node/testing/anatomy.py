"""The organs of the chest phantom as signed distances in millimetres, on any grid.

Reference axes: x from the patient's right (-) to the left (+), y from front (-) to back (+), z from
feet to head with the lung bases near 5 and the apices near 262.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dicom_node.testing.shapes import (
    Point,
    capsule,
    ellipsoid,
    profile,
    smooth_cut,
    smooth_union,
    superellipse,
    tube,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Field = NDArray[np.float32]

RIGHT, LEFT = -1.0, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Physique:
    """How one phantom differs from another.

    The three scales multiply lengths along x, y, z; `*_mm` are additions to the reference;
    contrast_hu is the blood's density; warp holds amplitude (mm), wave length (mm) and phase of the
    slow bends that make a body asymmetric.
    """

    width: float = 1.0
    depth: float = 1.0
    height: float = 0.97
    fat_mm: float = 13.0
    heart: float = 1.0
    right_dome_mm: float = 0.0
    left_dome_mm: float = 0.0
    breast_mm: float = 0.0
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn_deg: float = 0.0
    contrast_hu: float = 42.0
    lung_hu: float = -855.0
    table_mm: float = 0.0
    table_curve: float = 0.0013
    warp: tuple[tuple[float, float, float], ...] = ()

    @classmethod
    def drawn(cls, seed: int, variation: float = 1.0) -> Physique:
        """A body of its own for each seed; variation 0 is the reference, 1 the usual spread."""
        rng = np.random.default_rng([seed, 1])

        def around(mean: float, spread: float) -> float:
            return mean + variation * float(
                np.clip(rng.normal(0.0, spread), -2 * spread, 2 * spread)
            )

        contrast = rng.random() < 0.4 * variation
        breast = rng.random() < 0.5 * variation
        return cls(
            width=around(1.0, 0.05),
            depth=around(1.0, 0.06),
            height=around(0.97, 0.025),
            fat_mm=max(3.0, around(13.0, 6.0)),
            heart=around(1.0, 0.08),
            right_dome_mm=around(0.0, 9.0),
            left_dome_mm=around(0.0, 9.0),
            breast_mm=max(0.0, around(26.0, 8.0)) if breast else 0.0,
            shift_mm=(around(0.0, 5.0), around(0.0, 5.0), around(0.0, 3.0)),
            turn_deg=around(0.0, 2.5),
            contrast_hu=around(150.0, 40.0) if contrast else 42.0,
            lung_hu=around(-855.0, 18.0),
            table_mm=around(0.0, 6.0),
            table_curve=float(rng.choice([0.0, 0.0008, 0.0013])) if variation else 0.0013,
            warp=tuple(
                (
                    around(0.0, 2.2),
                    float(rng.uniform(140.0, 320.0)),
                    float(rng.uniform(0.0, 2 * np.pi)),
                )
                for _ in range(9)
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """Where the voxels lie in the reference body: x and y have shape (slices, rows, columns)."""

    x: Field
    y: Field
    z: Field
    patient_x: Field
    patient_y: Field


def grid(x_mm: Field, y_mm: Field, z_mm: Field, physique: Physique) -> Grid:
    """Take patient millimetres (1-D each, zero in the middle) to the reference body."""
    p = physique
    x = (x_mm - p.shift_mm[0])[None, None, :].astype(np.float32)
    y = (y_mm - p.shift_mm[1])[None, :, None].astype(np.float32)
    z = (z_mm - p.shift_mm[2])[:, None, None].astype(np.float32) / p.height
    angle = np.deg2rad(p.turn_deg)
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    u, v = u / p.width, v / p.depth
    along = (u, v, z)
    bends = [np.float32(0.0), np.float32(0.0)]
    for i, (amplitude, length, phase) in enumerate(p.warp):
        bends[i % 2] = bends[i % 2] + amplitude * np.sin(along[i % 3] * (6.2832 / length) + phase)
    shape = (len(z_mm), len(y_mm), len(x_mm))
    return Grid(
        x=np.broadcast_to(u + bends[0], shape).astype(np.float32),
        y=np.broadcast_to(v + bends[1], shape).astype(np.float32),
        z=z,
        patient_x=x,
        patient_y=y,
    )


def trunk(g: Grid, physique: Physique) -> Field:
    """The skin of trunk and shoulders with raised arms, without breasts."""
    fat = physique.fat_mm - 13.0
    half = profile(
        g.z,
        [
            (-60, 148),
            (0, 152),
            (70, 160),
            (150, 167),
            (200, 163),
            (240, 140),
            (275, 100),
            (310, 74),
        ],
    )
    deep = profile(
        g.z,
        [(-60, 106), (0, 108), (100, 116), (180, 112), (225, 98), (260, 84), (290, 74), (320, 68)],
    )
    centre = profile(g.z, [(0, 8), (150, 11), (210, 17), (260, 22), (320, 20)])
    skin = superellipse(g.x, g.y - centre, half + fat, deep + fat, 2.5)
    for side in (RIGHT, LEFT):
        shoulder = ellipsoid(g.x, g.y, g.z, (side * 140, 24, 268), (64 + fat, 46 + fat, 70))
        skin = smooth_union(skin, shoulder, 26.0)
    groove = 7.0 * np.exp(-((g.x / 17.0) ** 2)) * (g.y > 0)
    result: Field = (skin + groove).astype(np.float32)
    return result


def breasts(g: Grid, physique: Physique) -> Field | None:
    """Both breasts as they lie, or None."""
    size, fat = physique.breast_mm, physique.fat_mm - 13.0
    if not size:
        return None
    right, left = (
        ellipsoid(g.x, g.y, g.z, (s * 82, -88 - fat, 126), (52 + size * 0.4, 14 + size, 54))
        for s in (RIGHT, LEFT)
    )
    return np.minimum(right, left)


def cavity(g: Grid) -> Field:
    """The inside of the rib cage, without floor; it ends above the lung apices."""
    half = profile(
        g.z,
        [
            (-60, 66),
            (0, 68),
            (70, 72),
            (150, 70),
            (190, 63),
            (220, 52),
            (245, 37),
            (262, 22),
            (280, 8),
        ],
    )
    deep = profile(
        g.z,
        [
            (-60, 80),
            (0, 84),
            (90, 90),
            (150, 86),
            (190, 75),
            (220, 58),
            (245, 38),
            (262, 23),
            (280, 8),
        ],
    )
    aside = profile(g.z, [(-60, 60), (100, 62), (170, 60), (210, 52), (245, 42), (280, 34)])
    back = profile(g.z, [(0, 3), (100, 2), (150, 6), (190, 14), (220, 24), (250, 34), (280, 38)])
    inside = superellipse(g.x, g.y - back + deep * 0.26, half * 1.30, deep * 0.74, 2.2)
    for side in (RIGHT, LEFT):
        share = 1.03 if side == RIGHT else 0.96  # the left lung is the smaller one
        lobe = superellipse(g.x - side * aside, g.y - back, half * share, deep, 2.3)
        inside = smooth_union(inside, lobe, 16.0)
    above = (g.z - 270.0) * 0.8
    return smooth_cut(inside, np.broadcast_to(above, inside.shape), 12.0)


def diaphragm(g: Grid, physique: Physique, side: float) -> Field:
    """How far a voxel is below the dome of one side (positive: below)."""
    top = 87.0 + physique.right_dome_mm if side == RIGHT else 78.0 + physique.left_dome_mm
    u = (g.x - side * 58.0) / 78.0
    v = g.y + 12.0
    v = np.where(v > 0, v / 104.0, v / 88.0)
    rho = np.sqrt(u * u + v * v)
    back = np.clip((g.y + 40.0) / 80.0, 0.0, 1.0)
    drop = 58.0 + 15.0 * back * back * (3.0 - 2.0 * back)
    height = top - drop * rho**2.4
    slope = drop * 2.4 * rho**1.4 / 85.0
    result: Field = ((height - g.z) / np.sqrt(1.0 + slope * slope)).astype(np.float32)
    return result


def heart(g: Grid, physique: Physique) -> Field:
    """Ventricles, both atria and the root of the great vessels, as one outline."""
    scale = physique.heart
    along, up, across = np.array([0.72, -0.52, -0.46]), None, None
    along = along / np.linalg.norm(along)
    across = np.cross(along, [0.0, 0.0, 1.0])
    across = across / np.linalg.norm(across)
    up = np.cross(across, along)
    d = (g.x - 34.0, g.y + 27.0, g.z - 94.0)
    turned = [
        (d[0] * a[0] + d[1] * a[1] + d[2] * a[2]).astype(np.float32) for a in (along, across, up)
    ]
    radii = (68.0 * scale, 45.0 * scale, 44.0 * scale)
    muscle = ellipsoid(turned[0], turned[1], turned[2], (0.0, 0.0, 0.0), radii)
    right_atrium = ellipsoid(g.x, g.y, g.z, (-17, -14, 103), (31 * scale, 32, 37 * scale))
    left_atrium = ellipsoid(g.x, g.y, g.z, (3, 18, 126), (36 * scale, 20, 22 * scale))
    whole = smooth_union(smooth_union(muscle, right_atrium, 16.0), left_atrium, 12.0)
    domes: Field = np.maximum(diaphragm(g, physique, RIGHT), diaphragm(g, physique, LEFT))
    return smooth_cut(whole, (domes + 2.0).astype(np.float32), 10.0)


def aorta(g: Grid) -> Field:
    """Ascending aorta, arch, and the descending aorta beside the spine."""
    points = [
        (-2, -14, 122),
        (-12, -22, 145),
        (-14, -22, 170),
        (-9, -14, 192),
        (4, 4, 206),
        (18, 24, 203),
        (25, 38, 186),
        (25, 42, 150),
        (23, 42, 100),
        (16, 40, 50),
        (8, 36, -40),
    ]
    radii = [17, 17, 16.5, 15, 14, 13.5, 12.5, 12, 11.5, 11, 10]
    return tube(g.x, g.y, g.z, points, radii, 30.0)


def great_vessels(g: Grid) -> Field:
    """Pulmonary arteries to the hila, the venae cavae, the arch's branches."""
    tubes: list[tuple[list[Point], list[float]]] = [
        ([(20, -38, 128), (19, -28, 152), (14, -8, 165)], [14, 14, 13]),
        ([(14, -8, 165), (-14, 2, 160), (-40, 6, 152), (-52, 10, 142)], [12, 11, 10.5, 7]),
        ([(14, -8, 165), (34, 8, 170), (44, 22, 162), (48, 28, 145)], [12, 11, 10, 7]),
        ([(-28, -8, 118), (-30, -8, 160), (-28, -12, 205), (-24, -16, 232)], [11, 10, 9.5, 9]),
        ([(-24, -16, 228), (0, -24, 222), (34, -22, 240), (62, -12, 262)], [7, 6.5, 6.5, 6]),
        ([(-24, -16, 232), (-40, -14, 250), (-74, -6, 266)], [7, 6.5, 6]),
        ([(-6, -8, 206), (-16, -4, 232), (-30, 6, 285)], [7.5, 7, 5]),
        ([(6, 2, 208), (12, 6, 240), (22, 10, 290)], [5, 4.5, 4.2]),
        ([(14, 14, 206), (22, 16, 240), (58, -2, 266)], [6, 5.5, 5]),
        ([(-22, -2, 80), (-20, 2, 55), (-22, 10, -40)], [13, 13, 12]),
        ([(-4, 20, 124), (-34, 20, 124), (-50, 24, 116)], [9, 8, 5.5]),
        ([(8, 20, 124), (36, 24, 126), (50, 30, 118)], [9, 8, 5.5]),
    ]
    result = np.full(g.x.shape, 30.0, np.float32)
    for points, radii in tubes:
        result = np.minimum(result, tube(g.x, g.y, g.z, points, radii, 30.0))
    return result


def airways(g: Grid) -> Field:
    """The lumen of trachea and main bronchi."""
    pieces: list[tuple[list[Point], list[float]]] = [
        ([(0, -2, 330), (0, 6, 260), (0, 14, 220), (-2, 20, 182)], [8.5, 9, 9, 9.5]),
        ([(-2, 20, 182), (-24, 20, 164), (-40, 20, 150), (-46, 26, 132)], [8, 7.5, 6, 4.5]),
        ([(-24, 20, 164), (-48, 18, 172)], [5, 3.5]),
        ([(-2, 20, 182), (18, 24, 166), (38, 27, 152), (46, 34, 134)], [7.5, 6.8, 5.8, 4.5]),
        ([(38, 27, 152), (52, 20, 160)], [4.6, 3.5]),
    ]
    result = np.full(g.x.shape, 30.0, np.float32)
    for points, radii in pieces:
        result = np.minimum(result, tube(g.x, g.y, g.z, points, radii, 30.0))
    return result


def mediastinum(g: Grid) -> Field:
    """The column between the lungs: narrow in front, wide at trachea and spine and at the top."""
    rows = g.y
    wide = np.interp(rows, [-100, -70, -45, -20, 5, 30, 55, 110], [5, 6, 12, 21, 22, 15, 19, 24])
    top = np.interp(rows, [-100, -70, -45, -20, 5, 30, 55, 110], [7, 12, 26, 31, 28, 24, 22, 24])
    share = np.clip((g.z - 165.0) / 45.0, 0.0, 1.0)
    axis = np.where(rows < 0, 8.0, 4.0) * (1.0 - share) + 2.5
    half = wide + (top - wide) * share
    result: Field = (np.abs(g.x - axis) - half).astype(np.float32)
    return result


def hilum(g: Grid, side: float) -> Field:
    """The root of one lung, outside of it."""
    centre = (-44.0, 14.0, 146.0) if side == RIGHT else (45.0, 22.0, 150.0)
    return ellipsoid(g.x, g.y, g.z, centre, (12.0, 14.0, 21.0))


def lung(inside: Field, not_lung: Field, g: Grid, physique: Physique, side: float) -> Field:
    """One lung: its half of the cavity, above the dome, clear of heart and mediastinum."""
    apex = 262.0 if side == RIGHT else 260.0
    result = smooth_cut(inside, -side * g.x, 4.0)
    result = smooth_cut(result, diaphragm(g, physique, side), 7.0)
    result = smooth_cut(result, -not_lung, 7.0)
    return smooth_cut(result, np.broadcast_to((g.z - apex) * 0.7, result.shape), 14.0)


def liver(inside: Field, g: Grid, physique: Physique) -> Field:
    """Under the right dome, its left lobe reaching across the midline."""
    under = 2.5 - diaphragm(g, physique, RIGHT)
    under = np.minimum(
        under, np.where(g.x > -20, 6.0 - diaphragm(g, physique, LEFT) + g.x * 0.15, 99)
    )
    edge = g.x * 0.80 + (g.y + 30.0) * 0.55 - 14.0
    result = smooth_cut(inside + 4.0, under.astype(np.float32), 3.0)
    spine = ellipsoid(g.x, g.y, g.z * 0.0, (0, 62, 0), (34, 40, 1e3))
    return smooth_cut(smooth_cut(result, edge.astype(np.float32), 14.0), -spine, 8.0)


def stomach(g: Grid, physique: Physique) -> Field:
    """Under the left dome, in front."""
    top = 20.0 + physique.left_dome_mm
    shape = ellipsoid(g.x, g.y, g.z, (60, -20, top), (54, 58, 62))
    shape = smooth_cut(shape, 20.0 - g.x, 20.0)
    return smooth_cut(shape, 3.0 - diaphragm(g, physique, LEFT), 6.0)


def spleen(inside: Field, g: Grid, physique: Physique) -> Field:
    """Under the left dome, behind."""
    shape = ellipsoid(g.x, g.y, g.z, (92, 42, 12 + physique.left_dome_mm), (34, 50, 56))
    shape = smooth_cut(shape, 3.0 - diaphragm(g, physique, LEFT), 6.0)
    return smooth_cut(shape, inside + 5.0, 5.0)


def fissure(g: Grid, side: float) -> Field:
    """Distance from the oblique fissure (a slightly bent sheet, the same on both sides)."""
    height = 128.0 + 0.95 * (g.y + 5.0) + 0.0012 * (g.x - side * 60.0) ** 2
    return (np.abs(g.z - height) * 0.72).astype(np.float32)


def humerus(g: Grid) -> Field:
    """The heads of the raised arms, and the collar bones."""
    result = np.full(g.x.shape, 40.0, np.float32)
    for side in (RIGHT, LEFT):
        head = ellipsoid(g.x, g.y, g.z, (side * 156, 14, 286), (23, 23, 26))
        collar = capsule(g.x, g.y, g.z, ((side * 20, -46, 226), (side * 126, 4, 272)), (8.0, 6.0))
        result = np.minimum(result, np.minimum(head, collar))
    return result
