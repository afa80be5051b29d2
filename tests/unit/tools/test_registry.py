"""Models are found, checked and refused by what their folder says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dicom_node.domain import volume as domain_volume
from dicom_node.domain.errors import ToolError
from dicom_node.domain.tool import Applicable, NotApplicable, ToolContext
from dicom_node.domain.volume import Volume
from dicom_node.tools import body, lung_tool, lungs, outside, sheet, threshold
from dicom_node.tools.registry import applicable, build_tool, load_models

CT_IMAGE, SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"
SHIPPED = Path(__file__).parents[3] / "models"


def test_a_model_is_found_and_built(a_model: Callable[..., Path]) -> None:
    manifests = load_models(a_model())
    tool = build_tool(manifests["small"], device="cpu", threads=1)
    identity = tool.identity()
    assert (identity.tool_id, identity.version) == ("small", "0.0.1")
    assert identity.digest == manifests["small"].sha256
    assert tool.version_id().startswith("0.0.1+" + identity.digest[:12])


def test_the_shipped_model_is_the_one_that_its_manifest_pins() -> None:
    manifest = load_models(SHIPPED)["lung-unet"]
    assert [(s.number, s.label) for s in manifest.segments] == [(1, "Right lung"), (2, "Left lung")]
    assert manifest.modality == "CT"


MOVERS = (threshold, body, sheet, outside, lungs, lung_tool, domain_volume)


@pytest.mark.parametrize("module", MOVERS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_the_digest_of_a_threshold_is_that_of_all_code_that_can_move_a_voxel(
    a_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module
) -> None:
    manifest = load_models(a_model("plain", kind="threshold"))["plain"]
    before = build_tool(manifest).identity().digest
    source = Path(module.__file__).read_text("utf-8")
    (tmp_path / "changed.py").write_text(source + "# another version\n", "utf-8")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "changed.py"))
    assert build_tool(manifest).identity().digest != before


def test_no_module_that_can_move_a_voxel_is_left_out() -> None:
    names = {module.__name__.rpartition(".")[2] for module in MOVERS}
    of_no_voxel = {"guard", "manifest"}  # what a result may be doubted for; what a file says
    for module in MOVERS:
        source = Path(str(module.__file__)).read_text("utf-8")
        imported = re.findall(r"from dicom_node\.tools\.(\w+) import", source)
        imported += re.findall(r"from dicom_node\.tools import ([\w, ]+)", source)
        assert {n for line in imported for n in line.split(", ")} <= names | of_no_voxel


def test_finding_models_does_not_import_torch(a_model: Callable[..., Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from dicom_node.tools.registry import load_models;"
        f"load_models(Path({str(a_model())!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_weights_with_another_digest_are_refused(a_model: Callable[..., Path]) -> None:
    with pytest.raises(ToolError, match="SHA-256 differs"):
        load_models(a_model(pinned="0" * 64))


def test_weights_that_change_after_the_start_are_refused(a_model: Callable[..., Path]) -> None:
    folder = a_model()
    manifest = load_models(folder)["small"]
    (folder / "small" / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(ToolError, match="SHA-256 differs"):
        build_tool(manifest, device="cpu", threads=1)


def test_missing_weights_are_named(a_model: Callable[..., Path]) -> None:
    folder = a_model()
    (folder / "small" / "weights.safetensors").unlink()
    with pytest.raises(ToolError, match=r"weights\.safetensors cannot be read"):
        load_models(folder)


def test_a_network_without_weights_is_refused(a_model: Callable[..., Path]) -> None:
    folder = a_model("plain", "threshold", edit=lambda t: t.replace('"threshold"', '"unet"'))
    with pytest.raises(ToolError, match="names no weights"):
        load_models(folder)


def test_an_unknown_kind_is_refused_with_the_known_ones(a_model: Callable[..., Path]) -> None:
    with pytest.raises(ToolError, match="'magic' is unknown; known are threshold, unet"):
        load_models(a_model(kind="magic"))


@pytest.mark.parametrize("content", [b"", b"no safetensors at all", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_file_that_holds_no_network_is_refused(
    a_model: Callable[..., Path], content: bytes
) -> None:
    manifest = load_models(a_model(content=content))["small"]
    with pytest.raises(ToolError, match="not those of a lung U-Net"):
        build_tool(manifest, device="cpu", threads=1)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('version = "0.0.1"\n', "", "'version' is missing"),
        ('licence = "MIT"', "licence = 3", "not a text"),
        ('licence = "MIT"', 'license = "MIT"', "unknown key license"),
        ('id = "small"', 'id = "other"', "not the name of its folder"),
        ("number = 2", "number = 3", "not numbered 1, 2"),
        ("rgb = [0, 128, 255]", "rgb = [0, 128, 256]", "not within 0..255"),
        ('"weights.safetensors"', '"../weights.safetensors"', "beside model.toml"),
        ('"weights.safetensors"', '"weights.pt"', "beside model.toml"),
        ("window_hu = [-1024, 150]", "window_hu = [150, -1024]", "lower to the higher"),
        ('licence = "MIT"', "licence = ", "is not TOML"),
    ],
)
def test_a_mistake_in_the_manifest_is_named(
    a_model: Callable[..., Path], old: str, new: str, sentence: str
) -> None:
    folder = a_model(edit=lambda text: text.replace(old, new))
    with pytest.raises(ToolError, match=sentence) as refusal:
        load_models(folder)
    assert "small" in str(refusal.value)


def test_segments_with_sides_exchanged_are_refused(a_model: Callable[..., Path]) -> None:
    folder = a_model(
        edit=lambda t: t.replace('"Right"', '"X"').replace('"Left"', '"Right"').replace("X", "Left")
    )
    with pytest.raises(ToolError, match="segment 1 must be the right lung"):
        build_tool(load_models(folder)["small"])


def test_a_device_that_is_not_there_is_refused(a_model: Callable[..., Path]) -> None:
    with pytest.raises(ToolError, match="cuda:9"):
        build_tool(load_models(a_model())["small"], device="cuda:9")


def test_a_missing_folder_of_models_is_said(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="does not exist"):
        load_models(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"Modality": "MR"}, "The modality is MR; CT is needed."),
        ({}, "The series names no modality; CT is needed."),
        ({"Modality": "CT", "SOPClassUID": SECONDARY_CAPTURE}, "not CT images"),
        ({"Modality": "CT", "ImageType": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, "localizer"),
        ({"Modality": "CT", "ImageType": "ORIGINAL\\PRIMARY\\LOCALIZER"}, "localizer"),
    ],
)
def test_what_the_model_cannot_take_is_said_in_words(
    a_model: Callable[..., Path], header: dict[str, object], reason: str
) -> None:
    verdict = applicable(load_models(a_model())["small"], header)
    assert isinstance(verdict, NotApplicable)
    assert reason in verdict.reason


def test_a_ct_image_is_taken(a_model: Callable[..., Path]) -> None:
    header = {"Modality": "CT", "SOPClassUID": CT_IMAGE, "ImageType": ("ORIGINAL", "AXIAL")}
    tool = build_tool(load_models(a_model())["small"], device="cpu", threads=1)
    assert isinstance(tool.can_process_image(header), Applicable)


def test_a_network_of_another_width_is_read_from_its_file(
    a_model: Callable[..., Path], a_chest: Volume
) -> None:
    tool = build_tool(load_models(a_model())["small"], device="cpu", threads=1)
    seen: list[tuple[int, int]] = []
    context = ToolContext(progress=lambda done, total: seen.append((done, total)))
    (result,) = tool.process(a_chest, context)
    assert result.labels_zyx.shape == a_chest.voxels_zyx.shape
    assert result.labels_zyx.dtype == np.uint8
    assert seen[-1] == (24, 24)
