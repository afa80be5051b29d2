"""What the fault tests share: a node as a process, a sender that keeps count, and what must hold.

The promise is checked from outside: by what the sender saw acknowledged, by the files on the disk,
and by the objects that the destination was given.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pynetdicom import AE
from pynetdicom.transport import AssociationSocket

from dicom_node.testing.pacs import LocalPacs
from dicom_node.testing.series import Header, a_series
from faults.victim import fired

VICTIM = Path(__file__).with_name("victim.py")
SLICES = 8
PATIENCE_S = 120.0  # for what must happen: nothing is judged by how soon it does

MODEL = """
id = "lung-threshold"
name = "Lung threshold"
version = "1"
kind = "threshold"
description = "Right and left lung on CT, by density"
licence = "MIT"

[input]
modality = "CT"
when = 'Modality == "CT"'

[[segment]]
number = 1
label = "Right lung"
category = ["91723000", "SCT", "Anatomical Structure"]
type = ["39607008", "SCT", "Lung"]
laterality = ["24028007", "SCT", "Right"]
rgb = [0, 128, 255]

[[segment]]
number = 2
label = "Left lung"
category = ["91723000", "SCT", "Anatomical Structure"]
type = ["39607008", "SCT", "Lung"]
laterality = ["7771000", "SCT", "Left"]
rgb = [255, 128, 0]
"""

CONFIG = """
[node]
port = {port}
data_dir = "{data_dir}"
models_dir = "models"

[receive]
min_free_gib = {min_free_gib}

[complete]
release_s = 0.1
quiet_s = 900
give_up_s = 900

[engine]
max_attempts = {max_attempts}

[deliver]
connect_s = 5
answer_s = {answer_s}
first_s = 0.3
max_s = 2

[[peer]]
name = "pacs"
ae_title = "TESTPACS"
host = "127.0.0.1"
port = {pacs_port}

[[route]]
name = "lungs"
when = 'Modality == "CT"'
tool = "lung-threshold"
results = ["seg"]
to = ["{to}"]
{more}
"""
# A Series is complete when all its instances are here, and never for the mere passing of time: the
# objects say how many they are, and the times above outlast every test. So no kill, however long
# the restart takes, makes a node work on a part.


@dataclass
class Tally:
    """What a whole run did and found; its line is the last of `make faults`."""

    kills: int = 0
    power_cuts: int = 0
    acknowledged: int = 0
    found: int = 0
    expected: int = 0
    results: int = 0
    duplicated: int = 0
    where: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        return (
            f"{self.kills} kills, {self.power_cuts} power cuts; "
            f"instances: {self.acknowledged} acknowledged, {self.found} found; "
            f"results: {self.expected} expected, {self.results} found, "
            f"{self.duplicated} duplicated"
        )


# --- objects --------------------------------------------------------------------------------------


def new_series(seed: str, number: int, **header: Any) -> list[Dataset]:
    """Eight slices that say that they are eight; UIDs follow from the seed and the number."""
    extra = {"ImagesInAcquisition": SLICES}
    described = Header(study=seed, series=str(number), extra=extra, **header)
    return a_series(SLICES, size=64, spacing_mm=(5.0, 4.0, 4.0), header=described)


def data_set_digest(file: bytes) -> str:
    """SHA-256 of a Part 10 file behind its File Meta Information (PS3.10 §7.1); "" for another."""
    if file[128:132] != b"DICM":
        return ""
    return hashlib.sha256(file[144 + int.from_bytes(file[140:144], "little") :]).hexdigest()


def digest_of(dataset: Dataset) -> str:
    """SHA-256 of the data set as a sender encodes it."""
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return data_set_digest(stream.getvalue())


# --- destinations ---------------------------------------------------------------------------------


class Destination(Protocol):
    """Where results go: SOP Instance UID -> digests of every data set that came under it."""

    port: int

    def received(self) -> Mapping[str, set[str]]: ...

    def source_series(self, sop_instance_uid: str) -> str: ...


class WatchfulPacs(LocalPacs):
    """The test PACS, with the digest of every object that it was ever given."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self.given: dict[str, set[str]] = {}

    def _store(self, event: Any) -> int:
        data = event.request.DataSet.getvalue()
        status = super()._store(event)
        if status == 0:
            with self._changed:
                uid = str(event.request.AffectedSOPInstanceUID)
                self.given.setdefault(uid, set()).add(hashlib.sha256(data).hexdigest())
        return status

    def received(self) -> Mapping[str, set[str]]:
        with self._changed:
            return {uid: set(digests) for uid, digests in self.given.items()}

    def source_series(self, sop_instance_uid: str) -> str:
        return source_series_of(pydicom.dcmread(self.path_of(sop_instance_uid)))


