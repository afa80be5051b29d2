"""The receivers that are compared, each in a process of its own, and what it costs there.

python tests/bench/receivers.py KIND FOLDER PORT PDU     one of those in Python
"""

# ruff: noqa: PLC0415  # a receiver's process imports only what that receiver needs

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from processes import tree

NAMES = {
    "node": "dicom-node: checks, file, name and catalog synced before each answer",
    "crew": "dicom-node, the same with `processes = 2`",
    "spool": "dicom-node: file and name synced before each answer, no checks, no catalog",
    "unsynced": "dicom-node: no sync, no checks, no catalog (no mode of it: for comparison)",
    "pynetdicom": "pynetdicom, event.dataset and save_as, no sync",
    "storescp": "DCMTK storescp, no sync",
    "orthanc": "Orthanc, default storage",
}
PROGRAMS = {"storescp": "/usr/bin/storescp", "orthanc": "/usr/sbin/Orthanc"}
ASSOCIATIONS_MAX = 256


def here() -> list[str]:
    """The receivers that this machine has."""
    return [kind for kind in NAMES if kind not in PROGRAMS or Path(PROGRAMS[kind]).exists()]


# --- in the receiver's process --------------------------------------------------------------------


def serve(kind: str, folder: Path, port: int, pdu: int) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    start = serve_stock if kind == "pynetdicom" else serve_ours
    close = start(kind, folder, port, pdu)
    stop.wait()
    close()


def serve_stock(kind: str, folder: Path, port: int, pdu: int) -> Callable[[], None]:
    from pynetdicom import AE, StoragePresentationContexts, evt
    from pynetdicom.sop_class import Verification

    def handle(event: evt.Event) -> int:
        image = event.dataset
        image.file_meta = event.file_meta
        image.save_as(folder / f"{image.SOPInstanceUID}.dcm", enforce_file_format=True)
        return 0

    entity = AE("RECEIVER")
    entity.supported_contexts = StoragePresentationContexts
    entity.add_supported_context(Verification)
    entity.maximum_pdu_size = pdu
    entity.maximum_associations = ASSOCIATIONS_MAX
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, handle)]
    )
    return server.shutdown


def serve_ours(kind: str, folder: Path, port: int, pdu: int) -> Callable[[], None]:
    from dicom_node.dimse.scp import Limits, serve_storage
    from dicom_node.spool.store import Spool

    undo = ExitStack()
    spool = Spool(folder / "spool", unsynced_disk() if kind == "unsynced" else None)
    whole = kind in ("node", "crew")
    receiver = undo.enter_context(whole_receiver(folder, spool)) if whole else SpoolOnly(spool)
    crew = undo.enter_context(two_processes(folder, receiver, pdu)) if kind == "crew" else None
    server = serve_storage(
        ae_title="RECEIVER",
        host="127.0.0.1",
        port=port,
        receiver=receiver,
        limits=Limits(associations_max=ASSOCIATIONS_MAX, pdu_bytes=pdu),
        elsewhere=crew,
    )
    undo.callback(server.stop, 1)
    return undo.close


def unsynced_disk() -> object:
    """A disk that promises nothing, as that of the receivers that do not sync."""
    from dicom_node.spool.disk import Disk

    class Unsynced(Disk):
        def sync(self, descriptor: int) -> None: ...

        def sync_named(self, descriptor: int) -> None: ...

        def sync_folder(self, folder: Path) -> None: ...

    return Unsynced()


@contextmanager
def whole_receiver(folder: Path, spool: object) -> Iterator[object]:
    """The receiving stage of the node as it is: checks, header, catalog."""
    from dicom_node.catalog import Catalog
    from dicom_node.node.admit import Admission
    from dicom_node.node.bell import Bell
    from dicom_node.node.clock import SystemClock
    from dicom_node.node.journal import Journal
    from dicom_node.node.receive import StorageReceiver

    admission = Admission(
        ae_title="RECEIVER", peers=(), accept_unknown=True, min_free_bytes=0, quiet_s=60
    )
    with closing(Bell(folder)) as bell, closing(Catalog(folder / "catalog.sqlite")) as catalog:
        journal = Journal(catalog, bell, performers=1)
        yield StorageReceiver(
            admission=admission, spool=spool, journal=journal, clock=SystemClock()
        )


CREW = """
[node]
ae_title = "RECEIVER"
data_dir = "."

[receive]
processes = 2
min_free_gib = 0
max_associations = {associations}
max_pdu = {pdu}
"""


