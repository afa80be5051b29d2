"""The parts of the inference benchmark work, at sizes that take no time; no figure is judged."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import pydicom
import pytest
import torch
from safetensors.torch import save_file

import bench_inference
import bench_job
from baseline import LargeUNet, Notebook, by_threshold, made_weights
from bench_job import phantom_series, renamed, running_node
from dicom_node.domain import events as e
from dicom_node.testing.pacs import LocalPacs
from dicom_node.tools.unet import UNet
from floor import floor_of, gflop
from inference_report import floor_s, goals, notebook_job, report
from node_offline import LUNG_UNET, Offline

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the shipped model, with a network that knows nothing."""
    folder = tmp_path_factory.mktemp("models") / "lung-unet"
    folder.mkdir()
    torch.manual_seed(1)
    save_file(UNet((4, 8)).state_dict(), folder / "weights.safetensors")
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    lines = (LUNG_UNET / "model.toml").read_text("utf-8").splitlines()
    pinned = [f'sha256 = "{digest}"' if line.startswith("sha256") else line for line in lines]
    (folder / "model.toml").write_text("\n".join(pinned), "utf-8")
    return folder


@pytest.fixture(scope="module")
def series() -> list[pydicom.Dataset]:
    return phantom_series(12, 64)


def test_the_notebook_network_has_the_published_size():
    network = LargeUNet().eval()
    assert sum(p.numel() for p in network.parameters()) == 28_953_539
    assert gflop(network, (1, 1, 32, 32)) * 64 == pytest.approx(96.2, rel=0.01)


def test_operations_of_a_convolution_are_counted_by_its_shapes():
    layers = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.Conv2d(4, 4, 1))
    assert gflop(layers, (1, 2, 8, 8)) == (2 * 4 * 64 * 2 * 9 + 2 * 4 * 64 * 4) / 1e9


def test_the_notebook_way_leaves_one_secondary_capture_a_slice_in_the_pacs(series, tmp_path):
    files = bench_inference.Series(name="", datasets=series).written(tmp_path / "series")[4:7]
    weights = made_weights(tmp_path, wf=2, depth=3)
    with LocalPacs(tmp_path / "pacs") as pacs:
        at = ("127.0.0.1", pacs.port, pacs.ae_title)
        notebook = Notebook(weights=weights, out=tmp_path, pacs=at, wf=2, depth=3)
        once = notebook.run(files, 0, load_each=False)
        each = notebook.run(files, 1, load_each=True)
        assert len(pacs.instances()) == 6
        classes = {dataset.SOPClassUID.name for dataset in pacs.datasets()}
    assert classes == {"Secondary Capture Image Storage"}
    assert once.keys() == each.keys()
    assert once.keys() == {"load", "read", "prepare", "network", "clean-up", "write", "send"}


def test_the_stand_in_mask_of_a_chest_has_two_sides(series):
    hu = torch.from_numpy(series[6].pixel_array.astype("float32") - 0.0)
    slope, intercept = float(series[6].RescaleSlope), float(series[6].RescaleIntercept)
    shown = ((hu * slope + intercept).clamp(-1024, 600) + 1024) / 1624
    small = torch.nn.functional.interpolate(shown[None, None], size=(256, 256))
    assert set(by_threshold(small[0, 0].numpy()).ravel().tolist()) == {0, 1, 2}


def test_a_job_over_dimse_has_the_pixels_of_the_one_offline(series, model, tmp_path):
    bench_inference.Series(name="", datasets=series).written(tmp_path / "series")
    made = Offline("cpu", tmp_path, model=model, threads=1).run(tmp_path / "series")
    assert {"read", "network", "clean-up", "guard", "encode", "save"} <= made.seconds.keys()
    with running_node(tmp_path / "node", engine="threads = 1", models=model.parent) as node:
        seconds, equal = bench_inference.one_job(
            node, renamed(series, 1), 0.0, pydicom.dcmread(made.result).PixelData
        )
    assert equal
    assert set(bench_job.PARTS) <= seconds.keys()


def test_the_times_of_a_job_are_read_from_its_events():
    events = [
        e.StepCompleted(at=18.0, step_id=1, transaction_uid="", seconds={"infer": 3.0}),
    ]
    found = bench_job.times_of(arrived=10.0, scheduled=14.0, done=events[0], span=(8.0, 18.5))
    assert found["received"] == 2.0
    assert found["quiet"] == 4.0
    assert found["wait"] == 1.0
    assert found["last"] == 4.5
    assert found["job"] == 6.5


def a_row(**changes: object) -> dict:
    """What the benchmark measures of one series; the node takes 1 s, the notebook 93."""
    part = {"slices": 31, "seconds": {"load": 0.5, "read": 3.1, "network": 27.9, "send": 0.0}}
    job = {"last": 1.5, "job": 2.0, "quiet": 2.0}
    peaks = {"memory": 100.0, "device": 0.0}
    way = {"ahead": True, "pace_ms": 0.0, "jobs": [job], "equal": True, "peak_mib": 500.0}
    return {
        "series": "chest phantom", "slices": 93, "device": "cpu", "bytes": 93 << 19, "rounds": 3,
        "result_bytes": 5 << 20,
        "node": [{"read": 0.1, "network": 0.9}] * 3, "node_peaks": peaks,
        "notebook_once": [part] * 3, "notebook_each": [part] * 3, "notebook_peaks": peaks,
        "over_dimse": [way],
        "floor": {
            "gflops": {"fp32": 200.0, "bf16": 400.0}, "read_gb_s": 5.0, "write_gb_s": 1.0,
            "node_gflop": 6.0, "notebook_gflop": 96.0, "precision": "bf16",
        },
    } | changes  # fmt: skip


def test_a_job_of_the_notebook_way_is_that_of_all_slices():
    assert sum(notebook_job(a_row(), "once").values()) == pytest.approx(93.5)
    assert sum(notebook_job(a_row(slices=186), "once").values()) == pytest.approx(186.5)
    assert sum(notebook_job(a_row(), "each").values()) == pytest.approx(94.5)


def test_goals_are_met_or_not():
    last, once, each = goals(a_row())
    assert "1.50 s, **met**" in last
    assert "46.7 times, **not met**" in once
    assert "47.2 times, **not met**" in each
    assert goals(a_row(slices=512)) == []
    on_gpu = goals(a_row(device="cuda:0"))
    assert ["**not met**" in line for line in on_gpu] == [True, True, True, False]


def test_the_floor_is_operations_and_bytes_over_their_peaks():
    floor = floor_s(a_row())
    assert floor["network"] == pytest.approx(93 * 6 / 400)
    assert floor["read"] == pytest.approx((93 << 19) / 5e9)


def test_the_report_says_so_where_masks_differ():
    machine = {
        "date": "2026-01-01",
        "cores": 2,
        "processor": "P",
        "gpu": "",
        "torch": "2",
        "openvino": "2026.4",
    }
    row = a_row()
    assert "differ" not in report({"machine": machine, "rows": [row]})
    row["over_dimse"][0]["equal"] = False
    assert "differ" in report({"machine": machine, "rows": [row]})


def test_peaks_are_measured(tmp_path):
    (tmp_path / "read").write_bytes(bytes(1 << 20))
    found = floor_of("cpu", [tmp_path / "read"], tmp_path, channels=16, side=8)
    eight_bits = {"int8"} if find_spec("openvino") else set()
    assert set(found.gflops) == {"fp32", "bf16"} | eight_bits
    assert all(value > 0 for value in (*found.gflops.values(), found.read_gb_s, found.write_gb_s))
