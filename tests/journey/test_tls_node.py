"""A whole node behind TLS: by what a peer is known, what it may, and its results by TLS again."""

from __future__ import annotations

import hashlib
import shutil
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from pynetdicom.sop_class import CTImageStorage, Verification

from dicom_node.dimse.entity import Entity
from dicom_node.domain import events as e
from dicom_node.domain import security as s
from dicom_node.node.bell import CERTIFICATES, Bell
from dicom_node.node.certificates import Certificates
from dicom_node.node.why import stories
from dicom_node.testing.pacs import LocalPacs
from dicom_node.testing.series import a_series

SOURCE = Path(__file__).parents[1] / "certificates"
DIGEST_OF_MR = hashlib.sha256(ssl.PEM_cert_to_DER_cert((SOURCE / "mr.pem").read_text())).hexdigest()
UNKNOWN, IDENTITY, TOO_MANY = (1, 1, 3), (1, 1, 1), (2, 3, 2)

TLS = """
[tls]
certificate = "tls/node.pem"
key = "tls/node.key"
ca = "tls/ca.pem"
port = 0
"""


def a_peer(title: str, more: str, port: int = 104) -> str:
    return (
        f'[[peer]]\nname = "{title.lower()}"\nae_title = "{title}"\nhost = "127.0.0.1"\n'
        f"port = {port}\n{more}\n"
    )


PEERS = (
    a_peer("MR1", f'certificates = ["sha256:{DIGEST_OF_MR}"]')
    + a_peer("USER", 'user = "ct"\npasscode = "file:passcode"', 105)
    + a_peer("NAMED", 'user = "ct"', 106)
    + a_peer("FEW", "max_associations = 1\nobjects_per_minute = 2", 107)
    + a_peer("BULKY", "in_flight_mib = 1", 108)
)


def client(name: str = "ct") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(SOURCE / "ca.pem"))
    if name:
        context.load_cert_chain(SOURCE / f"{name}.pem", SOURCE / f"{name}.key")
    return context


