"""Each row of the hostile table against a node, which serves others meanwhile and stays as it was.

One node for all rows: what one of them leaves behind, the next would meet. In `make test` the rows
are of a small size, and those that wait for a limit of half a minute are left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.besieged import BACK_S, Node, Siege, TlsNode, unharmed
from faults.harness import wait_until
from faults.hostile import ROWS, Row
from faults.hostile_tls import TLS_ROWS

PATIENCE_S = 20.0
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="memory and threads are read from /proc"
)


def row_id(row: Row) -> str:
    return f"{row.part}: {row.name}"


@contextlib.contextmanager
def started(node: Node) -> Iterator[Node]:
    try:
        node.start()
        yield node
    finally:
        node.end()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with started(Node(tmp_path_factory.mktemp("hostile") / "node")) as running:
        yield running


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with started(TlsNode(tmp_path_factory.mktemp("hostile") / "secure")) as running:
        yield running


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with started(Node(tmp_path_factory.mktemp("hostile") / "crew", processes=2)) as running:
        ready = lambda: running.told().count("is ready") == 2  # noqa: E731  # before: the node
        wait_until(ready, "both processes receive")
        yield running


@pytest.fixture(scope="module")
def siege(node: Node) -> Siege:
    """Patient: on a machine that is busy with other tests nothing is judged by its time."""
    return Siege(node, long=False, echo_s=PATIENCE_S, back_s=PATIENCE_S, patience_s=PATIENCE_S)


@pytest.fixture(scope="module")
def long_siege(node: Node) -> Siege:
    """As large as the rows are, and another peer's C-ECHO within two seconds."""
    return Siege(node, long=True, echo_s=2.0, back_s=BACK_S, patience_s=90.0)


@pytest.fixture(scope="module")
def secure_siege(secure: Node) -> Siege:
    return Siege(secure, long=False, echo_s=PATIENCE_S, back_s=PATIENCE_S, patience_s=PATIENCE_S)


@pytest.fixture(scope="module")
def long_secure_siege(secure: Node) -> Siege:
    return Siege(secure, long=True, echo_s=2.0, back_s=BACK_S, patience_s=90.0)


@pytest.mark.parametrize("row", [row for row in ROWS if not row.slow], ids=row_id)
def test_whatever_a_peer_does_it_gets_its_answer_and_others_are_served(siege: Siege, row: Row):
    unharmed(row, siege.outcome(row))


@pytest.mark.faults
@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_however_much_a_peer_does_of_it_others_are_served_at_once(long_siege: Siege, row: Row):
    unharmed(row, long_siege.outcome(row))


@pytest.mark.parametrize("row", [row for row in TLS_ROWS if not row.slow], ids=row_id)
def test_whatever_a_peer_does_to_tls_it_gets_its_answer(secure_siege: Siege, row: Row):
    unharmed(row, secure_siege.outcome(row))


@pytest.mark.faults
@pytest.mark.parametrize("row", TLS_ROWS, ids=row_id)
def test_however_much_a_peer_does_to_tls_others_are_served_at_once(
    long_secure_siege: Siege, row: Row
):
    unharmed(row, long_secure_siege.outcome(row))


@pytest.fixture(scope="module")
def crew_siege(crew: Node) -> Siege:
    return Siege(crew, long=False, echo_s=PATIENCE_S, back_s=PATIENCE_S, patience_s=PATIENCE_S)


@pytest.mark.faults
@pytest.mark.parametrize("row", [row for row in ROWS if not row.slow], ids=row_id)
def test_two_processes_that_receive_answer_as_one(crew: Node, crew_siege: Siege, row: Row):
    pids = crew.pids()
    assert len(pids) == 3
    unharmed(row, crew_siege.outcome(row))
    assert crew.pids() == pids


def test_the_rows_have_names_of_their_own():
    assert len({row.name for row in (*ROWS, *TLS_ROWS)}) == len(ROWS) + len(TLS_ROWS)
