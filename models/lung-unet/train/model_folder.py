"""model.toml and the weights beside it belong together by a digest."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path


def pin(folder: Path, version: str | None = None) -> str:
    """The digest of the weights, written into model.toml; and the version, where one is given."""
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    path = folder / "model.toml"
    text = replaced(path.read_text("utf-8"), "sha256", digest)
    if version:
        text = replaced(text, "version", version)
    path.write_text(text, "utf-8")
    return digest


def replaced(text: str, key: str, value: str) -> str:
    """model.toml with another value of a key that stands once at the start of a line."""
    new, count = re.subn(rf'^{key} = "[^"]*"', f'{key} = "{value}"', text, flags=re.M)
    if count != 1:
        raise ValueError(f"model.toml has {count} lines with {key}")
    return new


def copy_with(model: Path, weights: Path, to: Path) -> None:
    """A folder like `model`, but with these weights."""
    to.mkdir(parents=True)
    shutil.copy(model / "model.toml", to)
    shutil.copy(weights, to / "weights.safetensors")
    pin(to)
