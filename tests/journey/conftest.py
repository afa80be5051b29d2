"""A whole node for a test: its own folder, free ports, loopback only, stopped at the end."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dicom_node.config.load import load
from dicom_node.node.serve import RunningNode, start
from dicom_node.node.why import Story, stories
from dicom_node.testing.models import threshold_model
from dicom_node.testing.pacs import LocalPacs
from raw.ends import holds

SHORT = "release_s = 0.3\nquiet_s = 2\ngive_up_s = 4"

ROUTE = """
[[route]]
name = "lungs"
when = 'Modality == "CT"'
tool = "lung-threshold"
results = ["seg"]
to = ["@sender"]
"""


@dataclass
class NodeUnderTest:
    """A running node, with the questions that tests ask."""

    folder: Path
    config_path: Path
    running: RunningNode = field(repr=False)
    stop: Callable[[], None] = field(repr=False)

    @property
    def port(self) -> int:
        return self.running.port

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    def story(self, text: str) -> Story:
        found = stories(self.running.catalog, text)
        assert len(found) == 1, f"{len(found)} stories about {text}"
        return found[0]

    def why(self, text: str) -> str:
        return self.story(text).verdict

    def wait(self, until: Callable[[], object], seconds: float = 60.0) -> None:
        """Wait until something is so; fails with what the node knows if it does not come."""
        deadline = time.monotonic() + seconds
        while not until():
            if time.monotonic() > deadline:
                said = log_of(self.folder).read_text("utf-8", "replace").splitlines()[-20:]
                known = [
                    line.text
                    for series in self.running.catalog.views.all_series(10)
                    for line in self.story(series.series_uid).lines
                ]
                pytest.fail(
                    "it did not happen in time; the node says:\n" + "\n".join((*known, *said))
                )
            time.sleep(0.05)

    def performer_pid(self) -> int:
        """The process that performs for this node; waits until there is one."""
        return self.performer_pids(1)[0]

    def performer_pids(self, count: int) -> list[int]:
        """The processes that perform for this node; waits until there are so many."""
        return self._pids(b"dicom_node.node.performer", count)

    def receiving_pids(self, count: int) -> list[int]:
        """The processes that receive for this node; waits until there are so many."""
        return self._pids(b"dicom_node.node.receiving", count)

    def receiving(self, count: int) -> list[int]:
        """The same, once each of them receives: before, the node itself does."""
        pids = self.receiving_pids(count)
        self.wait(lambda: self._received_by(pids) == set(pids))
        return pids

    def _received_by(self, pids: list[int]) -> set[int]:
        """Those of the processes that soon have one of as many connections."""
        found: set[int] = set()
        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(socket.create_connection(self.address)) for _ in pids]
            for _ in range(10):
                found.update(pid for pid in pids for one in held if holds(pid, one))
                if len(found) == len(pids):
                    break
                time.sleep(0.05)
        return found

    def _pids(self, module: bytes, count: int) -> list[int]:
        config = str(self.folder / "var" / "performer.json").encode()
        found: list[int] = []

        def are_there() -> bool:
            found.clear()
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    words = (process / "cmdline").read_bytes().split(b"\0")
                    if module in words and config in words:
                        found.append(int(process.name))
            return len(found) >= count

        self.wait(are_there)
        return found


def write_model(folder: Path, *, model_id: str = "lung-threshold", when: str = "") -> Path:
    """A model that needs no weights, in a models folder."""
    folder = folder / model_id
    folder.mkdir(parents=True, exist_ok=True)
    text = threshold_model(model_id=model_id, when=when or 'Modality == "CT"')
    (folder / "model.toml").write_text(text)
    return folder


def config_text(
    *,
    port: int = 0,
    peers: str = "",
    routes: str = ROUTE,
    more: str = "",
    complete: str = SHORT,
    receive: str = "",
) -> str:
    """A configuration with short waits, for tests."""
    return f"""
