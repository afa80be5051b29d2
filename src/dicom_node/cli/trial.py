"""The models, for `doctor`: whole as pinned, and each that is used tried on one slice."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from dicom_node.cli.examine import Finding, failed, well
from dicom_node.config.load import Config
from dicom_node.domain.errors import NodeError, ToolError
from dicom_node.domain.tool import ImageProcessingTool, ToolContext
from dicom_node.node.devices import alone
from dicom_node.node.toolbox import load_tool
from dicom_node.testing.phantom import chest_phantom
from dicom_node.tools.manifest import FILE_NAME, read_manifest
from dicom_node.tools.registry import ModelManifest, check_model

MIN_RIGHT = 0.5  # of the lung pixels of the test slice; the shipped network finds 95 %

_TOOL_ERRORS = (  # what a network or a driver raises
    *(NodeError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, OSError),
    MemoryError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model's folder, and what was found in it; manifest: None where it cannot be used."""

    name: str
    finding: Finding
    manifest: ModelManifest | None = None


def models(config: Config) -> list[Model]:
    """Each model: its model.toml, its kind, the digest of its weights."""
    return [_model(path.parent) for path in sorted(config.models_dir.glob(f"*/{FILE_NAME}"))]


def _model(folder: Path) -> Model:
    try:
        manifest = read_manifest(folder)
        check_model(manifest)
    except ToolError as error:
        finding = failed("model", str(error).rstrip("."), "install the model again")
        return Model(name=folder.name, finding=finding)
    weights = "weights are those that model.toml pins" if manifest.sha256 else "has no weights"
    finding = well("model", f"{manifest.id} {manifest.version}: {weights}")
    return Model(name=manifest.id, finding=finding, manifest=manifest)


def dry_run(config: Config, manifest: ModelManifest) -> Finding:
    """Build the tool of a model, and try it."""
    began = time.perf_counter()
    try:
        tool = load_tool(manifest, config, alone(config.engine.device))
        return tried(tool, manifest.id, time.perf_counter() - began)
    except _TOOL_ERRORS as error:
        return failed("tool", f"{manifest.id}: {error}", "check engine.device and the model")


def tried(tool: ImageProcessingTool, name: str, built_s: float) -> Finding:
    """Have a tool find the lungs in one slice of a phantom, and compare with the truth.

    A device whose arithmetic is broken shows here, and so do sides that were confused.
    """
    volume, truth = chest_phantom(1, 256, (5.0, 1.5, 1.5))
    began = time.perf_counter()
    results = tool.process(volume, ToolContext())
    ran_s = time.perf_counter() - began
    version = tool.version_id()
    engine = version.partition("+")[2].partition(".")[2] or version
    text = f"{name} on {engine}: loaded in {built_s:.1f} s, one test slice in {ran_s:.2f} s"
    lungs = truth > 0
    right = max((float((r.labels_zyx[lungs] == truth[lungs]).mean()) for r in results), default=0.0)
    if right < MIN_RIGHT:
        shown = f"{text}; only {right:.0%} of its lungs were found, or the sides differ"
        return failed("tool", shown, "do not use the model on this device")
    return well("tool", f"{text}, {right:.0%} of its lungs found")
