"""How a model is scored, turned, cropped and published."""

from __future__ import annotations

import argparse
import hashlib
import json
import tomllib
from pathlib import Path

import drawn
import model_folder
import numpy as np
import pytest
import reading
import scores
import situations
import tables
import torch

from dicom_node.domain.volume import Volume, canonical
from dicom_node.tools.engine import Engine, Placed
from dicom_node.tools.unet import UNet

SHAPE = (14, 80, 96)
SPACING = (5.0, 4.0, 4.0)


@pytest.fixture
def chest() -> tuple[Volume, np.ndarray]:
    """A volume in canonical axes, and its label with the values of label files."""
    z, y, x = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    hu = np.full(SHAPE, -1000, np.int16)
    hu[:, (((y - 40) / 26.0) ** 2 + ((x - 46) / 36.0) ** 2 <= 1)[0]] = 40
    right = ((z - 7) / 6.5) ** 2 + ((y - 36) / 14.0) ** 2 + ((x - 28) / 11.0) ** 2 <= 1
    left = ((z - 8) / 5.0) ** 2 + ((y - 34) / 12.0) ** 2 + ((x - 64) / 10.0) ** 2 <= 1
    hu[right | left] = -850
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *SPACING, 1.0
    affine[:3, 3] = (-190.0, -160.0, 33.0)
    truth = np.select([left, right], [1, 2], 0).astype(np.uint8)
    return Volume(voxels_zyx=hu, affine_lps_mm=affine), truth


def as_found(truth: np.ndarray) -> np.ndarray:
    """The label as a model would give it: 1 = right, 2 = left."""
    return np.select([truth == 2, truth == 1], [1, 2], 0).astype(np.uint8)


def test_the_truth_scores_best(chest: tuple[Volume, np.ndarray]) -> None:
    volume, truth = chest
    row = scores.scored(as_found(truth), truth, volume)
    assert (row["right"], row["left"], row["wrong_side_ml"]) == (1.0, 1.0, 0.0)
    assert row["false_gas"]["cm2"] == row["false_dense"]["cm2"] == 0.0


def test_sides_that_are_swapped_score_nothing(chest: tuple[Volume, np.ndarray]) -> None:
    volume, truth = chest
    row = scores.scored(truth, truth, volume)
    assert (row["right"], row["left"]) == (0.0, 0.0)
    assert row["wrong_side_ml"] == pytest.approx((truth > 0).sum() * 0.08, abs=0.01)


def test_what_is_ignored_is_not_scored(chest: tuple[Volume, np.ndarray]) -> None:
    volume, truth = chest
    found = as_found(truth)
    truth[5:9][truth[5:9] == 2] = scores.IGNORED
    assert scores.scored(found, truth, volume)["right"] == 1.0


def test_false_lung_is_told_by_what_is_there(chest: tuple[Volume, np.ndarray]) -> None:
    volume, truth = chest
    volume.voxels_zyx[3, 60:62, 44:49] = -900
    found = as_found(truth)
    found[3, 60:62, 44:49] = 2  # ten pixels of gas
    found[9, 60:61, 44:49] = 1  # five pixels of tissue
    row = scores.scored(found, truth, volume)
    assert row["false_gas"] == {"cm2": 1.6, "slice": 3}
    assert row["false_dense"] == {"cm2": 0.8, "slice": 9}


def test_lung_close_to_the_border_of_the_label_is_not_called_false(
    chest: tuple[Volume, np.ndarray],
) -> None:
    volume, truth = chest
    found = as_found(truth)
    found[:, :, 1:] |= found[:, :, :-1] & 1
    assert scores.scored(found, truth, volume)["false_dense"]["cm2"] == 0.0


