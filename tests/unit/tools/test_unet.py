"""The way of a slice into the network, and of its answer back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dicom_node.domain.volume import Volume
from dicom_node.tools.body import Box, body_box
from dicom_node.tools.unet import SIDE, UNet, cut, fused, normalised, paste

WINDOW = (-1024.0, 150.0)


def box(top: int, bottom: int, left: int, right: int) -> Box:
    return Box(top=top, bottom=bottom, left=left, right=right)


def test_the_network_has_the_size_that_was_meant() -> None:
    network = UNet()
    assert sum(p.numel() for p in network.parameters()) == 1_964_563
    assert network(torch.zeros(1, 6, 32, 48)).shape == (1, 3, 32, 48)


def test_below_air_is_air_and_above_the_window_is_its_end() -> None:
    hu = torch.tensor([-3024.0, -1024.0, -437.0, -5.0, 150.0, 3000.0])[None, None, None]
    whole, tissue = normalised(hu, WINDOW)[0, :, 0].tolist()
    assert whole == pytest.approx([-1.0, -1.0, 0.0, 0.736, 1.0, 1.0], abs=1e-3)
    assert tissue == [-1.0, -1.0, -1.0, 0.0, 1.0, 1.0]


def test_a_box_beyond_the_matrix_shows_air_there() -> None:
    shown = cut(torch.zeros(1, 1, 100, 100), box(-28, 228, -28, 228), -1024.0)
    assert shown.shape == (1, 1, SIDE, SIDE)
    assert (shown[0, 0, :28] == -1024).all()
    assert (shown[0, 0, :, 128:] == -1024).all()
    assert (shown[0, 0, 28:128, 28:128] == 0).all()


def test_shrinking_averages() -> None:
    board = torch.from_numpy(np.indices((512, 512)).sum(axis=0) % 2 * 100.0).float()[None, None]
    shown = cut(board, box(0, 512, 0, 512), -1024.0)
    assert shown.min() > 40
    assert shown.max() < 60


@pytest.mark.parametrize("b", [box(0, 96, 0, 96), box(-16, 112, 8, 136), box(30, 70, 30, 70)])
def test_what_was_cut_out_is_pasted_to_its_place(b: Box) -> None:
    y, x = np.ogrid[0:96, 0:96]
    disc = torch.from_numpy(((y - 50) ** 2 + (x - 52) ** 2 < 15**2).astype(np.float32))
    shown = cut(disc[None, None], b, 0.0)
    labels = torch.zeros(1, 96, 96, dtype=torch.uint8)
    paste(torch.cat((0.5 - shown, shown - 0.5), dim=1), b, labels)
    assert int((labels[0] != disc).sum()) <= 6


def test_a_fused_network_gives_the_same_answer() -> None:
    torch.manual_seed(3)
    network = UNet((4, 8))
    x = torch.randn(4, 6, 32, 32)
    network(x)  # moves the means of the normalisations away from zero
    expected = network.eval()(x)
    assert torch.allclose(fused(network)(x), expected, atol=1e-5)


def test_the_box_holds_the_body_and_is_square_in_mm(a_chest: Volume) -> None:
    found = body_box(a_chest.voxels_zyx[:, :, ::2], (6.0, 12.0))
    assert (found.bottom - found.top) * 6.0 == pytest.approx((found.right - found.left) * 12, abs=9)
    assert found.left * 12 <= 7 * 6
    assert found.right * 12 >= 57 * 6
    assert found.top * 6 <= 14 * 6
    assert found.bottom * 6 >= 51 * 6


def test_the_box_of_nothing_is_the_whole_matrix() -> None:
    found = body_box(np.full((2, 100, 100), -1000, np.int16), (2.0, 2.0))
    assert found.top <= 0
    assert found.bottom >= 100
