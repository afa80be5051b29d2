"""Descriptions of models (model.toml) to test with."""

from __future__ import annotations

LUNGS = """
[[segment]]
number = 1
label = "Right lung"
category = ["91723000", "SCT", "Anatomical Structure"]
type = ["39607008", "SCT", "Lung"]
laterality = ["24028007", "SCT", "Right"]
rgb = [0, 128, 255]

[[segment]]
number = 2
label = "Left lung"
category = ["91723000", "SCT", "Anatomical Structure"]
type = ["39607008", "SCT", "Lung"]
laterality = ["7771000", "SCT", "Left"]
rgb = [255, 128, 0]
"""


def threshold_model(*, model_id: str = "lung-threshold", when: str = 'Modality == "CT"') -> str:
    """Of a model that needs no weights. when: its own filter."""
    return f"""
id = "{model_id}"
name = "Lung threshold"
version = "1"
kind = "threshold"
description = "Right and left lung on CT, by density"
licence = "MIT"

[input]
modality = "CT"
when = '{when}'
{LUNGS}"""


def unet_model(*, sha256: str, model_id: str = "small-unet") -> str:
    """Of a model with a network; its weights lie beside it, in weights.safetensors."""
    return f"""
id = "{model_id}"
name = "A small lung network"
version = "1"
kind = "unet"
description = "Right and left lung on CT"
licence = "MIT"

[weights]
file = "weights.safetensors"
sha256 = "{sha256}"

[input]
modality = "CT"
when = 'Modality == "CT"'
window_hu = [-1024, 150]

[policy]
tilt = "resample"
holes = "warn"
spacing = "warn"
{LUNGS}"""
