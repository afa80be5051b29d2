"""What each model says to a Series, before any of them is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dicom_node.decide.match import evaluate, parse
from dicom_node.domain.records import Attributes
from dicom_node.domain.tool import Applicable, NotApplicable
from dicom_node.tools.registry import ModelManifest, applicable

Judge = Callable[[Attributes], Applicable | NotApplicable]
"""What a tool says to the header of a Series."""


def judges(manifests: Mapping[str, ModelManifest]) -> dict[str, Judge]:
    """A judge for each model: its own filter (`when` of model.toml), then what it can process."""

    def judge(manifest: ModelManifest) -> Judge:
        expression = parse(manifest.when) if manifest.when else None

        def verdict(attributes: Attributes) -> Applicable | NotApplicable:
            if expression is not None:
                found = evaluate(expression, attributes)
                if not found.matched:
                    return NotApplicable(found.explanation)
            return applicable(manifest, attributes)

        return verdict

    return {name: judge(manifest) for name, manifest in manifests.items()}
