"""Values that cannot be Hounsfield units are found, and those of real bodies are not."""

from __future__ import annotations

import pytest

from dicom_node.decide.geometry import Fault, Severity
from dicom_node.decide.plausibility import Values, values_finding


def values(**changes: float) -> Values:
    """Those of a chest."""
    chest = {"lowest": -1024.0, "highest": 1500.0, "air": 0.6, "tissue": 0.3, "dense": 0.005}
    return Values(**(chest | changes))


@pytest.mark.parametrize(
    "changes",
    [{}, {"air": 0.3}, {"tissue": 0.08}, {"dense": 0.05}, {"highest": 152.0, "dense": 0.0}],
)
def test_a_body_is_plausible(changes: dict[str, float]) -> None:
    assert values_finding(values(**changes)) is None


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"lowest": 7.0, "highest": 7.0}, Fault.CONSTANT, "the same value, 7 HU"),
        ({"lowest": 0.0, "highest": 255.0}, Fault.NO_RESCALE, "(0 to 255)"),
        ({"dense": 0.35}, Fault.TOO_DENSE, "35% of the voxels"),
        ({"air": 0.0, "lowest": -180.0}, Fault.NO_AIR, "from -180 to 1500 HU"),
        ({"tissue": 0.002}, Fault.NO_TISSUE, "0.2% of the voxels are soft tissue"),
    ],
)
def test_what_is_no_body_is_named_with_its_numbers(
    changes: dict[str, float], code: Fault, words: str
) -> None:
    finding = values_finding(values(**changes))
    assert finding is not None
    assert finding.code is code
    assert finding.severity is Severity.SERIOUS
    assert words in finding.reason
