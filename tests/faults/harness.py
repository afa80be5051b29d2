"""What the fault tests share: a node as a process, a sender that keeps count, and what must hold.

The promise is checked from outside: by what the sender saw acknowledged, by the files on the disk,
and by the objects that the destination was given.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dicom_node.testing.models import threshold_model
from faults.destinations import Destination, data_set_digest, digest_of
from faults.sender import SLICES, Sent, new_series, send
from faults.tally import Tally
from faults.victim import fired
from raw.ports import free_port

VICTIM = Path(__file__).with_name("victim.py")
PATIENCE_S = 120.0  # for what must happen: nothing is judged by how soon it does

CONFIG = """
[node]
port = {port}
data_dir = "{data_dir}"
models_dir = "models"

[receive]
min_free_gib = {min_free_gib}

[complete]
release_s = 0.1
quiet_s = {quiet_s}
give_up_s = 900

[engine]
max_attempts = {max_attempts}

[deliver]
connect_s = 5
answer_s = {answer_s}
first_s = 0.3
max_s = 2
{deliver}

[[peer]]
name = "pacs"
ae_title = "TESTPACS"
host = "127.0.0.1"
port = {pacs_port}
{peer}

[[route]]
name = "lungs"
when = 'Modality == "CT"'
tool = "lung-threshold"
results = ["seg"]
to = ["{to}"]
{route}
{more}
"""
# A Series is complete when all its instances are here, and never for the mere passing of time: the
# objects say how many they are, and the times above outlast every test. So no kill, however long
# the restart takes, makes a node work on a part.


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


class Life:
    """One data folder through many ends of its node, with its sender and its destination.

    data_dir: where the folder is to lie; beside the configuration if nothing is said. through: the
    port that the node sends to, if it is not the destination's. deliver, peer, route: more lines of
    these tables. more: tables, after the others.
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
        (folder / "models" / "lung-threshold" / "model.toml").write_text(threshold_model())
        defaults = {"min_free_gib": 0, "max_attempts": 100, "answer_s": 20, "quiet_s": 900}
        defaults |= {"to": "@sender", "deliver": "", "peer": "", "route": "", "more": ""}
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
        if self.process is None:
            return
        if self._wrapped:  # whoever runs it ends with it
            with contextlib.suppress(OSError, IndexError):
                os.kill(self.pid(), signal.SIGKILL)
        else:
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
        copy = Path(tempfile.mkdtemp(prefix="copy-", dir=self.folder))  # several threads ask
        for path in self.data_dir.glob("catalog.db*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, copy)
        try:
            yield copy / "catalog.db"
        finally:
            shutil.rmtree(copy)

    def held(self) -> dict[str, str]:
        """SOP Instance UID -> digest of the data set, of what is in the catalog and the spool."""
        known = {}
        if not (self.data_dir / "catalog.db").exists():
            return known
        for uid, path in self.catalog("SELECT sop_instance_uid, path FROM instance"):
            file = self.data_dir / "spool" / path
            if path and file.exists():
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
