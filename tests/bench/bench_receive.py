"""How fast, and at what cost, receivers take CT slices: ours, stock pynetdicom, DCMTK, Orthanc.

One sender for all: a process of its own, PDUs encoded before the clock starts, each instance waits
for its response. Receivers take turns in every round. CPU is user + system time of the receiver's
process tree from /proc, read before the associations are released. A round counts only if every
data set is found afterwards, byte for byte, in what the receiver wrote.

The table is printed as Markdown; absolute numbers depend on the machine, ratios less so.
"""

# ruff: noqa: PLC0415  # a receiver's process imports only what that receiver needs

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.dsutils import encode

from sending import CT, Instance, Sender

NAMES = {
    "node": "dicom-node: checks, fdatasync, folder fsync, catalog FULL, before each answer",
    "spool": "dicom-node: fdatasync and folder fsync before each answer, no catalog",
    "unsynced": "dicom-node: no sync, no catalog (no mode of the product: for comparison)",
    "pynetdicom": "pynetdicom, event.dataset and save_as, defaults, no sync",
    "storescp": "DCMTK storescp, largest PDU, no sync",
    "orthanc": "Orthanc, default storage",
}
PROGRAMS = {"storescp": "/usr/bin/storescp", "orthanc": "/usr/sbin/Orthanc"}
HERE = Path(__file__).resolve()


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def instances_of(count: int) -> list[Instance]:
    """Synthetic CT slices of 512 x 512, noisy as real ones, each with its own UID and position."""
    noise = np.random.default_rng(1).normal(40, 25, (512, 512 + count)).astype("<i2")
    encoded = []
    for number in range(count):
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = CT, f"1.2.826.0.1.3680043.2.3.{number + 1}"
        image.StudyDate, image.Modality, image.PatientName = "20240101", "CT", "Phantom^Bench"
        image.PatientID, image.StudyInstanceUID = "BENCH", "1.2.826.0.1.3680043.2.4"
        image.SeriesInstanceUID, image.InstanceNumber = "1.2.826.0.1.3680043.2.5", number + 1
        image.FrameOfReferenceUID = "1.2.826.0.1.3680043.2.6"
        image.ImagePositionPatient = [-180, -180, number]
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.Rows = image.Columns = 512
        image.PixelSpacing, image.SliceThickness = [0.7, 0.7], 1
        image.BitsAllocated = image.BitsStored = 16
        image.HighBit, image.PixelRepresentation = 15, 1
        image.RescaleIntercept, image.RescaleSlope, image.RescaleType = 0, 1, "HU"
        image.add_new("PixelData", "OW", noise[:, number : number + 512].tobytes())
        encoded.append(
            Instance(sop_instance_uid=image.SOPInstanceUID, data_set=encode(image, False, True))
        )
    return encoded


# --- the sender -----------------------------------------------------------------------------------


def send(port: int, instances: int, associations: int) -> None:
    """The sender's process: ready, go, result, end."""
    work = list(enumerate(instances_of(instances)))
    senders = [Sender(port, work[i::associations]) for i in range(associations)]
    say("ready")
    sys.stdin.readline()
    threads = [threading.Thread(target=one.run) for one in senders]
    began_at, cpu_s = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    waits_s = [wait for one in senders for wait in one.waits_s]
    result = {
        "seconds": time.perf_counter() - began_at,
        "sender_cpu_s": time.process_time() - cpu_s,
        "answers": len(waits_s),
        "failures": sum(one.failures for one in senders),
        "median_wait_ms": statistics.median(waits_s) * 1000 if waits_s else 0.0,
    }
    say(json.dumps(result))
    sys.stdin.readline()
    for one in senders:
        one.release()


# --- the receivers --------------------------------------------------------------------------------


