"""Planes, stacks, and why some planes are none."""

from __future__ import annotations

import math

import pytest

from dicom_node.decide.geometry import (
    Fault,
    NotAStack,
    Severity,
    Stack,
    hole,
    split_localizers,
    stack,
    stack_of,
)
from dicom_node.decide.planes import Plane, plane_of

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def an_image(z: float = 0.0, **changes: object) -> dict[str, object]:
    """The header of an axial CT image at height z; None takes an attribute away."""
    attributes: dict[str, object] = {
        "SOPInstanceUID": f"1.2.{z:.2f}".replace("-", "9"),
        "FrameOfReferenceUID": "1.2.3",
        "ImageType": ("ORIGINAL", "PRIMARY", "AXIAL"),
        "Rows": 512,
        "Columns": 512,
        "ImagePositionPatient": (-200.0, -180.0, z),
        "ImageOrientationPatient": AXIAL,
        "PixelSpacing": (0.8, 0.7),
        "SliceThickness": 3.0,
    }
    return {k: v for k, v in (attributes | changes).items() if v is not None}


def axial(*heights: float) -> list[dict[str, object]]:
    return [an_image(z) for z in heights]


def fault(judged: Stack | NotAStack) -> NotAStack:
    assert isinstance(judged, NotAStack)
    return judged


def test_an_image_has_a_plane_with_its_normal() -> None:
    plane = plane_of(an_image(12.5))
    assert isinstance(plane, Plane)
    assert plane.position == (-200.0, -180.0, 12.5)
    assert plane.normal == (0.0, 0.0, 1.0)
    assert plane.spacing_mm == (0.8, 0.7)
    assert plane.thickness_mm == 3.0


def test_prone_rows_turn_the_plane_and_not_its_normal() -> None:
    plane = plane_of(an_image(ImageOrientationPatient=(-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)))
    assert isinstance(plane, Plane)
    assert plane.normal == pytest.approx((0.0, 0.0, 1.0))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"NumberOfFrames": 12}, "a multi-frame object of 12 frames"),
        ({"Rows": None}, "no Rows and Columns"),
        ({"Columns": 0}, "no Rows and Columns"),
        ({"ImagePositionPatient": None}, "no Image Position (Patient)"),
        ({"ImagePositionPatient": (1.0, 2.0)}, "no Image Position (Patient)"),
        ({"ImagePositionPatient": (1.0, 2.0, math.nan)}, "no Image Position (Patient)"),
        ({"ImageOrientationPatient": None}, "no Image Orientation (Patient)"),
        (
            {"ImageOrientationPatient": (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)},
            "an Image Orientation (Patient) that is not two perpendicular unit vectors",
        ),
        (
            {"ImageOrientationPatient": (0.0, 0.0, 0.0, 0.0, 1.0, 0.0)},
            "an Image Orientation (Patient) that is not two perpendicular unit vectors",
        ),
        ({"PixelSpacing": None}, "no Pixel Spacing"),
        ({"PixelSpacing": 0.7}, "no Pixel Spacing"),
        ({"PixelSpacing": (0.0, 0.7)}, "no Pixel Spacing"),
    ],
)
def test_an_image_without_a_plane_says_what_it_lacks(
    changes: dict[str, object], reason: str
) -> None:
    assert plane_of(an_image(**changes)) == reason


def test_one_frame_in_a_multi_frame_attribute_is_an_image() -> None:
    assert isinstance(plane_of(an_image(NumberOfFrames=1)), Plane)


def test_a_stack_is_ordered_along_its_normal() -> None:
    judged = stack_of(axial(6.0, 0.0, 3.0, -3.0))
    assert isinstance(judged, Stack)
    assert [p.position[2] for p in judged.planes] == [-3.0, 0.0, 3.0, 6.0]
    assert judged.spacing_mm == pytest.approx(3.0)
    assert judged.positions_mm == pytest.approx((0.0, 3.0, 6.0, 9.0))
    assert judged.findings == ()
    assert hole(judged) == ""


def test_positions_rounded_to_tenths_are_even() -> None:
    assert isinstance(stack_of(axial(0.0, 1.2, 2.5, 3.8, 5.0, 6.2)), Stack)


