"""The spool: durable or not there, and never anywhere else."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dicom_node.domain.errors import SpoolError
from dicom_node.spool.disk import Disk
from dicom_node.spool.filesystem import names_follow_files
from dicom_node.spool.store import HEAD_BYTES, Spool

OBJECT = bytes(range(256)) * 700


class FailingDisk(Disk):
    """Fails the n-th call (from 1) with the given error; notes all calls."""

    def __init__(self, nth: int = 0, code: int = errno.EIO, *, follow: bool = False) -> None:
        self.nth, self.code, self.follow, self.armed = nth, code, follow, False
        self.calls: list[str] = []

    def names_follow_files(self, folder: Path) -> bool:
        return self.follow

    def _count(self, call: str) -> None:
        if self.armed:
            self.calls.append(call)
            if len(self.calls) == self.nth:
                raise OSError(self.code, os.strerror(self.code))

    def open(self, path: Path) -> int:
        self._count("open")
        return super().open(path)

    def write(self, descriptor: int, chunks: Sequence[memoryview | bytes]) -> int:
        self._count("write")
        return super().write(descriptor, chunks)

    def sync(self, descriptor: int) -> None:
        self._count("sync")
        super().sync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        self._count("rename")
        super().rename(source, target)

    def sync_named(self, descriptor: int) -> None:
        self._count("sync named")
        super().sync_named(descriptor)

    def sync_folder(self, folder: Path) -> None:
        self._count("sync folder")
        super().sync_folder(folder)


class StingyDisk(Disk):
    """Takes at most 1,000 bytes a call, as a disk does that is nearly full."""

    def write(self, descriptor: int, chunks: Sequence[memoryview | bytes]) -> int:
        return super().write(descriptor, (b"".join(chunks)[:1000],))


def everything_in(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def test_a_stored_object_lies_at_the_path_of_its_digest_and_reads_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    stored = spool.put(OBJECT)
    digest = hashlib.sha256(OBJECT).hexdigest()
    assert stored.path == f"objects/{digest[:2]}/{digest}.dcm"
    assert (stored.size, stored.sha256) == (len(OBJECT), digest)
    assert spool.path(stored.path).read_bytes() == OBJECT
    assert everything_in(spool.root) == [stored.path]


def test_same_bytes_same_path_however_they_were_cut(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    whole = spool.put(OBJECT)
    incoming = spool.begin()
    incoming.write([memoryview(OBJECT)[i : i + 100] for i in range(0, len(OBJECT), 100)])
    assert incoming.commit() == whole
    assert list(spool.files()) == [whole.path]


def test_more_chunks_than_one_call_may_carry_are_all_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    incoming = spool.begin()
    incoming.write([bytes([i % 251]) for i in range(5000)])
    stored = incoming.commit()
    assert spool.path(stored.path).read_bytes() == bytes(i % 251 for i in range(5000))


def test_a_disk_that_takes_a_part_gets_the_rest_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path, StingyDisk())
    stored = spool.put(OBJECT)
    assert stored.size == len(OBJECT)
    assert spool.path(stored.path).read_bytes() == OBJECT


def test_folders_and_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    stored = spool.put(OBJECT)
    assert stat.S_IMODE(spool.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(spool.path(stored.path).parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(spool.path(stored.path).stat().st_mode) == 0o600
    assert len(list((spool.root / "objects").iterdir())) == 256


def test_the_head_is_the_first_64_kib_and_the_path_reads_back_while_writing(tmp_path: Path) -> None:
    incoming = Spool(tmp_path).begin()
    incoming.write((OBJECT[:1000],))
    assert incoming.head == OBJECT[:1000]
    assert incoming.path.read_bytes() == OBJECT[:1000]
    incoming.write((memoryview(OBJECT)[1000:],))
    assert incoming.head == OBJECT[:HEAD_BYTES]
    incoming.abort()


def test_abort_leaves_nothing_and_may_be_repeated(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    incoming = spool.begin()
    incoming.write((OBJECT,))
    incoming.abort()
    incoming.abort()
    assert everything_in(tmp_path) == []


BY_FOLDER = ["open", "write", "sync", "rename", "sync folder"]
BY_NAME = ["open", "write", "rename", "sync named"]


@pytest.mark.parametrize(("follow", "calls"), [(False, BY_FOLDER), (True, BY_NAME)])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_whichever_call_fails_nothing_stays_and_the_next_object_is_stored(
    tmp_path: Path, code: int, follow: bool, calls: list[str]
) -> None:
    for nth in range(1, len(calls) + 1):
        disk = FailingDisk(nth, code, follow=follow)
        spool = Spool(tmp_path / f"{nth}", disk)
        disk.armed = True
        with pytest.raises(SpoolError) as refused:
            spool.put(OBJECT)
        assert refused.value.full is (code == errno.ENOSPC)
        assert everything_in(spool.root) == []
        disk.calls.clear()
        disk.nth = 0
        assert spool.path(spool.put(OBJECT).path).read_bytes() == OBJECT
        assert disk.calls == calls


@pytest.mark.parametrize("follow", [False, True])
def test_what_comes_again_is_durable_before_it_takes_the_place_of_the_first(
    tmp_path: Path, follow: bool
) -> None:
    disk = FailingDisk(follow=follow)
    spool = Spool(tmp_path, disk)
    first = spool.path(spool.put(OBJECT).path)
    first.write_bytes(OBJECT[:-1])
    disk.armed = True
    spool.put(OBJECT)
    named = "sync named" if follow else "sync folder"
    assert disk.calls == ["open", "write", "sync", "rename", named]
    assert first.read_bytes() == OBJECT


def test_where_nothing_is_written_in_order_a_whole_first_one_is_not_replaced(
    tmp_path: Path,
) -> None:
    disk = FailingDisk()
    spool = Spool(tmp_path, disk)
    first = spool.path(spool.put(OBJECT).path)
    before = first.stat()
    disk.armed = True
    assert not spool.put(OBJECT).fresh
    assert disk.calls == ["open", "write", "sync", "sync", "sync folder"]
    after = first.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert everything_in(tmp_path) == [str(first.relative_to(tmp_path))]


def test_a_first_one_that_cannot_be_read_any_more_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FailingDisk()
    spool = Spool(tmp_path, disk)
    first = spool.path(spool.put(OBJECT).path)

    def is_open(path: Path, *_: object) -> None:
        raise OSError(errno.EIO, f"cannot read {path.name}")

    disk.armed = True
    with monkeypatch.context() as broken:
        broken.setattr(Path, "open", is_open)
        spool.put(OBJECT)
    assert disk.calls == ["open", "write", "sync", "rename", "sync folder"]
    assert first.read_bytes() == OBJECT


@pytest.mark.parametrize("follow", [False, True])
def test_a_failing_duplicate_does_not_take_the_first_object_along(
    tmp_path: Path, follow: bool
) -> None:
    for nth in range(1, 6):
        disk = FailingDisk(nth, follow=follow)
        spool = Spool(tmp_path / f"{nth}", disk)
        first = spool.put(OBJECT)
        disk.armed = True
        with pytest.raises(SpoolError):
            spool.put(OBJECT)
        assert spool.path(first.path).read_bytes() == OBJECT


def test_what_a_writer_left_with_its_name_alone_is_made_durable(tmp_path: Path) -> None:
    disk = FailingDisk()
    spool = Spool(tmp_path, disk)
    stored = spool.put(OBJECT)
    disk.armed = True
    spool.settle(stored.path)
    assert disk.calls == ["sync", "sync folder"]


class Machine:
    """What the kernel tells of the file system of a folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        device = folder.stat().st_dev
        self.number = f"{os.major(device)}:{os.minor(device)}"
        self.proc, self.sys = folder / "proc", folder / "sys"
        self.mounts = self.proc / "self" / "mountinfo"
        self.mounts.parent.mkdir(parents=True)
        monkeypatch.setattr("dicom_node.spool.filesystem._PROC", self.proc)
        monkeypatch.setattr("dicom_node.spool.filesystem._SYS", self.sys)

    def says(self, kind: str, journal: str | None = None, fast: str | None = None) -> None:
        lines = ["22 27 250:9 / /a\\040b rw - proc proc rw"]
        if kind:
            lines.append(f"27 1 {self.number} / /x rw shared:1 master:2 - {kind} /dev/vd rw")
        self.mounts.write_text("\n".join(lines))
        if journal is not None:
            task = self.sys / "fs" / "ext4" / "vda1" / "journal_task"
            (self.sys / "block" / "vda1").mkdir(parents=True)
            (self.sys / "dev" / "block").mkdir(parents=True)
            (self.sys / "dev" / "block" / self.number).symlink_to("../../block/vda1")
            task.parent.mkdir(parents=True)
            task.write_text(f"{journal}\n")
        if fast is not None:
            told = self.proc / "fs" / "ext4" / "vda1" / "fc_info"
            told.parent.mkdir(parents=True)
            told.write_text(f"fc stats:\n{fast}\n7 numblks\n")