def test_the_worst_slices_come_first(
    chest: tuple[Volume, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, truth = chest
    monkeypatch.setattr(scores, "SMALL", 50)
    found = as_found(truth)
    found[4][found[4] == 1] = 0
    assert scores.by_slice(found, truth, "right")[0] == (0.0, 4)
    assert scores.by_slice(found, truth, "left")[0][0] == 1.0


def places(volume: Volume) -> dict[tuple[int, ...], int]:
    """HU by place in the patient, of some voxels."""
    at = np.argwhere(volume.voxels_zyx == 777)
    mm = volume.affine_lps_mm @ np.c_[at, np.ones(len(at))].T
    return {tuple(np.round(p).astype(int)): 777 for p in mm[:3].T}


@pytest.mark.parametrize("position", sorted(situations.POSITIONS))
def test_stored_otherwise_each_voxel_stays_at_its_place(
    chest: tuple[Volume, np.ndarray], position: str
) -> None:
    volume, truth = chest
    volume.voxels_zyx[2, 3, 5] = volume.voxels_zyx[9, 60, 7] = 777
    stored = situations.stored_otherwise(volume, position)
    assert places(stored) == places(volume)
    turned, order = canonical(stored)
    assert np.array_equal(turned.voxels_zyx, volume.voxels_zyx)
    np.testing.assert_allclose(turned.affine_lps_mm, volume.affine_lps_mm)
    assert np.array_equal(situations.stored_back(np.asarray(order.undo(truth)), position), truth)


@pytest.mark.parametrize("field", sorted(situations.FIELDS))
def test_a_part_is_a_part_and_stays_at_its_place(
    chest: tuple[Volume, np.ndarray], field: str
) -> None:
    volume, truth = chest
    volume.voxels_zyx[:] = np.arange(volume.voxels_zyx.size).reshape(SHAPE) % 30011
    window = situations.FIELDS[field](truth)
    part = situations.cropped(volume, window)
    assert part.voxels_zyx.size < volume.voxels_zyx.size
    assert np.array_equal(part.voxels_zyx, volume.voxels_zyx[window])
    starts = [s.start or 0 for s in window]
    at = volume.affine_lps_mm @ np.array([*starts, 1.0])
    np.testing.assert_allclose(part.affine_lps_mm[:, 3], at)
    kept = truth[window]
    if field in ("right half", "left half"):
        only = 2 if field == "right half" else 1
        assert set(np.unique(kept)) == {0, only}
    else:
        assert 0 < (kept > 0).sum() < (truth > 0).sum()


def test_stomach_gas_lies_beside_the_left_lung_and_not_in_it(
    chest: tuple[Volume, np.ndarray],
) -> None:
    volume, truth = chest
    made = situations.with_stomach_gas(volume, truth)
    assert made is not None
    sick, gas = made
    assert gas.any()
    assert not (gas & (truth > 0)).any()
    assert np.nonzero(gas)[2].min() > 46
    assert (sick.voxels_zyx[gas] == -960).all()
    assert np.array_equal(sick.voxels_zyx[truth > 0], volume.voxels_zyx[truth > 0])


def test_what_a_contour_leaves_out_is_solid_large_and_found(
    chest: tuple[Volume, np.ndarray],
) -> None:
    volume, truth = chest
    found = as_found(truth)
    assert drawn.left_out(found, truth, volume)["right"]["left_out_ml"] == 0.0
    around = truth.copy()
    around[4:12, 30:55, 15:35] = 0  # the reader's contour goes around what is there
    volume.voxels_zyx[4:12, 30:55, 15:35] = 40
    gone = np.count_nonzero(truth - around) * volume.voxel_ml
    said = drawn.left_out(found, around, volume)
    right, left = said["right"], said["left"]
    assert right["left_out_ml"] == pytest.approx(gone, rel=0.01)
    assert right["dice_without"] > 0.99 > scores.dice(found == 1, around == 2, around != 3)
    assert (left["left_out_ml"], left["more_ml"], left["less_ml"]) == (0.0, 0.0, 0.0)
    volume.voxels_zyx[4:12, 30:55, 15:35] = -800
    assert drawn.left_out(found, around, volume)["right"]["left_out_ml"] == 0.0, "air is no disease"


def test_a_reluctant_network_calls_dense_pixels_background_and_the_next_one_does_not() -> None:
    network = UNet().eval()
    placed = Placed(network, Engine(device="cpu", precision="fp32"), (-1000.0, 400.0))
    hu = torch.full((1, 3, 256, 256), -800.0)
    hu[:, :, 100:] = 40.0
    plain = placed.logits(hu)
    with drawn.reluctant(3.0):
        less = placed.logits(hu)
    assert torch.allclose(less[:, 0, :100], plain[:, 0, :100])
    assert torch.allclose(less[:, 0, 100:], plain[:, 0, 100:] + 3.0)
    assert torch.equal(less[:, 1:], plain[:, 1:])
    assert torch.equal(placed.logits(hu), plain)


def a_report() -> dict:
    worst = [{"slice": 3, "dice": 0.5}]
    row = {
        "label": "silver", "slices": 14, "right": 0.98, "left": 0.96, "right_worst": worst,
        "left_worst": worst, "wrong_side_ml": 0.1, "seconds_per_slice": 0.05, "doubts": ["One."],
        "false_gas": {"cm2": 1.0, "slice": 3}, "false_dense": {"cm2": 0.0, "slice": 0},
        "painted": {"ball right": 0.7}, "stomach_gas": {},
    }  # fmt: skip
    long = "Lung reaches the edge of the image: part of it is outside the field of view."
    half = {"right": 0.9, "false_left_ml": 3.0, "doubts": [long, long], "notes": []}
    quirk = {"shows": "head", "patient_trained_on": False, "cm2": 0.0, "slice": 0}
    prone = {"shows": "prone", "slices": 1, "right_cm2": 90.0, "left_cm2": 80.0}
    return {
        "unlabelled": {
            "prone 1": {**prone, "sides_right": True, "doubts": [], "notes": []},
            "prone 2": {"shows": "prone", "refused": "One slice is no volume."},
        },
        "test": {"a-series": row, "b-series": {k: v for k, v in row.items() if k != "painted"}},
        "drawn": {
            "a-series": {
                "sides": {
                    "right": {
                        "left_out_ml": 120.4,
                        "more_ml": 30.0,
                        "less_ml": 9.0,
                        "dice_without": 0.97,
                    }
                },
                "trade": [
                    {
                        "reluctance": 2.0,
                        "right": 0.95,
                        "left": 0.94,
                        "level right": 0.82,
                        "level left": 0.87,
                        "ball right": 0.88,
                        "ball left": 0.56,
                    }
                ],
            }
        },
        "positions": {"a-series": {"prone": {"other_voxels": 0, "other_side": 0}}},
        "fields": {"a-series": {"right half": half}},
        "without_lung": {"head-c3n": quirk, "other": {**quirk, "refused": "No volume."}},
    }


def test_the_tables_fit_a_terminal_and_leave_nothing_out() -> None:
    text = reading.as_text(a_report())
    assert max(len(line) for line in text.splitlines()) <= 100
    for word in (
        "a-series",
        "b-series",
        "0.980",
        "ball right",
        "prone",
        "head-c3n",
        "No volume.",
        "yes",
        "120 ml",
        "0.56",
    ):
        assert word in text
    assert text.count("field of view.") == 2


def test_a_table_for_a_document_has_a_line_for_each_row() -> None:
    assert tables.markdown(["a", "b"], [[1, 2]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


MODEL = 'version = "1.0.0"\n[weights]\nfile = "weights.safetensors"\nsha256 = "0"\n'


def test_the_digest_of_the_weights_is_written_into_the_model(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(MODEL, "utf-8")
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    digest = model_folder.pin(tmp_path, "2.0.0")
    assert digest == hashlib.sha256(b"weights").hexdigest()
    text = (tmp_path / "model.toml").read_text("utf-8")
    assert text == MODEL.replace('"0"', f'"{digest}"').replace("1.0.0", "2.0.0")
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"others")
    model_folder.copy_with(tmp_path, other, tmp_path / "copy")
    assert hashlib.sha256(b"others").hexdigest() in (tmp_path / "copy" / "model.toml").read_text()


MANIFEST = """
[[series]]
name = "free"
role = "train"
licence = "CC BY 4.0"

[[series]]
name = "closed"
role = "train"
licence = "unknown"
"""


@pytest.fixture
def a_training(tmp_path: Path) -> Path:
    (tmp_path / "MANIFEST.toml").write_text(MANIFEST, "utf-8")
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    said = {"volumes": ["free"], "before": {"volumes": ["free"]}}
    (tmp_path / "training.json").write_text(json.dumps(said), "utf-8")
    tool = {"digest": hashlib.sha256(b"weights").hexdigest()}
    (tmp_path / "evaluation.json").write_text(json.dumps({"tool": tool}), "utf-8")
    return tmp_path


def test_what_is_published_was_trained_on_free_data_and_scored(a_training: Path) -> None:
    publish = pytest.importorskip("publish", reason="matplotlib is in the extra train only")
    training, _, folds = publish.checked(a_training, a_training / "MANIFEST.toml")
    assert training["licences"] == {"free": "CC BY 4.0"}
    assert folds == {}
    for last, first in (
        (["free", "closed"], []),
        (["of nowhere"], []),
        (["free"], ["free", "closed"]),
    ):
        said = json.dumps({"volumes": last, "before": {"volumes": first}})
        (a_training / "training.json").write_text(said, "utf-8")
        with pytest.raises(SystemExit, match="may not be published"):
            publish.checked(a_training, a_training / "MANIFEST.toml")


def test_an_evaluation_of_other_weights_is_none(a_training: Path) -> None:
    publish = pytest.importorskip("publish", reason="matplotlib is in the extra train only")
    (a_training / "weights.safetensors").write_bytes(b"others")
    with pytest.raises(SystemExit, match="No evaluation of these weights"):
        publish.checked(a_training, a_training / "MANIFEST.toml")


@pytest.mark.parametrize(
    ("licence", "may"),
    [
        ("CC BY 4.0 (stated by TCIA)", True),
        ("CC BY-NC 3.0", False),
        ("CC BY-ND 4.0", False),
        ("unknown", False),
        ("MIT", False),
    ],
)
def test_pictures_are_published_of_series_under_cc_by_only(licence: str, may: bool) -> None:
    publish = pytest.importorskip("publish", reason="matplotlib is in the extra train only")
    assert publish.may_be_shown({"licence": licence}) is may


def test_a_collection_without_a_citation_is_not_passed_over() -> None:
    publish = pytest.importorskip("publish", reason="matplotlib is in the extra train only")
    lidc = {"collection": "LIDC-IDRI (TCIA)"}
    text = publish.citations([lidc, lidc, {"collection": "x", "citation": "Own words."}])
    assert [line[:6] for line in text.splitlines()] == ["* Arma", "* Own "]
    with pytest.raises(SystemExit, match="does not know"):
        publish.citations([{"collection": "Nobody's"}])


FULL = """
[[series]]
name = "free"
role = "train"
collection = "LIDC-IDRI (TCIA)"
licence = "CC BY 3.0"
shape_zyx = "[14, 80, 96]"
source = "a repository"

[[series]]
name = "closed"
role = "train"
collection = "Nobody's"
licence = "unknown"
shape_zyx = "[9, 80, 96]"
source = "a repository"

[[series]]
name = "a-series"
role = "test"
collection = "A collection"
licence = "CC BY-NC 3.0"
citation = "Somebody. A collection."
"""


def test_a_card_tells_all_that_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = pytest.importorskip("publish", reason="matplotlib is in the extra train only")
    (tmp_path / "MANIFEST.toml").write_text(FULL, "utf-8")
    head = 'name = "A net"\nlicence = "MIT"\n'
    (tmp_path / "model.toml").write_text(head + MODEL.replace('"0"', '"abc123"'), "utf-8")
    monkeypatch.setattr(publish, "MODEL", tmp_path)
    config = tomllib.loads((publish.HERE / "config.toml").read_text("utf-8"))
    history = [{"iteration": 9, "loss": 0.5, "right": 0.97, "left": 0.96, "ball": 0.61}]
    before = {
        "iterations": 8, "seconds": 1200, "config": config, "volumes": ["free"],
        "history": [{"iteration": 8, "loss": 0.7, "right": 0.91, "left": 0.9, "ball": 0.4}],
    }  # fmt: skip
    training = {
        "volumes": ["free"], "slices": 14, "iterations": 9, "seconds": 1800, "history": history,
        "config": config | config["finish"], "before": before,
    }  # fmt: skip
    report = a_report() | {"tool": {"version": "1.0.0+abc123.cpu-bf16"}}
    scored = {"slices": 3, "right": 0.95, "left": 0.93, "worst": 0.81}
    table = {"free": scored, "limbs": {"slices": 2, "false_percent": 0.1}}
    folds = {
        "folds": 2,
        "iterations": 9,
        "config": {"finish": {"iterations": 3}},
        "archives": table,
    }
    args = argparse.Namespace(
        manifest=tmp_path / "MANIFEST.toml", machine="2 cores", date="2026-01-31"
    )
    card = publish.card(args, training, report, folds)
    assert "$" not in card
    told = [
        *("A net 1.0.0", "abc123", "50 minutes on 2 cores", "cpu-bf16", "prone 1", "0.1 % false"),
        *("8 and 9 iterations", "| 8 | 0.7 | 0.91 |"),
        "2 folds, 12 iterations each, of the 17 of",
        *("| 9 | 0.5 | 0.97 | 0.96 | 0.61 |", "mean Dice of a side 0.940, worst 0.930"),
        *("Armato", "Somebody. A collection.", "not shown, for its licence (CC BY-NC 3.0)"),
    ]
    for word in told:
        assert word in card, word
    assert "Nobody's" not in card
    assert "(no cross-validation" in publish.card(args, training, report, {})


def test_pictures_can_be_drawn(tmp_path: Path, chest: tuple[Volume, np.ndarray]) -> None:
    pictures = pytest.importorskip("pictures", reason="matplotlib is in the extra train only")
    volume, truth = chest
    lung = truth[7] > 0
    panel = pictures.Panel(
        title="a slice", hu=volume.voxels_zyx[7], truth=lung, found=as_found(truth)[7]
    )
    pictures.draw([panel, panel], (4.0, 4.0), tmp_path / "a.png")
    history = [{"iteration": n, "loss": 1.0 / n, "right": 0.9, "ball": 0.5} for n in (1, 2)]
    pictures.curves({"history": history, "losses_every": 1, "losses": [1, 0.5]}, tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
