"""The planes of a Series that still arrives: decoded once, shown in windows around what is new."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from dicom_node.decide.geometry import (
    LOCALIZER_PLANES,
    SAME_POSITION_MM,
    Fault,
    NotAStack,
    stack,
)
from dicom_node.decide.planes import Plane, by_orientation, plane_of, same_pixel_spacing
from dicom_node.decide.vectors import Vector, dot
from dicom_node.domain.volume import Volume
from dicom_node.iod.code_stream import Decode, decoded
from dicom_node.iod.image import affine_of, read_plane

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dicom_node.domain.records import Attributes

Planes: TypeAlias = "dict[str, NDArray[np.generic]]"
"""Voxels as in a Volume, by key."""

_BESIDE_MM = 45.0  # a window reaches so far beyond what is new


@dataclass(slots=True, kw_only=True, eq=False)
class Shown:
    """Memory in which planes lie side by side for as long as they are looked at.

    It may be one for many Series. It is used again and again: new pages cost more. size_bytes: so
    much of it was in use at most.
    """

    size_bytes: int = 0
    _memory: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))

    def stacked(self, planes: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
        """The planes, all of one shape, in order; good until this is called again."""
        dtype, shape = np.result_type(*planes), (len(planes), *planes[0].shape)
        wanted = math.prod(shape) * dtype.itemsize
        if self._memory.nbytes < wanted:
            self.release()  # before, so that there are never two of them
            self._memory = np.empty(wanted * 5 // 4, np.uint8)
        self.size_bytes = max(self.size_bytes, wanted)
        return np.stack(planes, out=self._memory[:wanted].view(dtype).reshape(shape))

    def release(self) -> None:
        """Give the memory back."""
        self._memory, self.size_bytes = np.empty(0, np.uint8), 0


@dataclass(slots=True, kw_only=True, eq=False)
class ArrivingStack:
    """Parallel planes, in order along their normal, as far as they have arrived.

    Only what lies like the first planes is taken; where those turn out to be localizers, what comes
    next is. Anything else is left for the verdict. size_bytes: of the planes. shown: where they are
    put side by side, which takes as much again where all of them are. decode: see iod.pixels.
    """

    planes: Planes = field(default_factory=dict)
    size_bytes: int = 0
    shown: Shown = field(default_factory=Shown)
    decode: Decode = decoded
    _normal: Vector = (0.0, 0.0, 1.0)  # of the first plane
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
        if not self._placed:
            self._normal = plane.normal
        height = dot(plane.position, self._normal)
        at = bisect_left(self._heights, height)
        near = self._heights[max(0, at - 1) : at + 1]
        if any(abs(height - other) <= SAME_POSITION_MM for other in near):
            return False
        voxels = read_plane(path, self.decode)
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

        Each is good until the next one is made: they share their voxels. Nothing of a tilted stack:
        it is not worked on slice by slice.
        """
        for low, high in _ranges(sorted(self._fresh)):
            first = bisect_left(self._heights, low - _BESIDE_MM)
            stop = bisect_left(self._heights, high + _BESIDE_MM)
            volume = self._volume(first, stop)
            if volume is not None:
                yield volume

    def whole(self) -> Volume | None:
        """All planes; as of `fresh`."""
        return self._volume(0, len(self._placed))

    def _volume(self, first: int, stop: int) -> Volume | None:
        chosen = self._placed[first:stop]
        judged = stack([plane for _, plane in chosen], tolerate=frozenset(Fault))
        if isinstance(judged, NotAStack) or judged.has(Fault.SHEAR, Fault.SHIFT):
            return None
        key_of = {plane.uid: key for key, plane in chosen}
        keys = [key_of[uid] for uid in judged.uids]
        return Volume(
            voxels_zyx=self.shown.stacked([self.planes[key] for key in keys]),
            affine_lps_mm=affine_of(judged),
            heights_mm=judged.positions_mm,
            slice_keys=tuple(keys),
        )

    def _belongs(self, plane: Plane) -> bool:
        if not self._placed:
            return True
        first = self._placed[0][1]
        if (
            len(by_orientation((first, plane))) == 1
            and (plane.rows, plane.columns) == (first.rows, first.columns)
            and same_pixel_spacing(plane, first)
        ):
            return True
        if len(self._placed) > LOCALIZER_PLANES:
            return False
        for held in (self.planes, self._heights, self._placed, self._fresh):
            held.clear()
        self.size_bytes = 0
        return True


def _ranges(heights: list[float]) -> list[tuple[float, float]]:
    """Rising heights as ranges, where windows around them would touch."""
    found: list[tuple[float, float]] = []
    for height in heights:
        if found and height - found[-1][1] <= 2 * _BESIDE_MM:
            found[-1] = (found[-1][0], height)
        else:
            found.append((height, height))
    return found