@pytest.mark.parametrize(
    ("kind", "journal", "fast", "so"),
    [
        ("xfs", None, None, True),
        ("ext4", "417", None, True),
        ("ext4", "417", "0 commits\n0 ineligible", True),
        ("ext4", "417", "3 commits\n0 ineligible", False),
        ("ext4", "417", "0 commits\n1 ineligible", False),
        ("ext4", "417", "of another form", False),
        ("ext4", "<none>", None, False),
        ("ext4", None, None, False),
        *((kind, "417", None, False) for kind in ("ext3", "ext2", "btrfs", "overlay", "")),
    ],
)
def test_names_follow_files_where_that_is_known_of_the_file_system(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    journal: str | None,
    fast: str | None,
    so: bool,
) -> None:
    Machine(tmp_path, monkeypatch).says(kind, journal, fast)
    assert names_follow_files(tmp_path) is so
    assert sorted(path.name for path in tmp_path.iterdir()) <= ["proc", "sys"]


@pytest.mark.parametrize("said", [None, "", "1 2 3\n"])
def test_names_follow_nothing_where_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None
) -> None:
    machine = Machine(tmp_path, monkeypatch)
    if said is not None:
        machine.mounts.write_text(said)
    assert not names_follow_files(tmp_path)


def test_the_message_names_the_cause(tmp_path: Path) -> None:
    disk = FailingDisk(nth=1, code=errno.ENOSPC)
    spool = Spool(tmp_path, disk)
    disk.armed = True
    with pytest.raises(SpoolError, match="disk is full"):
        spool.begin()


