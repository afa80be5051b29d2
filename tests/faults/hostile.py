"""The rows of the hostile table: what a peer may do to a receiver, and what the node answers.

Each row is run against a node by test_faults_hostile.py, against a node and the stock pynetdicom
server by scripts/hostile_table.py, and by one peer in five of scripts/soak.py.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from faults import attack as a
from faults.attack import SILENT, Attack, Refused, Way
from raw import objects as o
from raw import wire
from raw.wire import CT, EXPLICIT, VERIFICATION

UNKNOWN = bytes([9, 0, 0, 0, 0, 4, 0, 0, 0, 0])
P_DATA, ACCEPTED = bytes([4, *UNKNOWN[1:]]), bytes([2, *UNKNOWN[1:]])
HUGE = {kind: struct.pack(">BxI", kind, 0xFFFFFFFF) for kind in (1, 4)}
MIB = bytes(2**20)
HTTP = b"GET / HTTP/1.1\r\nHost: node\r\n\r\n"
CUT = wire.associate_rq()[6:46]
BAD_TITLES = (b"A\0B", b"\xe9\xff", b"A\nFORGED", b"A\x1b[2J", b"A\\B")
BAD_UIDS = ("../../../stray", "/stray", "1.2\0.3", "abc", ".", "1.2\n3", "1" * 66)
STORED, WARNED, APART = "0x0000", "0xB007", "0x0111"

CONNECTIONS, MESSAGES, OBJECTS = "Connections and PDUs", "Messages", "Objects"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a peer does. asks: what the standard, or plain sense, wants for an answer. ours: what
    the node answers. kept: objects that it keeps afterwards. slow: it waits for a long limit, or
    is too large for every day.
    """

    part: str
    name: str
    way: Way
    asks: str
    ours: str
    kept: int = 0
    slow: bool = False

    def attack(self, attack: Attack) -> str:
        """Do it; the answer in words."""
        try:
            return self.way(attack)
        except Refused as refused:
            return str(refused)
        except TimeoutError:  # not even a connection
            return "no connection"


def _connection(name: str, way: Way, asks: str, ours: str, *, slow: bool = False) -> Row:
    return Row(part=CONNECTIONS, name=name, way=way, asks=asks, ours=ours, slow=slow)


def _message(name: str, way: Way, asks: str, ours: str, kept: int = 0) -> Row:
    return Row(part=MESSAGES, name=name, way=way, asks=asks, ours=ours, kept=kept)


def _object(name: str, way: Way, asks: str, ours: str | None = None) -> Row:
    kept = {STORED: 1, WARNED: 1, APART: 2}.get(ours or asks, 0)
    return Row(part=OBJECTS, name=name, way=way, asks=asks, ours=ours or asks, kept=kept)


