"""Before each answer of success, file, folder and catalog were synced: read from the system calls.

A power cut may by luck hit a moment at which the order does not matter; this looks at the order
itself. The node runs under strace; what is looked at are the calls of the whole process tree in
the order in which they ended.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest

from faults.harness import Life, wait_until
from faults.sender import SLICES

TRACED = (
    "openat,write,writev,pwrite64,pwritev,ftruncate,fsync,fdatasync,rename,renameat,renameat2,"
    "sendto,sendmsg"
)
SHOWN_BYTES = 8192  # of each write: a whole page of SQLite
STORESCU = Path("/usr/bin/storescu")

_LINE = re.compile(r"^(\d+) +(?P<what>.*)$")
_UNFINISHED = re.compile(r"^(?P<begin>.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^<\.\.\. \w+ resumed>(?P<end>.*)$")
_CALL = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)(?P<rest>.*)$")
_TARGET = re.compile(r"^\d+<(?P<target>[^>]*)>")
_WRITES = ("write", "writev", "pwrite64", "pwritev", "ftruncate")
_SYNCS = ("fsync", "fdatasync")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One system call: where in the trace it began and ended, what it was done to, its text."""

    began: int
    ended: int
    thread: str
    name: str
    target: str
    text: str


def calls_of(trace: Path) -> list[Call]:
    """The calls that succeeded, in the order of their ends."""
    begun: dict[str, tuple[int, str]] = {}
    found = []
    for number, line in enumerate(trace.read_text("utf-8", "replace").splitlines()):
        matched = _LINE.match(line)
        if matched is None:
            continue
        thread, what = matched[1], matched["what"]
        if cut := _UNFINISHED.match(what):
            begun[thread] = (number, cut["begin"])
            continue
        began = number
        if rest := _RESUMED.match(what):
            began, first = begun.pop(thread)
            what = first + rest["end"]
        call = _CALL.match(what)
        if call is None or call["result"] in ("-1", "?"):
            continue
        target = _TARGET.match(call["arguments"])
        found.append(
            Call(
                began=began,
                ended=number,
                thread=thread,
                name=call["name"],
                target=target["target"] if target else "",
                text=call["arguments"],
            )
        )
    return found


def last(calls: list[Call], fits: Callable[[Call], bool], before: int) -> Call | None:
    """The last such call that had ended before a line of the trace."""
    return next((c for c in reversed(calls) if c.ended < before and fits(c)), None)


def synced(calls: list[Call], target: str, after: int, before: int) -> bool:
    """Whether a sync of it began after a line, and ended before another."""
    return any(
        c.name in _SYNCS and c.target == target and c.began > after and c.ended < before
        for c in calls
    )


def check_file(calls: list[Call], file: Path, answered: int, *, names_follow: bool) -> int:
    """The line at which a file's bytes and its name were durable, before another."""
    renamed = last(
        calls, lambda c: c.name.startswith("rename") and f'"{file}"' in c.text, before=answered
    )
    assert renamed is not None, "the file had not got its name"
    temporary = re.findall(r'"([^"]*)"', renamed.text)[0]
    written = last(calls, lambda c: c.name in _WRITES and c.target == temporary, renamed.began)
    assert written is not None
    late = [c for c in calls if c.name in _WRITES and c.target == str(file)]
    assert not late, "written to after it got its name"
    if names_follow:  # fdatasync would do for the bytes, and not for the name
        syncs = [c for c in calls if c.name == "fsync" and c.target == str(file)]
    else:
        assert synced(calls, temporary, after=written.ended, before=renamed.began), "the file"
        syncs = [c for c in calls if c.name in _SYNCS and c.target == str(file.parent)]
    durable = min((c.ended for c in syncs if c.began > renamed.ended), default=answered)
    assert durable < answered, "the file and its name" if names_follow else "the folder"
    return durable


def check_durable(
    calls: list[Call], file: Path, uid: str, wal: Path, answered: int, *, names_follow: bool
) -> None:
    """File, name and catalog, each synced after its last change, in this order, before a line."""
    durable = check_file(calls, file, answered, names_follow=names_follow)
    facts = [
        c
        for c in calls
        if c.name == "pwrite64" and c.target == str(wal) and uid in c.text
        and durable < c.began and c.ended < answered
    ]  # fmt: skip
    assert facts, "the fact was not written after the bytes were durable"
    # the thread that holds the catalog writes the pages of a transaction, and syncs them together
    fact = facts[-1]
    assert any(
        c.name in _SYNCS and c.target == str(wal) and c.thread == fact.thread
        and c.began > fact.ended and c.ended < answered
        for c in calls
    ), "the catalog"  # fmt: skip


