"""Damaged objects end in a value or in one of our own errors, never in anything else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.decide.geometry import Fault
from dicom_node.decide.planes import plane_of
from dicom_node.domain.errors import ObjectError
from dicom_node.domain.volume import Volume
from dicom_node.iod.header import KEYWORDS, read_attributes
from dicom_node.iod.image import read_volume
from dicom_node.iod.transcode import PATIENT_AND_STUDY, copied
from dicom_node.testing.series import Pixels, a_series, file_of

SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
COMPRESSED = ("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80")


def sound() -> list[bytes]:
    made = []
    for syntax in (*SYNTAXES, *COMPRESSED):
        plain = syntax not in COMPRESSED
        pixels = Pixels() if plain else Pixels(transfer_syntax=syntax)
        (dataset,) = a_series(1, size=16, pixels=pixels)
        if plain:
            dataset.file_meta.TransferSyntaxUID = syntax
        made.append(file_of(dataset))
    return made


SOUND = sound()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    content = bytearray(draw(st.sampled_from(SOUND)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(132, len(content) - 1))
        content[at : at + 1] = draw(st.binary(min_size=0, max_size=4))
    return bytes(content[: draw(st.integers(0, len(content)))])


@given(damaged())
def test_headers_are_values_whatever_is_sent(content: bytes) -> None:
    try:
        attributes = read_attributes(content)
    except ObjectError:
        return
    assert set(attributes) <= set(KEYWORDS)
    for value in attributes.values():
        values = value if isinstance(value, tuple) else (value,)
        assert all(isinstance(v, (str, int, float)) for v in values)
    plane_of(attributes)


@given(st.binary(max_size=400))
def test_noise_is_refused_or_read(content: bytes) -> None:
    for syntax in (None, *SYNTAXES):
        try:
            read_attributes(content, syntax)
        except ObjectError:
            continue


@given(content=damaged())
def test_images_are_decoded_or_refused(tmp_path_factory, content: bytes) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "image.dcm"
    path.write_bytes(content)
    try:
        volume = read_volume([path], tolerate=frozenset(Fault), max_bytes=1 << 24)
    except ObjectError:
        return
    assert isinstance(volume, Volume)


@given(damaged())
def test_patients_are_copied_or_not(content: bytes) -> None:
    try:
        elements = copied(content, PATIENT_AND_STUDY)
    except ObjectError:
        return
    assert all(len(e) >= 8 for e in elements.values())


@pytest.mark.parametrize("content", SOUND)
def test_undamaged_objects_are_read(content: bytes) -> None:
    assert read_attributes(content)["Modality"] == "CT"
