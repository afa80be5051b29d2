"""What can go wrong with a CT series, done to a good one on purpose: for guard_table.py.

All works on canonical axes (feet to head, front to back, patient right to left) and knows where the
lungs were found, so that the damage is done to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dicom_node.domain.volume import Volume
from dicom_node.tools.lungs import LEFT, RIGHT

Labels = NDArray[np.uint8]
Damage = Callable[[Volume, Labels], Volume]

AIR_HU = -1024


def _with(volume: Volume, voxels: NDArray[np.generic], first: int = 0) -> Volume:
    """Other voxels on the same grid, from slice `first` on."""
    affine = volume.affine_lps_mm.copy()
    affine[:, 3] += affine[:, 0] * first
    clipped = np.clip(voxels, AIR_HU, 32767).astype(volume.voxels_zyx.dtype)
    return Volume(voxels_zyx=np.ascontiguousarray(clipped), affine_lps_mm=affine)


def _levels(labels: Labels) -> NDArray[np.intp]:
    """Slices with lung."""
    return np.flatnonzero(labels.any(axis=(1, 2)))


def _at(labels: Labels, share: float) -> int:
    """The slice at a share of the way from the lowest lung to the highest."""
    levels = _levels(labels)
    return int(levels[min(int(share * len(levels)), len(levels) - 1)])


def linear(slope: float, offset: float) -> Damage:
    """Stored values read with a wrong slope, about air; then an offset."""

    def damage(volume: Volume, labels: Labels) -> Volume:
        del labels
        wide = volume.voxels_zyx.astype(np.float32)
        return _with(volume, (wide - AIR_HU) * slope + AIR_HU + offset)

    return damage


def exchanged(low: float, high: float) -> Damage:
    """Two slices change places."""

    def damage(volume: Volume, labels: Labels) -> Volume:
        a = min(_at(labels, low), len(labels) - 2)
        b = max(_at(labels, high), a + 1)
        voxels = volume.voxels_zyx.copy()
        voxels[[a, b]] = voxels[[b, a]]
        return _with(volume, voxels)

    return damage


def shuffled(volume: Volume, labels: Labels) -> Volume:
    """Ten slices in the middle of the lungs in any order."""
    middle = _at(labels, 0.5)
    chosen = np.arange(max(middle - 5, 0), min(middle + 5, len(labels)))
    voxels = volume.voxels_zyx.copy()
    voxels[chosen] = voxels[np.random.default_rng(3).permutation(chosen)]
    return _with(volume, voxels)


def upper_half_missing(volume: Volume, labels: Labels) -> Volume:
    """The scan ends in the middle of the lungs."""
    return _with(volume, volume.voxels_zyx[: _at(labels, 0.5) + 1])


def lower_half_missing(volume: Volume, labels: Labels) -> Volume:
    """The scan begins in the middle of the lungs."""
    first = _at(labels, 0.5)
    return _with(volume, volume.voxels_zyx[first:], first)


def left_half_missing(volume: Volume, labels: Labels) -> Volume:
    """The field of view ends in the middle of the left lung."""
    columns = np.flatnonzero((labels == LEFT).any(axis=(0, 1)))
    end = int(columns.mean()) if len(columns) else labels.shape[2] // 2
    return _with(volume, volume.voxels_zyx[:, :, :end])


def circle(volume: Volume, labels: Labels) -> Volume:
    """The scan circle is smaller than the chest: padding outside."""
    _, rows, columns = labels.shape
    found = labels.any(axis=0)
    y, x = (np.flatnonzero(found.any(axis=1 - a)) for a in (0, 1))
    _, row_mm, column_mm = volume.spacing_zyx_mm
    radius = 0.4 * (x[-1] - x[0]) * column_mm
    down = (np.arange(rows) - y.mean()) * row_mm
    across = (np.arange(columns) - x.mean()) * column_mm
    outside = np.hypot(down[:, None], across[None]) > radius
    voxels = volume.voxels_zyx.copy()
    voxels[:, outside] = AIR_HU
    return _with(volume, voxels)


def slices_lost(volume: Volume, labels: Labels) -> Volume:
    """A fifth of the lungs is taken out of the middle, and the gap is closed: nobody sees it."""
    low, high = _at(labels, 0.4), _at(labels, 0.6)
    return _with(volume, np.delete(volume.voxels_zyx, np.arange(low, high), axis=0))


def painted(side: int, part: float = 1.0) -> Damage:
    """The lowest part of a lung is dense, as with fluid or collapse."""

    def damage(volume: Volume, labels: Labels) -> Volume:
        where = labels == side
        levels = _levels(where.astype(np.uint8))
        if len(levels):
            where[levels[int(part * (len(levels) - 1))] + 1 :] = False
        noise = np.random.default_rng(5).normal(40.0, 20.0, int(where.sum()))
        voxels = volume.voxels_zyx.astype(np.float32)
        voxels[where] = noise
        return _with(volume, voxels)

    return damage


def flipped(*axes: int) -> Damage:
    """Pixels the other way round, with the old geometry."""

    def damage(volume: Volume, labels: Labels) -> Volume:
        del labels
        return _with(volume, np.flip(volume.voxels_zyx, axes))

    return damage


def noisy(volume: Volume, labels: Labels) -> Volume:
    """Far too low a dose."""
    del labels
    noise = np.random.default_rng(7).normal(0.0, 400.0, volume.voxels_zyx.shape)
    return _with(volume, volume.voxels_zyx + noise)


def blank(volume: Volume, labels: Labels) -> Volume:
    """Three slices in the middle hold one value."""
    middle = _at(labels, 0.5)
    voxels = volume.voxels_zyx.copy()
    voxels[middle : middle + 3] = 0
    return _with(volume, voxels)


def stretched(volume: Volume, labels: Labels) -> Volume:
    """A wrong Pixel Spacing: half as large again."""
    del labels
    affine = volume.affine_lps_mm.copy()
    affine[:3, 1:3] *= 1.5
    return replace(volume, affine_lps_mm=affine)


DAMAGES: dict[str, Damage] = {
    "values + 1024": linear(1.0, 1024.0),
    "values - 1024": linear(1.0, -1024.0),
    "values + 200": linear(1.0, 200.0),
    "values - 200": linear(1.0, -200.0),
    "slope 1.3": linear(1.3, 0.0),
    "slope 0.7": linear(0.7, 0.0),
    "two slices exchanged, a third of the lungs apart": exchanged(0.33, 0.66),
    "two neighbours exchanged": exchanged(0.5, 0.5),
    "ten slices shuffled": shuffled,
    "a fifth of the slices lost, gap closed": slices_lost,
    "three slices blank": blank,
    "upper half not scanned": upper_half_missing,
    "lower half not scanned": lower_half_missing,
    "half of the left lung outside the field": left_half_missing,
    "scan circle smaller than the chest": circle,
    "right lung dense": painted(RIGHT),
    "left lung dense": painted(LEFT),
    "lower half of the right lung dense": painted(RIGHT, 0.5),
    "left and right exchanged": flipped(2),
    "front and back exchanged": flipped(1),
    "prone, entered as supine": flipped(1, 2),
    "head and feet exchanged": flipped(0),
    "noise of 400 HU": noisy,
    "pixels 1.5 times as large": stretched,
}
"""What is done to the images."""


def _erased(side: int, low: float, high: float) -> Callable[[Labels], Labels]:
    def damage(labels: Labels) -> Labels:
        levels = _levels((labels == side).astype(np.uint8))
        out = labels.copy()
        if len(levels):
            part = out[levels[int(low * (len(levels) - 1))] : levels[int(high * (len(levels) - 1))]]
            part[part == side] = 0
        return out

    return damage


def _one_side(labels: Labels) -> Labels:
    out = labels.copy()
    upper = out[_at(labels, 0.5) :]
    upper[upper == LEFT] = RIGHT
    return out


def _exchanged_sides(labels: Labels) -> Labels:
    out = labels.copy()
    lower = out[: _at(labels, 0.3)]
    lower[lower > 0] = RIGHT + LEFT - lower[lower > 0]
    return out


def _bulging(labels: Labels) -> Labels:
    """Three slices below the lungs are called lung, too, as wide as it is widest."""
    lowest, widest = _at(labels, 0.0), int(np.count_nonzero(labels, axis=(1, 2)).argmax())
    out = labels.copy()
    out[max(lowest - 3, 0) : lowest] = labels[widest]
    return out


MISTAKES: dict[str, Callable[[Labels], Labels]] = {
    "lower third of the right lung missed": _erased(RIGHT, 0.0, 0.33),
    "upper third of the left lung missed": _erased(LEFT, 0.67, 1.0),
    "middle tenth of the left lung missed": _erased(LEFT, 0.45, 0.55),
    "upper half of the left lung called right": _one_side,
    "sides exchanged in the lower third": _exchanged_sides,
    "three slices of liver called lung": _bulging,
}
"""What is done to the mask, as if the network had failed."""
