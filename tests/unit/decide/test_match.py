"""The match language: what is read, what holds, and what it says."""

from __future__ import annotations

import pytest

from dicom_node.decide.match import ParseError, evaluate, keywords, parse, unparse

CHEST = {
    "Modality": "CT",
    "BodyPartExamined": "CHEST",
    "SliceThickness": "1.50",
    "ImageType": ("ORIGINAL", "PRIMARY", "AXIAL"),
    "SeriesDescription": "Thin LUNG kernel ",
    "InstanceNumber": 7,
    "PatientName": "Doe^Jane",
    "PatientID": "007",
    "StudyDate": "20240131",
    "AccessionNumber": "",
    "PixelSpacing": (0.7, 0.7),
    "RescaleSlope": float("nan"),
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ('Modality == "CT"', True),
        ('Modality == "ct"', True),
        ("Modality == 'CT '", True),
        ('Modality != "MR"', True),
        ('Modality != "CT"', False),
        ('BodyPartExamined in ("CHEST", "LUNG")', True),
        ('BodyPartExamined in ("HEAD")', False),
        ("SliceThickness <= 5", True),
        ("SliceThickness == 1.5", True),
        ('SliceThickness == "1.5"', False),  # text with text: the characters count
        ("SliceThickness > 1.5", False),
        ("SliceThickness >= 1.5 and SliceThickness < 1.51", True),
        ("InstanceNumber == 7", True),
        ('InstanceNumber == "7"', True),
        ('PatientID == "7"', False),
        ("PatientID == 7", True),
        ("SeriesDescription > 3", False),  # not a number
        ('StudyDate >= "20240101"', True),
        ('ImageType contains "PRIMARY"', True),
        ('ImageType == "PRIMARY"', True),
        ('ImageType != "PRIMARY"', False),
        ('ImageType contains "PRIM"', False),
        ('ImageType ~ "^axial$"', True),
        ("PixelSpacing < 1", True),
        ('SeriesDescription ~ "chest|lung"', True),
        ('SeriesDescription ~ "head"', False),
        ("Modality exists", True),
        ("AccessionNumber exists", False),  # empty counts as missing
        ("RescaleSlope exists", False),  # NaN too
        ("Manufacturer exists", False),
        ('Manufacturer != "ACME"', False),  # missing: false, whatever the operator
        ('not Manufacturer == "ACME"', True),
        ('not (Modality == "CT")', False),
        ('Modality == "MR" or Modality == "CT" and InstanceNumber == 7', True),
        ('(Modality == "CT" or Modality == "MR") and InstanceNumber == 8', False),
    ],
)
def test_an_expression_holds_or_not(text: str, holds: bool):
    assert evaluate(parse(text), CHEST).matched is holds


@pytest.mark.parametrize(
    ("text", "explanation"),
    [
        (
            'BodyPartExamined in ("HEAD", "NECK")',
            "BodyPartExamined is 'CHEST', not one of 'HEAD', 'NECK'",
        ),
        ('Modality == "MR"', "Modality is 'CT', not 'MR'"),
        ('Modality != "CT"', "Modality is 'CT', which is excluded"),
        ("SliceThickness <= 1", "SliceThickness is '1.50', not <= 1"),
        ("Laterality exists", "Laterality is missing"),
        ('not ImageType contains "AXIAL"', "ImageType contains 'AXIAL', which is excluded"),
        (
            'ImageType contains "PRIM"',
            "ImageType is 'ORIGINAL', 'PRIMARY', 'AXIAL', without 'PRIM' as a whole value "
            "(~ finds a part of one)",
        ),
        (
            'SeriesDescription ~ "head|neck"',
            "SeriesDescription is 'Thin LUNG kernel', in which 'head|neck' is not found",
        ),
        (
            'Modality == "MR" and SliceThickness > 3 and InstanceNumber == 7',
            "Modality is 'CT', not 'MR'; SliceThickness is '1.50', not > 3",
        ),
        (
            'Modality == "MR" or BodyPartExamined == "HEAD"',
            "Modality is 'CT', not 'MR'; BodyPartExamined is 'CHEST', not 'HEAD'",
        ),
    ],
)
def test_a_refusal_names_each_clause_that_failed_with_the_value_seen(text: str, explanation: str):
    verdict = evaluate(parse(text), CHEST)

    assert (verdict.matched, verdict.explanation) == (False, explanation)


