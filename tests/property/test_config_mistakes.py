"""Any document is a Config or a list of mistakes; nothing else comes out."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dicom_node.config.crosschecks import cross_checks
from dicom_node.config.mistakes import keys_of, of_validation, section_of
from dicom_node.config.repair import repaired
from dicom_node.config.schema import File

SECTIONS = {key: section_of(field.annotation) for key, field in keys_of(File).items()}
WORDS = ["", "*", "@sender", "PACS", "store", "seg", "refuse", "Modality ==", "\0", "a", "é" * 70]
scalars = st.sampled_from([*WORDS, 0, 1, 104, -5, 2**70, 0.5, 1e300, float("nan"), True, False])
values = scalars | st.lists(scalars, max_size=2) | st.builds(lambda: [{"name": "a"}, [{}]])


def tables(section: str) -> st.SearchStrategy[object]:
    known = list(keys_of(SECTIONS[section]))
    return st.dictionaries(st.sampled_from([*known, "prot", ""]), values, max_size=9)


documents = st.fixed_dictionaries(
    {},
    optional={
        **{s: tables(s) | values for s in SECTIONS if s not in ("peer", "route")},
        **{s: st.lists(tables(s) | values, max_size=3) | values for s in ("peer", "route")},
        "web": values,
    },
)


@given(documents)
def test_whatever_is_wrong_is_told_and_the_rest_can_still_be_checked(document: dict):
    try:
        file, found = File.model_validate(document), []
    except ValidationError as error:
        found = of_validation(error, document)
        file = File.model_validate(repaired(document, error))
        assert found
    found += cross_checks(file)

    assert all(one and "\n" not in one for one in found)
    assert isinstance(file.node.data_dir, Path)
