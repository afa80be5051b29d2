"""A receiver as a process under attack, and what must hold of it whatever a peer does.

Looked at from outside alone: by /proc, by its folder, and by what another peer is answered.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dicom_node.dimse.part10 import file_head
from dicom_node.testing.models import threshold_model
from faults.attack import ATTACKER, SILENT, Attack
from faults.attack_tls import CERTIFICATES, client
from faults.harness import wait_until
from faults.hostile import Row
from raw import objects as o
from raw import wire
from raw.ports import free_port
from raw.wire import CT, EXPLICIT

OTHER, ELSEWHERE = "OTHER", "127.0.0.2"  # the peer who means no harm, and its address
MEMORY_MIB = 64.0
BACK_S = 5.0  # in which threads and descriptors come back
SLICES = 3

CONFIG = """
[node]
port = {port}
data_dir = "var"
models_dir = "models"

[receive]
min_free_gib = 0
max_object_gib = 0.02
processes = {processes}
"""
PEER = """
[[peer]]
name = "{name}"
ae_title = "{ae_title}"
host = "127.0.0.1"
port = 104
{more}
"""
TLS = """
[tls]
certificate = "tls/node.pem"
key = "tls/node.key"
ca = "tls/ca.pem"
port = {port}
plain = false
"""
PEERS = {ATTACKER: "", SILENT: "idle_s = 0.5", OTHER: f'networks = ["{ELSEWHERE}/32"]'}


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a process has."""

    threads: int
    descriptors: int
    memory_mib: float


def of_process(pid: int, name: str) -> int:
    """A number of /proc/PID/status."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0])


class Server:
    """A receiver in a folder of its own. served: what the table calls it. tls: how an honest peer
    speaks to its port, if by TLS."""

    served = ""
    called = "DICOMNODE"
    tls: ssl.SSLContext | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.numbers = itertools.count(1)  # of what is sent to it: never the same object twice
        self.log = folder / "server.log"
        folder.mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._known: set[Path] = set()

    def command(self) -> Sequence[str]:
        """How it is started, in its folder."""
        raise AssertionError("of each server its own")

    def start(self) -> None:
        """Until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        ready = lambda: self.dead() or not self.echo(1.0)  # noqa: E731
        wait_until(ready, f"{self.served} answers C-ECHO\n{self.told()}")
        assert not self.dead(), self.told()
        self._known = set(self.strays())

    def echo(self, within_s: float) -> str:
        """Whether another peer's C-ECHO is answered: "", or why not."""
        return wire.echo(
            self.port, OTHER, within_s, called=self.called, source=ELSEWHERE, tls=self.tls
        )

    def end(self) -> None:
        """By its pid; it must not end by itself."""
        if self._process is not None and not self.dead():
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
            if self.dead():
                return
            self._process.kill()
            self._process.wait(20)

    def dead(self) -> bool:
        return self._process is None or self._process.poll() is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def told(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    # --- what is to be seen of it

    def pids(self) -> Sequence[int]:
        """Of all processes that receive."""
        return (self.pid,)

    def look(self) -> Look:
        """At all processes that receive."""
        pids = self.pids()
        return Look(
            threads=sum(of_process(pid, "Threads") for pid in pids),
            descriptors=sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids),
            memory_mib=sum(of_process(pid, "VmRSS") for pid in pids) / 1024,
        )

    def peak_mib(self) -> float:
        """The most memory since forget_peak(), of each process added."""
        return sum(of_process(pid, "VmHWM") for pid in self.pids()) / 1024

    def forget_peak(self) -> None:
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def settled(self) -> Look:
        """The same for half a second: what it has when nothing happens."""
        seen: list[Look] = []

        def same() -> bool:
            seen.append(self.look())
            last = {(look.threads, look.descriptors) for look in seen[-25:]}
            return len(seen) >= 25 and len(last) == 1

        wait_until(same, "it comes to rest")
        return seen[-1]

    def strays(self) -> Iterator[Path]:
        """Files outside the folders that are its own."""
        own = self.own_folders()
        for folder, folders, files in os.walk(self.folder):
            folders[:] = [name for name in folders if Path(folder, name) not in own]
            yield from (Path(folder, name) for name in files if Path(folder, name) != self.log)

    def new_strays(self) -> set[Path]:
        return set(self.strays()) - self._known

    def own_folders(self) -> tuple[Path, ...]:
        raise AssertionError("of each server its own")

    def objects(self) -> int:
        """How many files of objects it holds."""
        raise AssertionError("of each server its own")

    def temporaries(self) -> int:
        """How many files are not yet, or never were, whole objects."""
        return 0

    def holds(self, instance: str, data_set: bytes) -> bool:
        """Whether this object is there, byte for byte."""
        raise AssertionError("of each server its own")


