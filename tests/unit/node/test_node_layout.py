"""The data folder, who may work in it, and what stages get from the configuration."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dicom_node.config.load import read
from dicom_node.domain.errors import CatalogError, ConfigurationError
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.node.layout import lock_catalog, make_data_dir, seg_settings, share_catalog


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


def test_every_folder_that_is_made_on_the_way_is_durable(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("dicom_node.node.layout.sync_folder", synced.append)
    config = read(f'[node]\ndata_dir = "{tmp_path}/a/b/var"', base=tmp_path)
    make_data_dir(config)
    assert sorted(synced) == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    assert (tmp_path / "a" / "b" / "var").stat().st_mode & 0o777 == 0o700
    synced.clear()
    make_data_dir(config)
    assert synced == []


def test_a_data_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "a").write_text("a file")
    with pytest.raises(ConfigurationError, match=r"data folder .+ cannot be made"):
        make_data_dir(read(f'[node]\ndata_dir = "{tmp_path}/a/var"', base=tmp_path))


def test_whoever_works_in_the_catalog_keeps_out_who_makes_it_anew(tmp_path):
    works = pytest.raises(CatalogError, match="another command works in the catalog")
    with share_catalog(tmp_path), share_catalog(tmp_path), works:
        lock_catalog(tmp_path)
    with lock_catalog(tmp_path), pytest.raises(CatalogError, match="is being made anew"):
        share_catalog(tmp_path)
