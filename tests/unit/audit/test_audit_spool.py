"""The spool of audit messages: nothing half, nothing lost by a crash, and a limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dicom_node.audit import spool as spool_module
from dicom_node.audit.segment import Seen
from dicom_node.audit.spool import AuditSpool, backlog
from dicom_node.domain.errors import AuditError

MIB = 1024 * 1024


def opened(
    folder: Path, *, limit: int = MIB, segment: int = 400, readers=("syslog",)
) -> AuditSpool:
    return AuditSpool(folder, readers, limit_bytes=limit, segment_bytes=segment)


@pytest.fixture
def spool(tmp_path):
    one = opened(tmp_path / "audit")
    yield one
    one.close()


def everything(spool: AuditSpool, start: int = 1) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    while some := spool.read(found[-1][0] + 1 if found else start, 200):
        found += some
    return found


def test_messages_are_numbered_and_read_in_order_over_segments(spool):
    for number in range(1, 30):
        spool.append([b"message %d" % number], Seen(number, float(number)))

    assert everything(spool) == [(n, b"message %d" % n) for n in range(1, 30)]
    assert spool.next_number == 30
    assert len(list((spool._folder).glob("*.audit"))) > 1


def test_a_spool_that_is_opened_again_goes_on(tmp_path):
    first = opened(tmp_path)
    for number in range(1, 12):
        first.append([b"one", b"two"], Seen(number, number / 3))
    first.close()

    again = opened(tmp_path)

    assert again.seen == Seen(11, 11 / 3)
    assert again.next_number == 23
    again.append([b"more"], Seen(12, 4.0))
    assert everything(again)[-2:] == [(22, b"two"), (23, b"more")]
    again.close()


def test_a_batch_that_was_cut_was_never_written(tmp_path):
    """Wherever a crash cuts the file, the batches before are whole, and their mark is with them."""
    spool = opened(tmp_path / "whole", segment=100_000)
    ends = [0]
    for number in range(1, 4):
        spool.append([b"a%d" % number, b"b%d" % number], Seen(number, 1.0))
        ends.append(spool._size)
    spool.close()
    (file,) = (tmp_path / "whole").glob("*.audit")
    data = file.read_bytes()

    for cut in range(0, len(data), 3):
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        (folder / file.name).write_bytes(data[:cut] + bytes(7))  # as some file systems leave it
        known = max(n for n, end in enumerate(ends) if end <= cut)
        again = opened(folder)
        assert again.seen == (Seen(known, 1.0) if known else None)
        assert [m for _, m in everything(again)] == [
            b"%c%d" % (kind, n) for n in range(1, known + 1) for kind in b"ab"
        ]
        again.append([b"next"], Seen(9, 2.0))
        assert everything(again)[-1] == (known * 2 + 1, b"next")
        again.close()


def test_a_byte_that_was_changed_makes_its_batch_unsound(tmp_path):
    spool = opened(tmp_path, segment=100_000)
    spool.append([b"sound"], Seen(1, 1.0))
    spool.append([b"spoilt"], Seen(2, 1.0))
    spool.close()
    (file,) = tmp_path.glob("*.audit")
    file.write_bytes(file.read_bytes().replace(b"spoilt", b"forged"))

    again = opened(tmp_path)

    assert again.seen == Seen(1, 1.0)
    assert everything(again) == [(1, b"sound")]
    again.close()


@pytest.mark.parametrize("before", [0, 1])
def test_a_segment_whose_first_mark_is_damaged_is_put_aside_and_counts_as_lost(tmp_path, before):
    """The numbers go on behind it: some of its messages may have been sent."""
    spool = opened(tmp_path, readers=("file", "syslog"), segment=100)
    if before:
        spool.append([b"x" * 100], Seen(1, 1.0))
    spool.append([b"a" * 30, b"b" * 30, b"c" * 30], Seen(2, 2.0))
    spool.advance("file", before + 3)
    spool.close()
    file = max(tmp_path.glob("*.audit"))
    spoilt = b"?" + file.read_bytes()[1:]
    file.write_bytes(spoilt)

    again = opened(tmp_path, readers=("file", "syslog"), segment=100)

    assert again.seen == (Seen(1, 1.0) if before else None), "its events are told again"
    assert again.next_number == before + 4
    assert [(c.untold, c.lost) for c in map(again.cursor, ("file", "syslog"))] == [(1, 1), (3, 3)]
    assert [one.read_bytes() for one in tmp_path.glob("*.damaged")] == [spoilt]
    again.append([b"next"], Seen(3, 3.0))
    assert everything(again) == [*[(1, b"x" * 100)] * before, (before + 4, b"next")]
    again.close()
    once_more = opened(tmp_path, readers=("file", "syslog"), segment=100)
    assert (once_more.next_number, once_more.cursor("file").lost) == (before + 5, 1)
    once_more.close()


def test_a_segment_that_was_just_begun_goes_without_a_word(tmp_path):
    spool = opened(tmp_path, segment=10)
    spool.append([b"a"], Seen(1, 1.0))
    spool.close()
    (tmp_path / "0000000000000002.audit").write_bytes(b"=1 1.")

    again = opened(tmp_path)

    assert (again.seen, again.next_number, again.cursor("syslog").lost) == (Seen(1, 1.0), 2, 0)
    assert list(tmp_path.glob("*.damaged")) == []
    again.close()


def test_what_all_readers_have_goes_and_the_numbers_stay(tmp_path):
    spool = opened(tmp_path, readers=("file", "syslog"))
    for number in range(1, 40):
        spool.append([b"message %d" % number], Seen(number, 1.0))
    before = len(list(tmp_path.glob("*.audit")))
    spool.advance("file", 40)
    spool.append([], Seen(40, 1.0))
    assert len(list(tmp_path.glob("*.audit"))) == before  # the other has nothing yet

    spool.advance("syslog", 40)
    spool.append([b"last"], Seen(41, 1.0))

    assert len(list(tmp_path.glob("*.audit"))) <= 2
    assert everything(spool, 40) == [(40, b"last")]
    spool.close()


def test_when_it_is_full_the_oldest_go_and_it_is_known_how_many(tmp_path):
    spool = opened(tmp_path, limit=1000, segment=200)
    for number in range(1, 61):
        spool.append([b"message %03d" % number], Seen(number, 100.0 + number))

    cursor = spool.cursor("syslog")
    left = everything(spool)
    assert sum(f.stat().st_size for f in tmp_path.glob("*.audit")) <= 1000 + 200
    assert left[0][0] == cursor.next
    assert cursor.lost == cursor.untold == 60 - len(left) > 20
    spool.close()

    again = opened(tmp_path, limit=1000, segment=200)
    assert again.cursor("syslog") == cursor
    again.told("syslog", cursor.untold)
    assert again.cursor("syslog").untold == 0
    assert again.cursor("syslog").lost == cursor.lost
    again.close()


def test_who_is_told_late_is_not_told_that_less_was_lost(tmp_path):
    """More is lost while the message that tells of the first losses is being written."""
    spool = opened(tmp_path, limit=500, segment=100)
    for number in range(1, 31):
        spool.append([b"message"], Seen(number, 1.0))
    before = spool.cursor("syslog").untold
    for number in range(31, 51):
        spool.append([b"message"], Seen(number, 1.0))
    after = spool.cursor("syslog").untold

    spool.told("syslog", before)

    assert spool.cursor("syslog").untold == after - before > 0
    spool.close()


def test_marks_alone_take_no_more_than_a_segment(tmp_path):
    spool = opened(tmp_path, segment=100)
    for number in range(1, 60):
        spool.append([], Seen(number, 1.0))

    assert sum(f.stat().st_size for f in tmp_path.glob("*.audit")) < 200
    spool.close()
    again = opened(tmp_path)
    assert again.seen == Seen(59, 1.0)
    assert again.next_number == 1
    again.close()


def test_a_disk_that_refuses_leaves_nothing_half(tmp_path, monkeypatch):
    spool = opened(tmp_path, segment=100_000)
    spool.append([b"before"], Seen(1, 1.0))
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) > 3:
            return write(descriptor, bytes(data[:3]))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool_module.os, "write", full)
    with pytest.raises(AuditError, match="No space left"):
        spool.append([b"during"], Seen(2, 1.0))
    monkeypatch.undo()

    assert spool.seen == Seen(1, 1.0)
    spool.append([b"after"], Seen(3, 1.0))
    assert everything(spool) == [(1, b"before"), (2, b"after")]
    spool.close()


def test_what_is_written_is_written_even_if_no_room_can_be_made(tmp_path, monkeypatch):
    spool = opened(tmp_path, limit=300, segment=100)

    def refused(path: Path, *, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refused)
    for number in range(1, 31):
        spool.append([b"message %02d" % number], Seen(number, 1.0))
    monkeypatch.undo()

    assert everything(spool)[-1] == (30, b"message 30")
    spool.append([b"more"], Seen(31, 1.0))
    assert sum(f.stat().st_size for f in tmp_path.glob("*.audit")) <= 300 + 100
    spool.close()


def test_a_cursor_survives_and_one_that_cannot_be_read_gets_all(tmp_path):
    spool = opened(tmp_path, segment=100_000)
    spool.append([b"a", b"b", b"c"], Seen(1, 1.0))
    spool.advance("syslog", 3)
    spool.advance("syslog", 2)  # never back
    spool.close()

    again = opened(tmp_path)
    assert again.cursor("syslog").next == 3
    again.close()
    (tmp_path / "syslog.cursor").write_text("{")
    lost = opened(tmp_path)
    assert lost.cursor("syslog").next == 1
    lost.close()


def test_the_files_are_for_their_owner_alone(tmp_path):
    spool = opened(tmp_path / "audit")
    spool.append([b"a"], Seen(1, 1.0))
    spool.advance("syslog", 2)
    spool.close()

    assert (tmp_path / "audit").stat().st_mode & 0o077 == 0
    assert all(f.stat().st_mode & 0o077 == 0 for f in (tmp_path / "audit").iterdir())


def test_from_outside_one_sees_what_waits(tmp_path):
    assert backlog(tmp_path / "none", "syslog") is None
    spool = opened(tmp_path)
    spool.append([b"a", b"b", b"c"], Seen(5, 1.5))
    spool.advance("syslog", 2)

    seen = backlog(tmp_path, "syslog")

    assert seen is not None
    assert (seen.waiting, seen.lost, seen.oldest, seen.seen) == (2, 0, b"b", Seen(5, 1.5))
    spool.close()


def test_a_message_of_two_lines_is_refused(spool):
    with pytest.raises(AuditError, match="one line"):
        spool.append([b"a\nb"], Seen(1, 1.0))
