"""What the operator writes under [results] reaches the encoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from dicom_node.config.load import read
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.node.layout import seg_settings


def test_every_setting_of_a_segmentation_is_a_key_of_the_configuration():
    values = {
        "series_number_offset": 7,
        "manufacturer": "Somebody",
        "research_use": False,
        "omit_empty_frames": False,
    }
    lines = [f"{key} = {str(v).lower() if v is False else repr(v)}" for key, v in values.items()]

    settings = seg_settings(read("[results]\n" + "\n".join(lines), base=Path("/site")))

    assert dataclasses.asdict(settings) == values
    assert values.keys() == {field.name for field in dataclasses.fields(SegSettings)}
