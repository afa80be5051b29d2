"""Hostile and broken data sets over an association: each gets its status, and nothing is left."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from dicom_node.catalog import Catalog
from dicom_node.dimse.entity import Entity
from dicom_node.dimse.scp import serve_storage
from dicom_node.dimse.scu import echo
from dicom_node.domain import events as e
from dicom_node.domain.records import Peer
from dicom_node.node.bell import Bell
from dicom_node.node.clock import SystemClock
from dicom_node.node.journal import Journal
from dicom_node.node.receive import Admission, StorageReceiver
from dicom_node.node.why import stories
from dicom_node.spool.store import Spool
from dicom_node.testing.series import a_series, changed

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
JPEG, RLE = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.5"
SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
EMPTY_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
OPEN_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)


class House:
    """A node's receiver behind a port, and a sender that sends bytes as they are."""

    def __init__(self, folder: Path) -> None:
        self.catalog, self.spool = Catalog(folder / "catalog.db"), Spool(folder / "spool")
        self.bell = Bell(folder)
        admission = Admission(
            ae_title="DICOMNODE", peers=(), accept_unknown=True, min_free_bytes=0, quiet_s=1.0
        )
        receiver = StorageReceiver(
            admission=admission,
            spool=self.spool,
            journal=Journal(self.catalog, self.bell),
            clock=SystemClock(),
        )
        self.server = serve_storage(
            ae_title="DICOMNODE", host="127.0.0.1", port=0, receiver=receiver
        )
        self.port = self.server.port
        self.sent = 0
        self.offending: object = None  # of the last answer

    def close(self) -> None:
        self.server.stop(0)
        self.catalog.close()
        self.bell.close()

    def send(self, raw: bytes, syntax: str, uid: str) -> tuple[int, str]:
        """The status and the Error Comment of the answer."""
        self.sent += 1
        ae = Entity(f"HOSTILE{self.sent % 10}")  # of a flood from one not each is told by itself
        ae.add_requested_context(CTImageStorage, syntax)
        association = ae.associate("127.0.0.1", self.port, ae_title="DICOMNODE")
        assert association.is_established
        request = C_STORE()
        request.MessageID = 1
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CTImageStorage, uid
        request.Priority = 2
        request.DataSet = BytesIO(raw)
        association._reactor_checkpoint.clear()  # so that nobody else takes the answer
        association.dimse.send_msg(request, 1)
        _, answer = association.dimse.get_msg(block=True)
        association._reactor_checkpoint.set()
        association.release()
        assert answer is not None
        self.offending = answer.OffendingElement
        return int(answer.Status), str(answer.ErrorComment or "")

    def echoes(self) -> bool:
        peer = Peer(name="node", ae_title="DICOMNODE", host="127.0.0.1", port=self.port)
        return echo(peer=peer, calling_ae="OTHER").succeeded

    def files(self) -> list[str]:
        return [p.name for p in self.spool.root.rglob("*") if p.is_file()]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