@pytest.mark.parametrize(
    "foreign",
    [
        "",
        "/etc/passwd",
        "objects/../../etc/passwd",
        "objects/aa/" + "b" * 64 + ".dcm",
        "objects/aa/" + "A" * 64 + ".dcm",
        "objects/aa/" + "a" * 63 + ".dcm",
        "objects/aa/" + "a" * 64 + ".dcm\n",
        "incoming/1-1.part",
    ],
)
def test_a_path_that_is_not_of_the_spool_is_refused(tmp_path: Path, foreign: str) -> None:
    spool = Spool(tmp_path)
    use: Callable[[str], object]
    for use in (spool.path, spool.remove):
        with pytest.raises(SpoolError):
            use(foreign)


def test_remove_deletes_and_may_be_repeated(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    stored = spool.put(OBJECT)
    spool.remove(stored.path)
    spool.remove(stored.path)
    assert list(spool.files()) == []


def test_sweep_takes_the_temporaries_of_the_dead_and_leaves_the_living(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    living = spool.begin()
    living.write((OBJECT,))
    dies = (
        "import os, pathlib, sys; from dicom_node.spool.store import Spool;"
        "Spool(pathlib.Path(sys.argv[1])).begin().write((b'half an object',)); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", dies, str(tmp_path)], check=True)
    (tmp_path / "incoming" / f"{os.getpid()}-2.part").write_bytes(b"of a run with our process id")
    assert Spool(tmp_path).sweep() == 2
    assert living.path.exists()
    spool.put(OBJECT)
    assert spool.path(living.commit().path).read_bytes() == OBJECT


def test_sweep_after_one_writer_leaves_what_others_have_not_locked_yet(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    begun, left = (tmp_path / "incoming" / f"{writer}-1.part" for writer in (12, 1))
    for path in (begun, left):
        path.touch()
    assert spool.sweep(1) == 1
    assert begun.exists()
    assert not left.exists()


def test_a_name_left_by_a_former_run_does_not_stop_a_new_object(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    (tmp_path / "incoming" / f"{os.getpid()}-1.part").write_bytes(b"old")
    assert spool.path(spool.put(OBJECT).path).read_bytes() == OBJECT


def test_a_second_spool_on_the_same_root_sees_the_same_files(tmp_path: Path) -> None:
    stored = Spool(tmp_path).put(OBJECT)
    assert list(Spool(tmp_path).files()) == [stored.path]


def test_free_bytes_is_what_the_file_system_says(tmp_path: Path) -> None:
    state = os.statvfs(tmp_path)
    total = state.f_blocks * state.f_frsize
    assert 0 < Spool(tmp_path).free_bytes() <= total


def test_a_root_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SpoolError, match="create the spool"):
        Spool(tmp_path / "file" / "spool")
