"""The quick way to the frames of a segmentation gives the bytes that highdicom gives."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain.tool import AlgorithmIdentity, SegmentationResult
from dicom_node.iod import seg
from dicom_node.iod.header import read_attributes
from dicom_node.iod.image import read_volume
from dicom_node.iod.seg import encode_segmentation
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.testing.series import a_series, write_files
from dicom_node.tools.manifest import read_manifest

LUNGS = read_manifest(Path(__file__).parents[2] / "models" / "lung-unet").segments
WHO = AlgorithmIdentity(tool_id="t", name="Tool", version="1", digest="ab" * 32)

STACKS = {  # rows and columns, orientation, the axis along which the planes lie
    "whole bytes": (16, [1, 0, 0, 0, 1, 0], 2),
    "parts of bytes": (13, [1, 0, 0, 0, 1, 0], 2),
    "from behind": (16, [-1, 0, 0, 0, 1, 0], 2),
    "coronal": (13, [1, 0, 0, 0, 0, -1], 1),
}


@pytest.fixture(scope="module")
def stacks(tmp_path_factory):
    """The files of each stack in slice order."""
    folder = tmp_path_factory.mktemp("stacks")
    found = {}
    for name, (size, orientation, along) in STACKS.items():
        images = a_series(6, size=size)
        for number, image in enumerate(images):
            image.ImageOrientationPatient = orientation
            image.ImagePositionPatient = [-10.5, 4, 7]
            image.ImagePositionPatient[along] = 3.3 * number
        paths = write_files(folder / name, images)
        by_uid = {read_attributes(p)["SOPInstanceUID"]: p for p in paths}
        found[name] = [by_uid[uid] for uid in read_volume(paths).instance_uids]
    return found


def both_ways(paths, labels, segments, *, omit_empty_frames):
    def encoded():
        return encode_segmentation(
            SegmentationResult(labels_zyx=labels, segments=segments),
            source_paths=paths,
            identity=WHO,
            settings=SegSettings(omit_empty_frames=omit_empty_frames),
            uids=("2.25.1", "2.25.2"),
            content_at=datetime(2026, 1, 5, 12, 0, 0),
        )

    quick = encoded()
    with mock.patch.object(seg, "frames_of", return_value=None):  # as for an unknown highdicom
        return quick, encoded()


@given(
    name=st.sampled_from(sorted(STACKS)),
    shown=st.lists(st.sets(st.sampled_from([1, 2])), min_size=6, max_size=6),
    segments=st.sampled_from([1, 2]),
    omit=st.booleans(),
    seed=st.integers(0, 5),
)
def test_the_bytes_are_those_of_highdicom(stacks, name, shown, segments, omit, seed):
    paths = stacks[name]
    size = read_attributes(paths[0])["Rows"]
    labels = np.zeros((6, size, size), np.uint8)
    chance = np.random.default_rng(seed)
    for z, numbers in enumerate(shown):
        allowed = [0, *(n for n in numbers if n <= segments)]
        labels[z] = chance.choice(allowed, (size, size))
    quick, slow = both_ways(paths, labels, LUNGS[:segments], omit_empty_frames=omit)
    assert quick == slow