@pytest.fixture(scope="module")
def unmoved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One for all that is refused; at the end it takes what is sound."""
    house = House(tmp_path_factory.mktemp("unmoved"))
    yield house
    assert house.send(SOUND, EXPLICIT, UID) == (0, "")
    assert len(house.files()) == 1
    house.close()


def image(**changes: object) -> Dataset:
    return changed(a_series(1)[0], changes)


def raw(dataset: Dataset, *, implicit: bool = False) -> bytes:
    encoded = encode(dataset, implicit, True)
    assert encoded is not None
    return bytes(encoded)


SOUND = raw(image())
UID = image().SOPInstanceUID


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    length = len(value) if length is None else length
    if vr in (b"OB", b"OW", b"SQ"):
        return struct.pack("<HH2sxxI", tag >> 16, tag & 0xFFFF, vr, length) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, length) + value


def among(extra: bytes) -> bytes:
    """A sound image with that in front of its pixels."""
    at = SOUND.index(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW"))
    return SOUND[:at] + extra + SOUND[at:]


def with_value(tag: int, vr: bytes, value: bytes) -> bytes:
    """The sound image with another value there."""
    header = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    at = SOUND.index(header)
    stop = at + 8 + struct.unpack_from("<H", SOUND, at + 6)[0]
    return SOUND[:at] + element(tag, vr, value + b" " * (len(value) % 2)) + SOUND[stop:]


def fragments(*items: bytes, whole: bool = True) -> bytes:
    """The image with encapsulated pixels."""
    at = SOUND.index(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW"))
    value = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(i)) + i for i in items)
    value += SEQUENCE_END if whole else b""
    return SOUND[:at] + element(0x7FE00010, b"OB", value, 0xFFFFFFFF)


def tiny(count: int) -> bytes:
    return b"".join(
        struct.pack("<HH2sH", 0x0041 + 2 * (n // 60000), 0x1000 + n % 60000, b"LO", 0)
        for n in range(count)
    )


def nested(depth: int) -> bytes:
    opened = element(0x0040A730, b"SQ", b"", 0xFFFFFFFF) + OPEN_ITEM
    return opened * depth + (ITEM_END + SEQUENCE_END) * depth


def nested_of_known_length(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
        inner = element(0x0040A730, b"SQ", item)
    return inner


OTHER = raw(image(PatientName="Other", PatientID="2", StudyInstanceUID="1.2.3"))

REFUSED: dict[str, tuple[bytes, str, int, str]] = {
    # what it is: the data set, its transfer syntax, status, in the comment
    "one byte": (b"x", EXPLICIT, 0xC000, "ends inside an element header"),
    "junk": (b"\xa5\x5a" * 3000, EXPLICIT, 0xC000, "not in explicit VR"),
    "zeros": (bytes(5000), EXPLICIT, 0xC000, "not in explicit VR"),
    "pixels cut by one byte": (SOUND[:-1], EXPLICIT, 0xC000, "ends inside element (7FE0,0010)"),
    "pixels cut by 500": (SOUND[:-500], EXPLICIT, 0xC000, "ends inside element (7FE0,0010)"),
    "no pixels": (SOUND[: -2048 - 12], EXPLICIT, 0xC000, "no Pixel Data, but 32 rows"),
    "cut in a header": (SOUND[: -2048 - 7], EXPLICIT, 0xC000, "ends inside an element header"),
    "a length past the end": (
        among(element(0x00091001, b"OB", b"", 0x7FFFFFFF)),
        *(EXPLICIT, 0xC000, "ends inside element (0009,1001)"),
    ),
    "a tail": (SOUND + b"tail", EXPLICIT, 0xC000, "ends inside an element header"),
    "two data sets": (OTHER + SOUND, EXPLICIT, 0xC000, "twice"),
    "two data sets, the sound one first": (SOUND + OTHER, EXPLICIT, 0xC000, "twice"),
    "two patients": (
        among(element(0x00100020, b"LO", b"2 ")),
        *(EXPLICIT, 0xC000, "element (0010,0020) twice"),
    ),
    "file meta information": (
        element(0x00020010, b"UI", IMPLICIT.encode() + b"\0") + SOUND,
        *(EXPLICIT, 0xC000, "has (0002,0010) in it"),
    ),
    "a command": (
        element(0x00000002, b"UI", IMPLICIT.encode() + b"\0") + SOUND,
        *(EXPLICIT, 0xC000, "has (0000,0002) in it"),
    ),
    "a whole file": (bytes(128) + b"DICM" + SOUND, EXPLICIT, 0xC000, "not in explicit VR"),
    "implicit, said to be explicit": (
        raw(image(), implicit=True),
        *(EXPLICIT, 0xC000, "not in explicit VR"),
    ),
    "explicit, said to be implicit": (SOUND, IMPLICIT, 0xC000, "not in implicit VR"),
    "native, said to be JPEG": (SOUND, JPEG, 0xC000, "is not encapsulated"),
    "native, said to be RLE": (SOUND, RLE, 0xC000, "is not encapsulated"),
    "fragments, said to be native": (
        fragments(b"", b"ab"),
        *(EXPLICIT, 0xC000, "is encapsulated, unlike"),
    ),
    "no fragment": (fragments(b""), JPEG, 0xC000, "has no fragment"),
    "no item at all": (fragments(), JPEG, 0xC000, "has no fragment"),
    "an empty fragment": (fragments(b"", b""), JPEG, 0xC000, "has no fragment"),
    "fragments without end": (
        fragments(b"", b"ab", whole=False),
        *(JPEG, 0xC000, "ends inside a sequence"),
    ),
    "a fragment of unknown length": (
        fragments(b"")[:-8] + OPEN_ITEM + ITEM_END + SEQUENCE_END,
        *(JPEG, 0xC000, "ends inside a fragment"),
    ),
    "65535 rows": (
        with_value(0x00280010, b"US", b"\xff\xff"),
        *(EXPLICIT, 0xC000, "has 2048 bytes, not 4194240"),
    ),
    "2^31 - 1 frames": (
        among(element(0x00280008, b"IS", b"2147483647")),
        *(EXPLICIT, 0xC000, "has 2048 bytes, not 4398046509056"),
    ),
    "-5 frames": (among(element(0x00280008, b"IS", b"-5")), EXPLICIT, 0xC000, "no positive"),
    "2.5 frames": (among(element(0x00280008, b"IS", b"2.5 ")), EXPLICIT, 0xC000, "no positive"),
    "1e9 frames": (among(element(0x00280008, b"IS", b"1e9 ")), EXPLICIT, 0xC000, "no positive"),
    "0 frames": (among(element(0x00280008, b"IS", b"0 ")), EXPLICIT, 0xC000, "no positive"),
    "rows of 32 bits": (
        SOUND.replace(
            element(0x00280010, b"US", b"\x20\0"), element(0x00280010, b"UL", b"\x20\0\0\0")
        ),
        *(EXPLICIT, 0xC000, "Rows has the VR UL"),
    ),
    "another instance": (
        raw(image(SOPInstanceUID="1.2.3.4")),
        *(EXPLICIT, 0xA900, "SOP Instance UID differs"),
    ),
    "another class": (
        raw(image(SOPClassUID="1.2.840.10008.5.1.4.1.1.4")),
        *(EXPLICIT, 0xA900, "SOP Class UID differs"),
    ),
    "no study": (raw(image(StudyInstanceUID=None)), EXPLICIT, 0xA900, "Study Instance UID is mis"),
    "no series": (raw(image(SeriesInstanceUID="")), EXPLICIT, 0xA900, "Series Instance UID is mis"),
    "no class": (raw(image(SOPClassUID=None)), EXPLICIT, 0xA900, "SOP Class UID is missing"),
    **{
        f"study {uid!r}": (
            with_value(0x0020000D, b"UI", uid),
            *(EXPLICIT, 0xA900, "Study Instance UID is not a UID"),
        )
        for uid in (b"../../../tmp/x", b"/tmp/x", b"1.2\0.3", b"abc", b"1.2\n3", b".", b"1" * 65)
    },
    "65 levels": (among(nested(65)), EXPLICIT, 0xC000, "deeper than 64 levels"),
    "65 levels of known length": (
        among(nested_of_known_length(65)),
        *(EXPLICIT, 0xC000, "deeper than 64 levels"),
    ),
    "100,000 levels": (among(nested(100_000)), EXPLICIT, 0xC000, "deeper than 64 levels"),
    "a sequence that is none": (
        among(element(0x0040A730, b"SQ", b"no items")),
        *(EXPLICIT, 0xC000, "something else than an item"),
    ),
    "an item longer than its sequence": (
        among(element(0x0040A730, b"SQ", struct.pack("<HHI", 0xFFFE, 0xE000, 9))),
        *(EXPLICIT, 0xC000, "ends inside an item"),
    ),
    "800,000 elements": (among(tiny(800_000)), EXPLICIT, 0xC000, "more than 100000 elements"),
    "1,000,001 items": (
        among(element(0x0040A730, b"SQ", EMPTY_ITEM * 1_000_001)),
        *(EXPLICIT, 0xC000, "more than 1000000 items"),
    ),
}


@pytest.mark.parametrize(("data", "syntax", "status", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_whole_and_consistent_is_refused(
    unmoved: House, data: bytes, syntax: str, status: int, words: str
) -> None:
    answered, comment = unmoved.send(data, syntax, UID)
    assert (answered, words in comment) == (status, True), comment
    assert unmoved.files() == []
    assert unmoved.echoes()
    told = [line.text for story in stories(unmoved.catalog, UID) for line in story.lines]
    assert f"refused with 0x{status:04X}: {comment}" in told[-1]


NAME_LIKE_A_TERMINAL = raw(image(PatientName="A\x1b[31mB"))

TAKEN: dict[str, tuple[bytes, str, int, str]] = {
    "a sound image": (SOUND, EXPLICIT, 0, ""),
    "in implicit VR": (raw(image(), implicit=True), IMPLICIT, 0, ""),
    "padded with zeros": (SOUND + bytes(512), EXPLICIT, 0, ""),
    "64 levels": (among(nested(64)), EXPLICIT, 0, ""),
    "300,000 empty items": (
        among(element(0x0040A730, b"SQ", EMPTY_ITEM * 300_000)),
        *(EXPLICIT, 0, ""),
    ),
    "60,000 private elements": (among(tiny(60_000)), EXPLICIT, 0, ""),
    "out of order": (
        among(element(0x00091010, b"LO", b"X ")),
        *(EXPLICIT, 0, ""),
    ),
    "a fragment": (
        fragments(b"", b"\xff\xd8\xff\xd9"),
        *(JPEG, 0, ""),
    ),
    "a code stream that says it has 4 billion pixels": (
        fragments(b"", bytes.fromhex("ffd8ffc3000b10ffffffff01011100ffd9")),
        *(JPEG, 0, ""),
    ),
    "control characters in a name": (NAME_LIKE_A_TERMINAL, EXPLICIT, 0, ""),
    "a character set nobody knows": (
        with_value(0x00080005, b"CS", b"ISO 2022 IR 999"),
        *(EXPLICIT, 0, ""),
    ),
    "a mebibyte before the patient": (
        SOUND.replace(
            struct.pack("<HH2s", 0x0010, 0x0010, b"PN"),
            element(0x00091001, b"OB", bytes(1 << 20)) + struct.pack("<HH2s", 16, 16, b"PN"),
        ),
        *(EXPLICIT, 0, ""),
    ),
    "too many pixels": (raw(image(Rows=16)), EXPLICIT, 0xB007, "has 2048 bytes, not 1024"),
    "no bits": (raw(image(BitsAllocated=0)), EXPLICIT, 0xB007, "Bits Allocated is missing"),
    "no modality": (raw(image(Modality=None)), EXPLICIT, 0xB007, "Modality is missing"),
    "no patient": (raw(image(PatientID=None)), EXPLICIT, 0xB007, "Patient ID is missing"),
}


@pytest.mark.parametrize(("data", "syntax", "status", "words"), TAKEN.values(), ids=TAKEN)
def test_what_is_only_odd_is_taken(
    house: House, data: bytes, syntax: str, status: int, words: str
) -> None:
    answered, comment = house.send(data, syntax, UID)
    assert (answered, words in comment) == (status, True), comment
    (name,) = house.files()
    assert name.endswith(".dcm")
    (known,) = house.catalog.views.instances(image().SeriesInstanceUID)
    assert house.spool.path(known.path).read_bytes().endswith(data), "not a byte is changed"
    assert house.send(data, syntax, UID) == (answered, comment), "and the same when it comes again"


@pytest.mark.parametrize(
    ("data", "tag"),
    [
        (REFUSED["two patients"][0], 0x00100020),
        (REFUSED["no study"][0], 0x0020000D),
        (REFUSED["65535 rows"][0], 0x7FE00010),
        (TAKEN["no modality"][0], 0x00080060),
    ],
)
def test_the_element_at_fault_is_named_in_the_answer(house: House, data: bytes, tag: int) -> None:
    house.send(data, EXPLICIT, UID)
    assert house.offending == tag


def test_the_sender_is_told_of_a_warning_and_so_is_who_asks_why(house: House) -> None:
    house.send(raw(image(Rows=16)), EXPLICIT, UID)
    (event,) = (
        event
        for _, event in house.catalog.views.events_of(image().SeriesInstanceUID)
        if isinstance(event, e.InstanceArrived)
    )
    assert event.warning == "Pixel Data has 2048 bytes, not 1024"
    (story,) = stories(house.catalog, image().SeriesInstanceUID)
    told = [line.text for line in story.lines if not line.detail]
    assert any(
        "came over association 1 with a warning: Pixel Data has 2048 bytes" in t for t in told
    )