def test_one_missing_plane_is_a_hole_with_its_place() -> None:
    judged = fault(stack_of(axial(0.0, 5.0, 10.0, 20.0)))
    assert judged.fault is Fault.HOLE
    assert judged.missing == 1
    expected = "1 plane is missing after position 10.0 mm (10.0 instead of 5.0 mm)"
    assert judged.reason == expected
    assert hole(judged) == expected


def test_several_holes_are_counted() -> None:
    judged = fault(stack_of(axial(0, 3, 6, 15, 18, 24)))
    assert judged.missing == 3
    assert judged.reason == (
        "3 planes are missing after position 6.0 mm (9.0 instead of 3.0 mm) and in 1 more place"
    )


def test_uneven_spacing_names_the_extremes() -> None:
    judged = fault(stack_of(axial(0.0, 4.2, 8.4, 9.5, 16.9)))
    assert judged.fault is Fault.UNEVEN
    assert judged.reason == "spacing is uneven: from 1.10 to 7.40 mm"
    assert hole(judged) == ""


def test_two_planes_are_too_few() -> None:
    judged = fault(stack_of(axial(0.0, 87.5)))
    assert judged.fault is Fault.TOO_FEW
    assert judged.reason == "2 planes make no stack: at least 3 are needed"
    one = fault(stack_of(axial(0.0)))
    assert one.reason == "1 plane makes no stack: at least 3 are needed"


def test_no_plane_at_all_is_too_few() -> None:
    assert fault(stack_of([])).fault is Fault.TOO_FEW


def test_planes_at_one_position_are_duplicates() -> None:
    some = fault(stack_of([*axial(0.0, 3.0, 6.0), an_image(3.0, SOPInstanceUID="1.9")]))
    assert some.fault is Fault.DUPLICATE
    all_of_them = fault(stack_of([an_image(0.0, SOPInstanceUID=f"1.{i}") for i in range(4)]))
    assert all_of_them.reason == "all 4 planes lie at the same position"


def test_a_duplicate_is_never_tolerated() -> None:
    twice = [an_image(0.0, SOPInstanceUID="1.1"), *axial(0.0, 3.0, 6.0)]
    assert fault(stack_of(twice, frozenset(Fault))).fault is Fault.DUPLICATE


def test_a_tilted_gantry_shears_the_stack() -> None:
    angle = math.radians(18.5)
    tilted = (1.0, 0.0, 0.0, 0.0, math.cos(angle), -math.sin(angle))
    judged = fault(stack_of([an_image(z, ImageOrientationPatient=tilted) for z in (0, 4, 8, 12)]))
    assert judged.fault is Fault.SHEAR
    assert judged.reason == "the gantry was tilted: the stack is sheared by 18.5°"


def test_a_plane_pushed_aside_is_found() -> None:
    planes = axial(0, 3, 6, 9)
    planes[2] = an_image(6, ImagePositionPatient=(-190.0, -180.0, 6.0))
    judged = fault(stack_of(planes))
    assert judged.fault is Fault.SHIFT
    assert "shifted against each other" in judged.reason
    assert "10.0 mm" in judged.reason


def test_two_orientations_are_no_stack() -> None:
    mixed = [*axial(0, 3, 6), *(an_image(z, ImageOrientationPatient=CORONAL) for z in (9, 12, 15))]
    judged = fault(stack_of(mixed))
    assert judged.fault is Fault.ORIENTATION
    assert judged.reason == "the planes have 2 orientations (3 and 3 planes)"


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"Rows": 256}, Fault.MATRIX, "2 matrix sizes (256 x 512 and 512 x 512)"),
        ({"PixelSpacing": (0.9, 0.7)}, Fault.MATRIX, "pixel spacing varies"),
        ({"FrameOfReferenceUID": "1.9"}, Fault.FRAMES_OF_REFERENCE, "2 frames of reference"),
        ({"ImagePositionPatient": None}, Fault.NO_POSITION, "1 of 4 instances cannot be placed"),
        ({"NumberOfFrames": 5}, Fault.MULTI_FRAME, "a multi-frame object of 5 frames"),
    ],
)
def test_one_plane_of_another_kind_is_named(
    changes: dict[str, object], kind: Fault, words: str
) -> None:
    judged = fault(stack_of([*axial(0, 3, 6), an_image(9, **changes)]))
    assert judged.fault is kind
    assert words in judged.reason