@contextmanager
def two_processes(folder: Path, receiver: object, pdu: int) -> Iterator[object]:
    """The processes that a node with `processes = 2` has beside it, ready."""
    from dicom_node.config.load import load
    from dicom_node.node.crew import Crew
    from dicom_node.node.layout import hand_over

    path = folder / "ae_config.toml"
    path.write_text(CREW.format(associations=ASSOCIATIONS_MAX, pdu=pdu))
    command = ("-m", "dicom_node.node.receiving", str(hand_over(load(path))))
    crew = Crew(count=2, command=command, receiver=receiver, sweep=lambda _pid: None)
    crew.start(time.monotonic())
    try:
        while crew.ready() < crew.count:
            crew.run_due(time.monotonic())
            threading.Event().wait(0.02)
        yield crew
    finally:
        crew.end()


class SpoolOnly:
    """A receiver that stores, and remembers nothing."""

    def __init__(self, spool: object) -> None:
        self.spool = spool

    def admit(self, request: object) -> int:
        return 1

    def begin(self, request: object) -> object:
        from dicom_node.dimse.scp import StoreAnswer

        incoming = self.spool.begin()

        class Sink:
            write = staticmethod(incoming.write)
            abort = staticmethod(incoming.abort)

            @staticmethod
            def finish() -> StoreAnswer:
                incoming.commit()
                return StoreAnswer(status=0)

        return Sink

    def ended(self, association: int, how: str) -> None: ...

    def echoed(self, request: object) -> None: ...

    def idle_s(self, association: int) -> None: ...

    def refused(self, refusal: object) -> None: ...

    def rejected(self, request: object, rejection: object) -> None: ...

    def broke(self, request: object, association: int | None, reason: str) -> None: ...

    def identifies(self, association: int) -> bool:
        return False

    def unsecured(self, request: object, reason: str) -> None: ...


# --- from outside ---------------------------------------------------------------------------------


def command_of(kind: str, folder: Path, port: int, pdu: int, associations: int) -> list[str]:
    if kind == "storescp":
        fork = ["--fork"] if associations > 1 else []
        where = ["-od", str(folder), str(port)]
        return [PROGRAMS[kind], *fork, "-aet", "RECEIVER", "-pdu", str(pdu), *where]
    if kind == "orthanc":
        configuration = folder / "orthanc.json"
        settings = {
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "DicomPort": port,
            "DicomAet": "RECEIVER",
            "HttpServerEnabled": False,
            "RemoteAccessAllowed": False,
        }
        configuration.write_text(json.dumps(settings))
        return [PROGRAMS[kind], str(configuration)]
    here_it_is = str(Path(__file__).resolve())
    return [sys.executable, here_it_is, kind, str(folder), str(port), str(pdu)]


@dataclass(frozen=True, kw_only=True)
class Running:
    """A receiver that runs."""

    kind: str
    folder: Path
    port: int
    pid: int

    def cpu_s(self) -> tuple[float, float]:
        """User and system seconds of all its processes, of those that have ended, too."""
        user = system = 0
        for pid in tree(self.pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            user += int(fields[11]) + int(fields[13])
            system += int(fields[12]) + int(fields[14])
        tick = os.sysconf("SC_CLK_TCK")
        return user / tick, system / tick

    def mb(self, name: str) -> float:
        """VmRSS or VmHWM of all its processes."""
        texts = [Path(f"/proc/{pid}/status").read_text() for pid in tree(self.pid)]
        return sum(int(text.split(f"{name}:")[1].split()[0]) for text in texts) / 1024

    def forget_peak(self) -> None:
        """VmHWM begins anew: proc_pid_clear_refs(5)."""
        for pid in tree(self.pid):
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def digests(self) -> set[bytes]:
        """Of the data sets of all DICOM files that it has written."""
        found = set()
        for path in self.folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    head = file.read(144)
                    if head[128:132] == b"DICM":
                        file.seek(144 + int.from_bytes(head[140:144], "little"))
                        found.add(digest_of_rest(file))
        return found


def digest_of_rest(file: object) -> bytes:
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.digest()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def running(
    kind: str, where: Path, *, pdu: int = 131072, associations: int = 1
) -> Iterator[Running]:
    """A receiver with nothing in it; what it has received is removed in the end."""
    with tempfile.TemporaryDirectory(prefix=f"bench-{kind}-", dir=where) as made:
        folder, port = Path(made), free_port()
        receiver = subprocess.Popen(
            command_of(kind, folder, port, pdu, associations),
            env=os.environ | {"TCP_NODELAY": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield Running(kind=kind, folder=folder, port=port, pid=receiver.pid)
        finally:
            receiver.terminate()
            receiver.wait(60)


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
