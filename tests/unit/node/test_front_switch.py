"""`[receive] front`: which server a node starts, and what the operator is told of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

import dicom_node.node.serve as serve_module
from dicom_node.config.hazards import unsafe
from dicom_node.config.load import read


@pytest.mark.parametrize(("text", "wanted"), [("", "own"), ('[receive]\nfront = "stock"', "stock")])
def test_the_configuration_says_which_server_receives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, wanted: str
) -> None:
    monkeypatch.setattr(serve_module, "serve_storage", lambda **_: "own")
    monkeypatch.setattr(serve_module, "serve_with_stock", lambda **_: "stock")
    config = read(text, base=tmp_path)
    shared, onward = SimpleNamespace(config=config), SimpleNamespace(commitments=None)
    assert serve_module._listen(shared, None, onward, SimpleNamespace(count=0), None) == wanted
    assert any("receive.front = stock" in told for told in unsafe(config)) == (wanted == "stock")
