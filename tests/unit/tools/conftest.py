"""Small models and small bodies for the tests of this room."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from dicom_node.domain.volume import Volume
from dicom_node.testing.models import LUNGS
from dicom_node.tools.unet import UNet

MODEL_TOML = (
    """
id = "{id}"
name = "A lung model"
version = "0.0.1"
kind = "{kind}"
description = "Right and left lung"
licence = "MIT"
sources = ["made by a test"]
{weights}
[input]
modality = "CT"
when = 'Modality == "CT"'
window_hu = [-1024, 150]
"""
    + LUNGS
)


@pytest.fixture
def a_model(tmp_path: Path) -> Callable[..., Path]:
    """Writes models/ID/ and returns models/; keywords change what is written."""

    def write(
        model_id: str = "small",
        kind: str = "unet",
        *,
        content: bytes | None = None,
        pinned: str | None = None,
        edit: Callable[[str], str] = lambda text: text,
    ) -> Path:
        folder = tmp_path / "models" / model_id
        folder.mkdir(parents=True)
        weights = ""
        if kind != "threshold":
            content = small_weights() if content is None else content
            (folder / "weights.safetensors").write_bytes(content)
            digest = hashlib.sha256(content).hexdigest() if pinned is None else pinned
            weights = f'[weights]\nfile = "weights.safetensors"\nsha256 = "{digest}"'
        text = MODEL_TOML.format(id=model_id, kind=kind, weights=weights)
        (folder / "model.toml").write_text(edit(text), "utf-8")
        return folder.parent

    return write


def small_weights() -> bytes:
    """An untrained network of the right make."""
    torch.manual_seed(1)
    state = {k: v for k, v in UNet((4, 8), 3).state_dict().items() if "batches" not in k}
    return save(state)


@pytest.fixture
def a_chest() -> Volume:
    """Two lungs in a body on a table, canonical axes, 24 x 64 x 64 voxels of 5 x 6 x 6 mm.

    The right lung is the larger one; the left one begins two slices higher.
    """
    z, y, x = np.ogrid[0:24, 0:64, 0:64]
    hu = np.full((24, 64, 64), -1000, np.int16)
    body = ((y - 32) / 20.0) ** 2 + ((x - 32) / 27.0) ** 2 <= 1
    hu[:, body[0]] = 40
    hu[:, 54:56, 8:56] = 60  # the table
    right = ((z - 11) / 9.0) ** 2 + ((y - 32) / 13.0) ** 2 + ((x - 20) / 9.0) ** 2 <= 1
    left = ((z - 13) / 8.0) ** 2 + ((y - 32) / 12.0) ** 2 + ((x - 44) / 7.0) ** 2 <= 1
    hu[right | left] = -850
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 5.0, 6.0, 6.0, 1.0
    return Volume(voxels_zyx=hu, affine_lps_mm=affine)
