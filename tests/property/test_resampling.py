"""Tilted and uneven stacks: volumes, the way to a regular grid, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.domain.volume import Volume, canonical
from dicom_node.iod.resample import mapped_back, regular

RADIUS_MM = 30.0
BALL_ML = 4 / 3 * np.pi * RADIUS_MM**3 / 1000
CENTRE = np.array((12.0, -7.0, 31.0))


@dataclass(frozen=True, kw_only=True)
class Scan:
    """How a body is cut: tilts of the table's way against the normal, distances of the planes."""

    tilt_deg: tuple[float, float]
    turn_deg: tuple[float, float]
    gaps_mm: tuple[float, ...]
    prone: bool

    def volume(self) -> Volume:
        """The stack, with the ball in the middle of it; voxels of 2.2 x 1.8 mm."""
        a, b = np.radians(self.turn_deg)
        about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
        about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        along, down, normal = (about_z @ about_x).T * (1 if not self.prone else -1)
        normal = np.cross(along, down)
        heights = np.concatenate(((0.0,), np.cumsum(self.gaps_mm)))
        x, y = np.tan(np.radians(self.tilt_deg))
        step = (normal + x * along + y * down) * heights[-1] / (len(heights) - 1)
        shape = (len(heights), 72, 84)
        affine = np.eye(4)
        affine[:3, :3] = np.stack((step, 2.2 * down, 1.8 * along), axis=1)
        middle = (np.array(shape) - 1) / 2
        affine[:3, 3] = CENTRE - affine[:3, :3] @ middle
        uneven = np.ptp(self.gaps_mm) > 0
        return Volume(
            voxels_zyx=np.zeros(shape, np.float32),
            affine_lps_mm=affine,
            heights_mm=tuple(float(h) for h in heights) if uneven else (),
        )


tilts = st.tuples(st.floats(-10, 10), st.floats(-30, 30))
turns = st.tuples(st.floats(-40, 40), st.floats(-40, 40))
even = st.integers(20, 30).map(lambda n: (80.0 / n,) * n)
uneven = st.lists(st.floats(1.5, 6.0), min_size=24, max_size=30).map(tuple)
gaps = st.one_of(even, uneven.filter(lambda g: 75 < sum(g) < 150))
scans = st.builds(Scan, tilt_deg=tilts, turn_deg=turns, gaps_mm=gaps, prone=st.booleans())


def places(volume: Volume) -> np.ndarray:
    """LPS of every voxel: (3, slices, rows, columns)."""
    shape = volume.voxels_zyx.shape
    r, c = np.mgrid[0 : shape[1], 0 : shape[2]]
    k = volume.slice_indices[:, None, None]
    index = np.stack(np.broadcast_arrays(k, r[None], c[None], 1.0)).reshape(4, -1)
    return (volume.affine_lps_mm[:3] @ index).reshape(3, *shape)


def ball(volume: Volume) -> np.ndarray:
    return np.linalg.norm(places(volume) - CENTRE[:, None, None, None], axis=0) < RADIUS_MM


def slope(volume: Volume) -> np.ndarray:
    """A field that linear interpolation gives back exactly."""
    return np.tensordot((0.7, -1.3, 2.1), places(volume), axes=1)


def filled(volume: Volume, voxels: np.ndarray) -> Volume:
    return Volume(
        voxels_zyx=voxels,
        affine_lps_mm=volume.affine_lps_mm,
        heights_mm=volume.heights_mm,
    )


@settings(max_examples=25, deadline=None)
@given(scans)
def test_a_ball_has_its_volume_however_it_is_cut(scan: Scan) -> None:
    volume = scan.volume()
    found = ball(volume)
    ml = volume.ml_of(found.astype(np.uint8))[1]
    assert abs(ml / BALL_ML - 1) < 0.02


@settings(max_examples=25, deadline=None)
@given(scans)
def test_canonical_axes_keep_what_each_slice_stands_for(scan: Scan) -> None:
    volume = scan.volume()
    turned, order = canonical(volume)
    back = order.undo(turned.voxels_zyx)
    assert back.shape == volume.voxels_zyx.shape
    if order.permutation[0] == 0:
        shares = turned.voxel_ml_of_slices[:: -1 if order.flips[0] else 1]
        np.testing.assert_allclose(shares, volume.voxel_ml_of_slices)


@settings(max_examples=25, deadline=None)
@given(scans)
def test_the_regular_grid_shows_the_same_body_in_the_same_place(scan: Scan) -> None:
    volume = scan.volume()
    grid = regular(filled(volume, slope(volume).astype(np.float32)))
    axes = grid.affine_lps_mm[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    np.testing.assert_allclose(axes.T @ axes, np.diag(lengths**2), atol=1e-6)
    assert grid.heights_mm == ()
    shape = np.array(volume.voxels_zyx.shape) - 1
    index = np.einsum("ij,j...->i...", np.linalg.inv(volume.affine_lps_mm)[:3, :3],
                      places(grid) - volume.affine_lps_mm[:3, 3][:, None, None, None])  # fmt: skip
    within = np.all((index > 0) & (index < shape[:, None, None, None]), axis=0)
    assert within.any()
    np.testing.assert_allclose(grid.voxels_zyx[within], slope(grid)[within], atol=0.02)


@settings(max_examples=25, deadline=None)
@given(scans)
def test_labels_come_back_to_the_planes_they_belong_to(scan: Scan) -> None:
    volume = scan.volume()
    grid = regular(volume)
    truth = ball(volume)
    right = places(volume)[0] < CENTRE[0]
    back = mapped_back(np.where(places(grid)[0] < CENTRE[0], 1, 2) * ball(grid).astype(np.uint8),
                       grid, volume)  # fmt: skip
    assert back.dtype == np.uint8
    for number, side in ((1, right), (2, ~right)):
        a, b = back == number, truth & side
        both = np.count_nonzero(a & b)
        assert 2 * both / (np.count_nonzero(a) + np.count_nonzero(b)) > 0.955  # a slice off: 0.9
        middles = [places(volume)[:, mask].mean(axis=1) for mask in (a, b)]
        assert np.linalg.norm(middles[0] - middles[1]) < 0.3 * max(scan.gaps_mm)


@settings(max_examples=10, deadline=None)
@given(scans)
def test_whole_numbers_stay_whole_numbers(scan: Scan) -> None:
    volume = scan.volume()
    made = regular(filled(volume, np.where(ball(volume), 40, -900).astype(np.int16)))
    assert made.voxels_zyx.dtype == np.int16
    assert (made.voxels_zyx.min(), made.voxels_zyx.max()) == (-900, 40)
