"""What a peer sends, as trees: each node has a head, a length that may be a lie, and parts."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR")) | {
    b"UT",
    b"UV",
}
UNDEFINED = 0xFFFFFFFF


@dataclass
class Node:
    """kind: how it is written (see encoded). head: its numbers, and its VR. length: in place of
    the true one. A node has parts, or a value."""

    kind: str
    head: dict[str, int | bytes] = field(default_factory=dict)
    parts: list[Node] = field(default_factory=list)
    value: bytes = b""
    length: int | None = None

    def walk(self) -> Iterator[Node]:
        """This one, and all below."""
        yield self
        for part in self.parts:
            yield from part.walk()

    def depth(self) -> int:
        """Of a node without parts: 1."""
        return 1 + max((part.depth() for part in self.parts), default=0)

    def copy(self) -> Node:
        """With copies of all parts."""
        parts = [part.copy() for part in self.parts]
        return Node(self.kind, dict(self.head), parts, self.value, self.length)


def raw(value: bytes) -> Node:
    """Bytes without a head."""
    return Node("raw", value=value)


def encoded(node: Node) -> bytes:
    """As bytes; a number that is too large for its place is cut to it."""
    body = node.value + b"".join(map(encoded, node.parts))
    return _head(node, len(body) if node.length is None else node.length) + body


def _head(node: Node, length: int) -> bytes:
    head = node.head
    match node.kind:
        case "pdu":  # PS3.8 §9.3.1
            return struct.pack(">BxI", _number(head["type"], 8), length & UNDEFINED)
        case "item":  # PS3.8 §9.3.2
            return struct.pack(">BxH", _number(head["type"], 8), length & 0xFFFF)
        case "pdv":  # PS3.8 §9.3.5
            said = length + 2 if node.length is None else length
            context, control = _number(head["context"], 8), _number(head["control"], 8)
            return struct.pack(">IBB", said & UNDEFINED, context, control)
        case "command" | "implicit" | "sequence item":  # PS3.7 §6.3.1, PS3.5 §7.1.3, §7.5
            return _tag(head["tag"]) + struct.pack("<I", length & UNDEFINED)
        case "explicit":  # PS3.5 §7.1.2
            vr = head["vr"]
            assert isinstance(vr, bytes)
            if vr in _LONG:
                return _tag(head["tag"]) + vr + struct.pack("<HI", 0, length & UNDEFINED)
            return _tag(head["tag"]) + vr[:2].ljust(2) + struct.pack("<H", length & 0xFFFF)
    return b""


def _number(value: int | bytes, bits: int) -> int:
    assert isinstance(value, int)
    return value & ((1 << bits) - 1)


def _tag(value: int | bytes) -> bytes:
    tag = _number(value, 32)
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF)
