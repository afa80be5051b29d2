"""What a training volume becomes: sides, neighbours, mended labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import data
import mend
import numpy as np
import pytest
import torch

Load = Callable[..., data.Archive]


def test_the_right_lung_is_at_low_columns_and_has_the_number_of_the_model(an_archive: Load) -> None:
    archive = an_archive()
    columns = {side: torch.nonzero(archive.labels == side)[:, 2] for side in (1, 2)}
    assert columns[data.RIGHT].max() < columns[data.LEFT].min()
    assert archive.has_lung()[7]
    assert len(archive.boxes) == len(archive.hu)


@pytest.mark.parametrize(
    ("at", "below", "above", "heights"),
    [
        (7, 2, 2, (-10.0, 0.0, 10.0)),
        (7, 0, 3, (0.0, 0.0, 15.0)),
        (1, 2, 2, (0.0, 0.0, 10.0)),
        (13, 2, 2, (-10.0, 0.0, 0.0)),
    ],
)
def test_neighbours_lie_where_they_are_said_to_lie(
    an_archive: Load, at: int, below: int, above: int, heights: tuple[float, ...]
) -> None:
    archive = an_archive()
    stack = data.stack_at(archive, at, below, above)
    assert stack.heights_mm == heights
    for plane, height in zip(stack.hu, heights, strict=True):
        assert torch.equal(plane, archive.hu[at + round(height / 5.0)])
    assert torch.equal(stack.labels[1], archive.labels[at])


NONE = dict.fromkeys(("single_slices", "lung", "empty", "phantom"), 0.0)


def test_single_slices_have_no_neighbours(an_archive: Load) -> None:
    archive = an_archive("many", single_slices=[{"id": "a"}])
    sampler = data.Sampler([archive], NONE | {"single_slices": 1.0}, 0.0)
    torch.manual_seed(3)
    for _ in range(20):
        stack = sampler.draw()
        assert torch.equal(stack.hu[0], stack.hu[1])
        assert torch.equal(stack.hu[2], stack.hu[1])
        assert (stack.labels[1] > 0).any()


def test_each_group_is_drawn_as_often_as_its_share_says(an_archive: Load) -> None:
    archive = an_archive()
    sampler = data.Sampler(
        [archive], {"single_slices": 0.5, "lung": 0.0, "empty": 0.5, "phantom": 0.0}, 0.0
    )
    torch.manual_seed(3)
    drawn = [bool((sampler.draw().labels[1] > 0).any()) for _ in range(30)]
    assert not any(drawn)


MENDING = """
[[mend]]
archive = "a"
slices = [1, 2]
side = "right"
middle = 20
why = "an effusion is left out"
"""


@pytest.fixture
def mending(tmp_path: Path) -> Path:
    path = tmp_path / "mend.toml"
    path.write_text(MENDING, "utf-8")
    return path


def a_pair() -> np.ndarray:
    labels = np.zeros((4, 40, 41), np.uint8)
    labels[:, 8:32, 4:18] = data.RIGHT
    labels[:, 8:32, 23:37] = data.LEFT
    return labels


def test_what_is_doubtful_is_ignored_and_the_label_stays(mending: Path) -> None:
    labels = a_pair()
    out = mend.mended("a", labels, mending)
    assert np.array_equal(out[[0, 3]], labels[[0, 3]])
    for z in (1, 2):
        assert np.array_equal(out[z][labels[z] > 0], labels[z][labels[z] > 0])
        assert (out[z, :, :20][labels[z, :, :20] == 0] == mend.IGNORED).all()
        assert not (out[z, :, 20:] == mend.IGNORED).any()


def test_no_other_archive_is_mended(mending: Path) -> None:
    assert np.array_equal(mend.mended("c", a_pair(), mending), a_pair())


def test_what_is_mended_can_be_described_and_done() -> None:
    lines = mend.described(data.MENDED).splitlines()
    assert len(lines) >= 1
    assert all(line.startswith("* ") for line in lines)