def is_answer(call: Call, uid: str) -> bool:
    """A C-STORE-RSP (Command Field 8001H) about the instance, with status 0000H."""
    return (
        call.name in ("sendto", "sendmsg")
        and uid in call.text
        and r"\0\0\0\1\2\0\0\0\1\200" in call.text
        and r"\0\0\0\t\2\0\0\0\0\0" in call.text
    )


def traced(
    life: Life, strace: str, trace: Path, *, names_follow: bool, without: Sequence[str] = ()
) -> None:
    life.start(
        {"names_follow": names_follow, "without": list(without)},
        wrapper=(strace, "-f", "-y", "-s", SHOWN_BYTES, "-e", f"trace={TRACED}", "-o", trace),
    )
    life.ready()


def stored_by_dcmtk(life: Life, folder: Path) -> None:
    sent = life.add_series()[0]
    folder.mkdir()
    for number, dataset in enumerate(sent.datasets):
        pydicom.dcmwrite(folder / f"{number}.dcm", dataset, enforce_file_format=True)
    command = [STORESCU, "-aet", "TESTPACS", "-aec", "DICOMNODE", "+sd", "127.0.0.1", life.port]
    done = subprocess.run(
        [*(str(part) for part in command), str(folder)],
        env={**os.environ, "TCP_NODELAY": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sent.acknowledged = {str(d.SOPInstanceUID) for d in sent.datasets}


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "names_follow",
    [
        pytest.param(True, id="by name"),
        pytest.param(False, id="by folder", marks=pytest.mark.faults),
    ],
)
def test_what_an_answer_promises_is_on_the_disk_before_the_answer_goes_out(
    new_life: Callable[..., Life], pacs, strace: str, tmp_path: Path, names_follow: bool
):
    life = new_life(pacs, seed="strace")
    trace = tmp_path / "trace"
    traced(life, strace, trace, names_follow=names_follow)
    life.sending(life.add_series()).join(60)
    if STORESCU.exists():
        stored_by_dcmtk(life, tmp_path / "files")
    life.wait(life.all_delivered, "the results come")
    wait_until(
        lambda: {s for (s,) in life.catalog("SELECT state FROM delivery")} == {"SENT"},
        "the deliveries are recorded",
    )
    life.stop()
    check_instances(life, calls_of(trace), names_follow=names_follow)
    check_results(life, calls_of(trace), names_follow=names_follow)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("room", "names_follow", "found"),
    [
        ("spool", False, "the file"),
        ("spool", True, "the file and its name"),
        ("catalog", False, "the catalog"),
    ],
)
def test_a_node_that_answers_without_a_sync_is_found_out(
    new_life: Callable[..., Life],
    pacs,
    strace: str,
    tmp_path: Path,
    room: str,
    names_follow: bool,
    found: str,
):
    life = new_life(pacs, seed="strace")
    traced(life, strace, tmp_path / "trace", names_follow=names_follow, without=[room])
    life.sending(life.add_series()).join(60)
    life.stop()
    with pytest.raises(AssertionError, match=f"^{found}\n"):
        check_instances(life, calls_of(tmp_path / "trace"), names_follow=names_follow)


def check_instances(life: Life, calls: list[Call], *, names_follow: bool) -> None:
    wal, spool = life.data_dir / "catalog.db-wal", life.data_dir / "spool"
    instances = life.catalog("SELECT sop_instance_uid, path FROM instance")
    assert len(instances) == SLICES * len(life.sent)
    for uid, path in instances:
        answers = [c.began for c in calls if is_answer(c, uid)]
        assert len(answers) == 1, f"{len(answers)} answers about {uid}"
        check_durable(calls, spool / path, uid, wal, answers[0], names_follow=names_follow)


def check_results(life: Life, calls: list[Call], *, names_follow: bool) -> None:
    wal, spool = life.data_dir / "catalog.db-wal", life.data_dir / "spool"
    results = life.catalog("SELECT sop_instance_uid, path FROM result")
    assert len(results) == len(life.sent)
    for uid, path in results:
        first_sent = min(c.began for c in calls if c.name == "sendto" and uid in c.text)
        check_durable(calls, spool / path, uid, wal, first_sent, names_follow=names_follow)
