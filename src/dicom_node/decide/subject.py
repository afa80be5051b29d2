"""What of a Series a tool is given, and the header by which routes and tools judge it."""

from __future__ import annotations

from collections.abc import Sequence

from dicom_node.decide.geometry import Split
from dicom_node.domain.records import Attributes


def chosen(split: Split) -> tuple[Attributes, ...]:
    """The instances that make the volume; all others where there is none, for their own reasons."""
    return split.volume or tuple(attributes for attributes, _ in split.others)


def header(
    instances: Sequence[Attributes], *, calling_ae: str = "", called_ae: str = ""
) -> Attributes:
    """That of the first of the chosen instances by SOP Instance UID, with what the node knows.

    So it does not depend on the order in which they came. Without a title its keyword is missing.
    """
    first = min(instances, key=lambda attributes: str(attributes.get("SOPInstanceUID", "")))
    known = {"CallingAE": calling_ae, "CalledAE": called_ae, "InstancesInSeries": len(instances)}
    return {**first, **{key: value for key, value in known.items() if value != ""}}