def _bomb(attack: Attack) -> str:
    """Inflates to a thousand times its size; made only if somebody will take it."""
    contexts = [(CT, (o.DEFLATED,))]
    attack.associate(contexts=contexts)
    size = attack.many(8, 300) * 2**20
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    start = o.ct(attack.instance, size=512)
    start[o.PIXELS] = ("OW", b"")
    head = o.encoded(start)[:-4] + struct.pack("<I", size)
    data = deflate.compress(head)
    data += b"".join(deflate.compress(MIB) for _ in range(size // 2**20)) + deflate.flush()
    return attack.store(data + b"\0" * (len(data) % 2), contexts=contexts)


def _bad_uids(*, in_command: bool) -> Way:
    ways = []
    for uid in BAD_UIDS:
        if in_command:
            ways.append(a.command({0x1000: uid}))
        else:
            ways.append(a.sends(changes={o.SOP_INSTANCE: ("UI", o.uid(uid))}))
    return a.each_of(*ways)


def _lengthened(data: bytes) -> bytes:
    """Pixel Data says that it is longer than it is."""
    return o.with_pixels(data, o.header(o.PIXELS, "OW", 2 * 16 * 16 + 2) + bytes(2 * 16 * 16))


def _doubled(data: bytes) -> bytes:
    """Two data sets in one, of two patients."""
    return data + o.encoded({0x00100020: ("LO", b"OTHER ")} | o.ct("1.2.3.4.5", study="1.2.3"))


def _frames(text: str) -> Way:
    return a.sends(changes={o.FRAMES: ("IS", o.text(text))})


def _rle_lies(data: bytes) -> bytes:
    """Segments that begin far behind the end."""
    offsets = struct.pack("<16I", 2, 64, 0xFFFFFFF0, *[0] * 13)
    return o.with_pixels(data, o.encapsulated(offsets + bytes(64)))


def _giant(data: bytes) -> bytes:
    """A JPEG 2000 code stream of 2^32 - 1 rows and columns (ISO/IEC 15444-1 §A.5.1)."""
    side = (1 << 32) - 1
    size = struct.pack(">HHH8IH3B", 0xFF51, 41, 0, side, side, 0, 0, side, side, 0, 0, 1, 15, 1, 1)
    return o.with_pixels(data, o.encapsulated(b"\xff\x4f" + size + b"\0"))


ROWS: tuple[Row, ...] = (
    # --- connections: nobody is locked out
    _connection("11 connections, closed at once", a.knocks(11, 11), "-", "-"),
    _connection("2,000 connections, closed at once", a.knocks(200, 2000), "-", "-"),
    _connection("11 HTTP requests", a.each(11, HTTP), "abort 2,1", "abort 2,1"),
    _connection(
        "11 requests cut to 40 bytes",
        a.each(11, struct.pack(">BxI", 1, 40) + CUT),
        "abort 2,6",
        "abort 2,6",
    ),
    _connection("200 connections that say nothing", a.idle(200, 200), "-", "at most 64 stay"),
    _connection(
        "3,000 connections that say nothing", a.idle(3000, 3000), "-", "at most 64 stay", slow=True
    ),
    _connection("11 x one byte of a request, held", a.held(11, 1), "-", "-"),
    _connection("11 x the header of a request, held", a.held(11, 6), "-", "-"),
    _connection("one byte, then nothing", a.never_more(1), "closed in 30 s", "closed", slow=True),
    _connection("the header, then nothing", a.never_more(6), "closed in 30 s", "closed", slow=True),
    _connection(
        "a byte every second", a.never_more(6, drip=True), "closed in 30 s", "closed", slow=True
    ),
    _connection("associated, then silent", a.then(calling=SILENT), "abort 2,0", "abort 2,0"),
    _connection(
        "a PDU without its body",
        a.then(struct.pack(">BxI", 4, 4000), calling=SILENT),
        "abort 2,0",
        "abort 2,0",
    ),
    _connection(
        "a command set without its object",
        a.then(wire.message(wire.c_store(), None), calling=SILENT),
        "abort 2,0",
        "abort 2,0",
    ),
    _connection("an object of a byte now and then", a.drips(), "abort 2,0", "abort 2,0"),
    _connection(
        "80 associations of one peer", a.floods(80), "RJ 2,3,2", "32 accepted, 48 RJ 2,3,2"
    ),
    # --- PDUs
    _connection(
        "a request of 4 GiB",
        a.endless(HUGE[1], MIB, (8, 300), associated=False),
        "abort 2,6",
        "abort 2,6",
    ),
    _connection(
        "a P-DATA PDU of 4 GiB", a.endless(HUGE[4], MIB, (8, 300)), "abort 2,6", "abort 2,6"
    ),
    _connection("a PDU of no known type, first", a.first(UNKNOWN), "abort 2,1", "abort 2,1"),
    _connection("the same, associated", a.then(UNKNOWN), "abort 2,1", "abort 2,1"),
    _connection("P-DATA first", a.first(P_DATA), "abort 2,2", "abort 2,2"),
    _connection("A-RELEASE-RQ first", a.first(wire.RELEASE), "abort 2,2", "abort 2,2"),
    _connection("A-ASSOCIATE-AC first", a.first(ACCEPTED), "abort 2,2", "abort 2,2"),
    _connection(
        "a second request", a.then(wire.associate_rq()), "abort 2,2", "abort 2,2"
    ),
    _connection(
        "protocol version FFFF", a.request_of(version=0xFFFF), "accepted", "accepted"
    ),
    _connection("protocol version 2", a.request_of(version=2), "RJ 1,2,2", "RJ 1,2,2"),
    _connection(
        "a foreign application context",
        a.request_of(application=a.item(0x10, b"1.2.840.10008.3.1.1.2")),
        "RJ 1,1,2",
        "RJ 1,1,2",
    ),
    _connection(
        "no application context", a.request_of(application=b""), "abort 2,6", "abort 2,6"
    ),
    _connection(
        "calling AE title with NUL, newline ...",
        a.each_of(*[a.request_of(calling=title) for title in BAD_TITLES]),
        "RJ 1,1,3",
        "RJ 1,1,3",
    ),
    _connection(
        "called AE title with NUL, newline ...",
        a.each_of(*[a.request_of(called=title) for title in BAD_TITLES]),
        "RJ 1,1,7",
        "RJ 1,1,7",
    ),
    _connection(
        "calling AE title ../../x",
        a.request_of(calling=b"../../x", contexts=a.context(abstract=CT)),
        "RJ 1,1,3",
        "RJ 1,1,3",
    ),
    _connection(
        "140 presentation contexts",
        a.request_of(contexts=b"".join(a.context(n * 2 % 256 + 1) for n in range(140))),
        "abort 2,6",
        "abort 2,6",
    ),
    _connection(
        "two contexts of one id", a.request_of(contexts=a.context() * 2), "abort 2,6", "abort 2,6"
    ),
    _connection(
        "a context of an even id", a.request_of(contexts=a.context(2)), "abort 2,6", "abort 2,6"
    ),
    _connection("64 KiB behind the last item", a.request_of(tail=b"\xff" * 65536), "abort 2,6",
                "abort 2,6"),
    _connection(
        "5 MB of contexts",
        a.request_of(contexts=a.context() * 90_000),
        "abort 2,6",
        "abort 2,6",
    ),
    _connection(
        "200,000 transfer syntaxes",
        a.request_of(
            contexts=b"".join(a.context(n, syntaxes=("",) * 16_000) for n in range(1, 26, 2))
        ),
        "abort 2,6",
        "abort 2,6",
    ),
    _connection(
        "260,000 items that nobody knows",
        a.request_of(tail=a.item(0x99, b"") * 260_000),
        "abort 2,6",
        "abort 2,6",
    ),
    _connection(
        "an item longer than what holds it",
        a.request_of(contexts=a.item(0x20, bytes((1, 0, 0, 0)), 9999)),
        "abort 2,6",
        "abort 2,6",
    ),
    _connection(
        "user identity: a name of 60 KB",
        a.request_of(users=a.user(a.identity(1, b"x" * 60_000))),
        "RJ 1,1,1, or ignored",
        "accepted",
    ),
    _connection(
        "user identity of type 9",
        a.request_of(users=a.user(a.identity(9, b"x"))),
        "RJ 1,1,1, or ignored",
        "accepted",
    ),
    _connection(
        "maximum length 0, then C-ECHO",
        a.request_of(users=a.user(max_pdu=0), negotiate=True),
        STORED,
        STORED,
    ),
    _connection(
        "maximum length 7, then C-ECHO",
        a.request_of(users=a.user(max_pdu=7), negotiate=True),
        STORED,
        STORED,
    ),
    _connection(
        "maximum length 1 or 6",
        a.each_of(*[a.request_of(users=a.user(max_pdu=n), negotiate=True) for n in (1, 6)]),
        "abort 2,6",
        "abort 2,6",
    ),
    _connection("30 A-ABORTs inside an object", a.breaks_off("abort"), "-", "-"),
    _connection("30 resets inside an object", a.breaks_off("reset"), "-", "-"),
    _connection("30 closed inside an object", a.breaks_off("close"), "-", "-"),
    # --- messages
    _message(
        "an object without end",
        a.endless(
            wire.message(wire.c_store(), None),
            wire.p_data(wire.pdv(bytes(65536 - 12), command=False, last=False)),
            (45, 300),
        ),
        "abort 0,0",
        "abort 0,0",
    ),
    _message(
        "the same, of another class than its context's",
        a.endless(
            wire.message(wire.c_store(sop_class=o.MR), None),
            wire.p_data(wire.pdv(bytes(65536 - 12), command=False, last=False)),
            (45, 300),
        ),
        "abort 0,0",
        "abort 0,0",
    ),
    _message(
        "a query without end",
        a.endless(
            wire.message(wire.command_set({0x2: CT, 0x100: 0x20, 0x110: 1, 0x800: 1}), None),
            wire.p_data(wire.pdv(bytes(65536 - 12), command=False, last=False)),
            (45, 300),
        ),
        "abort 0,0",
        "abort 0,0",
    ),
    _message(
        "a command set without end",
        a.endless(
            b"", wire.p_data(wire.pdv(bytes(16000 - 12), command=True, last=False)), (2, 100)
        ),
        "abort 2,6",
        "abort 2,6",
    ),
    _message(
        "a data set without a command set",
        a.endless(
            b"", wire.p_data(wire.pdv(bytes(16000 - 12), command=False, last=False)), (2, 160)
        ),
        "abort 2,5",
        "abort 2,5",
    ),
    _message(
        "a release inside an object",
        a.then(wire.message(wire.c_store(), None) + wire.RELEASE),
        "abort 2,2",
        "abort 2,2",
    ),
    _message("CT on a context of MR", a.sends(contexts=[(o.MR, (EXPLICIT,))]), "0x0122", "0x0122"),
    _message(
        "CT on the context of Verification",
        a.sends(contexts=[(VERIFICATION, (EXPLICIT,))]),
        "0x0122",
        "0x0122",
    ),
    _message(
        "CT on a context that was not agreed", a.sends(context_id=9), "abort 2,6", "abort 2,6"
    ),
    _message("no SOP Instance UID", a.command({0x1000: None}), "0x0212", "0x0212"),
    _message("an empty SOP Instance UID", a.command({0x1000: ""}), "0x0212", "0x0212"),
    _message("no SOP Class UID", a.command({0x0002: None}), "0x0212", "0x0212"),
    _message("no Message ID", a.command({0x0110: None}), "abort 2,6", "abort 2,6"),
    _message(
        "UIDs in the command: ../, /, NUL, letters", _bad_uids(in_command=True), "0x0117", "0x0117"
    ),
    _message(
        "responses that nobody asked for, C-ECHO",
        a.many_messages(
            wire.message(wire.command_set({0x0100: 0x8001, 0x0120: 5, 0x0800: 0x0101}), None),
            200, 20_000, answered=False,
        ),
        STORED,
        STORED,
    ),
    _message(
        "20,000 C-CANCEL, C-ECHO",
        a.many_messages(
            wire.message(wire.command_set({0x0100: 0x0FFF, 0x0120: 5, 0x0800: 0x0101}), None),
            500, 20_000, answered=False,
        ),
        STORED,
        STORED,
    ),
    _message(
        "2,000 N-EVENT-REPORT",
        a.many_messages(
            wire.message(
                wire.command_set(
                    {0x0002: CT, 0x0100: 0x0100, 0x0110: 5, 0x0800: 0x0101, 0x1000: "1.2",
                     0x1002: 1}
                ),
                None,
            ),
            100, 2000, answered=True,
        ),
        "0x0211",
        "0x0211",
    ),
    _message("400 objects, no answer read", a.pipelined(10, 400), STORED, STORED, kept=1),
    _message("one message id five times", a.same_message_id(5), STORED, STORED, kept=1),
    _message("an object of no byte", a.command({}, None), "0xC000", "0xC000"),
    # --- objects: what is not whole is not acknowledged
    _object("a sound one", a.sends(), STORED),
    _object("the same bytes again", a.twice(b""), STORED),
    _object("other bytes under a known UID", a.twice(b"\1\1"), APART),
    _object("Pixel Data cut by a byte", a.sends(raw=lambda data: data[:-1]), "0xC000"),
    _object("Pixel Data cut by 500 bytes", a.sends(raw=lambda data: data[:-500]), "0xC000"),
    _object("cut inside the header of an element", a.sends(raw=lambda data: data[:-516]), "0xC000"),
    _object("cut before Pixel Data", a.sends(raw=lambda data: data[:-524]), "0xC000"),
    _object("a length that points past the end", a.sends(raw=_lengthened), "0xC000"),
    _object("one byte, and junk", a.each_of(a.sends(raw=lambda _: b"x"),
                                            a.sends(raw=lambda _: b"junk" * 1000)), "0xC000"),
    _object("junk behind the last element", a.sends(raw=lambda data: data + b"junk"), "0xC000"),
    _object("two data sets in one", a.sends(raw=_doubled), "0xC000"),
    _object(
        "elements of group 0002 in it",
        a.sends(changes={0x00020010: ("UI", o.uid(EXPLICIT))}),
        "0xC000",
    ),
    _object(
        "another SOP Instance UID than the command",
        a.sends(changes={o.SOP_INSTANCE: ("UI", o.uid("1.2.3.4"))}),
        "0xA900",
    ),
    _object(
        "another SOP Class UID than the command",
        a.sends(changes={o.SOP_CLASS: ("UI", o.uid(o.MR))}),
        "0xA900",
    ),
    _object("no Study Instance UID", a.sends(changes={o.STUDY_UID: None}), "0xA900"),
    _object("no Series Instance UID", a.sends(changes={o.SERIES_UID: None}), "0xA900"),
    _object("UIDs in it: ../, /, NUL, letters", _bad_uids(in_command=False), "0xA900"),
    _object("implicit VR, negotiated as explicit", a.sends(explicit=False), "0xC000"),
    _object(
        "explicit VR, negotiated as implicit", a.sends(contexts=[(CT, (o.IMPLICIT,))]), "0xC000"
    ),
    _object(
        "native pixels, negotiated as JPEG", a.sends(contexts=[(CT, (o.JPEG_LOSSLESS,))]), "0xC000"
    ),
    _object(
        "JPEG, negotiated as native",
        a.sends(raw=lambda data: o.with_pixels(data, o.encapsulated(b"\xff\xd8\xff\xd9"))),
        "0xC000",
    ),
    _object(
        "JPEG without a fragment",
        a.sends(
            raw=lambda data: o.with_pixels(data, o.encapsulated()),
            contexts=[(CT, (o.JPEG_LOSSLESS,))],
        ),
        "0xC000",
    ),
    _object(
        "100 frames of JPEG in one fragment",
        a.sends(
            changes={o.FRAMES: ("IS", o.text("100"))},
            raw=lambda data: o.with_pixels(data, o.encapsulated(b"\xff\xd8\xff\xd9")),
            contexts=[(CT, (o.JPEG_LOSSLESS,))],
        ),
        "0xC000",
    ),
    *[
        _object(
            f"{depth:,} sequences, one in another",
            a.piles(o.nested, depth, depth),
            "0xC000",
        )
        for depth in (65, 900, 100_000)
    ],
    _object(
        "1,000 of them, of defined length",
        a.sends(raw=lambda data: o.before_pixels(data, o.nested(1000, defined=True))),
        "0xC000",
    ),
    _object(
        "300,000 empty items",
        a.piles(o.empty_items, 300_000, 300_000),
        STORED,
    ),
    _object(
        "60,000 private elements",
        a.piles(o.tiny_elements, 60_000, 60_000),
        STORED,
    ),
    _object(
        "1,000,001 empty items",
        a.piles(o.empty_items, 1_000_001, 1_000_001),
        "0xC000",
    ),
    _object(
        "2,000,000 private elements",
        a.piles(o.tiny_elements, 100_001, 2_000_000),
        "0xC000",
    ),
    _object(
        "65,535 rows and columns in 512 bytes",
        a.sends(changes={o.ROWS: ("US", b"\xff\xff"), o.COLUMNS: ("US", b"\xff\xff")}),
        "0xC000",
    ),
    _object("2,147,483,647 frames in 512 bytes", _frames("2147483647"), "0xC000"),
    _object(
        "frames: 0, -5, 2.5, 1e9", a.each_of(*map(_frames, ("0", "-5", "2.5", "1e9"))), "0xC000"
    ),
    _object("0 bits", a.sends(changes={o.BITS: ("US", bytes(2))}), WARNED),
    _object("a spacing of NaN", a.sends(changes={o.SPACING: ("DS", b"NaN\\NaN ")}), STORED),
    _object(
        "a character set that there is not",
        a.sends(changes={o.CHARACTER_SET: ("CS", b"ISO 2022 IR 999 ")}),
        STORED,
    ),
    _object("a bomb: 300 KiB that inflate to 300 MiB", _bomb, "context refused (4)"),
    _object(
        "JPEG 2000 of 2^32 rows and columns",
        a.sends(raw=_giant, contexts=[(CT, (o.JPEG_2000,))]),
        STORED,
    ),
    _object("RLE that points past its end", a.sends(raw=_rle_lies, contexts=[(CT, (o.RLE,))]),
            STORED),
)  # fmt: skip
