"""The scan of the raw bytes: lengths add up, nothing is twice, and there is not too much of it."""

from __future__ import annotations

import struct

import pytest

from dicom_node.iod.elements import Located, Malformed, TooDeep, coding_of
from dicom_node.iod.scan import MAX_PADDING_BYTES, Bounds, Repeated, Scan, TooMany, scan

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
RLE = "1.2.840.10008.1.2.5"
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
LONG = (b"OB", b"OW", b"SQ", b"UN", b"UT")
CHARACTER_SET = (0x00080005, b"CS", b"ISO_IR 100")
SEQUENCE, PRIVATE_SEQUENCE, PIXELS = 0x0040A730, 0x00411010, 0x7FE00010


def header(tag: int, length: int) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, length)


def element(tag: int, vr: bytes, value: bytes = b"", length: int | None = None) -> bytes:
    """Explicit VR little endian; without a VR it is implicit."""
    length = len(value) if length is None else length
    if not vr:
        return header(tag, length) + value
    if vr in LONG:
        return struct.pack("<HH2sxxI", tag >> 16, tag & 0xFFFF, vr, length) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, length) + value


def item(content: bytes = b"", *, defined: bool = True) -> bytes:
    if defined:
        return header(ITEM, len(content)) + content
    return header(ITEM, UNDEFINED) + content + header(ITEM_END, 0)


def sequence(tag: int, *items: bytes, vr: bytes = b"SQ", defined: bool = True) -> bytes:
    content = b"".join(items)
    if defined:
        return element(tag, vr, content)
    return element(tag, vr, content + header(SEQUENCE_END, 0), length=UNDEFINED)


FIRST = element(*CHARACTER_SET)
NAME = element(0x00100010, b"PN", b"Phantom")


def scanned(
    data: bytes, syntax: str = EXPLICIT, bounds: Bounds | None = None, last: int = UNDEFINED
) -> Scan:
    located = Located(data=data, start=0, transfer_syntax=syntax, coding=coding_of(syntax))
    everything = range(1 << 32)
    return scan(located, everything, last=last, bounds=bounds or Bounds())


def fault(data: bytes, syntax: str = EXPLICIT, bounds: Bounds | None = None) -> str:
    with pytest.raises(Malformed) as raised:
        scanned(data, syntax, bounds)
    return str(raised.value)


def test_elements_are_found_where_they_are() -> None:
    found = scanned(FIRST + NAME + element(0x00200013, b"IS", b"7 ")).found
    assert list(found) == [0x00080005, 0x00100010, 0x00200013]
    name = found[0x00100010]
    assert (FIRST + NAME)[name.start : name.stop] == b"Phantom"
    assert (name.vr, name.undefined) == (b"PN", False)


@pytest.mark.parametrize("defined", [True, False])
@pytest.mark.parametrize("items_defined", [True, False])
def test_elements_and_items_are_counted_at_all_depths(defined: bool, items_defined: bool) -> None:
    inner = sequence(SEQUENCE, item(NAME + NAME, defined=items_defined), defined=defined)
    outer = sequence(SEQUENCE, item(inner, defined=items_defined), item(), defined=defined)
    found = scanned(FIRST + outer)
    assert (found.elements, found.items) == (2 + 1 + 2, 3)
    assert found.found[SEQUENCE].next == len(FIRST + outer)


def test_elements_may_stand_in_any_order() -> None:
    assert list(scanned(NAME + FIRST, last=0x0009FFFF).found) == [0x00100010, 0x00080005]


def test_the_header_ends_at_the_first_tag_above_the_last() -> None:
    data = FIRST + NAME + element(0x00090010, b"LO", b"X ")
    assert scanned(data, last=0x000FFFFF).header == 1
    assert scanned(data, last=0x00100010).header == 3


@pytest.mark.parametrize(
    "data", [FIRST + NAME + NAME, NAME + FIRST + element(0x00100010, b"PN", b"Other ")]
)
def test_no_element_may_be_there_twice(data: bytes) -> None:
    with pytest.raises(Repeated, match=r"element \(0010,0010\) twice") as raised:
        scanned(data)
    assert raised.value.tag == 0x00100010


