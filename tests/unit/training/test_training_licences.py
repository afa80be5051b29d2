"""Weights that are published may only come from data whose licence allows it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import data
import pytest

MODEL = Path(__file__).parents[3] / "models" / "lung-unet"


@pytest.mark.parametrize(
    ("licence", "free"),
    [
        ("CC BY 3.0", True),
        ("CC BY 3.0 or 4.0 (unverified)", True),
        ("CC BY 4.0 (LICENSE file beside the data)", True),
        ("CC0", True),
        ("MIT (repository LICENSE)", True),
        ("Apache-2.0 (repository LICENSE)", True),
        ("CC BY-NC 3.0 (LICENSE file beside the data)", False),
        ("CC BY 4.0 NC", False),
        ("CC BY-SA 4.0", False),
        ("unknown (TCIA public collection)", False),
        ("", False),
        ("all rights reserved", False),
    ],
)
def test_only_free_licences_are_trained_on(licence: str, free: bool) -> None:
    assert data.is_free(licence) is free


def test_what_is_not_free_is_held_back(tmp_path: Path) -> None:
    named = {"a": "CC BY 3.0", "b": "unknown", "c": "CC BY-NC 3.0", "d": "MIT"}
    tables = [
        f'[[series]]\nname = "{name}"\nrole = "train"\nlicence = "{licence}"'
        for name, licence in named.items()
    ]
    tables.append('[[series]]\nname = "e"\nrole = "test"\nlicence = "CC0"')
    manifest = tmp_path / "MANIFEST.toml"
    manifest.write_text("\n".join(tables), "utf-8")
    assert data.split(manifest) == (["a", "d"], ["b", "c"])


def test_the_weights_that_are_shipped_were_trained_on_free_data_only() -> None:
    training = json.loads((MODEL / "train" / "training.json").read_text("utf-8"))
    assert training["volumes"]
    seen = {*training["volumes"], *training["before"]["volumes"]}
    assert set(training["licences"]) == seen
    assert [n for n, licence in training["licences"].items() if not data.is_free(licence)] == []


def test_the_evaluation_that_is_shipped_is_of_the_weights_that_are_shipped() -> None:
    evaluation = json.loads((MODEL / "train" / "evaluation.json").read_text("utf-8"))
    model = tomllib.loads((MODEL / "model.toml").read_text("utf-8"))
    assert model["weights"]["sha256"].startswith(evaluation["tool"]["version"].split("+")[1][:12])