def test_a_match_says_which_facts_it_rests_on():
    verdict = evaluate(parse('Modality == "MR" or Modality == "CT"'), CHEST)

    assert (verdict.matched, verdict.explanation) == (True, "Modality is 'CT'")


@pytest.mark.parametrize("keyword", ["PatientName", "PatientID"])
def test_an_explanation_never_repeats_what_identifies_the_patient(keyword: str):
    verdict = evaluate(parse(f'{keyword} == "x"'), CHEST)

    assert verdict.explanation == f"{keyword} is a value that is not shown, not 'x'"


def test_values_of_others_are_shown_short_and_without_control_characters():
    attributes = {"SeriesDescription": "\x1b[31m" + "a" * 500, "ImageType": tuple("ABCDEFG")}

    text = evaluate(parse('SeriesDescription == "x"'), attributes).explanation
    types = evaluate(parse('ImageType == "x"'), attributes).explanation

    assert "\x1b" not in text
    assert len(text) < 120
    assert types == "ImageType is 'A', 'B', 'C', 'D', ..., not 'x'"


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("", 0, "expected a DICOM keyword, 'not' or '(', found the end"),
        ("Modality", 8, "expected one of == != <= >= < > in contains ~ exists, found the end"),
        ('Modality = "CT"', 9, "to compare, write =="),
        ("Modality == CT", 12, "such as \"CT\", found 'CT'"),
        ('Modality == "CT', 12, "without its closing quote"),
        ('Modality == "CT" Rows == 1', 17, "expected 'and', 'or' or the end, found 'Rows'"),
        ('(Modality == "CT"', 17, "expected 'and', 'or' or ')', found the end"),
        ('Modality in "CT"', 12, "expected '(' and a list of values"),
        ('Modality in ("CT" "MR")', 18, "expected ',' or ')'"),
        ('Modality not in ("CT")', 9, 'write: not (X in ("A", "B"))'),
        ("Rows == 1e999", 8, "too large"),
        ("SeriesDescription ~ 3", 20, "wants a pattern in quotes"),
        ('SeriesDescription ~ "(a+)+"', 25, "a repeat inside a repeat is refused"),
        ("and", 0, "expected a DICOM keyword"),
        ("Rows == 5mm", 8, "is not understood"),
        ("not " * 60 + "Rows == 1", 160, "nested deeper than 40"),
        ("(" * 5000, 4000, "at most 4000 characters"),
    ],
)
def test_a_mistake_is_told_with_its_position_and_what_was_expected(
    text: str, position: int, words: str
):
    with pytest.raises(ParseError) as caught:
        parse(text)

    assert caught.value.position == position
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("not (not (Rows == 1))", "not not Rows == 1"),
        ("(Rows == 1 and Columns == 2) or A exists", "Rows == 1 and Columns == 2 or A exists"),
        ("not (A == 1 or B == 2)", "not (A == 1 or B == 2)"),
        (r"A == 'say \'yes\'' ", "A == \"say 'yes'\""),
        (r'A ~ "\d+"', r'A ~ "\\d+"'),
        ("A == -1.50e3", "A == -1500.0"),
    ],
)
def test_an_expression_is_printed_with_only_the_parentheses_it_needs(text: str, printed: str):
    assert unparse(parse(text)) == printed


def test_the_keywords_of_an_expression_are_those_it_asks_about():
    expression = parse('Modality == "CT" and not (Rows < 3 or CallingAE in ("A", "B"))')

    assert keywords(expression) == {"Modality", "Rows", "CallingAE"}
