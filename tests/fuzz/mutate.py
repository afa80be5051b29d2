"""Cases: sound conversations with a few things wrong, all of them from a seed and a number."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random

from fuzz import recorded as r
from fuzz.tree import UNDEFINED, Node, encoded, raw
from raw.wire import ABORT, RELEASE

LARGEST_BYTES = 400_000
_DEEPEST = 100  # trees are walked by recursion
_VRS = [
    *(b"AE", b"AT", b"CS", b"DS", b"FD", b"IS", b"LO", b"OB", b"OV", b"OW", b"PN", b"SH", b"SQ"),
    *(b"UC", b"UI", b"UL", b"UN", b"US", b"UT"),
]
_ODD_VRS = [*_VRS, b"\0\0", b"zz", b"ZZ", b"\xff\xff"]  # not blank: pydicom reads it otherwise
_VALUES = [
    *(b"", b"\0", b"\0\0", b" ", b"1", b"-1 ", b"0 ", b"1e9 ", b"\xff" * 4, b"A\\B\\C ", b"../x"),
    *(b"1.2.3.4", b"1..2", b"\xfe\xff\x00\xe0" + bytes(4), b"\xfe\xff\xdd\xe0" + bytes(4)),
    *(b"9" * 80, b"\x1b$B\x00", bytes(300), b"2147483647", b"1.2.840.10008.1.2.1.99"),
]
_TAGS = [
    *(0x00000000, 0x00020010, 0x00080000, 0x00080005, 0x00080016, 0x00080018, 0x0020000D),
    *(0x0020000E, 0x00280002, 0x00280008, 0x00280010, 0x00280100, 0x00090010, 0x7FE00010),
    *(0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x7FE00001, 0xFFFCFFFC, 0x00081140, 0x7FE00008),
]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is sent over one connection. sound: nothing was changed, and each request is answered
    with success. objects: how many C-STORE requests are in it, when it is sound."""

    stream: bytes
    sound: bool
    objects: int


@cache
def _images() -> dict[str, Node]:
    return r.images()


@cache
def _request() -> Node:
    return r.request()


@cache
def _asked_for() -> Node:
    return r.asked_for()


def case(seed: int, number: int) -> Case:
    """The same for the same seed and number, always."""
    luck = Random(f"{seed}:{number}")
    wrong = 0 if luck.random() < 0.04 else 1 + min(int(luck.expovariate(0.8)), 8)
    layers = luck.choices(
        ("data set", "command", "request", "pdus", "bytes"), (50, 17, 13, 15, 5), k=wrong
    )
    request = _request().copy()
    mutated(luck, request, layers.count("request"))
    messages = [
        _message(luck, layers, f"{seed}.{number}.{n}") for n in range(luck.choice((1, 1, 2)))
    ]
    pdus = [request, *(pdu for pdus, _ in messages for pdu in pdus)]
    pdus += [raw(ending) for ending in luck.choice(((RELEASE,), (RELEASE,), (), (ABORT,)))]
    session = Node("raw", parts=pdus)
    mutated(luck, session, layers.count("pdus"))
    stream = encoded(session)[:LARGEST_BYTES]
    for _ in range(layers.count("bytes")):
        stream = _scratched(luck, stream)
    return Case(stream=stream, sound=not wrong, objects=sum(stored for _, stored in messages))


def _message(luck: Random, layers: list[str], uid: str) -> tuple[list[Node], bool]:
    """As PDUs; and whether it is a C-STORE. One without a data set takes all to its command."""
    kind = luck.choices(("store", "echo", "action", "cancel"), (80, 7, 9, 4))[0]
    instance = f"1.2.826.0.1.3680043.2.94.{uid}"
    data: Node | None = None
    if kind == "store":
        syntax = luck.choice(r.SYNTAXES)
        command, data = r.store(instance), r.with_uid(_images()[syntax], instance)
        context = r.CONTEXT_OF[syntax]
    elif kind == "action":
        command, data, context = r.action(), _asked_for().copy(), r.COMMITMENT_CONTEXT
    else:
        command = r.echo() if kind == "echo" else r.cancel()
        context = r.ECHO_CONTEXT
    mutated(luck, command, layers.count("command"))
    if data is not None:
        mutated(luck, data, layers.count("data set"))
    parts = _fragmented(luck, encoded(command), context, 1)
    if data is not None:
        parts += _fragmented(luck, encoded(data)[:LARGEST_BYTES], context, 0)
    return _packed(luck, parts), kind == "store"