def test_items_of_a_sequence_may_repeat_what_the_data_set_has() -> None:
    assert scanned(FIRST + NAME + sequence(SEQUENCE, item(NAME))).elements == 4


@pytest.mark.parametrize("tag", [0x00020010, 0x00000002, ITEM, ITEM_END, SEQUENCE_END])
def test_what_does_not_belong_into_a_data_set_is_refused(tag: int) -> None:
    assert "does not belong" in fault(FIRST + element(tag, b"UI", b"1.2\0"))
    assert "does not belong" in fault(element(tag, b"UI", b"1.2\0"))


@pytest.mark.parametrize(
    ("data", "syntax"),
    [
        (element(0x00080005, b"", b"ISO_IR 100"), EXPLICIT),
        (FIRST, IMPLICIT),
        (FIRST, BIG),
        (struct.pack(">HH2sH", 8, 5, b"CS", 10) + b"ISO_IR 100", EXPLICIT),
    ],
)
def test_the_first_element_is_coded_as_the_transfer_syntax_says(data: bytes, syntax: str) -> None:
    assert "its transfer syntax" in fault(data, syntax)


def test_a_single_element_may_lack_its_vr() -> None:
    assert len(scanned(FIRST + element(0x00090010, b"", b"ABCD") + NAME).found) == 3


def test_an_item_that_begins_without_a_vr_has_none_at_all() -> None:
    reference = struct.pack("<HHI", 0x0008, 0x1150, 4) + b"1.2\0"
    whole = sequence(0x00081140, item(reference + header(0x00081155, 4) + b"1.3\0"))
    assert scanned(whole).items == 1
    mixed = item(reference + element(0x00081155, b"UI", b"1.3\0"))
    assert "ends inside" in fault(sequence(0x00081140, mixed))


@pytest.mark.parametrize("defined", [True, False])
def test_a_sequence_among_elements_with_a_vr_has_one(defined: bool) -> None:
    bare = sequence(0x00081140, item(defined=defined), vr=b"", defined=defined)
    assert "without a VR" in fault(FIRST + bare)
    assert scanned(FIRST + sequence(0x00081140, item(bare), defined=defined)).items == 2
    for size in range(len(bare)):
        assert fault(FIRST + bare[: size + 1])
    for value in (b"200 ", b"no item!"):
        assert fault(FIRST + element(0x00081140, b"", value))


def test_a_blank_vr_has_a_length_of_16_bits() -> None:
    found = scanned(FIRST + element(0x00280120, b"  ", b"\0\x80") + NAME).found
    padding = found[0x00280120]
    assert (padding.stop - padding.start, padding.vr) == (2, b"")
    assert 0x00100010 in found


@pytest.mark.parametrize("zeros", [0, 1, 7, 8, 9, 4096, MAX_PADDING_BYTES])
def test_zeros_at_the_end_are_padding(zeros: int) -> None:
    assert len(scanned(FIRST + bytes(zeros)).found) == 1


@pytest.mark.parametrize("tail", [bytes(8) + b"x", bytes(MAX_PADDING_BYTES + 1), b"\0\0x", b"x"])
def test_anything_else_at_the_end_is_not(tail: bytes) -> None:
    assert fault(FIRST + tail)


def test_nothing_at_all_is_no_data_set() -> None:
    assert fault(b"") == "is empty"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (NAME[:-1], r"ends inside element (0010,0010)"),
        (NAME[:5], "ends inside an element header"),
        (sequence(SEQUENCE, item(NAME), defined=False)[:-8], "ends inside a sequence"),
        (sequence(SEQUENCE, item(NAME, defined=False)[:-8]), "ends inside an item"),
        (sequence(SEQUENCE, header(ITEM, 99) + NAME), "ends inside an item"),
        (sequence(SEQUENCE, header(ITEM, 10) + NAME), "ends inside element"),
        (sequence(SEQUENCE, item(NAME), b"12345678"), "else than an item"),
        (sequence(SEQUENCE, b"1234"), "ends inside element (0040,A730)"),
        (sequence(SEQUENCE, item(NAME + header(ITEM, 0))), "does not belong"),
        (sequence(SEQUENCE, item(header(ITEM_END, 0) + NAME)), "does not belong"),
        (sequence(SEQUENCE, header(SEQUENCE_END, 0), item()), "ends too early"),
        (sequence(SEQUENCE, item(NAME[:-1]), item()), "ends inside element (0010,0010)"),
        (sequence(PRIVATE_SEQUENCE, item(NAME), item(b"1234")), "ends inside an element header"),
        (sequence(PRIVATE_SEQUENCE, header(ITEM, 99) + NAME), "ends inside an item"),
    ],
)
def test_lengths_that_do_not_add_up_are_refused(data: bytes, words: str) -> None:
    assert words in fault(FIRST + data)


