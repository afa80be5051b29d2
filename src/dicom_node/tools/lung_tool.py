"""A tool that finds the lungs, whatever does the finding: the frame around a segmenter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

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
from dicom_node.tools import lungs
from dicom_node.tools.manifest import ModelManifest, applicable

if TYPE_CHECKING:
    from numpy.typing import NDArray

Segmenter = Callable[[Volume, Callable[[int, int], None]], "NDArray[np.uint8]"]
"""Voxels in canonical axes -> 0, lungs.RIGHT, lungs.LEFT, same shape; calls progress(done, total)
in slices."""


class LungTool:
    """The contract of `ImageProcessingTool`, for right and left lung."""

    def __init__(
        self, *, manifest: ModelManifest, segmenter: Segmenter, digest: str, engine: str
    ) -> None:
        self._manifest = manifest
        self._segmenter = segmenter
        self._digest = digest
        self._engine = engine

    def description(self) -> str:
        """What it finds, in one line."""
        return self._manifest.description

    def version_id(self) -> str:
        """Version, weights and arithmetic: other arithmetic may move a voxel at a border."""
        return f"{self._manifest.version}+{self._digest[:12]}.{self._engine}"

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
            found = self._segmenter(turned, context.progress)
        else:
            found = np.zeros(turned.voxels_zyx.shape, np.uint8)
        labels = lungs.cleaned(found, turned)
        del found
        as_given = np.ascontiguousarray(order.undo(labels), np.uint8)
        result = SegmentationResult(
            labels_zyx=as_given,
            segments=self._manifest.segments,
            measurements=lungs.measured(as_given, volume),
            notes=lungs.remarks(labels),
        )
        return (result,)
