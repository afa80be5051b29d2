"""Odd series get a result that says so, or a refusal with its reason; nothing is passed in silence.

Most is asked of a tool that takes all air inside a body for lung: nothing would hold it back but
gate and guard. What those let through is asked of the shipped network, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicom_node.domain.errors import ObjectError
from dicom_node.domain.tool import ImageProcessingTool, ToolContext
from dicom_node.domain.volume import Volume
from dicom_node.iod.header import read_attributes
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.node.encode import Source
from dicom_node.node.produce import Outcome, produce
from dicom_node.testing.phantom import chest_phantom
from dicom_node.testing.series import Pixels, ct_series, write_files
from dicom_node.tools.registry import build_tool, load_models

SHIPPED = Path(__file__).parents[3] / "models"
Change = Callable[[Dataset], None]


@pytest.fixture(scope="module")
def chest() -> Volume:
    return chest_phantom(slices=34, size=80, spacing_mm=(8.0, 5.0, 5.0), seed=3)[0]


KINDS = ("threshold", "unet")


@cache
def tool_of(kind: str) -> ImageProcessingTool:
    manifest = replace(load_models(SHIPPED)["lung-unet"], kind=kind)
    return build_tool(manifest, device="cpu", threads=2, runtime="auto")


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Outcome]:
    def run(datasets: Sequence[Dataset], kind: str = "threshold") -> Outcome:
        sources = [
            Source(
                path=path,
                attributes=read_attributes(path),
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            )
            for path in write_files(tmp_path / "ct", datasets)
        ]
        return produce(sources, tool_of(kind), SegSettings())

    return run


def said(keyword: str, value: object) -> Change:
    return lambda dataset: setattr(dataset, keyword, value)


def shifted(by: float) -> Change:
    def change(dataset: Dataset) -> None:
        dataset.RescaleIntercept = float(dataset.RescaleIntercept) + by

    return change


def floats(dataset: Dataset) -> None:
    """Float Pixel Data (PS3.3 C.7.6.24), not a number at all."""
    dataset.FloatPixelData = np.full((80, 80), np.nan, np.float32).tobytes()
    dataset.BitsAllocated = 32
    del dataset.PixelData


def pixels(value: int) -> Change:
    return lambda dataset: setattr(
        dataset, "PixelData", np.full((80, 80), value, np.int16).tobytes()
    )


REFUSED: dict[str, tuple[Change, str]] = {
    "float pixels that are no numbers": (floats, "has no Pixel Data"),
    "a slope that is no number": (said("RescaleSlope", "NaN"), "HU are unknown"),
    "an infinite intercept": (said("RescaleIntercept", "inf"), "HU are unknown"),
    "a slope of 0": (said("RescaleSlope", 0), "Rescale Slope of 0"),
    "a slope of -1": (said("RescaleSlope", -1), "as dense as bone"),
    "constant pixels": (pixels(40), "all voxels have the same value"),
    "values 1024 too high": (shifted(1024), "no value is below 0 HU"),
    "values 1024 too low": (shifted(-1024), "hardly any tissue"),
    "nothing but air": (pixels(-1000), "same value"),
    "no rescale at all": (lambda d: delattr(d, "RescaleSlope"), "HU are unknown"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom, of numbers that are none
@pytest.mark.parametrize("case", REFUSED)
def test_a_series_that_is_no_ct_of_a_body_is_refused_with_the_reason(made, chest, case) -> None:
    change, words = REFUSED[case]
    objects = ct_series(chest)
    for dataset in objects:
        change(dataset)
    with pytest.raises(ObjectError, match=words):
        made(objects)


def test_one_slice_or_two_are_refused(made, chest) -> None:
    objects = ct_series(chest)
    for count in (1, 2):
        with pytest.raises(ObjectError, match="at least 3 are needed"):
            made(objects[10 : 10 + count])


DOUBTED: dict[str, tuple[Change, str]] = {
    "values 200 too high": (shifted(200), "shifted or scaled"),
    "values 200 too low": (shifted(-200), "shifted or scaled"),
    "a slope of 1.3": (said("RescaleSlope", 1.3), "shifted or scaled"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", DOUBTED)
def test_values_that_might_be_those_of_a_ct_are_doubted(made, chest, case, kind) -> None:
    change, words = DOUBTED[case]
    objects = ct_series(chest, pixels=Pixels(intercept=-1024.0))
    for dataset in objects:
        change(dataset)
    assert any(words in doubt for doubt in made(objects, kind).doubts)


STORED = {
    "twelve bits": Pixels(signed=False, bits_stored=12, intercept=-1024.0),
    "padding of -2000": Pixels(padding=-2000, intercept=-1024.0),
    "padding of 63536": Pixels(signed=False, padding=63536, intercept=-1024.0),
    "eight bits, ten HU each": Pixels(signed=False, bits_stored=8, slope=10.0, intercept=-1024.0),
}


@pytest.mark.parametrize("case", STORED)
def test_the_way_of_storing_raises_no_doubt(made, chest, case) -> None:
    objects = ct_series(chest, pixels=STORED[case])
    if case == "padding of 63536":
        for dataset in objects:
            dataset.PixelPaddingValue = 63536
    outcome = made(objects)
    assert outcome.doubts == ()
    assert len(outcome.results[0].measurements) == 2


def body(shape: tuple[int, int, int], *tubes: tuple[float, float, float]) -> Volume:
    """Cylinders of tissue in air: (row, column, radius) in pixels of 4 mm."""
    rows, columns = np.mgrid[0 : shape[1], 0 : shape[2]]
    hu = np.full(shape, -1000, np.int16)
    for row, column, radius in tubes:
        hu[:, np.hypot(rows - row, columns - column) < radius] = 40
    hu += np.random.default_rng(1).integers(-15, 15, shape, dtype=np.int16)
    affine = np.diag([4.0, 4.0, 5.0, 1.0])[:, [2, 1, 0, 3]]
    return Volume(voxels_zyx=hu, affine_lps_mm=affine)


WITHOUT_LUNG = {
    "two legs": body((20, 96, 96), (48, 28, 17), (48, 68, 17)),
    "two legs that touch": body((20, 96, 96), (48, 31, 17), (48, 64, 17)),
    "one breast": body((20, 80, 80), (40, 40, 22)),
    "an arm": body((20, 64, 64), (30, 30, 9)),
    "a head": body((30, 72, 72), (36, 36, 22)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", WITHOUT_LUNG)
def test_where_there_is_no_lung_none_is_delivered_unmarked(made, case, kind) -> None:
    outcome = made(ct_series(WITHOUT_LUNG[case]), kind)
    found = outcome.results[0].labels_zyx.any()
    assert bool(outcome.doubts) or (not found and "No lung was found" in outcome.notes[-1])


def test_a_large_matrix_is_found_as_a_small_one(chest) -> None:
    hu = np.repeat(np.repeat(chest.voxels_zyx[12:17], 13, axis=1), 13, axis=2)
    affine = chest.affine_lps_mm.copy()
    affine[:3, 1:3] /= 13
    (result,) = tool_of("threshold").process(
        Volume(voxels_zyx=hu, affine_lps_mm=affine), ToolContext()
    )
    assert result.labels_zyx.shape == (5, 1040, 1040)
    assert len(result.measurements) == 2
