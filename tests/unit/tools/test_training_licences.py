"""Weights that are published may only come from data whose licence allows it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = Path(__file__).parents[3] / "models" / "lung-unet" / "train" / "data.py"


@pytest.fixture
def training_data(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("lung_unet_training_data", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


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
def test_only_free_licences_are_trained_on(
    training_data: ModuleType, licence: str, free: bool
) -> None:
    assert training_data.is_free(licence) is free


def test_what_is_not_free_is_held_back(training_data: ModuleType, tmp_path: Path) -> None:
    named = {"a": "CC BY 3.0", "b": "unknown", "c": "CC BY-NC 3.0", "d": "MIT"}
    tables = [
        f'[[series]]\nname = "{name}"\nrole = "train"\nlicence = "{licence}"'
        for name, licence in named.items()
    ]
    tables.append('[[series]]\nname = "e"\nrole = "test"\nlicence = "CC0"')
    manifest = tmp_path / "MANIFEST.toml"
    manifest.write_text("\n".join(tables), "utf-8")
    assert training_data.split(manifest) == (["a", "d"], ["b", "c"])
