"""TLS at the front: who comes in, who does not, and what either sees. Over real sockets."""

from __future__ import annotations

import hashlib
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from pynetdicom import build_context

from dicom_node.decide.eviction import Crowd
from dicom_node.decide.patience import Patience
from dicom_node.dimse.contract import Limits
from dicom_node.dimse.entity import Entity
from dicom_node.dimse.scp import SecurePort, Server, serve_beside
from dicom_node.dimse.tls import server_context
from dicom_node.domain.security import TlsFiles

VERIFICATION = "1.2.840.10008.1.1"


def files_of(folder: Path, name: str = "node", *, ca: str = "ca", require: bool = True) -> TlsFiles:
    return TlsFiles(
        certificate=str(folder / f"{name}.pem"),
        key=str(folder / f"{name}.key"),
        ca=str(folder / f"{ca}.pem") if ca else "",
        require_client=require,
    )


def client(folder: Path, name: str = "ct", ca: str = "ca") -> ssl.SSLContext:
    """Of a peer, made by the standard library alone."""
    context = ssl.create_default_context(cafile=str(folder / f"{ca}.pem"))
    if name:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


@pytest.fixture
def secure(storage_scp: Callable, certificates: Path) -> Callable[..., Server]:
    """Starts an SCP that speaks TLS alone."""

    def start(files: TlsFiles | None = None, **more: object) -> Server:
        context = server_context(files or files_of(certificates))
        return storage_scp(port=SecurePort(number=0, contexts=lambda: context), **more)

    return start


@pytest.fixture
def call(wire: SimpleNamespace) -> Iterator[Callable]:
    """Calls by TLS, as a Caller of `wire`."""

    def call(port: int, context: ssl.SSLContext) -> SimpleNamespace:
        peer = wire.call(port)
        peer.socket = context.wrap_socket(peer.socket, server_hostname="node.test")
        return peer

    return call


def echoes(peer, wire: SimpleNamespace) -> bool:
    peer.send(wire.p_data(wire.pdv(wire.c_echo(), command=True)))
    return peer.status() == 0


def proposal(wire: SimpleNamespace) -> list:
    return [(VERIFICATION, [wire.EXPLICIT]), (wire.CT, [wire.EXPLICIT])]


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_peer_with_a_certificate_stores_and_is_known_by_it(
    secure: Callable, call: Callable, certificates: Path, spool_receiver, wire, version: str
) -> None:
    context = client(certificates)
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    peer = call(secure().port, context)
    peer.associate()
    data = bytes(range(256)) * 2000
    message = wire.p_data(wire.pdv(wire.c_store(), command=True))
    pieces = [data[n : n + 10_000] for n in range(0, len(data), 10_000)]
    for piece in pieces:
        message += wire.p_data(wire.pdv(piece, command=False, last=piece is pieces[-1]))
    peer.send(message)
    assert peer.status() == 0
    (request,) = spool_receiver.requests
    assert request.over_tls
    der = ssl.PEM_cert_to_DER_cert((certificates / "ct.pem").read_text())
    assert request.certificate.sha256 == hashlib.sha256(der).hexdigest()
    assert request.certificate.subject == (("O", "FOR TESTS ONLY"), ("CN", "ct1.test"))
    ((_, stored),) = spool_receiver.stored
    assert spool_receiver.spool.path(stored.path).read_bytes().endswith(data)
    cipher, protocol, _ = peer.socket.cipher()
    assert protocol == version.replace("_", ".")
    assert "GCM" in cipher or "CHACHA20" in cipher


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "it showed no certificate"),
        ("stranger", "its certificate is not accepted: unable to get local issuer certificate"),
        ("expired", "its certificate is not accepted: certificate has expired"),
    ],
)
def test_who_cannot_prove_itself_is_not_let_in_and_told_of(
    secure: Callable, call: Callable, certificates: Path, spool_receiver, name: str, why: str
) -> None:
    port = secure().port
    with pytest.raises(OSError) as caught:  # by TLS 1.3 the client hears of it when it reads
        call(port, client(certificates, name)).associate()
    assert "alert" in str(caught.value).lower() or isinstance(caught.value, ConnectionError)
    assert spool_receiver.wait(lambda: len(spool_receiver.insecure) == 1)
    ((request, reason),) = spool_receiver.insecure
    assert (request.address, reason) == ("127.0.0.1", why)
    assert spool_receiver.requests == []
    assert spool_receiver.breaks == []


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "it does not speak TLS"),
        (None, "it does not speak TLS"),
        (b"\x16\x03\x01\xff\xff" + bytes(100), ""),
    ],
    ids=["http", "plain DICOM", "broken TLS"],
)
def test_what_is_no_tls_is_closed_and_told_of(
    secure: Callable, spool_receiver, wire: SimpleNamespace, said: bytes | None, why: str
) -> None:
    peer = wire.call(secure().port)
    peer.send(wire.associate_rq() if said is None else said)
    peer.socket.shutdown(socket.SHUT_WR)
    kind, _ = peer.receive()
    assert kind in (0, 0x15)  # closed, with an alert of TLS at most
    assert spool_receiver.wait(lambda: len(spool_receiver.insecure) == 1)
    assert spool_receiver.insecure[0][1].startswith(why)
    assert spool_receiver.insecure[0][1]


