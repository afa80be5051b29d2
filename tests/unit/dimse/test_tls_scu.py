"""Calling peers by TLS: with whom it goes on, and what is said where it does not."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, Verification

from dicom_node.dimse.contract import CommitmentRequest, Reference
from dicom_node.dimse.scu import Outcome, Phase, Timeouts, ask_commitment, echo, store
from dicom_node.domain.records import Peer
from dicom_node.domain.security import TlsFiles
from dicom_node.testing.series import a_series, items_of, write_files

QUICK = Timeouts(connect_s=5.0, associate_s=5.0, answer_s=5.0)
PINNED = "sha256:"


def fingerprint(folder: Path, name: str) -> str:
    import hashlib  # noqa: PLC0415

    der = ssl.PEM_cert_to_DER_cert((folder / f"{name}.pem").read_text())
    return PINNED + hashlib.sha256(der).hexdigest()


def server_side(folder: Path, name: str, version: str, *, demands: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    if demands:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
def pacs(certificates: Path) -> Iterator[Callable[..., Peer]]:
    """Starts stock pynetdicom servers that speak TLS; gives each as a peer."""
    servers = []

    def start(
        name: str = "mr", *, version: str = "TLSv1_3", demands: bool = False, **more: object
    ) -> Peer:
        entity = AE("PACS")
        entity.add_supported_context(Verification)
        entity.add_supported_context(CTImageStorage)
        server = entity.start_server(
            ("127.0.0.1", 0),
            block=False,
            ssl_context=server_side(certificates, name, version, demands=demands),
            evt_handlers=[(evt.EVT_C_STORE, lambda _event: 0)],
        )
        servers.append(server)
        return Peer(
            name="pacs",
            ae_title="PACS",
            host="127.0.0.1",
            port=server.server_address[1],
            tls=True,
            tls_files=TlsFiles(
                certificate=str(certificates / "ct.pem"),
                key=str(certificates / "ct.key"),
                ca=str(certificates / "ca.pem"),
            ),
            **more,
        )

    yield start
    for server in servers:
        server.shutdown()


def answer(peer: Peer) -> Outcome:
    return echo(peer=peer, calling_ae="US", timeouts=QUICK)


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("demands", [False, True])
def test_a_peer_whose_host_is_in_its_certificate_is_called(
    pacs: Callable, version: str, demands: bool
) -> None:
    assert answer(pacs(version=version, demands=demands)).succeeded


@pytest.mark.parametrize(
    ("name", "more", "trouble"),
    [
        ("ct", {}, "its certificate is not accepted: IP address mismatch"),
        ("ct", {"tls_name": "ct1.test"}, ""),
        ("ct", {"tls_name": "other.test"}, "its certificate is not accepted: Hostname mismatch"),
        ("ct", {"certificates": ("subject:CN=ct1.test",)}, ""),
        ("ct", {"certificates": ("subject:CN=mr1.test", "subject:CN=ct1.test")}, ""),
        (
            "ct",
            {"certificates": ("subject:CN=mr1.test",)},
            "CN=ct1.test), and not subject:CN=mr1.test",
        ),
        ("stranger", {"tls_name": "ct1.test"}, "its certificate is not accepted: unable to get"),
        ("stranger", {"certificates": ("subject:CN=ct1.test",)}, "its certificate is not accepted"),
        ("expired", {}, "its certificate is not accepted: certificate has expired"),
    ],
)
def test_the_certificate_is_the_one_that_is_wanted_or_nothing_is_said(
    pacs: Callable, name: str, more: dict, trouble: str
) -> None:
    outcome = answer(pacs(name, **more))
    if not trouble:
        assert outcome.succeeded, outcome
        return
    assert outcome.phase is Phase.TLS
    assert trouble in outcome.detail


def test_a_fingerprint_is_enough_and_nothing_else_is(pacs: Callable, certificates: Path) -> None:
    """The issuer is nobody whom the node trusts, and the name is another."""
    peer = pacs("stranger")
    bare = replace(peer.tls_files, ca="", certificate="", key="")
    known = replace(peer, tls_files=bare, certificates=(fingerprint(certificates, "stranger"),))
    assert answer(known).succeeded
    mistaken = replace(known, certificates=(fingerprint(certificates, "mr"),))
    outcome = answer(mistaken)
    assert outcome.phase is Phase.TLS
    assert f"it is {fingerprint(certificates, 'stranger')}" in outcome.detail


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_peer_that_wants_another_certificate_of_ours_says_so(
    pacs: Callable, certificates: Path, version: str
) -> None:
    peer = pacs(version=version, demands=True)
    nobody = replace(peer, tls_files=replace(peer.tls_files, certificate="", key=""))
    outcome = answer(nobody)
    assert outcome.phase in (Phase.TLS, Phase.ABORT)  # 1.3: its alert may be lost with a reset


def test_images_go_by_tls(pacs: Callable, tmp_path: Path) -> None:
    items = items_of(write_files(tmp_path, a_series(slices=6)))
    outcomes = store(peer=pacs(), calling_ae="US", items=items, timeouts=QUICK)
    assert [outcome.status for outcome in outcomes] == [0] * 6


COMMITMENT = CommitmentRequest(
    transaction_uid="1.2.3", references=(Reference("1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"),)
)


def test_commitment_is_asked_by_tls_and_by_the_same_rules(pacs: Callable) -> None:
    refused = ask_commitment(
        peer=pacs("ct"), calling_ae="US", request=COMMITMENT, timeouts=QUICK
    ).outcome
    assert refused.phase is Phase.TLS
    assert "IP address mismatch" in refused.detail
    asked = ask_commitment(peer=pacs(), calling_ae="US", request=COMMITMENT, timeouts=QUICK).outcome
    assert asked.phase is Phase.NO_CONTEXT  # it has come so far, by TLS


def test_a_peer_that_speaks_no_tls_and_files_that_are_none(
    pacs: Callable, storage_scp: Callable, certificates: Path
) -> None:
    peer = pacs()
    plain = replace(peer, port=storage_scp().port)
    assert answer(plain).phase is Phase.TLS
    assert (
        ask_commitment(
            peer=plain, calling_ae="US", request=COMMITMENT, timeouts=QUICK
        ).outcome.phase
        is Phase.TLS
    )
    (certificates / "ca.pem").unlink()
    for outcome in (
        answer(peer),
        ask_commitment(peer=peer, calling_ae="US", request=COMMITMENT, timeouts=QUICK).outcome,
    ):
        assert outcome.phase is Phase.TLS
        assert "it cannot be read: No such file" in outcome.detail


@pytest.fixture
def mute() -> Iterator[int]:
    """A port that accepts, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(server.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in held:
            connection.close()


def test_a_peer_that_does_not_answer_the_handshake_is_not_waited_for(
    pacs: Callable, mute: int
) -> None:
    hurried = Timeouts(connect_s=0.3, associate_s=5.0, answer_s=5.0)
    peer = replace(pacs(), port=mute)
    outcome = echo(peer=peer, calling_ae="US", timeouts=hurried)
    assert outcome.phase is Phase.TLS
    assert outcome.detail.endswith("it does not answer as TLS does")


@pytest.fixture
def tickets_alone(certificates: Path) -> Iterator[tuple[int, threading.Event]]:
    """A TLS server whose tickets arrive long before anything else does."""
    context = server_side(certificates, "mr", "TLSv1_3", demands=False)
    context.num_tickets = 5
    asked = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with context.wrap_socket(connection, server_side=True) as secured:
                    if secured.recv(1) == b"\x01":
                        asked.set()

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], asked
        server.close()
        thread.join()


