"""Trainings of a moment: they go on where they stopped, end in time, and learn from teachers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import data
import pytest
import torch
import train
from losses import distance_to, opinion
from safetensors.torch import load_file

from dicom_node.tools.unet import UNet

Load = Callable[..., data.Archive]


class Interrupting:
    """A validation during which the machine is switched off, at its second time."""

    def __init__(self) -> None:
        self.times = 0

    def score(self, *_: object) -> dict[str, float]:
        self.times += 1
        if self.times == 2:
            raise KeyboardInterrupt
        return {"right": 0.5}


def run(archives: list[data.Archive], config: dict[str, Any], out: Path, **more: Any) -> UNet:
    out.mkdir(exist_ok=True)
    more = {"validation": None} | more
    return train.train(config, train.Task(archives=archives, **more), out)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


def test_what_was_interrupted_ends_as_if_it_had_not_been(
    an_archive: Load, a_config: dict[str, Any], tmp_path: Path
) -> None:
    archives = [an_archive()]
    run(archives, a_config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(archives, a_config, tmp_path / "twice", validation=Interrupting())
    assert (tmp_path / "twice" / "progress.pt").exists()
    run(archives, a_config, tmp_path / "twice", validation=None)
    whole, twice = weights(tmp_path / "whole"), weights(tmp_path / "twice")
    assert all(torch.equal(whole[name], twice[name]) for name in whole)
    told = [json.loads((tmp_path / n / "training.json").read_text()) for n in ("whole", "twice")]
    assert [t["iterations"] for t in told] == [4, 4]
    assert told[0]["history"][-1] == told[1]["history"][-1]
    assert not (tmp_path / "twice" / "progress.pt").exists()


def test_another_training_does_not_go_on_from_it(
    an_archive: Load, a_config: dict[str, Any], tmp_path: Path
) -> None:
    archives = [an_archive()]
    with pytest.raises(KeyboardInterrupt):
        run(archives, a_config, tmp_path / "out", validation=Interrupting())
    with pytest.raises(SystemExit, match="another training"):
        run(archives, a_config | {"batch": 1}, tmp_path / "out")
    with pytest.raises(SystemExit, match="another training"):
        run([*archives, an_archive("b")], a_config, tmp_path / "out")


def test_it_learns(an_archive: Load, a_config: dict[str, Any], tmp_path: Path) -> None:
    quiet = a_config | {
        "iterations": 24,
        "check_every": 24,
        "learning_rate": 2e-2,
        "probability": dict.fromkeys(a_config["probability"], 0.0),
        "mix": {"single_slices": 0.0, "lung": 1.0, "empty": 0.0, "phantom": 0.0},
    }
    run([an_archive()], quiet, tmp_path / "out")
    losses = json.loads((tmp_path / "out" / "training.json").read_text())["history"]
    start = run([an_archive("b")], quiet | {"iterations": 1}, tmp_path / "start")
    first = json.loads((tmp_path / "start" / "training.json").read_text())["history"]
    assert isinstance(start, UNet)
    assert losses[-1]["loss"] < 0.95 * first[-1]["loss"]


def test_without_time_there_is_a_network_all_the_same(
    an_archive: Load, a_config: dict[str, Any], tmp_path: Path
) -> None:
    run([an_archive()], a_config, tmp_path / "out", limit_s=0.0)
    assert json.loads((tmp_path / "out" / "training.json").read_text())["iterations"] == 1
    assert weights(tmp_path / "out")


def test_with_little_time_the_learning_rate_falls_within_it(
    an_archive: Load, a_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "PROBE", 12)
    clock = iter(range(1000))
    monkeypatch.setattr(train.time, "monotonic", lambda: float(next(clock)))
    many = a_config | {"iterations": 500, "batch": 1, "check_every": 500}
    run([an_archive()], many, tmp_path / "out", limit_s=22.0)
    told = json.loads((tmp_path / "out" / "training.json").read_text())
    assert told["iterations"] == 12 + 9  # a second each: nine tenths of the ten that are left


def test_a_second_stage_goes_on_from_the_first(
    an_archive: Load, a_config: dict[str, Any], tmp_path: Path
) -> None:
    task = train.Task(archives=[an_archive()], validation=None)
    train.finished(a_config, task, tmp_path)
    first, last = (json.loads((f / "training.json").read_text()) for f in
                   (tmp_path / "first", tmp_path))  # fmt: skip
    assert (first["iterations"], last["iterations"]) == (4, 2)
    assert (first["config"]["dense_weight"], last["config"]["dense_weight"]) == (3.0, 1.0)
    assert last["before"]["iterations"] == 4
    assert last["before"]["history"] == first["history"]
    assert first["before"] == {}
    still = a_config | {"finish": a_config["finish"] | {"learning_rate": 0.0}}
    alone = tmp_path / "alone"
    alone.mkdir()
    train.finished(still, replace(task, start=tmp_path / "first"), alone)
    assert not (alone / "first").exists()
    before, after = weights(tmp_path / "first"), weights(alone)
    names = [name for name in before if name.endswith("conv1.weight")]
    assert all(torch.allclose(before[n], after[n], atol=1e-3) for n in names)


def test_a_first_stage_that_is_there_is_not_trained_again(
    an_archive: Load, a_config: dict[str, Any], tmp_path: Path
) -> None:
    task = train.Task(archives=[an_archive()], validation=None)
    train.finished(a_config, task, tmp_path)
    kept = (tmp_path / "first" / "weights.safetensors").stat().st_mtime_ns
    (tmp_path / "training.json").unlink()
    train.finished(a_config, task, tmp_path)
    assert (tmp_path / "first" / "weights.safetensors").stat().st_mtime_ns == kept


def test_teachers_are_trained_once_and_the_small_network_hears_them(
    an_archive: Load, a_config: dict[str, Any], tmp_path: Path
) -> None:
    archives = [an_archive()]
    task = train.Task(archives=archives, validation=None)
    teachers = train.taught_by(a_config, task, tmp_path)
    assert [t.stem.conv1.weight.shape[0] for t in teachers] == [3, 3]
    kept = (tmp_path / "teacher-1" / "weights.safetensors").stat().st_mtime_ns
    teachers = train.taught_by(a_config, task, tmp_path)
    assert (tmp_path / "teacher-1" / "weights.safetensors").stat().st_mtime_ns == kept
    alone = run(archives, a_config, tmp_path / "alone")
    taught = run(archives, a_config, tmp_path / "taught", teachers=teachers)
    assert json.loads((tmp_path / "taught" / "training.json").read_text())["teachers"] == 2
    assert taught.stem.conv1.weight.shape[0] == 2
    assert not torch.equal(alone.head.weight, taught.head.weight)


def test_the_teachers_opinion_is_the_mean_of_their_probabilities() -> None:
    torch.manual_seed(0)
    teachers = [UNet((2, 4)).eval() for _ in range(2)]
    x = torch.randn(1, 6, 32, 32)
    wanted = opinion(teachers, x)
    torch.testing.assert_close(wanted.sum(dim=1), torch.ones(1, 32, 32))
    logits = wanted.log()
    weight = torch.zeros(1, 32, 32)
    torch.testing.assert_close(distance_to(wanted, logits, weight), torch.tensor(0.0))
    assert distance_to(wanted, logits.flip(1), weight) > 0
