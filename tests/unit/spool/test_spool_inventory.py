"""The spool looked through: what is there, whether it is whole, and what may go."""

from __future__ import annotations

import os

import pytest

from dicom_node.domain.errors import SpoolError
from dicom_node.spool.disk import Disk
from dicom_node.spool.store import Spool


class ByFolder(Disk):
    """Of a file system that promises nothing."""

    def names_follow_files(self, folder):
        return False


class ByName(Disk):
    """Of a file system that writes in order."""

    def names_follow_files(self, folder):
        return True


@pytest.fixture(params=[ByFolder, ByName])
def spool(tmp_path, request):
    return Spool(tmp_path / "spool", request.param())


def aged(spool, relative, at):
    os.utime(spool.path(relative), (at, at))


def a_later_stamp(spool, relative):
    """The clock of a file system goes in steps of some milliseconds."""
    changed = spool.path(relative).stat().st_ctime
    while (stamp := spool.stamp()) <= changed:
        pass
    return stamp


def test_every_file_is_in_one_folder_and_what_is_no_object_is_in_none(spool):
    stored = sorted(spool.put(bytes([n])).path for n in range(50))
    (spool.root / "objects" / "aa" / "notes.txt").write_text("left by somebody")
    assert sorted(p for shard in spool.shards() for p in spool.shard(shard)) == stored
    assert list(spool.files()) == stored


def test_a_folder_that_cannot_be_read_is_said(spool):
    (spool.root / "objects" / "aa").rmdir()
    with pytest.raises(SpoolError, match="cannot look into a folder"):
        spool.shard("aa")


def test_one_changed_byte_is_seen(spool):
    stored = spool.put(b"an object")
    assert spool.sha256(stored.path) == stored.sha256
    assert spool.is_intact(stored.path)
    spool.path(stored.path).write_bytes(b"an objecT")
    assert not spool.is_intact(stored.path)


def test_size_and_time_of_a_file_or_that_it_is_not_there(spool):
    stored = spool.put(b"an object")
    aged(spool, stored.path, 1_700_000_000.0)
    assert spool.look(stored.path) == (9, 1_700_000_000.0)
    spool.remove(stored.path)
    assert spool.look(stored.path) is None


def test_what_is_stored_after_a_stamp_is_not_older(spool):
    stamp = spool.stamp()
    stored = spool.put(b"an object")
    assert spool.look(stored.path)[1] >= stamp
    assert not spool.remove_older(stored.path, stamp)
    assert spool.sweep() == 0, "a stamp leaves nothing"
    assert list((spool.root / "incoming").iterdir()) == []


def test_only_what_is_older_is_removed_and_the_same_bytes_stored_again_are_not(spool):
    old, again = spool.put(b"old").path, spool.put(b"again").path
    for path in (old, again):
        aged(spool, path, 1_700_000_000.0)
    stamp = a_later_stamp(spool, old)
    spool.put(b"again")
    assert spool.remove_older(old, stamp)
    assert not spool.remove_older(old, stamp), "it is gone"
    assert not spool.remove_older(again, stamp)
    assert list(spool.files()) == [again]


def test_what_comes_again_keeps_the_time_of_the_first_and_heals_it(spool):
    stored = spool.put(b"an object")
    aged(spool, stored.path, 1_700_000_000.0)
    spool.path(stored.path).write_bytes(b"an objecT")
    aged(spool, stored.path, 1_700_000_000.0)
    again = spool.put(b"an object")
    assert (stored.fresh, again.fresh) == (True, False)
    assert spool.look(stored.path) == (9, 1_700_000_000.0)
    assert spool.is_intact(stored.path)