class Files:
    """A destination that is known by the files that it keeps: DCMTK's storescp."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port, self._folder = port, folder
        self._series: dict[str, str] = {}

    def files(self) -> Iterator[bytes]:
        for path in self._folder.iterdir():
            yield path.read_bytes()

    def received(self) -> Mapping[str, set[str]]:
        known: dict[str, set[str]] = {}
        for file in self.files():
            try:
                result = pydicom.dcmread(io.BytesIO(file))
                self._series[str(result.SOPInstanceUID)] = source_series_of(result)
            except (InvalidDicomError, AttributeError, EOFError):
                continue  # it is still being written
            known.setdefault(str(result.SOPInstanceUID), set()).add(data_set_digest(file))
        return known

    def source_series(self, sop_instance_uid: str) -> str:
        return self._series[sop_instance_uid]


class OrthancFiles(Files):
    """What an Orthanc keeps."""

    def __init__(self, orthanc: Any) -> None:
        super().__init__(orthanc.dicom_port, Path())
        self._orthanc = orthanc
        self._known: dict[str, bytes] = {}

    def files(self) -> Iterator[bytes]:
        for name in self._orthanc.instances():
            if name not in self._known:
                self._known[name] = self._orthanc.file(name)
            yield self._known[name]


def source_series_of(result: Dataset) -> str:
    """The Series that a segmentation was made from."""
    return str(result.ReferencedSeriesSequence[0].SeriesInstanceUID)


# --- processes ------------------------------------------------------------------------------------


def processes_about(*folders: Path) -> list[int]:
    """The living processes with a path in these folders among their arguments, but this one."""
    wanted = tuple(os.fsencode(folder) + b"/" for folder in folders)
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if any(a.startswith(wanted) for a in (entry / "cmdline").read_bytes().split(b"\0")):
                found.append(int(entry.name))
    return found


def wait_until(so: Callable[[], object], what: str, seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < deadline, f"it did not happen in {seconds:g} s: {what}"
        time.sleep(0.02)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass
class Sent:
    """One Series, and what the node said to it."""

    datasets: Sequence[Dataset]
    acknowledged: set[str] = field(default_factory=set)
    refused: list[int] = field(default_factory=list)

    @property
    def uid(self) -> str:
        return str(self.datasets[0].SeriesInstanceUID)

    def owed(self) -> list[Dataset]:
        """What to send now: all that was not acknowledged, else the last once more.

        A sender that did not live to see its association released sends something again; without
        that the node would rightly wait for more, as long as its quiet time is.
        """
        missing = [d for d in self.datasets if d.SOPInstanceUID not in self.acknowledged]
        return missing or [self.datasets[-1]]


class _Socket(AssociationSocket):
    """Closes also what cannot be shut down; pynetdicom leaves that to the garbage collector."""

    def _shutdown_socket(self) -> None:
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()


class _Entity(AE):
    def _create_socket(self, assoc: Any, address: Any, tls_args: Any) -> _Socket:
        created = _Socket(assoc, address=address)
        created.tls_args = tls_args
        return created


def send(address: tuple[str, int], sent: Sent, *, pause_s: float = 0.0) -> None:
    """C-STORE what is owed over one association, counting what is acknowledged; stops at a cut."""
    ae = _Entity(ae_title="TESTPACS")
    ae.connection_timeout, ae.acse_timeout = 5, 30
    ae.dimse_timeout = ae.network_timeout = 60
    first = sent.datasets[0]
    ae.add_requested_context(first.SOPClassUID, first.file_meta.TransferSyntaxUID)
    association = ae.associate(*address, ae_title="DICOMNODE")
    try:
        for dataset in sent.owed():
            answer = association.send_c_store(dataset)
            if "Status" not in answer:
                return
            if answer.Status == 0:
                sent.acknowledged.add(str(dataset.SOPInstanceUID))
            else:
                sent.refused.append(int(answer.Status))
            time.sleep(pause_s)
        association.release()
    except RuntimeError:  # there was no association, or it was cut between two objects
        return


class Life:
    """One data folder through many ends of its node, with its sender and its destination.

    data_dir: where the folder is to lie; beside the configuration if nothing is said. through: the
    port that the node sends to, if it is not the destination's. more: peers, after the others.
    """

    def __init__(
        self,
        folder: Path,
        destination: Destination,
        *,
        seed: str,
        tally: Tally,
        data_dir: Path | None = None,
        through: int | None = None,
        **settings: object,
    ) -> None:
        self.folder, self.destination = folder, destination
        self.seed, self.tally = seed, tally
        self.luck = random.Random(seed)
        self.port = free_port()
        self.data_dir = data_dir or folder / "var"
        self.config = folder / "ae_config.toml"
        self.log = folder / "node.log"
        self.plan_file = folder / "plan.json"
        self.sent: list[Sent] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._before = set(destination.received())
        self._wrapped = False
        (folder / "models" / "lung-threshold").mkdir(parents=True)
        (folder / "models" / "lung-threshold" / "model.toml").write_text(MODEL)
        defaults = {"min_free_gib": 0, "max_attempts": 100, "answer_s": 20, "more": ""}
        defaults["to"] = "@sender"
        self.config.write_text(
            CONFIG.format(
                port=self.port,
                data_dir=self.data_dir,
                pacs_port=through or destination.port,
                **{**defaults, **settings},
            )
        )

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    # --- the process

    def start(
        self, plan: Mapping[str, object] | None = None, *, wrapper: Sequence[object] = ()
    ) -> None:
        """`dicom-node serve` itself, or with a plan of where to be killed; wrapper: runs it."""
        Path(f"{self.plan_file}.fired").unlink(missing_ok=True)
        self._wrapped = bool(wrapper)
        command = [sys.executable, "-m", "dicom_node.cli.main"]
        if plan is not None:
            self.plan_file.write_text(json.dumps(plan))
            command = [sys.executable, str(VICTIM), str(self.plan_file)]
        with self.log.open("ab") as log:
            log.write(f"\n=== {json.dumps(plan)}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                [*map(str, wrapper), *command, "serve", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, "PYTHONFAULTHANDLER": "1"},
            )

    def pid(self) -> int:
        """The node's own: with a wrapper, that of its child."""
        assert self.process is not None
        known = self.process.pid
        if not self._wrapped:
            return known
        return int(Path(f"/proc/{known}/task/{known}/children").read_text().split()[0])

    def dead(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def fired(self) -> bool:
        return fired(self.plan_file)

    def listens(self) -> bool:
        """Whether the node takes connections; it is not asked anything."""
        with contextlib.suppress(OSError), socket.create_connection(self.address, 1.0):
            return True
        return False

    def wait(self, so: Callable[[], object], what: str) -> None:
        """Wait for what must happen while the node lives; fails with what it told."""
        try:
            wait_until(lambda: self.dead() or so(), what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.told()}") from None
        assert so() or not self.dead(), f"the node died; {what} did not happen\n{self.told()}"

    def ready(self) -> None:
        self.wait(self.listens, "the node listens")

    def kill(self) -> None:
        """SIGKILL to the node alone; its performers must go by themselves."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)

    def processes(self) -> list[int]:
        """The node, its performers, and whatever else works on its folders."""
        return processes_about(self.folder, self.data_dir)

    def performers_gone(self) -> None:
        wait_until(lambda: not self.processes(), "the performers go with their node")

    def end(self) -> None:
        """Whatever happens to a test: no process of this life is left."""
        self.kill()
        for pid in self.processes():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Ended in order, by SIGTERM."""
        assert self.process is not None
        os.kill(self.pid(), signal.SIGTERM)
        try:
            assert self.process.wait(PATIENCE_S) == 0, self.told()
        except subprocess.TimeoutExpired:
            os.kill(self.pid(), signal.SIGABRT)  # it tells where its threads are
            self.process.wait(20)
            raise AssertionError(f"it did not end when told to\n{self.told()}") from None
        self.performers_gone()

    def told(self) -> str:
        """The seed to see it again, and the end of the log."""
        return f"seed {self.seed}\n{self.log.read_text(errors='replace')[-6000:]}"

    # --- sending

    def add_series(self, count: int = 1, **header: Any) -> list[Sent]:
        known = len(self.sent)
        made = [Sent(new_series(self.seed, known + n, **header)) for n in range(count)]
        self.sent += made
        return made

    def unfinished(self) -> list[Sent]:
        """The Series that the destination has no result of."""
        known = {self.destination.source_series(uid) for uid in self.mine()}
        return [sent for sent in self.sent if sent.uid not in known]

    def mine(self) -> list[str]:
        """The results that came in this life."""
        return [uid for uid in self.destination.received() if uid not in self._before]

    def sending(self, todo: Sequence[Sent], **how: Any) -> threading.Thread:
        """Send in a thread of its own, from when the node listens; two at a time if there are."""

        def all_of(some: Iterable[Sent]) -> None:
            for sent in some:
                if not self.dead():
                    send(self.address, sent, **how)

        def work() -> None:
            wait_until(lambda: self.dead() or self.listens(), "the node listens")
            second = threading.Thread(target=all_of, args=(todo[1::2],), daemon=True)
            second.start()
            all_of(todo[::2])
            second.join()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def all_delivered(self) -> bool:
        return len(self.mine()) >= len(self.sent)

    def deliver_everything(self) -> None:
        """The real node, to the end: send what is owed, and wait for every result."""
        if self.dead():
            self.start()
        self.sending(self.unfinished()).join(PATIENCE_S)
        wait_until(lambda: self.dead() or self.all_delivered(), f"all results come\n{self.told()}")
        assert not self.dead(), self.told()

    # --- what must hold

    def catalog(self, sql: str) -> list[Any]:
        """Ask a copy of the catalog: what the node left is for the node alone to repair."""
        with self.copied_catalog() as path, contextlib.closing(sqlite3.connect(path)) as db:
            return db.execute(sql).fetchall()

    @contextlib.contextmanager
    def copied_catalog(self) -> Iterator[Path]:
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for path in self.data_dir.glob("catalog.db*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, copy)
        yield copy / "catalog.db"
        shutil.rmtree(copy)

    def held(self) -> dict[str, str]:
        """SOP Instance UID -> digest of the data set, of what is in the catalog and the spool."""
        known = {}
        if not (self.data_dir / "catalog.db").exists():
            return known
        for uid, path in self.catalog("SELECT sop_instance_uid, path FROM instance"):
            file = self.data_dir / "spool" / path
            if file.exists():
                known[uid] = data_set_digest(file.read_bytes())
        return known

    def lost(self, acknowledged: Iterable[str] | None = None) -> list[str]:
        """What was acknowledged and is not there, byte for byte. The node need not be alive."""
        if acknowledged is None:
            acknowledged = [uid for sent in self.sent for uid in sent.acknowledged]
        wanted = {d.SOPInstanceUID: d for sent in self.sent for d in sent.datasets}
        acknowledged = sorted(acknowledged)
        if not acknowledged:
            return []
        held = self.held()
        return [uid for uid in acknowledged if held.get(uid) != digest_of(wanted[uid])]

    def check_after_death(self) -> None:
        assert not self.lost(), f"acknowledged and lost: {self.lost()}\n{self.told()}"
        refused = [status for sent in self.sent for status in sent.refused]
        assert not refused, f"refused with {refused}\n{self.told()}"

    def finish(self) -> None:
        """Deliver everything, end the node in order, and hold it to the whole promise."""
        self.deliver_everything()
        self.stop()
        lost, results = self.lost(), self.destination.received()
        mine = self.mine()
        per_series = Counter(self.destination.source_series(uid) for uid in mine)
        self.tally.acknowledged += sum(len(sent.acknowledged) for sent in self.sent)
        self.tally.found += sum(len(sent.acknowledged) for sent in self.sent) - len(lost)
        self.tally.expected += len(self.sent)
        self.tally.results += len({sent.uid for sent in self.sent} & set(per_series))
        self.tally.duplicated += sum(per_series.values()) - len(per_series)
        self.check_after_death()
        assert all(len(sent.acknowledged) == SLICES for sent in self.sent), self.told()
        assert per_series == {sent.uid: 1 for sent in self.sent}, self.told()
        made = self.catalog("SELECT sop_instance_uid, path FROM result")
        spool = self.data_dir / "spool"
        in_spool = {uid: {data_set_digest((spool / path).read_bytes())} for uid, path in made}
        assert {uid: results[uid] for uid in mine} == in_spool, self.told()
        on_disk = {str(p.relative_to(spool)) for p in spool.rglob("*") if p.is_file()}
        known = self.catalog("SELECT path FROM instance UNION SELECT path FROM result")
        assert on_disk == {path for (path,) in known}, "files that nobody knows, or a missing one"
        states = self.catalog("SELECT DISTINCT state FROM delivery")
        assert set(states) <= {("SENT",), ("SENDING",)}, states


def seeds(name: str, count: int) -> list[str]:
    """Seeds for `count` trials: FAULTS_SEED=2 gives others, FAULTS_SEED=kills:1:7 that one."""
    chosen = os.environ.get("FAULTS_SEED", "1")
    if ":" in chosen:
        return [chosen] if chosen.startswith(f"{name}:") else []
    return [f"{name}:{chosen}:{n}" for n in range(count)]