def test_old_tls_finds_nothing_in_common(
    secure: Callable, call: Callable, certificates: Path, spool_receiver
) -> None:
    context = client(certificates)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AES:!AESGCM:@SECLEVEL=0")  # CBC alone
    with pytest.raises(ssl.SSLError):
        call(secure().port, context)
    assert spool_receiver.wait(lambda: len(spool_receiver.insecure) == 1)
    assert spool_receiver.insecure[0][1] == "it has no cipher suite in common"


def test_who_only_connects_is_told_of_nobody_and_locks_nobody_out(
    secure: Callable, call: Callable, certificates: Path, spool_receiver, wire
) -> None:
    server = secure(limits=Limits(handshake_s=0.3, crowd=Crowd(per_address=40)))
    silent = [wire.call(server.port) for _ in range(20)]
    for _ in range(20):
        wire.call(server.port).close()
    peer = call(server.port, client(certificates))  # while all of them are there
    peer.associate(contexts=proposal(wire))
    assert echoes(peer, wire)
    for one in silent:
        assert one.receive() == (0, b"")  # closed when the time of the handshake was up
    assert echoes(peer, wire)
    assert spool_receiver.insecure == []
    assert spool_receiver.breaks == []


def test_a_handshake_that_drips_in_is_over_when_its_time_is(secure: Callable, wire) -> None:
    peer = wire.call(secure(limits=Limits(handshake_s=0.5)).port)
    hello = bytes.fromhex("16030100c8010000c403035f") + bytes(190)
    stop = threading.Event()

    def drip() -> None:
        for byte in hello:
            try:
                peer.send(bytes([byte]))
            except OSError:
                return
            if stop.wait(0.05):  # 10 s for all of it
                return

    dripping = threading.Thread(target=drip)
    dripping.start()
    kind, _ = peer.receive()
    stop.set()
    dripping.join()
    assert kind == 0


def test_the_last_word_of_the_node_goes_out_by_tls(
    secure: Callable, call: Callable, certificates: Path, wire: SimpleNamespace
) -> None:
    """SSLSocket.shutdown() drops the layer: an A-ABORT behind it would go out in clear."""
    server = secure()
    peer = call(server.port, client(certificates))
    peer.associate(contexts=proposal(wire))
    stopping = threading.Thread(target=server.stop, args=(0.0,))
    stopping.start()
    assert peer.receive() == (7, bytes(4))
    assert peer.socket.recv(1) == b""  # and then the end of TLS, not of the connection alone
    peer.socket.unwrap()
    peer.close()
    stopping.join()


def test_an_idle_association_is_aborted_and_silence_is_not_told_apart_from_plain(
    secure: Callable, call: Callable, certificates: Path, wire, spool_receiver
) -> None:
    peer = call(secure(limits=Limits(patience=Patience(idle_s=0.3))).port, client(certificates))
    peer.associate(contexts=proposal(wire))
    assert peer.receive() == (7, bytes([0, 0, 2, 0]))
    assert spool_receiver.wait(lambda: spool_receiver.endings == {1: "timed out"})


def test_garbage_inside_tls_breaks_the_association_and_is_told(
    secure: Callable, call: Callable, certificates: Path, wire, spool_receiver
) -> None:
    peer = call(secure().port, client(certificates))
    peer.associate(contexts=proposal(wire))
    socket.socket.send(
        peer.socket, b"\x17\x03\x03\x00\x20" + bytes(32)
    )  # below TLS: a false record
    assert spool_receiver.wait(lambda: spool_receiver.endings == {1: "malformed"})
    ((_, number, reason),) = spool_receiver.breaks
    assert number == 1
    assert reason.startswith("its TLS broke: ")


def test_plain_and_tls_stand_beside_one_another_with_limits_in_common(
    storage_scp: Callable, call: Callable, certificates: Path, wire, spool_receiver
) -> None:
    context = server_context(files_of(certificates))
    plain = storage_scp(limits=Limits(associations_max=2))
    both = serve_beside(
        plain, host="127.0.0.1", port=SecurePort(number=0, contexts=lambda: context)
    )
    try:
        assert both.tls_port not in (None, both.port)
        first = call(both.tls_port, client(certificates))
        first.associate(contexts=proposal(wire))
        second = wire.call(both.port)
        second.associate(contexts=proposal(wire))
        third = call(both.tls_port, client(certificates))
        third.send(wire.associate_rq())
        assert third.receive() == (3, bytes([0, 2, 3, 2]))  # local limit exceeded
        assert both.active() == 2
        assert [request.over_tls for request in spool_receiver.requests] == [True, False]
        assert spool_receiver.requests[1].certificate is None
    finally:
        both.stop(0)


