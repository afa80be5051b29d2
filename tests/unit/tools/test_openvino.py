"""The network through OpenVINO: the same answers, in less time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from dicom_node.domain.errors import ToolError
from dicom_node.domain.tool import ToolContext
from dicom_node.domain.volume import Volume
from dicom_node.tools import engine as engines
from dicom_node.tools import openvino_network
from dicom_node.tools.engine import Engine, OnEngine, Placed, engine_for
from dicom_node.tools.registry import build_tool, load_models
from dicom_node.tools.unet import REACH, UNet, blocks, fused, network_from, normalised

WINDOW = (-1024.0, 150.0)
CPU = Engine(device="cpu", precision="fp32", threads=2)
SHIPPED = Path(__file__).parents[3] / "models" / "lung-unet" / "weights.safetensors"
installed = pytest.mark.skipif(not find_spec("openvino"), reason="OpenVINO is not installed")


@pytest.fixture(scope="module")
def shipped() -> UNet:
    return fused(network_from(load(SHIPPED.read_bytes())).eval())


@pytest.fixture(scope="module")
def shown() -> Tensor:
    """Four slices that look a little like chests, in HU."""
    y, x = np.ogrid[0:256, 0:256]
    noise = np.random.default_rng(3).normal(0, 25, (4, 3, 256, 256))
    hu = np.full((256, 256), -1000.0)
    hu[((y - 128) / 90.0) ** 2 + ((x - 128) / 120.0) ** 2 <= 1] = 40
    for centre in (78, 178):
        hu[((y - 128) / 60.0) ** 2 + ((x - centre) / 36.0) ** 2 <= 1] = -850
    return torch.from_numpy((hu + noise).astype(np.float32))


@torch.inference_mode()
def reach_of(network: UNet, shown: Tensor) -> list[float]:
    """Of each convolution but the last."""
    found: list[float] = []
    hooks = [
        conv.register_forward_hook(lambda _m, _i, answer: found.append(float(answer.max())))
        for block in blocks(network)
        for conv in (block.conv1, block.conv2)
    ]
    network(normalised(shown, WINDOW))
    for hook in hooks:
        hook.remove()
    return found


@installed
@pytest.mark.parametrize(("precision", "off"), [("fp32", 0.0001), ("bf16", 0.01), ("int8", 0.03)])
def test_it_finds_what_torch_finds(
    shipped: UNet, shown: Tensor, precision: str, off: float
) -> None:
    from dicom_node.tools.openvino_network import OpenVinoNetwork  # noqa: PLC0415  (an extra)

    plain = Placed(shipped, CPU, WINDOW).logits(shown).argmax(1)
    engine = Engine(device="cpu", precision=precision, threads=2, runtime="openvino")
    reach = reach_of(shipped, shown) if precision == "int8" else ()
    network = OpenVinoNetwork(shipped, engine, WINDOW, reach)
    network.warm()
    with ThreadPoolExecutor(3) as pool:
        side_by_side = list(pool.map(network.logits, shown.split(1)))
    found = torch.cat(side_by_side).argmax(1)
    assert int((plain > 0).sum()) > 30_000, "there are lungs to be found"
    assert int((found != plain).sum()) <= off * int((plain > 0).sum())
    again = torch.cat([network.logits(one) for one in shown.split(1)])
    assert torch.equal(again, torch.cat(side_by_side)), "company changes nothing"


@installed
def test_eight_bits_are_taken_where_the_weights_tell_their_reach(
    a_model: Callable[..., Path], a_chest: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    torch.manual_seed(1)
    state = {k: v for k, v in UNet((4, 8), 3).state_dict().items() if "batches" not in k}
    whole = load_models(a_model("whole", content=save(state)))["whole"]
    state[REACH] = torch.full((6,), 4.0)
    told = load_models(a_model("told", content=save(state)))["told"]
    labels = {}
    for manifest in (whole, told):
        tool = build_tool(manifest, device="cpu", threads=1, runtime="auto")
        labels[manifest.id] = tool.version_id().partition(".cpu-")[2]
        tool.process(a_chest, ToolContext())
    release = version("openvino")
    assert labels["told"] == f"openvino{release}-int8"
    assert labels["whole"] in (f"openvino{release}-bf16", f"openvino{release}-fp32")
    assert build_tool(told, device="cpu", threads=1).version_id().endswith(("-bf16", "-fp32"))


def test_eight_bits_are_not_taken_where_sums_of_them_may_overflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda _: object())
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    assert engine_for("cpu", 1, "openvino", eight_bits=True).precision in ("bf16", "fp32")


def test_without_it_torch_is_taken_and_who_asks_for_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda _: None)
    assert engine_for("cpu", 1, "auto").runtime == "torch"
    with pytest.raises(ToolError, match=r"pip install 'dicom-node\[openvino\]'"):
        engine_for("cpu", 1, "openvino")


def unloadable(*_: object) -> OnEngine:
    raise ImportError("libtbb.so.12: cannot open shared object file")


def half_installed(*_: object) -> OnEngine:
    raise AttributeError("module 'openvino' has no attribute 'Core'")


def refused(*_: object) -> OnEngine:
    raise RuntimeError("Exception from src/plugins:\ncould not create a primitive")


class Failing(Placed):
    """Runs through torch, and fails as a runtime might: at once, or after so many slices."""

    lasts = 0

    def __init__(self, network: UNet, engine: Engine, window_hu: tuple[float, float]) -> None:
        super().__init__(network, replace(engine, precision="fp32"), window_hu)
        self.engine = engine
        self.left = self.lasts

    def logits(self, hu: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("could not execute a primitive")
        return super().logits(hu)


def failing(network: UNet, engine: Engine, window: tuple[float, float], _: object) -> OnEngine:
    return Failing(network, engine, window)


@pytest.mark.parametrize("broken", [unloadable, half_installed, refused, failing])
def test_where_it_is_installed_and_does_not_work_torch_is_taken_unless_it_was_asked_for(
    a_model: Callable[..., Path],
    a_chest: Volume,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: Callable[..., OnEngine],
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda _: object())
    monkeypatch.setattr(openvino_network, "OpenVinoNetwork", broken)
    manifest = load_models(a_model())["small"]
    tool = build_tool(manifest, device="cpu", threads=1, runtime="auto")
    (said,) = [r.getMessage() for r in caplog.records if r.name == "dicom_node"]
    assert said.startswith("OpenVINO is installed and does not work, so torch is used: ")
    assert "\n" not in said
    plain = build_tool(manifest, device="cpu", threads=1, runtime="torch")
    assert tool.version_id() == plain.version_id()
    found, expected = (t.process(a_chest, ToolContext())[0] for t in (tool, plain))
    assert np.array_equal(found.labels_zyx, expected.labels_zyx)
    assert found.notes == expected.notes, "torch is what this installation has"
    with pytest.raises(ToolError, match='does not work: install it anew, or set runtime = "auto"'):
        build_tool(manifest, device="cpu", threads=1, runtime="openvino")


def test_where_it_fails_within_a_series_torch_finds_all_of_it_and_the_result_says_so(
    a_model: Callable[..., Path],
    a_chest: Volume,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda _: object())
    monkeypatch.setattr(openvino_network, "OpenVinoNetwork", failing)
    monkeypatch.setattr(Failing, "lasts", 8)
    manifest = load_models(a_model())["small"]
    tool = build_tool(manifest, device="cpu", threads=2, runtime="openvino")
    assert ".cpu-openvino" in tool.version_id()
    plain = build_tool(manifest, device="cpu", threads=2, runtime="torch")
    for _ in range(2):  # the next series begins with OpenVINO again
        caplog.clear()
        (found,), (expected,) = (t.process(a_chest, ToolContext()) for t in (tool, plain))
        assert np.array_equal(found.labels_zyx, expected.labels_zyx)
        assert tool.version_id() == plain.version_id()
        engine = tool.version_id().rpartition(".")[2]
        assert found.notes == (*expected.notes, f"OpenVINO failed: worked out by {engine}.")
        assert "could not execute a primitive" in caplog.text


ALONE = """
import socket, sys
def look(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        print("reaches out:", event, args)
sys.addaudithook(look)
from dicom_node.tools.predictor import lung_segmenter
one = lung_segmenter(
    open(sys.argv[1], "rb").read(), device="cpu", threads=1, window_hu=(-1024, 150),
    runtime="openvino")
print(one.label.startswith("cpu-openvino"), "openvino" in sys.modules)
"""


@installed
def test_it_reaches_out_to_nobody() -> None:
    """The package brings one that reports each import to its maker."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(SHIPPED)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True"], done.stdout