def test_tolerated_faults_become_findings() -> None:
    judged = stack_of(axial(0.0, 5.0, 10.0, 20.0), {Fault.HOLE})
    assert isinstance(judged, Stack)
    assert judged.findings[0].reason.startswith("1 plane is missing")
    assert judged.findings[0].missing == 1
    assert judged.has(Fault.HOLE)
    assert not judged.has(Fault.UNEVEN)


def test_one_plane_takes_its_thickness_for_spacing() -> None:
    judged = stack_of(axial(0.0), {Fault.TOO_FEW})
    assert isinstance(judged, Stack)
    assert judged.spacing_mm == 3.0


def test_planes_far_apart_for_their_thickness_are_a_finding() -> None:
    judged = stack_of(axial(0, 10, 20))
    assert isinstance(judged, Stack)
    (finding,) = judged.findings
    assert (finding.code, finding.severity) == (Fault.SPARSE, Severity.MINOR)
    assert finding.reason == "planes are 10.0 mm apart but 3.0 mm thick"


def test_stack_of_no_planes_is_too_few() -> None:
    assert fault(stack([])).reason == "there is no image plane"


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"ImageType": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, "it is a localizer"),
        ({"ImageType": ("DERIVED", "SECONDARY", "REF_SURVIEW")}, "it is a localizer"),
        ({"ImageOrientationPatient": CORONAL}, "its orientation is not that of the rest"),
        ({"SamplesPerPixel": 3}, "it is a colour picture"),
        ({"Rows": None, "Columns": None}, "it is not an image"),
        (
            {"ImageType": ("DERIVED", "SECONDARY", "DOSE_INFO"), "ImagePositionPatient": None},
            "it is a secondary image without a position",
        ),
    ],
)
def test_what_stands_beside_the_volume_is_set_aside(odd: dict[str, object], reason: str) -> None:
    beside = an_image(100.0, **odd)
    split = split_localizers([beside, *axial(6, 3, 0)])
    assert [a["SOPInstanceUID"] for a in split.volume] == ["1.2.6.00", "1.2.3.00", "1.2.0.00"]
    assert [a for a, _ in split.others] == [beside]
    assert split.others[0][1].startswith(reason)


def test_a_slice_that_lost_its_position_stays_in_the_volume() -> None:
    split = split_localizers([*axial(0, 3, 6), an_image(9, ImagePositionPatient=None)])
    assert len(split.volume) == 4
    assert fault(stack_of(split.volume)).fault is Fault.NO_POSITION


def test_as_many_of_another_orientation_are_not_set_aside() -> None:
    mixed = [*axial(0, 3), *(an_image(z, ImageOrientationPatient=CORONAL) for z in (0, 3))]
    split = split_localizers(mixed)
    assert len(split.volume) == 4
    assert fault(stack_of(split.volume)).fault is Fault.ORIENTATION


def test_a_single_valued_image_type_is_understood() -> None:
    split = split_localizers([an_image(0, ImageType="LOCALIZER")])
    assert split.volume == ()


def test_one_small_step_among_large_ones_is_no_measure_of_holes() -> None:
    judged = fault(stack_of(axial(0.0, 4.0, 8.0, 9.0, 16.0)))
    assert judged.fault is Fault.UNEVEN
    every_second = fault(stack_of(axial(0.0, 3.0, 6.0, 7.5)))
    assert every_second.fault is Fault.HOLE
    assert every_second.missing == 2


def test_thicker_planes_are_further_apart_on_purpose() -> None:
    thick = [an_image(z, SliceThickness=5.0) for z in (0.0, 5.0, 10.0)]
    thin = [an_image(z, SliceThickness=2.5) for z in (12.5, 15.0, 17.5)]
    judged = fault(stack_of([*thick, *thin]))
    assert judged.fault is Fault.UNEVEN
    overlapping = [an_image(z, SliceThickness=5.0) for z in (0.0, 5.0, 7.5, 10.0)]
    assert fault(stack_of(overlapping)).fault is Fault.HOLE