def _fragmented(luck: Random, data: bytes, context: int, kind: int) -> list[Node]:
    """Cut into data values, of any size and not too many."""
    size = max(luck.choice((len(data), 16_000, 1000, 100)), len(data) // 200, 1)
    pieces = [data[start : start + size] for start in range(0, max(len(data), 1), size)]
    last = len(pieces) - 1
    return [
        Node("pdv", {"context": context, "control": kind | (2 if n == last else 0)}, value=piece)
        for n, piece in enumerate(pieces)
    ]


def _packed(luck: Random, values: list[Node]) -> list[Node]:
    """One data value a PDU, or several."""
    together = luck.choice((1, 1, 3))
    return [
        Node("pdu", {"type": 4}, values[start : start + together])
        for start in range(0, len(values), together)
    ]


def mutated(luck: Random, root: Node, times: int) -> None:
    """Change so many things in a tree, in place."""
    for _ in range(times):
        luck.choices(_WAYS, _WEIGHTS)[0](luck, root)


def _any(luck: Random, root: Node) -> Node:
    """A node; deep ones are not rarer than there are."""
    return luck.choice(list(root.walk()))


def _parent(luck: Random, root: Node) -> Node:
    parents = [node for node in root.walk() if node.parts]
    return luck.choice(parents) if parents else root


def _lie_of_length(luck: Random, root: Node) -> None:
    node = _any(luck, root)
    true = len(encoded(Node("raw", parts=node.parts, value=node.value)))
    near = true + luck.choice((-2, -1, 1, 2, 8, true))
    far = luck.choice((0, 1, 0xFF, 0xFFFF, 0x7FFFFFFF, UNDEFINED, UNDEFINED - 1, 1 << 31))
    node.length = luck.choice((near, near, far, luck.getrandbits(16)))


def _other_head(luck: Random, root: Node) -> None:
    """Another type, tag, id or VR."""
    node = _any(luck, root)
    if not node.head:
        _other_value(luck, root)
        return
    name = luck.choice(list(node.head))
    if name == "vr":
        node.head[name] = luck.choice(_ODD_VRS)
        return
    known = node.head[name]
    assert isinstance(known, int)
    choices = [known + 1, known - 1, known ^ 1 << luck.randrange(16), luck.getrandbits(8), 0, 255]
    if name == "tag":
        choices += [luck.choice(_TAGS), luck.choice(_TAGS), known ^ 1 << luck.randrange(32)]
    node.head[name] = luck.choice(choices) & UNDEFINED


def _other_value(luck: Random, root: Node) -> None:
    node = luck.choice([node for node in root.walk() if not node.parts] or [root])
    value = node.value
    kind = luck.randrange(5)
    if kind == 0 or not value:
        node.value = luck.choice(_VALUES)
    elif kind == 1:
        node.value = value[: luck.randrange(len(value))]
    elif kind == 2:
        node.value = value + luck.choice(_VALUES)
    elif kind == 3:
        node.value = luck.randbytes(len(value))
    else:
        node.value = _scratched(luck, value)


def _scratched(luck: Random, data: bytes) -> bytes:
    """A byte changed, cut out or put in, or the end cut off."""
    changed, at = bytearray(data), luck.randrange(max(len(data), 1))
    kind = luck.randrange(5)
    if kind == 0:
        return bytes(changed[:at])
    if kind == 1:
        del changed[at : at + luck.randint(1, 9)]
    elif kind == 2:
        changed[at:at] = luck.randbytes(luck.randint(1, 9))
    else:
        changed[at : at + 1] = bytes((luck.randrange(256),))
    return bytes(changed)


def _disorder(luck: Random, root: Node) -> None:
    parts = _parent(luck, root).parts
    if len(parts) > 1:
        one, two = luck.sample(range(len(parts)), 2)
        parts[one], parts[two] = parts[two], parts[one]


def _repeat(luck: Random, root: Node) -> None:
    parts = _parent(luck, root).parts
    if parts:
        at = luck.randrange(len(parts))
        parts[at:at] = [parts[at].copy() for _ in range(luck.choice((1, 1, 1, 2, 60)))]


def _cut(luck: Random, root: Node) -> None:
    parts = _parent(luck, root).parts
    if parts:
        at = luck.randrange(len(parts))
        del parts[at : luck.choice((at + 1, at + 1, at + 1, len(parts)))]


def _splice(luck: Random, root: Node) -> None:
    """Something of elsewhere: of this tree, or of another image, or of a request."""
    donor = luck.choice((root, root, _images()[luck.choice(r.SYNTAXES)], _request(), _asked_for()))
    parts = _parent(luck, root).parts
    parts.insert(luck.randint(0, len(parts)), _any(luck, donor).copy())


def _wrap(luck: Random, root: Node) -> None:
    """Into sequences of one item, a few or many; of any length known or not."""
    parent = _parent(luck, root)
    if not parent.parts or root.depth() > _DEEPEST:
        return
    at = luck.randrange(len(parent.parts))
    inner, kind = parent.parts[at], luck.choice(("explicit", "implicit"))
    for _ in range(luck.choice((1, 2, 63, 64, 70))):
        item = Node("sequence item", {"tag": 0xFFFEE000}, [inner])
        inner = Node(kind, {"tag": 0x00081140, "vr": b"SQ"}, [item])
        if luck.random() < 0.5:
            item.length = inner.length = UNDEFINED
            item.parts.append(raw(struct.pack("<HHI", 0xFFFE, 0xE00D, 0)))
            inner.parts.append(raw(struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)))
    parent.parts[at] = inner


_WAYS: tuple[Callable[[Random, Node], None], ...] = (
    *(_lie_of_length, _other_head, _other_value, _disorder, _repeat, _cut, _splice, _wrap),
)
_WEIGHTS = (20, 22, 22, 6, 9, 9, 8, 4)
