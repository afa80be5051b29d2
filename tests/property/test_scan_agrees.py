"""The scan of the raw bytes finds what pydicom reads, and what it lets pass is read alike."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage

from dicom_node.domain.errors import NotDicom
from dicom_node.iod.checks import check_stored
from dicom_node.iod.elements import Malformed, locate
from dicom_node.iod.header import read_attributes
from dicom_node.iod.received import check_received
from dicom_node.iod.scan import Bounds, scan
from dicom_node.testing.series import Pixels, a_series, file_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom, on what is damaged

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
RLE, JPEG = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.70"
TEXTS = ("LO", "SH", "CS", "PN", "LT", "UT", "UC")
SEQUENCES = (0x0040A730, 0x00081140, 0x00400275)


@st.composite
def elements(draw: st.DrawFn, depth: int, decoys: bool) -> DataElement:
    group = draw(st.sampled_from((0x0009, 0x0011, 0x0029, 0x0041, 0x0051)))
    tag = group << 16 | draw(st.integers(0x1000, 0x10FF))
    kind = draw(st.sampled_from(("text", "bytes", "number", "sequence" if depth else "text")))
    if kind == "text":
        text = draw(st.text("ABC123", max_size=12))
        return DataElement(tag, draw(st.sampled_from(TEXTS)), text)
    if kind == "bytes":
        return DataElement(tag, draw(st.sampled_from(("OB", "UN", "OW"))), draw(padded(decoys)))
    if kind == "number":
        return DataElement(tag, "US", draw(st.lists(st.integers(0, 65535), max_size=4)))
    items = draw(st.lists(data_sets(depth=depth - 1, decoys=decoys), max_size=3))
    element = DataElement(draw(st.sampled_from(SEQUENCES)), "SQ", Sequence(items))
    element.is_undefined_length = draw(st.booleans())
    return element


def padded(decoys: bool) -> st.SearchStrategy[bytes]:
    """Of even length; decoys: now and then it begins as a sequence would, and is none."""
    plain = st.binary(max_size=30).filter(lambda value: value[:1] != b"\xfe")
    decoy = st.binary(max_size=12).map(lambda rest: b"\xfe\xff\x00\xe0" + rest)
    return (plain | decoy if decoys else plain).map(lambda value: value + b"\0" * (len(value) % 2))


@st.composite
def data_sets(draw: st.DrawFn, depth: int = 2, decoys: bool = True) -> Dataset:
    dataset = Dataset()
    for element in draw(st.lists(elements(depth=depth, decoys=decoys), max_size=5)):
        dataset[element.tag] = element
    dataset.is_undefined_length_sequence_item = draw(st.booleans())
    return dataset


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, str]:
    """A whole object, in one of the codings, and its transfer syntax."""
    syntax = draw(st.sampled_from((IMPLICIT, EXPLICIT, BIG, JPEG)))
    dataset = a_series(1, size=4)[0]
    dataset.file_meta.TransferSyntaxUID = syntax
    for element in draw(data_sets()):
        dataset[element.tag] = element
    if syntax == JPEG:
        dataset.PixelData = encapsulate(
            draw(st.lists(st.binary(min_size=1), min_size=1, max_size=3))
        )
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    return file_of(dataset), syntax


def counts(dataset: Dataset) -> tuple[int, int]:
    """Elements and items at all depths, as pydicom reads them."""
    below = [counts(item) for element in dataset if element.VR == "SQ" for item in element.value]
    return len(dataset) + sum(e for e, _ in below), len(below) + sum(i for _, i in below)


def top_level(content: bytes) -> Iterator[tuple[int, RawDataElement | DataElement]]:
    dataset = pydicom.dcmread(BytesIO(content))
    for tag in dataset.keys():  # noqa: SIM118  (iterating would decode the values)
        yield int(tag), dataset.get_item(tag)


@given(files())
def test_a_scan_finds_the_elements_that_pydicom_reads(file: tuple[bytes, str]) -> None:
    content, syntax = file
    found = scan(locate(content), range(1 << 32), bounds=Bounds())
    theirs = dict(top_level(content))
    assert list(found.found) == list(theirs)
    for tag, element in theirs.items():
        ours = found.found[tag]
        if isinstance(element, RawDataElement) and not ours.undefined:
            assert content[ours.start : ours.stop] == (element.value or b"")
            assert ours.start == element.value_tell
    if syntax != JPEG:
        assert found.fragments == 0


@given(data_sets(decoys=False), st.sampled_from((IMPLICIT, EXPLICIT)))
def test_elements_and_items_are_counted_as_pydicom_reads_them(more: Dataset, syntax: str) -> None:
    dataset = a_series(1, size=4)[0]
    dataset.file_meta.TransferSyntaxUID = syntax
    for element in more:
        if element.VR == "SQ":
            dataset[element.tag] = element
    content = file_of(dataset)
    found = scan(locate(content), (), bounds=Bounds())
    assert (found.elements, found.items) == counts(pydicom.dcmread(BytesIO(content)))


def sound() -> list[tuple[bytes, str]]:
    made = []
    for syntax in (IMPLICIT, EXPLICIT, BIG, RLE):
        pixels = Pixels(transfer_syntax=RLE) if syntax == RLE else Pixels()
        (dataset,) = a_series(1, size=8, pixels=pixels)
        dataset.file_meta.TransferSyntaxUID = syntax
        item = Dataset()
        item.CodeValue, item.ReferencedSOPInstanceUID = "1", "1.2.3"
        dataset.SourceImageSequence = [item, item]
        dataset["SourceImageSequence"].is_undefined_length = syntax == IMPLICIT
        made.append((file_of(dataset), syntax))
    return made


SOUND = sound()
EXPECTED = a_series(1, size=8)[0].SOPInstanceUID


@st.composite
def damaged(draw: st.DrawFn) -> tuple[bytes, str]:
    content, syntax = draw(st.sampled_from(SOUND))
    changed = bytearray(content)
    start = 144 + int.from_bytes(content[140:144], "little")
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(start, len(changed) - 1))
        changed[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    if draw(st.booleans()):  # a part of it comes twice
        first = draw(st.integers(start, len(changed) - 1))
        last = draw(st.integers(first, min(first + 200, len(changed))))
        changed[last:last] = changed[first:last]
    return bytes(changed), draw(st.sampled_from((syntax, syntax, syntax, EXPLICIT)))


@st.composite
def parts(draw: st.DrawFn) -> tuple[bytes, str, int]:
    """A file, perhaps with more pixels than fit to the head, and how much of it is at hand."""
    content, syntax = draw(st.one_of(files(), damaged()))
    content += draw(st.sampled_from((b"", bytes(3), bytes(2000), b"\x00\x01")))
    return content, syntax, draw(st.integers(132, len(content)))


@given(parts())
def test_a_beginning_says_what_the_whole_says_or_nothing(part: tuple[bytes, str, int]) -> None:
    content, _, at_hand = part
    try:
        whole = locate(content, None)
        beginning = replace(whole, data=content[:at_hand])
        found = scan(beginning, range(1 << 32), bounds=Bounds(), size=len(content))
    except NotDicom:
        return
    told = scan(whole, range(1 << 32), bounds=Bounds())
    assert replace(found, located=whole) == told
    assert all(e.stop <= at_hand for tag, e in found.found.items() if tag != 0x7FE00010)


@given(file=damaged())
def test_what_is_acknowledged_is_read_alike_and_found_again(
    tmp_path_factory: pytest.TempPathFactory, file: tuple[bytes, str]
) -> None:
    content, syntax = file
    path: Path = tmp_path_factory.getbasetemp() / "received"
    path.write_bytes(content)
    received = check_received(
        path,
        expected_class=CTImageStorage,
        expected_instance=EXPECTED,
        transfer_syntax=syntax,
        heavy=contextlib.nullcontext(),
    )
    for problem in (received.problem, received.warning):
        assert problem is None or 0 < len(problem.comment) <= 64
    if received.problem is not None or syntax not in content.decode("latin-1"):
        return
    assert check_stored(path, CTImageStorage, EXPECTED) is None
    assert read_attributes(path) == received.attributes
    theirs = pydicom.dcmread(path)
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        assert str(theirs[keyword].value) == received.attributes[keyword]


@given(st.binary(max_size=400), st.sampled_from((IMPLICIT, EXPLICIT, BIG, RLE)))
def test_noise_is_refused_or_walked(content: bytes, syntax: str) -> None:
    with contextlib.suppress(Malformed):
        scan(locate(content, syntax), (), bounds=Bounds())