def test_tickets_of_tls_are_no_data_and_nothing_waits_behind_them(
    pacs: Callable, tickets_alone: tuple[int, threading.Event]
) -> None:
    from dicom_node.dimse.tls import ClientSocket, client_context  # noqa: PLC0415

    port, asked = tickets_alone
    peer = replace(pacs(), port=port)
    context = client_context(peer)
    with socket.create_connection(("127.0.0.1", port), 5) as plain:
        secured = context.wrap_socket(plain, server_hostname=context.server_name)
        assert isinstance(secured, ClientSocket)
        secured.settimeout(None)
        ready = []
        for _ in range(200):
            ready.append(secured.has_come())
            threading.Event().wait(0.001)
        assert set(ready) == {False}
        secured.sendall(b"\x01")
        assert asked.wait(5)
        secured.settimeout(5)
        assert secured.recv(1) == b""  # its end
        secured.close()


@pytest.mark.peer
def test_dcmtk_is_called_by_tls(storescp: Callable, certificates: Path, tmp_path: Path) -> None:
    port, folder = storescp(
        *("+tls", certificates / "mr.key", certificates / "mr.pem"),
        *("+cf", certificates / "ca.pem", "--aetitle", "PACS"),
    )
    peer = Peer(
        name="pacs",
        ae_title="PACS",
        host="127.0.0.1",
        port=port,
        tls=True,
        tls_files=TlsFiles(
            certificate=str(certificates / "node.pem"),
            key=str(certificates / "node.key"),
            ca=str(certificates / "ca.pem"),
        ),
    )
    items = items_of(write_files(tmp_path / "sent", a_series(slices=1)))
    (outcome,) = store(peer=peer, calling_ae="US", items=items, timeouts=QUICK)
    assert outcome.succeeded, outcome
    assert len(list(folder.iterdir())) == 1
    stranger = replace(peer, certificates=("subject:CN=ct1.test",))
    assert answer(stranger).phase is Phase.TLS