class Node(Server):
    """`dicom-node serve`."""

    served = "dicom-node"

    def __init__(self, folder: Path, *, processes: int = 1, more: str = "") -> None:
        """processes: that receive. more: of its configuration."""
        super().__init__(folder)
        self.config = folder / "ae_config.toml"
        peers = "".join(
            PEER.format(name=title.lower(), ae_title=title, more=lines)
            for title, lines in PEERS.items()
        )
        receive = CONFIG.format(port=self.port, processes=processes)
        self.config.write_text(receive + more + peers)
        model = folder / "models" / "lung-threshold"
        model.mkdir(parents=True)
        (model / "model.toml").write_text(threshold_model())

    def command(self) -> Sequence[str]:
        node = (sys.executable, "-m", "dicom_node.cli.main", "serve")
        return (*node, "--config", str(self.config))

    def pids(self) -> Sequence[int]:
        """The node's own, and those that receive beside it."""
        children: list[str] = []
        for path in Path(f"/proc/{self.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # the thread has ended meanwhile
                children += path.read_text().split()
        beside = [
            int(pid)
            for pid in children
            if b"dicom_node.node.receiving" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        return (self.pid, *sorted(beside))

    def own_folders(self) -> tuple[Path, ...]:
        return (self.folder / "var",)

    def objects(self) -> int:
        return sum(len(files) for _, _, files in os.walk(self.folder / "var/spool/objects"))

    def temporaries(self) -> int:
        return len(list((self.folder / "var/spool/incoming").glob("*.part")))

    def holds(self, instance: str, data_set: bytes) -> bool:
        """By its digest, which is its name."""
        head = file_head(sop_class_uid=CT, sop_instance_uid=instance, transfer_syntax_uid=EXPLICIT)
        name = hashlib.sha256(head + data_set).hexdigest()
        path = self.folder / f"var/spool/objects/{name[:2]}/{name}.dcm"
        return path.is_file() and path.read_bytes() == head + data_set


class TlsNode(Node):
    """The same, heard by TLS alone; ATTACKER and OTHER have a certificate each."""

    served = "dicom-node, TLS"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        shutil.copytree(CERTIFICATES, folder / "tls")
        for key in (folder / "tls").glob("*.key"):
            key.chmod(0o600)
        text = self.config.read_text().replace(f"port = {self.port}", f"port = {free_port()}", 1)
        for title, name in ((ATTACKER, "mr1.test"), (OTHER, "ct1.test")):
            known = f'ae_title = "{title}"\n'
            text = text.replace(known, f'{known}certificates = ["subject:CN={name}"]\n')
        self.config.write_text(text + TLS.format(port=self.port))
        self.tls = client("ct")


class Stock(Server):
    """The storescp of pynetdicom, as it comes."""

    served = "pynetdicom"
    called = "STORESCP"

    def command(self) -> Sequence[str]:
        stored = self.folder / "stored"
        stored.mkdir(exist_ok=True)
        server = (sys.executable, "-m", "pynetdicom", "storescp", str(self.port))
        return (*server, "-ba", "127.0.0.1", "-od", str(stored))

    def own_folders(self) -> tuple[Path, ...]:
        return (self.folder / "stored",)

    def objects(self) -> int:
        return len(list((self.folder / "stored").iterdir()))

    def holds(self, instance: str, data_set: bytes) -> bool:
        found = list((self.folder / "stored").glob(f"*{instance}*"))
        return any(path.read_bytes().endswith(data_set) for path in found)


class TlsStock(Stock):
    """A server of pynetdicom with TLS, which its storescp has not: as its documentation has it."""

    served = "pynetdicom, TLS"
    called = "STORESCP"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tls = client("ct")

    def command(self) -> Sequence[str]:
        stored = self.folder / "stored"
        stored.mkdir(exist_ok=True)
        script = Path(__file__).with_name("stock_tls.py")
        return (sys.executable, str(script), str(self.port), str(stored), str(CERTIFICATES))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an attack was answered, and what it did. threads, descriptors, temporaries: too many
    when all was over; peak_mib: above what the process had before the first attack."""

    answer: str
    alive: bool
    echoes: tuple[str, ...]
    slowest_s: float
    study: str
    threads: int
    descriptors: int
    peak_mib: float
    temporaries: int
    strays: int
    kept: int

    def harm(self) -> list[str]:
        """In a few words each; none is as it should be."""
        told = [] if self.alive else ["the process died"]
        if self.echoes:
            told.append(f"others locked out ({', '.join(self.echoes)})")
        elif self.study:
            told.append(f"another's study was not received: {self.study}")
        if self.peak_mib > MEMORY_MIB:
            told.append(f"+{self.peak_mib:.0f} MiB")
        for count, what in (
            (self.threads, "thread"),
            (self.descriptors, "descriptor"),
            (self.temporaries, "temporary file"),
            (self.strays, "stray file"),
        ):
            if count > 0:
                told.append(f"{count} {what}{'s' if count > 1 else ''} left")
        return told


@dataclass
class Meanwhile:
    """What another peer does while an attack goes on: C-ECHO again and again, and one study."""

    server: Server
    within_s: float
    numbers: Iterator[int]
    refused: set[str] = field(default_factory=set)
    slowest_s: float = 0.0
    study: str = ""
    _sent: dict[str, bytes] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _run(self) -> None:
        self.echo()
        self._store()
        while not self._over.wait(0.1):
            self.echo()

    def echo(self) -> None:
        began_at = time.monotonic()
        why = self.server.echo(self.within_s)
        if why:
            self.refused.add(why.removesuffix(" in place of an answer"))
        else:
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_at)

    def _store(self) -> None:
        series = f"1.2.826.0.1.3680043.2.96.{next(self.numbers)}"
        for number in range(SLICES):
            uid = f"{series}.{number}"
            self._sent[uid] = o.encoded(o.ct(uid, study=f"{series}.8", series=f"{series}.9"))
        try:
            self.study = self._stored()
        except OSError as error:
            self.study = type(error).__name__

    def _stored(self) -> str:
        attack = Attack(
            self.server.port,
            self.numbers,
            called=self.server.called,
            source=ELSEWHERE,
            tls=self.server.tls,
        )
        caller = attack.call()
        try:
            caller.send(attack.request(calling=OTHER))
            kind, body = caller.hear(attack.patience_s)
            if kind != 2:
                return wire.in_words(kind, body)
            for uid, data in self._sent.items():
                attack.say(caller, wire.message(wire.c_store(instance=uid), data))
                answer = attack.answer(caller)
                if answer != "0x0000":
                    return answer
            caller.send(wire.RELEASE)
            caller.hear(attack.patience_s)
        finally:
            attack.close()
        lost = [uid for uid, data in self._sent.items() if not self.server.holds(uid, data)]
        return "acknowledged and lost" if lost else ""


class Siege:
    """One server and one attack after another."""

    def __init__(
        self, server: Server, *, long: bool, echo_s: float, back_s: float, patience_s: float
    ) -> None:
        """echo_s: in which another's C-ECHO must be answered. See Attack for the others."""
        self._server = server
        self._long, self._echo_s, self._back_s = long, echo_s, back_s
        self._patience_s = patience_s
        self._numbers = server.numbers
        warm = Meanwhile(server=server, within_s=20.0, numbers=self._numbers)
        with warm.going_on():
            pass
        assert not warm.refused, warm.refused
        assert not warm.study, warm.study
        self._first = server.settled()

    def outcome(self, row: Row) -> Outcome:
        """Run the row: what came back, and what it did to others and to the server."""
        server, before = self._server, self._server.objects()
        server.forget_peak()
        attack = Attack(
            server.port,
            self._numbers,
            long=self._long,
            patience_s=self._patience_s,
            called=server.called,
        )
        other = Meanwhile(server=server, within_s=self._echo_s, numbers=self._numbers)
        try:
            with other.going_on():
                answer = row.attack(attack)
            other.echo()  # while its connections are still open
        finally:
            attack.close()
        alive = not server.dead()
        if alive:
            threads, descriptors, temporaries = self._left()
            other.echo()
        return Outcome(
            answer=answer,
            alive=alive,
            echoes=tuple(sorted(other.refused)),
            slowest_s=other.slowest_s,
            study=other.study,
            threads=threads if alive else 0,
            descriptors=descriptors if alive else 0,
            peak_mib=server.peak_mib() - self._first.memory_mib if alive else 0.0,
            temporaries=temporaries if alive else 0,
            strays=len(server.new_strays()),
            kept=server.objects() - before - (0 if other.study else SLICES),
        )

    def _left(self) -> tuple[int, int, int]:
        """What is too much: waited for, as long as it may take."""
        too_much: Callable[[], tuple[int, int, int]] = lambda: (  # noqa: E731
            self._server.look().threads - self._first.threads,
            self._server.look().descriptors - self._first.descriptors,
            self._server.temporaries(),
        )
        until = time.monotonic() + self._back_s
        while any(count > 0 for count in too_much()) and time.monotonic() < until:
            time.sleep(0.02)
        threads, descriptors, temporaries = too_much()
        return threads, descriptors, temporaries


def unharmed(row: Row, outcome: Outcome) -> None:
    """Assert what must hold after any input, and that the row was answered as it says."""
    assert outcome.answer == row.ours, f"{row.name}: {outcome.answer}, not {row.ours}"
    assert not outcome.harm(), f"{row.name}: {outcome.harm()}"
    assert outcome.kept == row.kept, f"{row.name}: it kept {outcome.kept}, not {row.kept}"
