"""Which models there are, and how one becomes a tool.

Finding them is cheap: torch is imported only when a network is built.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk  # noqa: N813  (as its own examples do)

from dicom_node.domain import volume
from dicom_node.domain.errors import ToolError
from dicom_node.domain.tool import ImageProcessingTool
from dicom_node.tools import body, lung_tool, lungs, outside, sheet
from dicom_node.tools.lung_tool import LungTool, SliceWiseLungTool
from dicom_node.tools.manifest import FILE_NAME, ModelManifest, applicable, read_manifest

__all__ = ["ModelManifest", "applicable", "build_tool", "check_model", "load_models"]


@dataclass(frozen=True, slots=True, kw_only=True)
class On:
    """Where and with what a tool runs; see `build_tool`."""

    device: str
    threads: int
    runtime: str


def load_models(models_dir: Path) -> dict[str, ModelManifest]:
    """All models under `models_dir`, by id; every one checked, weights and digest too.

    Raises ToolError for the first that cannot be used.
    """
    if not models_dir.is_dir():
        raise ToolError(f"The folder of models {models_dir} does not exist.")
    folders = sorted(path.parent for path in models_dir.glob(f"*/{FILE_NAME}"))
    manifests = [read_manifest(folder) for folder in folders]
    for manifest in manifests:
        check_model(manifest)
    return {manifest.id: manifest for manifest in manifests}


def check_model(manifest: ModelManifest) -> None:
    """Raises ToolError unless the kind is known and the weights are those of the manifest."""
    if manifest.kind not in _KINDS:
        raise ToolError(
            f"Model {manifest.id}: the kind {manifest.kind!r} is unknown; "
            f"known are {', '.join(sorted(_KINDS))}."
        )
    if manifest.kind == "unet":
        _weights(manifest)


def build_tool(
    manifest: ModelManifest, *, device: str = "auto", threads: int = 0, runtime: str = "torch"
) -> ImageProcessingTool:
    """The tool that a manifest describes, loaded and ready.

    device: "auto" (CUDA when there is one), "cpu" or "cuda:N". threads: of the CPU, 0 = all.
    runtime: what runs a network on the CPU, "torch", "openvino" or "auto".
    """
    check_model(manifest)
    if threads > 0:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    sides = [s.laterality.meaning if s.laterality else "" for s in manifest.segments]
    if sides != ["Right", "Left"]:
        raise ToolError(f"Model {manifest.id}: segment 1 must be the right lung, 2 the left.")
    return _KINDS[manifest.kind](manifest, On(device=device, threads=threads, runtime=runtime))


def _weights(manifest: ModelManifest) -> bytes:
    """The bytes of the weights, known to be the right ones."""
    if manifest.weights_file is None:
        raise ToolError(f"Model {manifest.id}: model.toml names no weights.")
    path = manifest.folder / manifest.weights_file
    try:
        content = path.read_bytes()
    except OSError as unreadable:
        raise ToolError(f"Model {manifest.id}: the weights {path} cannot be read.") from unreadable
    if hashlib.sha256(content).hexdigest() != manifest.sha256:
        raise ToolError(
            f"Model {manifest.id}: {path.name} is not the file that model.toml pins "
            "(its SHA-256 differs)."
        )
    return content


def _unet(manifest: ModelManifest, on: On) -> ImageProcessingTool:
    from dicom_node.tools import predictor  # noqa: PLC0415  (torch takes seconds)

    segmenter = predictor.lung_segmenter(
        _weights(manifest),
        device=on.device,
        threads=on.threads,
        window_hu=manifest.window_hu,
        runtime=on.runtime,
    )
    return SliceWiseLungTool(
        manifest=manifest,
        segmenter=segmenter,
        digest=str(manifest.sha256),
        engine=lambda: segmenter.label,
    )


def _threshold(manifest: ModelManifest, _on: On) -> ImageProcessingTool:
    from dicom_node.tools import threshold  # noqa: PLC0415  (not needed beside a network)

    code = [  # all that can move a voxel: there are no weights to tell one version from the next
        Path(str(module.__file__)).read_bytes()
        for module in (threshold, body, sheet, outside, lungs, lung_tool, volume)
    ]
    return LungTool(
        manifest=manifest,
        segmenter=threshold.segment,
        digest=hashlib.sha256(b"".join(code)).hexdigest(),
        engine=lambda: "numpy",
    )


_KINDS: Mapping[str, Callable[[ModelManifest, On], ImageProcessingTool]] = {
    "unet": _unet,
    "threshold": _threshold,
}
