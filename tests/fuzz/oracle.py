"""A reader that shares nothing with the node: what pydicom, made strict, says of a file.

pydicom by itself reads a value that is cut as a shorter one, and stops without a word where an
element header is cut. So its elements are asked for one by one, and lengths and ends are compared.
"""

from __future__ import annotations

import contextlib
import struct
import warnings
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pydicom
from pydicom import config
from pydicom.dataelem import RawDataElement
from pydicom.filereader import data_element_generator
from pydicom.pixels.utils import get_expected_length

from raw.objects import IMPLICIT

UNDEFINED = 0xFFFFFFFF
PIXELS = 0x7FE00010
UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_TRUSTED = (*UIDS, "Rows", "Columns", "BitsAllocated", "SamplesPerPixel")
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")


class NotWhole(Exception):
    """What is wrong."""


def uids_of(file: bytes, syntax: str) -> dict[str, str]:
    """UIDS of a whole object, keyword -> value. Raises NotWhole if it is not."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for place in ("filereader", "dataset"):  # names of character sets are no structure
            name = f"pydicom.{place}.convert_encodings"
            stack.enter_context(patch(name, return_value=["iso8859"]))
        start = 144 + struct.unpack_from("<I", file, 140)[0]
        _check_elements(file[start:], implicit=syntax == IMPLICIT)
        return _check_values(file, syntax)


def _check_elements(data: bytes, *, implicit: bool) -> None:
    tags = []
    for tag, element in _walked(data, implicit=implicit, where="the data set"):
        if tag in tags:
            raise NotWhole(f"({tag:08X}) stands twice")
        tags.append(tag)
        _check_element(element)
    if not tags:
        raise NotWhole("empty")


def _walked(data: bytes, *, implicit: bool, where: str) -> Iterator[tuple[int, Any]]:
    """Elements, each checked to end where the next begins, and the last where the data end."""
    stream = BytesIO(data)
    elements = data_element_generator(stream, implicit, True)
    end = 0
    while not end or data[end:].strip(b"\0"):  # zeros at the end are padding
        try:
            element = next(elements)
        except StopIteration:
            break
        except Exception as error:
            raise NotWhole(f"{where}: {type(error).__name__} {error}") from error
        end = stream.tell()
        yield int(element.tag), element
    if data[end:].strip(b"\0"):
        raise NotWhole(f"{where}: {len(data) - end} bytes are left")


def _check_element(element: Any) -> None:
    """Its value is as long as it says, and so in its items, where it has some."""
    if not isinstance(element, RawDataElement):  # pydicom has read a sequence of unknown length
        for item in element.value:
            for inner in item._dict.values():
                _check_element(inner)
        return
    if element.length == UNDEFINED:
        return
    value = element.value or b""
    if len(value) != element.length:
        raise NotWhole(f"({int(element.tag):08X}): {len(value)} bytes of {element.length}")
    if element.VR == "SQ" or (
        element.VR is None and not element.tag.is_private and _is_sequence(int(element.tag))
    ):
        _check_items(value, implicit=element.is_implicit_VR)


def _is_sequence(tag: int) -> bool:
    try:
        return pydicom.datadict.dictionary_VR(tag) == "SQ"
    except KeyError:
        return False


def _check_items(value: bytes, *, implicit: bool) -> None:
    """Items of known length are walked; pydicom reads those that are not."""
    position = 0
    while position < len(value):
        if len(value) - position < 8:
            raise NotWhole("a sequence ends inside an item header")
        group, number, length = struct.unpack_from("<HHI", value, position)
        if (group, number) == (0xFFFE, 0xE0DD) and position + 8 == len(value):
            return
        if (group, number) != (0xFFFE, 0xE000):
            raise NotWhole("a sequence has something else than items")
        position += 8
        if length == UNDEFINED:
            position += _end_of_item(value[position:], implicit=implicit)
            continue
        if length > len(value) - position:
            raise NotWhole("an item is longer than its sequence")
        content = value[position : position + length]
        for _, element in _walked(content, implicit=_coding(content, implicit), where="an item"):
            _check_element(element)
        position += length


def _coding(item: bytes, implicit: bool) -> bool:
    """Whether an item is in implicit VR: pydicom asks its first element."""
    return implicit or not all(0x40 < byte < 0x5B for byte in item[4:6])


def _end_of_item(data: bytes, *, implicit: bool) -> int:
    stream = BytesIO(data)
    try:
        for element in data_element_generator(stream, _coding(data, implicit), True):
            _check_element(element)
    except NotWhole:
        raise
    except Exception as error:
        raise NotWhole(f"an item: {type(error).__name__} {error}") from error
    if data[stream.tell() - 8 : stream.tell() - 4] != b"\xfe\xff\x0d\xe0":
        raise NotWhole("an item does not end")
    return stream.tell()


def _check_values(file: bytes, syntax: str) -> dict[str, str]:
    """What the node answers for, read with validation enforced; pixels as many as it says."""
    before = config.settings.reading_validation_mode
    try:
        dataset = pydicom.dcmread(BytesIO(file))
    except Exception as error:
        raise NotWhole(f"{type(error).__name__} {error}") from error
    config.settings.reading_validation_mode = config.RAISE
    try:
        found = {keyword: dataset.get(keyword) for keyword in _TRUSTED}
        uids = {keyword: str(found[keyword] or "") for keyword in UIDS}
        if not all(uids.values()):
            raise NotWhole("a UID is missing")
        _check_pixels(dataset, syntax)
    except NotWhole:
        raise
    except Exception as error:
        raise NotWhole(f"{type(error).__name__} {error}") from error
    finally:
        config.settings.reading_validation_mode = before
    return uids


def _check_pixels(dataset: pydicom.Dataset, syntax: str) -> None:
    described = all(dataset.get(k) for k in ("Rows", "Columns", "BitsAllocated"))
    if "PixelData" not in dataset:
        if described and not {"FloatPixelData", "DoubleFloatPixelData"} & set(dir(dataset)):
            raise NotWhole("it has rows and columns, and no pixels")
        return
    element = dataset["PixelData"]
    if (syntax in _NATIVE) == bool(element.is_undefined_length):
        raise NotWhole("Pixel Data are coded otherwise than the transfer syntax says")
    if syntax not in _NATIVE:
        if not _fragments(element.value):
            raise NotWhole("Pixel Data have no fragment")
    elif described and len(element.value) < _expected(dataset):
        raise NotWhole(f"{len(element.value)} bytes of pixels, not {_expected(dataset)}")


def _expected(dataset: pydicom.Dataset) -> int:
    for keyword, default in (("SamplesPerPixel", 1), ("PhotometricInterpretation", "MONOCHROME2")):
        if not dataset.get(keyword):
            setattr(dataset, keyword, default)
    if not dataset.get("NumberOfFrames"):
        dataset.NumberOfFrames = 1
    return int(get_expected_length(dataset, unit="bytes"))


def _fragments(value: bytes) -> list[int]:
    """Where the fragments begin, without the offset table; each must fit."""
    starts, position = [], 0
    while position < len(value):
        group, number, length = struct.unpack_from("<HHI", value, position)
        if (group, number) == (0xFFFE, 0xE0DD):
            break
        if (group, number) != (0xFFFE, 0xE000) or length > len(value) - position - 8:
            raise NotWhole("a fragment does not fit")
        starts.append(position)
        position += 8 + length
    starts.append(position)
    sizes = [two - one - 8 for one, two in pairwise(starts)]
    return [size for size in sizes[1:] if size]
