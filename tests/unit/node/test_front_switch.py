"""`[receive] front`: which server a node starts, and what the operator is told of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from pynetdicom.pdu_primitives import UserIdentityNegotiation

import dicom_node.node.serve as serve_module
from dicom_node.config.hazards import unsafe
from dicom_node.config.load import read
from dicom_node.dimse.entity import Entity
from dicom_node.node.why import stories


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


PEERS = """
[node]
data_dir = "var"
models_dir = "models"
port = 0
[receive]
front = "stock"
[[peer]]
name = "named"
ae_title = "NAMED"
host = "127.0.0.1"
port = 104
user = "ct"
[[peer]]
name = "proven"
ae_title = "PROVEN"
host = "127.0.0.1"
port = 105
user = "ct"
passcode = "file:passcode"
"""


def test_behind_the_stock_server_a_user_counts_and_a_passcode_without_tls_does_not(
    tmp_path: Path,
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "passcode").write_text("s3cret")
    (tmp_path / "passcode").chmod(0o600)
    node = serve_module.start(read(PEERS, base=tmp_path))
    try:
        established = {}
        for title, kind in (("NAMED", 1), ("PROVEN", 2)):
            item, entity = UserIdentityNegotiation(), Entity(title)
            item.user_identity_type, item.primary_field = kind, b"ct"
            item.secondary_field = b"s3cret" if kind == 2 else b""
            entity.add_requested_context("1.2.840.10008.1.1")
            association = entity.associate(
                "127.0.0.1", node.port, ae_title="DICOMNODE", ext_neg=[item]
            )
            established[title] = association.is_established
            association.release()
        told = [line.text for story in stories(node.catalog, "PROVEN") for line in story.lines]
    finally:
        node.stop()
    assert established == {"NAMED": True, "PROVEN": False}
    assert any("a passcode counts only over TLS" in text for text in told), told
