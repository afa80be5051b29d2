"""A stack of parallel planes in patient coordinates, and the way to canonical axes and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FEW = 6  # labels that are sooner counted one by one


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Volume:
    """The planes of one Series as one array, each plane a regular grid.

    voxels_zyx: int16 or float32 [slice, row, column]; Hounsfield units for CT. Rows and columns are
        those of the stored matrix. Slice 0 is lowest along the normal (row direction × column
        direction), whatever the patient's position (PS3.3 C.7.6.2.1.1).
    affine_lps_mm: float64 (4, 4), index (slice, row, column, 1) -> LPS in mm, centre of the voxel;
        the slice axis need not be perpendicular to the planes (a tilted gantry).
    instance_uids: the SOP Instance UID of each slice, in slice order.
    heights_mm: of each slice above slice 0, along the normal, where they are unevenly spaced; the
        affine is then right for the first and the last of them. Empty: they are even.
    depth_known: whether the extent of the slices is known; the affine has 1 mm where it is not.
    slice_keys: of each slice, what no slice with other values or of another geometry has, such as
        the digest of its file; or none.
    """

    voxels_zyx: NDArray[np.generic]
    affine_lps_mm: NDArray[np.float64]
    instance_uids: tuple[str, ...] = ()
    heights_mm: tuple[float, ...] = ()
    depth_known: bool = True
    slice_keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.voxels_zyx.ndim != 3:
            raise ValueError(f"a Volume has three axes, not {self.voxels_zyx.ndim}")
        if self.affine_lps_mm.shape != (4, 4):
            raise ValueError("the affine of a Volume is 4 x 4")
        if self.instance_uids and len(self.instance_uids) != self.voxels_zyx.shape[0]:
            raise ValueError("one SOP Instance UID a slice, or none")
        if self.heights_mm and len(self.heights_mm) != self.voxels_zyx.shape[0]:
            raise ValueError("one height a slice, or none")
        if self.slice_keys and len(self.slice_keys) != self.voxels_zyx.shape[0]:
            raise ValueError("one key a slice, or none")

    @property
    def spacing_zyx_mm(self) -> tuple[float, float, float]:
        """Distance between neighbours along slice, row and column index, in mm."""
        s = np.linalg.norm(self.affine_lps_mm[:3, :3], axis=0)
        return float(s[0]), float(s[1]), float(s[2])

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres, sheared or not; the mean where slices are uneven."""
        return abs(float(np.linalg.det(self.affine_lps_mm[:3, :3]))) / 1000.0

    @property
    def voxel_ml_of_slices(self) -> NDArray[np.float64]:
        """Volume of one voxel in each slice: it reaches half the way to both neighbours.

        The first and the last reach as far outwards as inwards.
        """
        count = self.voxels_zyx.shape[0]
        if not self.heights_mm or count < 2:
            return np.full(count, self.voxel_ml)
        heights = np.array(self.heights_mm)
        gaps = np.diff(heights)
        shares = np.convolve(gaps, (0.5, 0.5), "full")
        shares[[0, -1]] = gaps[[0, -1]]
        return np.asarray(shares * (self.voxel_ml * (count - 1) / self.heights_mm[-1]))

    def ml_of(self, labels_zyx: NDArray[np.integer]) -> dict[int, float]:
        """Millilitres of each label but 0, on the grid of this Volume; none without a depth."""
        if not self.depth_known:
            return {}
        size = int(labels_zyx.max(initial=0)) + 1
        if size <= _FEW:  # bincount makes 8 bytes of every voxel
            voxels = [[np.count_nonzero(p == n) for n in range(size)] for p in labels_zyx]
        else:
            voxels = [np.bincount(p.ravel(), minlength=size).tolist() for p in labels_zyx]
        counts = np.array(voxels, np.int64).reshape(-1, size)
        total = counts.sum(axis=0)
        if self.heights_mm:
            ml = self.voxel_ml_of_slices @ counts
        else:
            ml = total.astype(np.float64) * self.voxel_ml
        return {n: float(ml[n]) for n in range(1, size) if total[n]}

    @property
    def slice_indices(self) -> NDArray[np.float64]:
        """Where each slice lies on the slice axis of the affine: 0, 1, 2 ... if they are even."""
        count = int(self.voxels_zyx.shape[0])
        if not self.heights_mm or count < 2:
            return np.arange(count, dtype=np.float64)
        return np.array(self.heights_mm) * ((count - 1) / self.heights_mm[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisOrder:
    """How array axes were permuted and flipped; `undo` takes an array back, without resampling.

    permutation: axis p[i] of the original became axis i. flips: axes flipped afterwards.
    """

    permutation: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """A view of `array` (three axes, original order) in the new order."""
        return array.transpose(self.permutation)[self._slices()]

    def undo(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """A view of `array` (three axes, new order) in the original order."""
        inverse = tuple(int(i) for i in np.argsort(self.permutation))
        return array[self._slices()].transpose(inverse)

    def _slices(self) -> tuple[slice, slice, slice]:
        a, b, c = (slice(None, None, -1) if f else slice(None) for f in self.flips)
        return a, b, c


def canonical(volume: Volume) -> tuple[Volume, AxisOrder]:
    """The same voxels with axis 0 feet to head, axis 1 front to back, axis 2 patient right to left.

    Each axis goes to the patient axis that it is nearest to (oblique stacks stay oblique); only
    views are made. So the patient's right is at low column index, prone and feet-first too. The
    SOP Instance UIDs, heights and keys are kept only where axis 0 is still the slice axis. The keys
    say how the slices were turned.
    """
    directions = volume.affine_lps_mm[:3, :3] / np.linalg.norm(
        volume.affine_lps_mm[:3, :3], axis=0
    )  # column a: direction of array axis a in LPS
    permutation = _nearest_axes(np.abs(directions))
    wanted_rows = (2, 1, 0)  # S, P, L
    flips = tuple(bool(directions[wanted_rows[i], permutation[i]] < 0) for i in range(3))
    order = AxisOrder(permutation=permutation, flips=(flips[0], flips[1], flips[2]))
    affine = volume.affine_lps_mm[:, [*permutation, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            size = volume.voxels_zyx.shape[permutation[axis]]
            affine[:, 3] += affine[:, axis] * (size - 1)
            affine[:, axis] *= -1
    kept = permutation[0] == 0
    uids, heights = (volume.instance_uids, volume.heights_mm) if kept else ((), ())
    how = "".join("-" if flipped else "+" for flipped in flips) + "".join(map(str, permutation))
    keys = tuple(f"{key} {how}" for key in volume.slice_keys) if kept else ()
    if flips[0]:
        uids, keys = uids[::-1], keys[::-1]
        heights = tuple(heights[-1] - height for height in heights[::-1])
    turned = Volume(
        voxels_zyx=order.apply(volume.voxels_zyx),
        affine_lps_mm=affine,
        instance_uids=uids,
        heights_mm=heights,
        depth_known=volume.depth_known,
        slice_keys=keys,
    )
    return turned, order


def _nearest_axes(cosines: NDArray[np.float64]) -> tuple[int, int, int]:
    """Which array axis is nearest to S, P and L, each used once: the best of the six orders."""
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    return max(orders, key=lambda o: cosines[2, o[0]] + cosines[1, o[1]] + cosines[0, o[2]])
