"""What a policy makes of what was found."""

from __future__ import annotations

import math

import pytest

from dicom_node.decide.gate import (
    KEYS,
    admission,
    repeat_findings,
    repeats,
    stack_findings,
    treatment_of,
)
from dicom_node.decide.geometry import Fault, Finding, Severity, Stack, stack_of
from dicom_node.domain.policy import ALLOWED, LEAST, MEANINGS, InputPolicy, Treatment


def an_image(z: float, **changes: object) -> dict[str, object]:
    attributes: dict[str, object] = {
        "SOPInstanceUID": f"1.2.{z:.2f}",
        "Rows": 128,
        "Columns": 128,
        "ImagePositionPatient": (-200.0, -180.0, z),
        "ImageOrientationPatient": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        "PixelSpacing": (0.7, 0.7),
        "SliceThickness": 5.0,
    }
    return attributes | changes


def found(*images: dict[str, object], policy: InputPolicy | None = None) -> dict[Fault, str]:
    judged = stack_of(images, frozenset(Fault))
    assert isinstance(judged, Stack)
    findings = stack_findings(judged, images[0], policy or InputPolicy())
    return {finding.code: finding.reason for finding in findings}


def a_finding(code: Fault) -> Finding:
    return Finding(code=code, reason="something is odd")


def test_an_ordinary_stack_is_admitted_without_a_word() -> None:
    assert found(*(an_image(5.0 * k) for k in range(4))) == {}
    admitted = admission((), InputPolicy())
    assert admitted.refusal == ""
    assert admitted.warnings == admitted.treated == ()
    assert not admitted.resample


@pytest.mark.parametrize("code", Fault)
def test_every_fault_is_decided_by_a_key_or_always_refused(code: Fault) -> None:
    finding = a_finding(code)
    if code in KEYS:
        assert KEYS[code] in ALLOWED
    else:
        assert finding.severity is Severity.FATAL
        assert treatment_of(finding, InputPolicy()) is Treatment.REFUSE


@pytest.mark.parametrize("key", ALLOWED)
def test_defaults_are_allowed_and_refuse_what_is_serious(key: str) -> None:
    default = getattr(InputPolicy(), key)
    assert default in ALLOWED[key]
    severities = {a_finding(code).severity for code, of in KEYS.items() if of == key}
    expected = Treatment.REFUSE if Severity.SERIOUS in severities else Treatment.WARN
    assert default is expected


def test_every_key_has_a_meaning_and_values() -> None:
    keys = set(InputPolicy.__dataclass_fields__)
    assert set(MEANINGS) == keys
    assert set(ALLOWED) | set(LEAST) | {"foreign_body_parts"} == keys


def test_refusals_are_joined_and_warnings_left_out() -> None:
    policy = InputPolicy(holes=Treatment.WARN)
    findings = [a_finding(Fault.HOLE), a_finding(Fault.SHEAR), a_finding(Fault.TOO_FEW)]
    assert admission(findings, policy).refusal == "something is odd; something is odd"


def test_a_warning_says_what_follows() -> None:
    admitted = admission([a_finding(Fault.HOLE)], InputPolicy(holes=Treatment.WARN))
    assert admitted.warnings == ("Warning: something is odd; volumes bridge the gap.",)
    assert admitted.treated == ("holes=warn",)
    assert not admitted.resample


def test_resampling_is_a_warning_too() -> None:
    admitted = admission([a_finding(Fault.SHEAR)], InputPolicy(tilt=Treatment.RESAMPLE))
    assert admitted.resample
    assert "cut back to the source slices" in admitted.warnings[0]
    assert admitted.treated == ("tilt=resample",)


def test_what_is_ignored_is_not_mentioned() -> None:
    admitted = admission([a_finding(Fault.NON_SQUARE)], InputPolicy(pixels=Treatment.IGNORE))
    assert admitted.warnings == admitted.treated == ()


def test_too_few_is_what_the_model_calls_so() -> None:
    three = [an_image(5.0 * k) for k in range(3)]
    assert found(*three[:1], policy=InputPolicy(min_slices=1)) == {}
    assert found(*three) == {}
    few = found(*three, policy=InputPolicy(min_slices=20))
    assert few == {Fault.TOO_FEW: "3 planes make no stack: at least 20 are needed"}


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"Rows": 24}, Fault.SMALL_MATRIX, "the matrix is 24 x 128: 32 x 32 are needed"),
        ({"PixelSpacing": (0.9, 0.7)}, Fault.NON_SQUARE, "pixels are 0.90 x 0.70 mm, not square"),
        (
            {"PixelSpacing": (0.2, 0.2)},
            Fault.ANISOTROPY,
            "planes are 5.0 mm apart and pixels 0.20 mm wide: 25 to 1",
        ),
        ({"SliceThickness": 2.0}, Fault.SPARSE, "planes are 5.0 mm apart but 2.0 mm thick"),
        ({"BodyPartExamined": "head "}, Fault.BODY_PART, "Body Part Examined is HEAD"),
    ],
)
def test_what_a_model_may_mind_is_found_with_its_numbers(
    changes: dict[str, object], code: Fault, reason: str
) -> None:
    policy = InputPolicy(foreign_body_parts=("HEAD",))
    images = [an_image(5.0 * k, **changes) for k in range(3)]
    assert found(*images, policy=policy) == {code: reason}


def test_a_tilted_uneven_stack_has_both_findings() -> None:
    angle = math.radians(18.5)
    column = (0.0, math.cos(angle), -math.sin(angle))
    heights = (0.0, 4.0, 8.0, 9.0, 16.0)
    images = [an_image(z, ImageOrientationPatient=(1.0, 0.0, 0.0, *column)) for z in heights]
    assert {Fault.SHEAR, Fault.UNEVEN} <= found(*images).keys()


def test_planes_at_one_position_are_grouped_the_first_acquisition_first() -> None:
    late = an_image(5.0, SOPInstanceUID="1.0", AcquisitionNumber=2, InstanceNumber=1)
    early = an_image(5.0, SOPInstanceUID="1.9", AcquisitionNumber=1, InstanceNumber=9)
    grouped = repeats([late, an_image(0.0), early, an_image(10.0)])
    assert grouped.groups == (("1.9", "1.0"),)
    assert grouped.dropped == {"1.0"}


def test_planes_that_cannot_be_compared_are_no_repeats() -> None:
    turned = an_image(0.0, ImageOrientationPatient=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0))
    assert repeats([an_image(0.0), turned]).groups == ()
    assert repeats([an_image(0.0), an_image(0.0, PixelSpacing=None)]).groups == ()


def test_copies_and_duplicates_are_told_apart() -> None:
    images = [an_image(z, SOPInstanceUID=f"{z}.{n}") for z in (0.0, 5.0, 9.0) for n in (1, 2)]
    grouped = repeats([*images, an_image(9.0, SOPInstanceUID="9.0.3")])
    duplicate, copy = repeat_findings(grouped, (True, False, False))
    assert duplicate.code is Fault.DUPLICATE
    assert duplicate.reason == (
        "2 positions have more than one plane, with other pixels (3 planes too many)"
    )
    assert copy.code is Fault.COPY
    assert copy.reason == (
        "1 position has more than one plane, with the same pixels (1 plane too many)"
    )
