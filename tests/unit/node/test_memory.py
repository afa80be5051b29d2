"""A step holds few arrays of the size of its series: a copy too many is found here."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from dicom_node.domain.tool import ToolContext
from dicom_node.domain.volume import Volume
from dicom_node.iod.image import read_volume
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.node.offline import FoundSeries, find_series
from dicom_node.node.produce import produce
from dicom_node.testing.models import threshold_model
from dicom_node.testing.series import a_series, write_files
from dicom_node.tools.lung_tool import LungTool, Segmented
from dicom_node.tools.manifest import read_manifest

SLICES, SIZE = 40, 256
VOXELS = SLICES * SIZE * SIZE
MARGIN_BYTES = 3 << 20  # headers, and arrays of one slice


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> FoundSeries:
    folder = tmp_path_factory.mktemp("series")
    write_files(folder, a_series(SLICES, size=SIZE, spacing_mm=(3.0, 1.3, 1.3)))
    (found,), _ = find_series(folder)
    return found


def dark(volume: Volume, _context: ToolContext) -> Segmented:
    """The dark discs of the series, a slice at a time: it holds nothing but its answer."""
    labels = np.zeros(volume.voxels_zyx.shape, np.uint8)
    for plane, found in zip(volume.voxels_zyx, labels, strict=True):
        found[np.less(plane, -700) & np.greater(plane, -870)] = 1
        found[:, SIZE // 2 :] *= 2
    return Segmented(labels_zyx=labels)


@pytest.fixture
def tool(tmp_path) -> LungTool:
    folder = tmp_path / "lung-threshold"
    folder.mkdir()
    (folder / "model.toml").write_text(threshold_model())
    manifest = read_manifest(folder)
    return LungTool(manifest=manifest, segmenter=dark, digest="ab" * 32, engine=lambda: "test")


class Peak:
    """Bytes that numpy and Python held at most, beyond what they held at first."""

    def __enter__(self) -> Self:
        tracemalloc.start()
        self._first, _ = tracemalloc.get_traced_memory()
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = tracemalloc.get_traced_memory()[1] - self._first
        tracemalloc.stop()

    @property
    def a_voxel(self) -> float:
        return (self.bytes - MARGIN_BYTES) / VOXELS


def paths(series: FoundSeries) -> Sequence[Path]:
    return [source.path for source in series.sources]


def test_a_volume_is_read_into_one_array(series):
    with Peak() as peak:
        volume = read_volume(paths(series))
    assert volume.voxels_zyx.dtype == np.int16
    assert peak.a_voxel <= 2


def test_a_step_holds_the_volume_and_few_labels(series, tool):
    produce(series.sources, tool, SegSettings())  # what a first call keeps for ever is not counted
    with Peak() as peak:
        outcome = produce(series.sources, tool, SegSettings())
    assert {m.segment for m in outcome.results[0].measurements} == {1, 2}
    # at most: the volume (2), labels (1), and what the clean-up needs
    assert peak.a_voxel <= 5.2, f"{peak.a_voxel:.2f} bytes for each voxel"
