"""A tool that finds the lungs, whatever does the finding: the frame around a segmenter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from dicom_node.domain.policy import InputPolicy
from dicom_node.domain.tool import (
    AlgorithmIdentity,
    Applicable,
    NotApplicable,
    ProcessingResult,
    SegmentationResult,
    ToolContext,
)
from dicom_node.domain.volume import Volume, canonical
from dicom_node.tools import guard, lungs
from dicom_node.tools.manifest import ModelManifest, applicable

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segmented:
    """labels_zyx: uint8, 0, lungs.RIGHT, lungs.LEFT. unsure: see guard.doubts; None: not known.

    notes: how it was made, where that was unusual.
    """

    labels_zyx: NDArray[np.uint8]
    unsure: NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()


Engine = Callable[[], str]
Segmenter = Callable[[Volume, ToolContext], Segmented]
"""Finds the lungs in a volume in canonical axes, HU."""


class LungTool:
    """The contract of `ImageProcessingTool`, for right and left lung.

    engine: names the arithmetic that the last result came from.
    """

    def __init__(
        self, *, manifest: ModelManifest, segmenter: Segmenter, digest: str, engine: Engine
    ) -> None:
        self._manifest = manifest
        self._segmenter = segmenter
        self._digest = digest
        self._engine = engine

    def description(self) -> str:
        """What it finds, in one line."""
        return self._manifest.description

    def version_id(self) -> str:
        """Version, weights and arithmetic: other arithmetic may move a voxel at a border.

        Of the last result: a shortage of memory may have changed the arithmetic.
        """
        return f"{self._manifest.version}+{self._digest[:12]}.{self._engine()}"

    def identity(self) -> AlgorithmIdentity:
        """What is written into each result."""
        return AlgorithmIdentity(
            tool_id=self._manifest.id,
            name=self._manifest.name,
            version=self._manifest.version,
            digest=self._digest,
        )

    def can_process_image(self, header: Mapping[str, object]) -> Applicable | NotApplicable:
        """Judge by Modality, SOP Class UID and Image Type of the first instance."""
        return applicable(self._manifest, header)

    def input_policy(self) -> InputPolicy:
        """As model.toml says."""
        return self._manifest.policy

    def process(self, volume: Volume, context: ToolContext) -> Sequence[ProcessingResult]:
        """Both lungs on the grid of `volume`, which holds HU in any orientation."""
        turned, order = canonical(volume)
        if volume.voxels_zyx.size:
            found = self._segmenter(turned, context)
        else:
            found = Segmented(labels_zyx=np.zeros(turned.voxels_zyx.shape, np.uint8))
        labels, unsure, notes = lungs.cleaned(found.labels_zyx, turned), found.unsure, found.notes
        del found
        as_given = np.ascontiguousarray(order.undo(labels), np.uint8)
        result = SegmentationResult(
            labels_zyx=as_given,
            segments=self._manifest.segments,
            measurements=lungs.measured(as_given, volume),
            notes=(*lungs.remarks(labels), *notes),
            doubts=guard.doubts(labels, turned, unsure),
        )
        return (result,)


class AheadSegmenter(Protocol):
    """A segmenter that judges slices one by one."""

    def __call__(self, volume: Volume, context: ToolContext) -> Segmented:
        """As any segmenter."""

    def ahead(self, volume: Volume, context: ToolContext) -> None:
        """As domain.tool.WorksAhead, in canonical axes."""


class SliceWiseLungTool(LungTool):
    """A lung tool that can begin while the Series still arrives."""

    def __init__(
        self, *, manifest: ModelManifest, segmenter: AheadSegmenter, digest: str, engine: Engine
    ) -> None:
        super().__init__(manifest=manifest, segmenter=segmenter, digest=digest, engine=engine)
        self._ahead = segmenter.ahead

    def ahead(self, volume: Volume, context: ToolContext) -> None:
        """As domain.tool.WorksAhead; planes that are not axial are waited for."""
        turned, order = canonical(volume)
        if order.permutation[0] == 0:
            self._ahead(turned, context)
