"""The models of a performer: how one is loaded, and that it is loaded once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dicom_node.config.load import Config
from dicom_node.domain.errors import ToolError, ToolUnavailable
from dicom_node.domain.tool import ImageProcessingTool
from dicom_node.node.devices import Place, cores
from dicom_node.tools.manifest import ModelManifest
from dicom_node.tools.registry import build_tool

BuildTool = Callable[[str], ImageProcessingTool]
"""Loads a tool by id. Raises ToolError."""


def load_tool(manifest: ModelManifest, config: Config, place: Place) -> ImageProcessingTool:
    """The tool of a model, where and with what the configuration wants it run. Raises ToolError."""
    return build_tool(
        manifest,
        device=place.device,
        threads=place.threads(config.engine.threads, cores()),
        runtime=config.engine.runtime,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolbox:
    """Loads a tool when it is first asked for."""

    build: BuildTool
    _loaded: dict[str, ImageProcessingTool] = field(default_factory=dict)

    @property
    def loaded(self) -> frozenset[str]:
        """Ids of the tools that are."""
        return frozenset(self._loaded)

    def get(self, tool_id: str) -> ImageProcessingTool:
        """The tool. Raises ToolUnavailable."""
        if tool_id not in self._loaded:
            try:
                self._loaded[tool_id] = self.build(tool_id)
            except ToolError as error:
                raise ToolUnavailable(str(error), lost=error.lost) from error
            except (ImportError, OSError) as error:
                what = f"model {tool_id} cannot be loaded: {type(error).__name__}: {error}"
                raise ToolUnavailable(what) from error
        return self._loaded[tool_id]