@pytest.mark.parametrize("vr", [b"Q\0", b"H\0", b"Qa", b"Z9"])
def test_what_some_readers_take_for_a_vr_and_others_for_a_length_is_refused(vr: bytes) -> None:
    odd = struct.pack("<HH2sH", 0x0018, 0x5322, vr, 0)
    assert "has no sound VR in (0018,5322)" in fault(FIRST + odd + bytes(90))


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("vr", [b"UN", b"SQ", b"UT"])
def test_encapsulated_pixel_data_are_bytes_and_no_sequence(vr: bytes, depth: int) -> None:
    pixels = sequence(PIXELS, item(), item(b"frame...")[:-8] + b"\x08\0\0\0" * 2, vr=vr,
                      defined=False)  # fmt: skip
    for _ in range(depth):
        pixels = sequence(SEQUENCE, item(pixels))
    assert f"encapsulated Pixel Data with the VR {vr.decode()}" in fault(FIRST + pixels)


@pytest.mark.parametrize("data", [item(NAME), item(NAME + header(ITEM_END, 0))])
def test_a_delimitation_that_is_not_needed_is_allowed_at_the_end(data: bytes) -> None:
    assert scanned(FIRST + sequence(SEQUENCE, data)).items == 1
    assert scanned(FIRST + sequence(SEQUENCE, data, header(SEQUENCE_END, 0))).items == 1


@pytest.mark.parametrize(("tag", "vr"), [(PRIVATE_SEQUENCE, b"UN"), (0x00091010, b"OB")])
def test_what_only_looks_like_a_sequence_is_left_alone(tag: int, vr: bytes) -> None:
    value = header(ITEM, 0x7FFFFFFF) + b"opaque!!"
    assert len(scanned(FIRST + element(tag, vr, value)).found) == 2


def test_a_standard_sequence_in_implicit_vr_is_no_number() -> None:
    assert "ends inside" in fault(header(0x00081140, 4) + b"200 ", IMPLICIT)
    assert scanned(header(0x00081140, 0), IMPLICIT).items == 0


def test_a_standard_sequence_in_implicit_vr_must_be_one() -> None:
    first = element(0x00080005, b"", b"ISO_IR 100")
    assert scanned(first + element(PRIVATE_SEQUENCE, b"", b"opaque!!"), IMPLICIT).elements == 2
    assert "else than an item" in fault(first + element(SEQUENCE, b"", b"opaque!!"), IMPLICIT)


def test_an_unknown_sequence_holds_implicit_vr() -> None:
    inner = item(element(0x00100010, b"", b"Phantom!"))
    for defined in (True, False):
        data = FIRST + sequence(PRIVATE_SEQUENCE, inner, vr=b"UN", defined=defined)
        assert (scanned(data).elements, scanned(data).items) == (3, 1)


def nested(depth: int, tag: int, *, defined: bool) -> bytes:
    inner = NAME
    for _ in range(depth):
        inner = sequence(tag, item(inner, defined=defined), defined=defined)
    return inner


@pytest.mark.parametrize("defined", [True, False])
@pytest.mark.parametrize("tag", [SEQUENCE, PRIVATE_SEQUENCE])
def test_sequences_nest_as_deep_as_allowed(tag: int, defined: bool) -> None:
    bounds = Bounds(depth=5)
    assert scanned(FIRST + nested(5, tag, defined=defined), bounds=bounds).items == 5
    with pytest.raises(TooDeep, match="deeper than 5 levels"):
        scanned(FIRST + nested(6, tag, defined=defined), bounds=bounds)


