"""Which slices a network is shown beside each, and what was found in a slice, kept for later."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONTEXT_MM = 8.0  # so far below and above a slice are those that are shown beside it
REACH_MM = 20.0  # a slice further away is no neighbour
_ALIKE_MM = 0.01  # of two distances as good as each other the shorter counts, whatever the rounding

Triple = tuple[int, int, int]
"""Indices of a slice below, a slice, and a slice above it."""


def neighbours(heights_mm: Sequence[float]) -> list[tuple[int, int, int]]:
    """For each slice, what the network is shown: (a slice below, itself, a slice above).

    heights_mm: strictly rising. Of the slices within REACH_MM that one whose distance is nearest to
    CONTEXT_MM; at an end of the stack, and beside a gap, the slice itself.
    """
    return [
        (_beside(heights_mm, i, -1), i, _beside(heights_mm, i, 1)) for i in range(len(heights_mm))
    ]


def _beside(heights_mm: Sequence[float], at: int, step: int) -> int:
    best, off = at, float("inf")
    i = at + step
    while 0 <= i < len(heights_mm):
        distance = abs(heights_mm[i] - heights_mm[at])
        if distance > REACH_MM or abs(distance - CONTEXT_MM) > off - _ALIKE_MM:
            break
        best, off = i, abs(distance - CONTEXT_MM)
        i += step
    return best


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundSlice:
    """The classes of one slice, packed: a series of a thousand slices takes 64 MB."""

    shape: tuple[int, int]
    bits: tuple[bytes, ...]  # of class 1, 2, ...
    unsure: float

    @classmethod
    def of(cls, labels: NDArray[np.uint8], unsure: float) -> FoundSlice:
        """Pack uint8 [row, column]."""
        classes = range(1, int(labels.max(initial=0)) + 1)
        bits = tuple(np.packbits(labels == k).tobytes() for k in classes)
        return cls(shape=(labels.shape[0], labels.shape[1]), bits=bits, unsure=unsure)

    def labels(self) -> NDArray[np.uint8]:
        """uint8 [row, column]."""
        out = np.zeros(self.shape, np.uint8)
        for k, packed in enumerate(self.bits, start=1):
            flags = np.unpackbits(np.frombuffer(packed, np.uint8), count=out.size)
            out += k * flags.reshape(self.shape)
        return out


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """What the network is shown of a stack in canonical axes, HU.

    heights_mm: of each slice, strictly rising. keys: what tells the content of each slice from any
    other's, or none. memory: what was found before, by the keys of a triple and the size of pixels:
    nothing else is known to the network.
    """

    voxels_zyx: NDArray[np.generic]
    heights_mm: Sequence[float]
    spacing_yx_mm: tuple[float, float]
    keys: Sequence[str] = ()
    memory: MutableMapping[tuple[str, ...], object] | None = None
    beside: Sequence[Triple] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "beside", neighbours(self.heights_mm))

    def key(self, triple: Triple) -> tuple[str, ...]:
        """What the answer for a triple is remembered by: all that it depends on."""
        row_mm, column_mm = self.spacing_yx_mm
        return (*(self.keys[i] for i in triple), float(row_mm).hex(), float(column_mm).hex())

    def remembered(self, triple: Triple) -> FoundSlice | None:
        """What is known of it."""
        if self.memory is None or not self.keys:
            return None
        known = self.memory.get(self.key(triple))
        return known if isinstance(known, FoundSlice) else None

    def settled(self) -> list[Triple]:
        """Triples that will hardly change: no slice can be expected between or nearer."""
        gaps = np.diff(self.heights_mm)
        if not len(gaps):
            return []
        usual = 1.5 * float(gaps.min())
        return [
            (low, at, high)
            for low, at, high in self.beside
            if low < at < high
            and bool((gaps[low:high] <= usual).all())
            and self._far(low, at, -1)
            and self._far(at, high, 1)
        ]

    def _far(self, low: int, high: int, step: int) -> bool:
        """Whether the next slice outwards, if it came, would not be the better neighbour."""
        distance = self.heights_mm[high] - self.heights_mm[low]
        beyond = low - 1 if step < 0 else high + 1
        return distance >= CONTEXT_MM or 0 <= beyond < len(self.heights_mm)