def test_without_the_demand_for_a_certificate_one_that_is_shown_counts_all_the_same(
    secure: Callable, call: Callable, certificates: Path, wire, spool_receiver
) -> None:
    port = secure(files_of(certificates, require=False)).port
    call(port, client(certificates, "")).associate()
    call(port, client(certificates, "mr")).associate()
    shown = [request.certificate for request in spool_receiver.requests]
    assert shown[0] is None
    assert ("CN", "mr1.test") in shown[1].subject


def identity(kind: int, primary: bytes, secondary: bytes = b"", answer: int = 0) -> bytes:
    """A User Identity item (PS3.7 Table D.3-14)."""
    value = struct.pack(">BBH", kind, answer, len(primary)) + primary
    value += struct.pack(">H", len(secondary)) + secondary
    return struct.pack(">BxH", 0x58, len(value)) + value


def with_items(request: bytes, items: bytes) -> bytes:
    """An A-ASSOCIATE-RQ with more in its user information, which stands last."""
    at = request.rindex(b"\x50\x00")
    user = request[at + 4 :] + items
    body = request[6:at] + struct.pack(">BxH", 0x50, len(user)) + user
    return request[:2] + struct.pack(">I", len(body)) + body


@pytest.mark.parametrize("front", ["own", "stock"])
@pytest.mark.parametrize(("counts", "answer"), [(True, 1), (True, 0), (False, 1)])
def test_an_identity_is_handed_on_and_its_acceptance_told_where_it_counts(
    storage_scp: Callable, spool_receiver, wire, counts: bool, answer: int
) -> None:
    spool_receiver.identity_counts = counts
    peer = wire.call(storage_scp().port)
    peer.send(with_items(wire.associate_rq(), identity(2, b"ct", b"secret", answer)))
    kind, body = peer.receive()
    assert kind == 2
    accepted = bytes.fromhex("590000020000")
    assert (accepted in body) is bool(counts and answer)
    (request,) = spool_receiver.requests
    assert (request.identity.kind, request.identity.primary) == (2, b"ct")
    assert request.identity.secondary == b"secret"
    assert "secret" not in repr(request)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (identity(1, b"ct") * 2, 5),
        (struct.pack(">BxHBBH", 0x58, 4, 1, 0, 60_000), 6),
        (struct.pack(">BxH", 0x58, 0), 6),
        (identity(2, b"ct", b"x")[:-1].replace(b"\x00\x0a", b"\x00\x09", 1), 6),
    ],
    ids=["two", "a lying length", "empty", "cut"],
)
def test_a_malformed_identity_is_aborted(
    storage_scp: Callable, wire, item: bytes, reason: int
) -> None:
    peer = wire.call(storage_scp().port)
    peer.send(with_items(wire.associate_rq(), item))
    assert peer.receive() == (7, bytes([0, 0, 2, reason]))


def test_stock_pynetdicom_calls_by_tls(
    secure: Callable, certificates: Path, spool_receiver
) -> None:
    entity = Entity("SENDER")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    association = entity.associate(
        "127.0.0.1",
        secure().port,
        contexts=[build_context(VERIFICATION)],
        ae_title="DICOMNODE",
        tls_args=(client(certificates), "node.test"),
    )
    assert association.is_established
    assert association.send_c_echo().Status == 0
    association.release()
    assert spool_receiver.wait(lambda: spool_receiver.endings == {1: "released"})
    assert spool_receiver.requests[0].over_tls


@pytest.mark.peer
def test_dcmtk_calls_by_tls(
    secure: Callable, certificates: Path, dcmtk: Callable, spool_receiver
) -> None:
    port = secure().port
    own = ("+tls", certificates / "ct.key", certificates / "ct.pem")
    trust = ("+cf", certificates / "ca.pem")
    where = ("-aec", "DICOMNODE", "127.0.0.1", port)
    done: subprocess.CompletedProcess = dcmtk("echoscu", *own, *trust, *where)
    assert done.returncode == 0, done.stderr
    assert spool_receiver.insecure == []
    assert dcmtk("echoscu", *where).returncode != 0  # in plain
    assert dcmtk("echoscu", "+tla", *trust, *where).returncode != 0  # without a certificate
    foreign = ("+cf", certificates / "foreign-ca.pem")
    assert dcmtk("echoscu", *own, *foreign, *where).returncode != 0
    assert spool_receiver.wait(lambda: len(spool_receiver.insecure) == 3)
    assert [reason for _, reason in spool_receiver.insecure] == [
        "it does not speak TLS",
        "it showed no certificate",
        "it does not know who issued the certificate shown to it",
    ]