def serve(kind: str, folder: Path, port: int) -> None:
    """A receiver in Python, in a process of its own."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    close = serve_stock(folder, port) if kind == "pynetdicom" else serve_ours(kind, folder, port)
    stop.wait()
    close()


def serve_stock(folder: Path, port: int) -> Callable[[], None]:
    from pynetdicom import StoragePresentationContexts

    def handle(event: evt.Event) -> int:
        image = event.dataset
        image.file_meta = event.file_meta
        image.save_as(folder / f"{image.SOPInstanceUID}.dcm", enforce_file_format=True)
        return 0

    entity = AE("RECEIVER")
    entity.supported_contexts = StoragePresentationContexts
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, handle)]
    )
    return server.shutdown


def serve_ours(kind: str, folder: Path, port: int) -> Callable[[], None]:
    from dicom_node.dimse.scp import serve_storage
    from dicom_node.spool.store import Spool

    spool = Spool(folder / "spool", unsynced_disk() if kind == "unsynced" else None)
    receiver = whole_receiver(folder, spool) if kind == "node" else SpoolOnly(spool)
    server = serve_storage(ae_title="RECEIVER", host="127.0.0.1", port=port, receiver=receiver)
    return lambda: server.stop(1)


def unsynced_disk() -> object:
    """A disk that promises nothing, as that of the receivers that do not sync."""
    from dicom_node.spool.disk import Disk

    class Unsynced(Disk):
        def sync(self, descriptor: int) -> None: ...

        def sync_folder(self, folder: Path) -> None: ...

    return Unsynced()


def whole_receiver(folder: Path, spool: object) -> object:
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
    journal = Journal(Catalog(folder / "catalog.sqlite"), Bell(folder), performers=1)
    return StorageReceiver(admission=admission, spool=spool, journal=journal, clock=SystemClock())


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


def command_of(kind: str, folder: Path, port: int, associations: int) -> list[str]:
    if kind == "storescp":
        fork = ["--fork"] if associations > 1 else []
        where = ["-od", str(folder), str(port)]
        return [PROGRAMS[kind], *fork, "-aet", "RECEIVER", "-pdu", "131072", *where]
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
    return [
        sys.executable,
        str(HERE),
        "--serve",
        kind,
        "--folder",
        str(folder),
        "--port",
        str(port),
    ]


# --- measuring ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Round:
    """One receiver, once."""

    receiver: str
    associations: int
    images_per_s: float
    cpu_s_per_gb: float
    user_s_per_gb: float
    peak_mb: float
    median_wait_ms: float


def tree(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def cpu_s(pids: list[int]) -> tuple[float, float]:
    """User and system seconds, children that have ended included."""
    user = system = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        user += int(fields[11]) + int(fields[13])
        system += int(fields[12]) + int(fields[14])
    tick = os.sysconf("SC_CLK_TCK")
    return user / tick, system / tick


def peak_mb(pids: list[int]) -> float:
    lines = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return sum(int(text.split("VmHWM:")[1].split()[0]) for text in lines) / 1024


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def measured(kind: str, associations: int, instances: int, where: Path) -> Round:
    folder = Path(tempfile.mkdtemp(prefix=f"bench-{kind}-", dir=where))
    port = free_port()
    environment = os.environ | {"TCP_NODELAY": "1"}
    receiver = subprocess.Popen(
        command_of(kind, folder, port, associations),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    own = [sys.executable, str(HERE), "--send", str(port)]
    sender = subprocess.Popen(
        [*own, "--instances", str(instances), "--associations", str(associations)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if sender.stdout.readline() != "ready\n":
            raise SystemExit(f"{kind}: the sender could not associate")
        os.sync()  # else what the last receiver left unwritten slows this one's syncs
        before = cpu_s(tree(receiver.pid))
        tell(sender, "go")
        result = json.loads(sender.stdout.readline())
        pids = tree(receiver.pid)
        after, memory_mb = cpu_s(pids), peak_mb(pids)
        tell(sender, "end")
        sender.wait(60)
    finally:
        for child in (sender, receiver):
            child.terminate()
            child.wait(60)
        sender.stdin.close()
        sender.stdout.close()
    sent = [one.data_set for one in instances_of(instances)]
    if result["answers"] != instances or result["failures"]:
        raise SystemExit(f"{kind}: {result['failures']} failures, {result['answers']} answers")
    missing = {hashlib.sha256(data).digest() for data in sent} - written(folder)
    if missing:
        raise SystemExit(f"{kind}: {len(missing)} data sets are not there, or differ")
    shutil.rmtree(folder)
    gigabytes = sum(map(len, sent)) / 1e9
    user, system = after[0] - before[0], after[1] - before[1]
    return Round(
        receiver=kind,
        associations=associations,
        images_per_s=instances / result["seconds"],
        cpu_s_per_gb=(user + system) / gigabytes,
        user_s_per_gb=user / gigabytes,
        peak_mb=memory_mb,
        median_wait_ms=result["median_wait_ms"],
    )


def tell(child: subprocess.Popen[str], word: str) -> None:
    child.stdin.write(word + "\n")
    child.stdin.flush()


def written(folder: Path) -> set[bytes]:
    """Digests of the data sets of all DICOM files below a folder."""
    found = set()
    for path in folder.rglob("*"):
        if path.is_file():
            raw = path.read_bytes()
            if raw[128:132] == b"DICM":
                meta = int.from_bytes(raw[140:144], "little")
                found.add(hashlib.sha256(raw[144 + meta :]).digest())
    return found


def flush_ms(where: Path) -> float:
    """What one sync costs here, with nothing to write but 4 KiB: it bounds whoever syncs."""
    waits_s = []
    with tempfile.NamedTemporaryFile(dir=where) as file:
        for _ in range(50):
            began_at = time.perf_counter()
            os.pwrite(file.fileno(), bytes(4096), 0)
            os.fdatasync(file.fileno())
            waits_s.append(time.perf_counter() - began_at)
    return statistics.median(waits_s) * 1000


def table(rounds: list[Round]) -> str:
    lines = [
        "| receiver | assoc. | images/s (rounds) | CPU s/GB (user) | peak MB | wait ms |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    groups: dict[tuple[int, str], list[Round]] = {}
    for one in rounds:
        groups.setdefault((one.associations, one.receiver), []).append(one)
    for (associations, kind), group in sorted(groups.items(), key=lambda g: g[0][0]):

        def middle(name: str, group: list[Round] = group) -> float:
            return statistics.median(getattr(one, name) for one in group)

        each = ", ".join(f"{one.images_per_s:.0f}" for one in group)
        lines.append(
            f"| {NAMES[kind]} | {associations} | {middle('images_per_s'):.0f} ({each}) "
            f"| {middle('cpu_s_per_gb'):.2f} ({middle('user_s_per_gb'):.2f}) "
            f"| {middle('peak_mb'):.0f} | {middle('median_wait_ms'):.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--instances", type=int, default=512)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", choices=sorted(NAMES), default=list(NAMES))
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()))
    for hidden, kind in (("serve", str), ("folder", Path), ("port", int), ("send", int)):
        parser.add_argument(f"--{hidden}", type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--associations", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        return serve(given.serve, given.folder, given.port)
    if given.send:
        return send(given.send, given.instances, given.associations)
    kinds = [k for k in given.only if k not in PROGRAMS or Path(PROGRAMS[k]).exists()]
    rounds: list[Round] = []
    conditions = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start"
    conditions += f", one sync {flush_ms(given.dir):.1f} ms"
    for number in range(given.rounds):
        turn = number % len(kinds)
        for kind in kinds[turn:] + kinds[:turn]:
            rounds += [measured(kind, n, given.instances, given.dir) for n in (1, 4)]
    say(f"{given.rounds} rounds of {given.instances} instances; {conditions}\n")
    say(table(rounds))
    for kind, name in NAMES.items():
        if kind not in kinds:
            say(f"not measured: {name}")
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in rounds], indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