[node]
port = {port}
data_dir = "var"
models_dir = "models"

[receive]
min_free_gib = 0.01
{receive}

[complete]
{complete}

[deliver]
connect_s = 5
answer_s = 10
first_s = 0.5
max_s = 2
{more}
{peers}
{routes}
"""


def peer_table(name: str, ae_title: str, port: int, may: str = '["store"]') -> str:
    """One [[peer]] on loopback."""
    return f"""
[[peer]]
name = "{name}"
ae_title = "{ae_title}"
host = "127.0.0.1"
port = {port}
may = {may}
"""


def node_in(folder: Path, **settings: str) -> NodeUnderTest:
    """A node on this folder, with what is in it; whoever starts it stops it. See config_text."""
    folder.mkdir(exist_ok=True)
    write_model(folder / "models")
    path = folder / "ae_config.toml"
    path.write_text(config_text(**settings))
    return begun(path)


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[Callable[..., NodeUnderTest]]:
    """start_node(peers=, routes=, more=, ...) -> NodeUnderTest; stopped after the test.

    A second call in one test uses the same data folder: a restart.
    """
    nodes: list[NodeUnderTest] = []
    folder = tmp_path / "node"

    def begin(**settings: str) -> NodeUnderTest:
        for node in nodes:
            node.stop()
        nodes.clear()
        nodes.append(node_in(folder, **settings))
        return nodes[-1]

    yield begin
    for node in nodes:
        node.stop()


@pytest.fixture(scope="module")
def start_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """As start_node, for tests of a module that leave one another alone: stopped after them all."""
    with contextlib.ExitStack() as stack:

        def begin(**settings: str) -> NodeUnderTest:
            node = node_in(tmp_path_factory.mktemp("node"), **settings)
            stack.callback(node.stop)
            return node

        yield begin


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[LocalPacs]:
    """A PACS named TESTPACS."""
    with LocalPacs(tmp_path / "pacs", ae_title="TESTPACS") as running:
        yield running


@pytest.fixture(scope="module")
def shared_pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPacs]:
    """As pacs, for tests of a module that leave one another alone."""
    with LocalPacs(tmp_path_factory.mktemp("pacs"), ae_title="TESTPACS") as running:
        yield running


@contextmanager
def a_node(folder: Path, **settings: Any) -> Iterator[NodeUnderTest]:
    """A node in `folder` that several tests share; models it lacks are written there."""
    path = write_node(folder, **settings)
    with started(path) as node:
        yield node


@contextmanager
def started(path: Path) -> Iterator[NodeUnderTest]:
    """The node of a configuration that is there."""
    node = begun(path)
    try:
        yield node
    finally:
        node.stop()


def begun(path: Path) -> NodeUnderTest:
    """It is started, and has to be stopped; its performers log to a file of their own.

    They would else inherit what is standard error when they are started, in a thread of the node:
    the terminal, where pytest is just between two tests.
    """
    with contextlib.ExitStack() as stack:
        log_file = stack.enter_context(log_of(path.parent).open("a", encoding="utf-8"))
        running = start(load(path), log_to=log_file)
        stack.callback(running.stop)
        return NodeUnderTest(
            folder=path.parent, config_path=path, running=running, stop=stack.pop_all().close
        )


def log_of(folder: Path) -> Path:
    """Where the performers of a node log to."""
    return folder / "performers.log"


def write_node(folder: Path, **settings: Any) -> Path:
    """The folder of a node with the threshold model: the path of its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder / "models")
    path = folder / "ae_config.toml"
    path.write_text(config_text(**settings))
    return path


@pytest.fixture(scope="session")
def build() -> SimpleNamespace:
    """What tests of whole nodes call, under its own name."""
    return SimpleNamespace(
        a_node=a_node,
        write_node=write_node,
        started=started,
        write_model=write_model,
        config_text=config_text,
        peer_table=peer_table,
        route=ROUTE,
    )
