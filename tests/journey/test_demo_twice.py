"""The demo shows what it has just done, however often it is run, and harms no other folder."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from dicom_node.cli.demo import demo
from dicom_node.domain.errors import ConfigurationError, NodeError
from dicom_node.node.layout import lock_data_dir
from dicom_node.testing.phantom import chest_phantom
from dicom_node.testing.series import write_series


@pytest.fixture
def shown(tmp_path, build):
    """shown(out): a demo with a small series and a model without weights, as JSON."""
    build.write_model(tmp_path / "models")
    config = tmp_path / "c.toml"
    config.write_text('[node]\nmodels_dir = "models"\n')
    phantom, _ = chest_phantom(slices=12, size=64, spacing_mm=(22.0, 6.0, 6.0))

    def run(out, volume=phantom):
        if not (tmp_path / "in").exists():
            write_series(tmp_path / "in", volume)
        arguments = ["--input", tmp_path / "in", "--out", out, "--tool", "lung-threshold",
                     "--config", config, "--json"]  # fmt: skip
        done = CliRunner().invoke(demo, [str(a) for a in arguments], standalone_mode=False)
        if done.exception is not None:
            raise done.exception
        return json.loads(done.stdout)

    return run


def test_the_second_demo_shows_itself_and_not_the_first(tmp_path, shown):
    out = tmp_path / "out"
    first, second = shown(out), shown(out)

    for told in (first, second):
        assert told["story"].startswith("lung-threshold made its result; pacs has it")
        assert min(told["seconds"].values()) >= 0
        assert told["seconds"]["infer"] > 0
    assert first["seconds"] != second["seconds"]
    assert second["volumes_ml"] == first["volumes_ml"]


def tilted():
    """The phantom, as if the gantry had been tilted by 15 degrees."""
    volume, _ = chest_phantom(slices=24, size=64, spacing_mm=(11.0, 6.0, 6.0))
    affine = volume.affine_lps_mm.copy()
    affine[:3, 0] += affine[:3, 1] / 6.0 * 11.0 * np.tan(np.radians(15.0))
    return replace(volume, affine_lps_mm=affine)


def test_a_series_from_a_tilted_gantry_is_shown_with_its_volumes(tmp_path, shown):
    model = tmp_path / "models" / "lung-threshold" / "model.toml"
    model.write_text(f'{model.read_text()}\n[policy]\ntilt = "resample"\n')
    told = shown(tmp_path / "out", tilted())
    assert told["story"].startswith("lung-threshold made its result, with a warning")
    assert min(told["volumes_ml"].values()) > 500
    assert (tmp_path / "out" / "lungs.png").is_file()


def test_what_the_gate_refuses_is_told_in_its_words(tmp_path, shown):
    model = tmp_path / "models" / "lung-threshold" / "model.toml"
    model.write_text(f'{model.read_text()}\n[policy]\ntilt = "refuse"\n')
    with pytest.raises(NodeError, match="its step was canceled: the gantry was tilted"):
        shown(tmp_path / "out", tilted())


@pytest.mark.parametrize("name", ["ae_config.toml", "seg.dcm"])
def test_a_folder_with_files_of_others_is_left_alone(tmp_path, shown, name):
    (tmp_path / "out").mkdir()
    kept = tmp_path / "out" / name
    kept.write_text("[node]\n")
    with pytest.raises(NodeError, match="is not from a demo: give another folder with --out"):
        shown(tmp_path / "out")
    assert kept.read_text() == "[node]\n"
    assert list((tmp_path / "out").iterdir()) == [kept]


def test_a_demos_folder_that_a_node_uses_is_left_alone(tmp_path, shown):
    out = tmp_path / "out"
    shown(out)
    with lock_data_dir(out / "var"), pytest.raises(ConfigurationError, match="another node"):
        shown(out)
    assert (out / "var" / "catalog.db").is_file()
