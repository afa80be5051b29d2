"""Whose images a Series holds: told apart by what is known, in a sentence that names nobody."""

from __future__ import annotations

import pytest

from dicom_node.decide.gate import admission
from dicom_node.decide.geometry import Fault
from dicom_node.decide.subject import mixed
from dicom_node.domain.policy import ALLOWED, REFUSE, InputPolicy


def image(patient="A", issuer="", study="1.2"):
    attributes = {"PatientID": patient, "IssuerOfPatientID": issuer, "StudyInstanceUID": study}
    return {key: value for key, value in attributes.items() if value}


TWO_PATIENTS = "the Series holds images of 2 patients"
TWO_STUDIES = "the Series holds images of 2 studies"


@pytest.mark.parametrize(
    ("what", "images", "reasons"),
    [
        ("nothing", [], []),
        ("one", [image(), image()], []),
        ("two patients", [image(), image("B")], [TWO_PATIENTS]),
        ("two studies", [image(), image(study="1.3")], [TWO_STUDIES]),
        ("both", [image(), image("B", study="1.3")], [TWO_PATIENTS, TWO_STUDIES]),
        ("two issuers", [image(issuer="X"), image(issuer="Y")], [TWO_PATIENTS]),
        ("an issuer that is known once", [image(issuer="X"), image()], []),
        ("another ID of the same issuer", [image(issuer="X"), image("B", "X")], [TWO_PATIENTS]),
        ("an ID that is missing", [image(), image("")], []),
        (
            "three",
            [image(), image("B"), image("C"), image("B")],
            ["the Series holds images of 3 patients"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_patients_and_studies_are_counted(what, images, reasons):
    assert [finding.reason for finding in mixed(images)] == reasons, what


def test_no_policy_admits_them():
    lenient = {
        key: next(treatment for treatment in allowed if treatment is not REFUSE)
        for key, allowed in ALLOWED.items()
    }
    found = mixed([image(), image("B", study="1.3")])
    assert [finding.code for finding in found] == [Fault.PATIENTS, Fault.STUDIES]
    assert admission(found, InputPolicy(**lenient)).refusal == f"{TWO_PATIENTS}; {TWO_STUDIES}"