def prepare(folder: Path) -> None:
    shutil.copytree(SOURCE, folder / "tls")
    for key in (folder / "tls").glob("*.key"):
        key.chmod(0o600)
    (folder / "passcode").write_text("s3cret\n")
    (folder / "passcode").chmod(0o600)


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPacs]:
    """A PACS that is called by TLS, and lets in who shows the node's certificate."""
    running = LocalPacs(tmp_path_factory.mktemp("pacs"), ae_title="CT1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(SOURCE / "ca.pem"))
    context.load_cert_chain(SOURCE / "ct.pem", SOURCE / "ct.key")
    context.verify_mode = ssl.CERT_REQUIRED
    running.secure = context
    with running:
        yield running


@pytest.fixture(scope="module", params=["", "processes = 2"], ids=["alone", "processes"])
def node(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    build: SimpleNamespace,
    pacs: LocalPacs,
) -> Iterator[Any]:
    """Behind TLS and beside it, receiving by itself or in processes of its own."""
    folder = tmp_path_factory.mktemp("node")
    prepare(folder)
    ct = 'certificates = ["subject:CN=ct1.test"]\ntls = true'
    peers = PEERS + a_peer("CT1", ct, pacs.port)
    with build.a_node(folder, peers=peers, more=TLS, receive=request.param) as running:
        if request.param:
            running.receiving(2)
        yield running


def associate(
    node: Any,
    title: str,
    context: ssl.SSLContext | None,
    user: UserIdentityNegotiation | None = None,
) -> Any:
    entity = Entity(title)
    entity.add_requested_context(CTImageStorage)
    entity.add_requested_context(Verification)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    return entity.associate(
        "127.0.0.1",
        node.running.tls_port if context else node.port,
        ae_title="DICOMNODE",
        ext_neg=[user] if user else [],
        tls_args=(context, "node.test") if context else None,
    )


def answer(association: Any) -> tuple[int, int, int] | None:
    """Of the node: why it was rejected, None if it was not; released, then."""
    if association.is_established:
        association.release()
        return None
    primitive = association.acceptor.primitive
    return primitive.result, primitive.result_source, primitive.diagnostic


def an_identity(kind: int, name: bytes, passcode: bytes = b"") -> UserIdentityNegotiation:
    item = UserIdentityNegotiation()
    item.user_identity_type = kind
    item.primary_field = name
    if passcode:
        item.secondary_field = passcode
    item.positive_response_requested = True
    return item


@pytest.mark.parametrize(
    ("title", "certificate", "expected"),
    [
        ("CT1", "ct", None),
        ("CT1", "mr", UNKNOWN),
        ("MR1", "mr", None),
        ("MR1", "ct", UNKNOWN),
        ("MR1", None, UNKNOWN),  # in plain
        ("FEW", "mr", None),  # any certificate of the CA
        ("OTHER", "ct", UNKNOWN),
    ],
)
def test_a_peer_is_its_title_its_address_and_its_certificate(
    node: Any, title: str, certificate: str | None, expected: tuple | None
) -> None:
    context = client(certificate) if certificate else None
    assert answer(associate(node, title, context)) == expected


@pytest.mark.parametrize(
    ("title", "over_tls", "user", "expected"),
    [
        ("USER", True, (2, b"ct", b"s3cret"), None),
        ("USER", True, (2, b"ct", b"other"), IDENTITY),
        ("USER", True, (1, b"ct"), IDENTITY),
        ("USER", True, None, IDENTITY),
        ("USER", False, (2, b"ct", b"s3cret"), IDENTITY),
        ("NAMED", False, (1, b"ct"), None),
        ("NAMED", False, (1, b"mr"), IDENTITY),
        ("NAMED", False, (4, b"<saml/>"), IDENTITY),
        ("FEW", False, (4, b"<saml/>"), None),  # nobody asked
    ],
)
def test_a_user_is_known_by_name_and_passcode_where_one_is_demanded(
    node: Any, title: str, over_tls: bool, user: tuple | None, expected: tuple | None
) -> None:
    item = an_identity(*user) if user else None
    association = associate(node, title, client() if over_tls else None, item)
    told = [
        part
        for part in getattr(association.acceptor, "user_information", [])
        if type(part).__name__ == "UserIdentityNegotiation"
    ]
    assert len(told) == (expected is None and title != "FEW")
    assert answer(association) == expected


def told_of(node: Any, who: str) -> list[str]:
    return [line.text for story in stories(node.running.catalog, who) for line in story.lines]


def test_what_was_refused_is_found_by_title_or_address_and_no_passcode_is_kept(node: Any) -> None:
    answer(associate(node, "USER", client(), an_identity(2, b"ct", b"guessed-it")))
    answer(associate(node, "CT1", client("mr")))
    with closing(socket.create_connection(("127.0.0.1", node.running.tls_port), 20)) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert len(plain.recv(100)) < 10
    node.wait(lambda: told_of(node, "127.0.0.1"))
    assert "no TLS with 127.0.0.1: it does not speak TLS" in told_of(node, "127.0.0.1")
    assert any("its user identity is not that of the peer" in t for t in told_of(node, "USER"))
    assert any(
        f"it is sha256:{DIGEST_OF_MR} (subject:" in text
        and "CN=mr1.test), and not subject:CN=ct1.test" in text
        for text in told_of(node, "CT1")
    )
    (of_tls,) = stories(node.running.catalog, "tls")
    assert of_tls.verdict.startswith("the certificate that is shown from now on is sha256:")
    assert "no TLS with 127.0.0.1: it does not speak TLS" in [line.text for line in of_tls.lines]
    at_address = told_of(node, "127.0.0.1")
    assert set(told_of(node, "USER")) <= set(at_address)
    assert any("CT1 at 127.0.0.1, calling DICOMNODE, was rejected" in text for text in at_address)
    raw = (node.folder / "var" / "catalog.db").read_bytes()
    raw += (node.folder / "var" / "catalog.db-wal").read_bytes()
    assert b"guessed-it" not in raw
    assert b"s3cret" not in raw


def images(count: int) -> list[Dataset]:
    return a_series(slices=count)


def test_so_many_objects_a_minute_and_one_association_are_all_that_few_may(node: Any) -> None:
    association = associate(node, "FEW", None)
    second = associate(node, "FEW", client())
    assert answer(second) == TOO_MANY
    answers = [association.send_c_store(image) for image in images(4)]
    assert [one.Status for one in answers] == [0, 0, 0xA700, 0xA700]
    assert answers[-1].ErrorComment == "more than 2 objects a minute: try again later"
    association.release()


def test_what_is_in_flight_is_counted_over_all_associations_of_a_peer(
    node: Any, build: SimpleNamespace
) -> None:
    """One object that comes alone may be larger than the quota; a second beside it may not."""
    first, second = Raw(node.port, "BULKY"), Raw(node.port, "BULKY")
    first.begin("1.2.3.1")
    first.data(bytes(3 << 20))
    node.wait(first.is_served)
    second.begin("1.2.3.2")
    second.data(bytes(1000), last=True)
    assert second.status() == 0xA700
    first.data(b"\0\0", last=True)
    assert first.status() == 0xC000  # it is no data set; but it was let in whole
    second.begin("1.2.3.3")
    second.data(bytes(1000), last=True)
    assert second.status() == 0xC000
    first.close()
    second.close()


class Raw:
    """A peer that sends objects in pieces."""

    def __init__(self, port: int, title: str) -> None:
        from pynetdicom import build_context  # noqa: PLC0415
        from pynetdicom.pdu import A_ASSOCIATE_RQ  # noqa: PLC0415
        from pynetdicom.pdu_primitives import (  # noqa: PLC0415
            A_ASSOCIATE,
            ImplementationClassUIDNotification,
            MaximumLengthNotification,
        )

        request = A_ASSOCIATE()
        request.application_context_name = "1.2.840.10008.3.1.1.1"
        request.calling_ae_title, request.called_ae_title = title, "DICOMNODE"
        length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
        length.maximum_length_received = 16384
        implementation.implementation_class_uid = "1.2.3.4"
        request.user_information = [length, implementation]
        context = build_context(CTImageStorage, "1.2.840.10008.1.2")
        context.context_id = 1
        request.presentation_context_definition_list = [context]
        encoded = A_ASSOCIATE_RQ()
        encoded.from_primitive(request)
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        self.socket.sendall(encoded.encode())
        assert self.socket.recv(16384)[0] == 2

    def _pdv(self, data: bytes, control: int) -> None:
        head = struct.pack(">BxIIBB", 4, len(data) + 6, len(data) + 2, 1, control)
        self.socket.sendall(head + data)

    def begin(self, instance: str) -> None:
        body = b""
        fields = {2: CTImageStorage, 0x100: 1, 0x110: 1, 0x700: 0, 0x800: 1, 0x1000: instance}
        for number, value in fields.items():
            raw = struct.pack("<H", value) if isinstance(value, int) else value.encode()
            raw += b"\0" * (len(raw) % 2)
            body += struct.pack("<HHI", 0, number, len(raw)) + raw
        self._pdv(struct.pack("<HHII", 0, 0, 4, len(body)) + body, 3)

    def data(self, data: bytes, *, last: bool = False) -> None:
        for at in range(0, len(data), 65536):
            piece = data[at : at + 65536]
            self._pdv(piece, 2 if last and at + 65536 >= len(data) else 0)

    def is_served(self) -> bool:
        """Whether all that was sent has been read by the node."""
        import fcntl  # noqa: PLC0415

        unsent = fcntl.ioctl(self.socket, 0x5411, bytes(4))  # SIOCOUTQ
        return struct.unpack("i", unsent)[0] == 0

    def status(self) -> int:
        data = self.socket.recv(16384)
        assert data[0] == 4, data
        at = data.index(struct.pack("<HHI", 0, 0x0900, 2)) + 8
        return struct.unpack_from("<H", data, at)[0]

    def close(self) -> None:
        self.socket.close()


def test_a_series_comes_by_tls_and_its_result_goes_back_by_tls(node: Any, pacs: LocalPacs) -> None:
    before = pacs.stored_counts.total()
    association = associate(node, "CT1", client())
    series = images(6)
    assert [association.send_c_store(image).Status for image in series] == [0] * 6
    association.release()
    told = told_of(node, series[0].SeriesInstanceUID)
    assert any(
        line.startswith("CT1 at 127.0.0.1 opened association ")
        and line.endswith(" by TLS 1.3 as O=FOR TESTS ONLY,CN=ct1.test")
        for line in told
    ), told
    node.wait(lambda: pacs.stored_counts.total() > before)
    assert {result.Modality for result in pacs.datasets()} == {"SEG"}


@pytest.mark.peer
def test_dcmtk_sends_by_tls(node: Any, dcmtk: Callable, tmp_path: Path) -> None:
    for number, image in enumerate(images(3)):
        image.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    done = dcmtk(
        *("storescu", "+tls", SOURCE / "ct.key", SOURCE / "ct.pem", "+cf", SOURCE / "ca.pem"),
        *("-aet", "CT1", "-aec", "DICOMNODE", "127.0.0.1", node.running.tls_port),
        *sorted(tmp_path.glob("*.dcm")),
    )
    assert done.returncode == 0, done.stderr


def shown(node: Any) -> str:
    """The digest of the certificate that the node shows."""
    with closing(socket.create_connection(("127.0.0.1", node.running.tls_port), 20)) as plain:
        context = client()
        with context.wrap_socket(plain, server_hostname="node.test") as secured:
            return hashlib.sha256(secured.getpeercert(binary_form=True) or b"").hexdigest()


def test_another_certificate_is_shown_without_a_restart_and_associations_live_on(node: Any) -> None:
    association = associate(node, "MR1", client("mr"))
    before = shown(node)
    folder = node.folder / "tls"
    shutil.copy(folder / "renewed.pem", folder / "node.pem")
    shutil.copy(folder / "renewed.key", folder / "node.key")
    node.wait(lambda: shown(node) != before)
    assert association.send_c_echo().Status == 0
    association.release()
    about = node.running.catalog.views.events_about
    with closing(Bell(node.folder / "var")) as bell:
        bell.ring(CERTIFICATES)  # where others receive, the node looks but twice a minute
        node.wait(lambda: len(about("tls")) == 2)
    first, loaded = [event for _, event in about("tls")]
    assert isinstance(first, s.CertificateLoaded)
    assert isinstance(loaded, s.CertificateLoaded)
    assert (first.sha256, loaded.sha256) == (before, shown(node))


class Kept:
    """Instead of a Journal."""

    def __init__(self) -> None:
        self.events: list[e.Event] = []
        self.catalog = SimpleNamespace(history=SimpleNamespace(last_certificate=lambda: None))

    def commit(self, *events: e.Event) -> list[str]:
        self.events += events
        return [""] * len(events)


def test_an_end_that_comes_near_is_told_once_a_day(node: Any) -> None:
    kept = Kept()
    watching = Certificates(node.running.config, kept, SimpleNamespace(now=lambda: 0.0))  # type: ignore[arg-type]
    end = 4_950_000_000.0  # 2126-11-10: those for tests end twelve days later
    (begun,) = kept.events
    assert isinstance(begun, s.CertificateLoaded)
    watching.run_due(end - 60 * 86400)
    assert kept.events == [begun]
    kept.events.clear()
    for hours in (0, 1, 23, 25, 26):
        watching.run_due(end + hours * 3600)
    own = [one for one in kept.events if one.whose == "this node's certificate"]
    assert len(own) == 2
    assert {one.whose for one in kept.events} == {
        "this node's certificate",
        "the CA O=FOR TESTS ONLY,CN=test CA of tls.ca",
    }
