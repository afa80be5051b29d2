"""Sound conversations to begin with: what pynetdicom and pydicom write, taken apart into trees."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pynetdicom.dsutils import encode

from dicom_node.testing.series import Header, Pixels, a_series
from fuzz.tree import UNDEFINED, Node, raw
from raw.objects import IMPLICIT, RLE
from raw.wire import CT, EXPLICIT, VERIFICATION, associate_rq

JPEG_LS = "1.2.840.10008.1.2.4.80"
COMMITMENT, WELL_KNOWN = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
SYNTAXES = (EXPLICIT, IMPLICIT, RLE, JPEG_LS)
CONTEXT_OF = {syntax: 2 * number + 1 for number, syntax in enumerate(SYNTAXES)}
ECHO_CONTEXT, COMMITMENT_CONTEXT = 2 * len(SYNTAXES) + 1, 2 * len(SYNTAXES) + 3
_FIXED = ((2, 2, 16, 16, 32), 68)  # of an A-ASSOCIATE-RQ, before its items
_ITEMS_INSIDE = {0x20: 4, 0x50: 0}  # type -> bytes before the items that it holds
_PIXELS = 0x7FE00010


def request() -> Node:
    """An A-ASSOCIATE-RQ for all that the node takes, with roles."""
    contexts = [(CT, (syntax,)) for syntax in SYNTAXES]
    contexts += [(VERIFICATION, (EXPLICIT, IMPLICIT)), (COMMITMENT, (IMPLICIT,))]
    roles = {CT: (True, False), COMMITMENT: (True, True)}
    data = associate_rq(contexts, roles=roles, calling="FUZZ")[6:]
    parts, position = [], 0
    for size in _FIXED[0]:
        parts.append(raw(data[position : position + size]))
        position += size
    return Node("pdu", {"type": 1}, [*parts, *_items(data[_FIXED[1] :])])


def _items(data: bytes) -> Iterator[Node]:
    position = 0
    while position < len(data):
        kind, length = struct.unpack_from(">BxH", data, position)
        value = data[position + 4 : position + 4 + length]
        position += 4 + length
        before = _ITEMS_INSIDE.get(kind)
        if before is None:
            yield Node("item", {"type": kind}, value=value)
        else:
            yield Node("item", {"type": kind}, [raw(value[:before]), *_items(value[before:])])


def command(elements: Mapping[int, int | str]) -> Node:
    """A command set: numbers are US, texts are UIDs. Its group length is one of its parts."""
    parts = []
    for number, value in sorted(elements.items()):
        encoded_value = (
            struct.pack("<H", value) if isinstance(value, int) else _padded(value.encode())
        )
        parts.append(Node("command", {"tag": number}, value=encoded_value))
    size = sum(8 + len(part.value) for part in parts)
    length = Node("command", {"tag": 0}, value=struct.pack("<I", size))
    return Node("raw", parts=[length, *parts])


def store(instance: str) -> Node:
    """C-STORE-RQ."""
    return command({0x0002: CT, 0x0100: 1, 0x0110: 7, 0x0700: 0, 0x0800: 1, 0x1000: instance})


def echo() -> Node:
    """C-ECHO-RQ."""
    return command({0x0002: VERIFICATION, 0x0100: 0x30, 0x0110: 3, 0x0800: 0x0101})


def cancel() -> Node:
    """C-CANCEL-RQ."""
    return command({0x0100: 0x0FFF, 0x0120: 7, 0x0800: 0x0101})


def action() -> Node:
    """N-ACTION-RQ of Storage Commitment."""
    elements = {0x0003: COMMITMENT, 0x0100: 0x0130, 0x0110: 9, 0x0800: 1}
    return command({**elements, 0x1001: WELL_KNOWN, 0x1008: 1})


def asked_for() -> Node:
    """The data set of an N-ACTION-RQ, in implicit VR."""
    asked, reference = Dataset(), Dataset()
    asked.TransactionUID = "1.2.826.0.1.3680043.2.95.1"
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT, "1.2.3.4"
    asked.ReferencedSOPSequence = Sequence([reference])
    return Node("raw", parts=nodes_of(asked, explicit=False))


def images() -> dict[str, Node]:
    """A CT image in each of SYNTAXES, with a sequence in a sequence and a private element."""
    made = {}
    for syntax in SYNTAXES:
        compressed = syntax not in (EXPLICIT, IMPLICIT)
        pixels = Pixels(transfer_syntax=syntax) if compressed else Pixels()
        (image,) = a_series(1, size=16, header=Header(study="fuzz"), pixels=pixels)
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T-D3000", "SRT", "Chest"
        view = Dataset()
        view.CodeValue, view.CodingSchemeDesignator, view.CodeMeaning = "R-10244", "SRT", "axial"
        code.PurposeOfReferenceCodeSequence = Sequence([view, Dataset()])
        image.AnatomicRegionSequence = Sequence([code])
        block = image.private_block(0x0011, "FUZZ", create=True)
        block.add_new(0x01, "OB", b"\1\2\3\4")
        made[syntax] = Node("raw", parts=nodes_of(image, explicit=syntax != IMPLICIT))
    return made


def nodes_of(dataset: Dataset, *, explicit: bool) -> list[Node]:
    """Each element as pydicom writes it."""
    kind, nodes = ("explicit" if explicit else "implicit"), []
    for element in dataset:
        head: dict[str, int | bytes] = {"tag": int(element.tag), "vr": element.VR.encode()}
        if element.VR == "SQ":
            items = [
                Node("sequence item", {"tag": 0xFFFEE000}, nodes_of(item, explicit=explicit))
                for item in element.value
            ]
            nodes.append(Node(kind, head, items))
            continue
        alone = Dataset()
        alone.add(element)
        written = encode(alone, not explicit, True)
        assert written is not None
        long = explicit and element.VR in ("OB", "OW", "OF", "UN", "UT")
        value = written[12 if long else 8 :]
        if int(element.tag) == _PIXELS and element.is_undefined_length:
            nodes.append(Node(kind, head, _fragments(value), length=UNDEFINED))
        else:
            nodes.append(Node(kind, head, value=value))
    return nodes


def _fragments(value: bytes) -> list[Node]:
    parts, position = [], 0
    while position < len(value):
        group, number, length = struct.unpack_from("<HHI", value, position)
        content = value[position + 8 : position + 8 + length]
        parts.append(Node("sequence item", {"tag": group << 16 | number}, value=content))
        position += 8 + length
    return parts


def with_uid(image: Node, instance: str) -> Node:
    """The same image as another instance."""
    changed = image.copy()
    for part in changed.parts:
        if part.head.get("tag") == 0x00080018:
            part.value = _padded(instance.encode())
    return changed


def _padded(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)
