"""The planes of a Series that still arrives: decoded once, shown in windows around what is new."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dicom_node.decide.geometry import SAME_POSITION_MM, Fault, NotAStack, stack
from dicom_node.decide.planes import Plane, plane_of
from dicom_node.decide.vectors import dot
from dicom_node.domain.volume import Volume
from dicom_node.iod.image import affine_of, read_plane

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dicom_node.domain.records import Attributes

_ALIKE = 0.9999  # cosine between normals
_BESIDE_MM = 45.0  # a window reaches so far beyond what is new


@dataclass(slots=True, kw_only=True)
class ArrivingStack:
    """Parallel planes, in order along their normal, as far as they have arrived.

    Only what lies like the first plane is taken: anything else is left for the verdict.
    planes: voxels as in a Volume, by key.
    """

    planes: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    size_bytes: int = 0
    _heights: list[float] = field(default_factory=list)
    _placed: list[tuple[str, Plane]] = field(default_factory=list)  # key, plane; by height
    _fresh: list[float] = field(default_factory=list)

    def add(self, path: Path, attributes: Attributes, key: str) -> bool:
        """Decode an image and put it in its place; False where it has none here.

        key: of its file's content. Raises NotDicom, PixelsUndecodable, or NotAVolume.
        """
        plane = plane_of(attributes)
        if not isinstance(plane, Plane) or not self._belongs(plane):
            return False
        height = dot(plane.position, self._placed[0][1].normal if self._placed else plane.normal)
        at = bisect_left(self._heights, height)
        near = self._heights[max(0, at - 1) : at + 1]
        if any(abs(height - other) < SAME_POSITION_MM for other in near):
            return False
        voxels = read_plane(path)
        self.planes[key] = voxels
        self.size_bytes += voxels.nbytes
        self._heights.insert(at, height)
        self._placed.insert(at, (key, plane))
        self._fresh.append(height)
        return True

    @property
    def is_fresh(self) -> bool:
        """Whether something was added since `settle`."""
        return bool(self._fresh)

    def settle(self) -> None:
        """What is new has been seen to."""
        self._fresh.clear()

    def fresh(self) -> Iterator[Volume]:
        """Volumes of neighbouring planes in which all that was added since `settle` lies.

        Nothing of a tilted stack: it is not worked on slice by slice.
        """
        for low, high in _ranges(sorted(self._fresh)):
            first = bisect_left(self._heights, low - _BESIDE_MM)
            stop = bisect_left(self._heights, high + _BESIDE_MM)
            volume = self._volume(first, stop)
            if volume is not None:
                yield volume

    def _volume(self, first: int, stop: int) -> Volume | None:
        chosen = self._placed[first:stop]
        judged = stack([plane for _, plane in chosen], tolerate=frozenset(Fault))
        if isinstance(judged, NotAStack) or judged.has(Fault.SHEAR, Fault.SHIFT):
            return None
        keys = [key for key, _ in chosen]
        return Volume(
            voxels_zyx=np.stack([self.planes[key] for key in keys]),
            affine_lps_mm=affine_of(judged),
            heights_mm=judged.positions_mm,
            slice_keys=tuple(keys),
        )

    def _belongs(self, plane: Plane) -> bool:
        if not self._placed:
            return True
        first = self._placed[0][1]
        return (
            dot(plane.normal, first.normal) > _ALIKE
            and (plane.rows, plane.columns) == (first.rows, first.columns)
            and plane.spacing_mm == first.spacing_mm
        )


def _ranges(heights: list[float]) -> list[tuple[float, float]]:
    """Rising heights as ranges, where windows around them would touch."""
    found: list[tuple[float, float]] = []
    for height in heights:
        if found and height - found[-1][1] <= 2 * _BESIDE_MM:
            found[-1] = (found[-1][0], height)
        else:
            found.append((height, height))
    return found