def test_depth_does_not_hide_beside_what_is_no_sequence() -> None:
    decoy = element(0x00091010, b"OB", header(ITEM, 0x7FFFFFFF) + b"opaque!!")
    hidden = sequence(PRIVATE_SEQUENCE, item(decoy + nested(5, PRIVATE_SEQUENCE, defined=True)))
    with pytest.raises(TooDeep):
        scanned(FIRST + hidden, bounds=Bounds(depth=5))


def many(count: int) -> bytes:
    return b"".join(element(0x00110000 + n, b"LO") for n in range(count))


def test_elements_are_limited() -> None:
    bounds = Bounds(elements=10)
    assert scanned(FIRST + many(9), bounds=bounds).elements == 10
    with pytest.raises(TooMany, match="more than 10 elements"):
        scanned(FIRST + many(10), bounds=bounds)


@pytest.mark.parametrize("defined", [True, False])
def test_elements_of_an_item_and_of_all_items_are_limited(defined: bool) -> None:
    bounds = Bounds(elements=10, nested=25)
    full = item(many(10), defined=defined)
    assert scanned(FIRST + sequence(SEQUENCE, full, full), bounds=bounds).elements == 22
    with pytest.raises(TooMany, match="more than 10 elements in an item"):
        scanned(FIRST + sequence(SEQUENCE, item(many(11), defined=defined)), bounds=bounds)
    with pytest.raises(TooMany, match="more than 25 elements in items"):
        scanned(FIRST + sequence(SEQUENCE, full, full, full), bounds=bounds)


@pytest.mark.parametrize("defined", [True, False])
def test_items_are_limited(defined: bool) -> None:
    bounds = Bounds(items=10)
    assert scanned(FIRST + sequence(SEQUENCE, item() * 10, defined=defined), bounds=bounds)
    with pytest.raises(TooMany, match="more than 10 items"):
        scanned(FIRST + sequence(SEQUENCE, item() * 11, defined=defined), bounds=bounds)


def test_a_limit_counts_also_in_what_only_looks_like_a_sequence() -> None:
    with pytest.raises(TooMany):
        scanned(FIRST + element(0x00091010, b"OB", item() * 11), bounds=Bounds(items=10))


def encapsulated(*fragments: bytes) -> bytes:
    return sequence(PIXELS, *(item(f) for f in fragments), vr=b"OB", defined=False)


def test_fragments_are_counted_without_the_offset_table() -> None:
    found = scanned(FIRST + encapsulated(b"1234", b"ab", b"", b"abcd"), RLE)
    assert (found.fragments, found.items) == (2, 4)  # nothing is in one of them
    assert scanned(FIRST + encapsulated(b"1234"), RLE).fragments == 0


def test_fragments_of_an_icon_are_none_of_the_image() -> None:
    icon = sequence(0x00880200, item(encapsulated(b"", b"ab")))
    assert scanned(FIRST + icon, RLE).fragments == 0


def test_what_is_in_a_fragment_is_no_data_set() -> None:
    assert scanned(FIRST + encapsulated(b"", header(ITEM, 99) + b"junk!"), RLE).fragments == 1


@pytest.mark.parametrize(
    "content",
    [
        item() + header(ITEM, UNDEFINED) + header(ITEM_END, 0) + header(SEQUENCE_END, 0),
        item() + header(ITEM, 99) + b"ab" + header(SEQUENCE_END, 0),
        item() + b"12345678" + header(SEQUENCE_END, 0),
        item() + item(b"ab"),
    ],
)
def test_fragments_that_are_not_well_formed_are_refused(content: bytes) -> None:
    assert fault(FIRST + element(PIXELS, b"OB", content, length=UNDEFINED), RLE)


def test_big_endian_is_walked_too() -> None:
    first = struct.pack(">HH2sH", 8, 5, b"CS", 10) + b"ISO_IR 100"
    inner = struct.pack(">HHI", 0xFFFE, 0xE000, 8) + struct.pack(">HH2sH", 16, 16, b"PN", 0)
    data = first + struct.pack(">HH2sxxI", 0x40, 0xA730, b"SQ", len(inner)) + inner
    assert (scanned(data, BIG).elements, scanned(data, BIG).items) == (3, 1)
