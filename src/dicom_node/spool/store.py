"""Content-addressed files: temporary name, fdatasync, rename, fsync of the folder.

Where the file system makes a name durable with its file, it is: temporary name, rename, fsync of
the file. Then a power cut may leave a name with a part of its bytes, or none: its digest tells.

A path is made of the SHA-256 of the bytes and of nothing else: no received value becomes a path,
and the same bytes lie at the same place.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from dicom_node.domain.errors import SpoolError
from dicom_node.spool.disk import Disk

HEAD_BYTES = 64 * 1024  # kept in memory: header attributes are read from it
_CHUNKS_MAX = 1024  # IOV_MAX of Linux: more in one writev are refused
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_RELATIVE = re.compile(r"objects/([0-9a-f]{2})/(\1[0-9a-f]{62})\.dcm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A durable file: its path relative to the spool's root, its size in bytes, its SHA-256.

    fresh: whether there was none with these bytes before.
    """

    path: str
    size: int
    sha256: str
    fresh: bool = field(default=True, compare=False)


class Incoming:
    """One object on its way in. Ends with commit() or abort(); used by one thread at a time."""

    def __init__(self, spool: Spool, path: Path, descriptor: int) -> None:
        self.path = path
        self.size = 0
        self._spool = spool
        self._descriptor = descriptor
        self._digest = hashlib.sha256()
        self._head = bytearray()

    @property
    def head(self) -> bytes:
        """The first HEAD_BYTES of what was written so far."""
        return bytes(self._head)

    def write(self, chunks: Sequence[memoryview | bytes]) -> None:
        """Append the chunks, all of them; raises SpoolError."""
        for chunk in chunks:
            self._digest.update(chunk)
            if len(self._head) < HEAD_BYTES:
                self._head += chunk[: HEAD_BYTES - len(self._head)]
        with self._spool.faults("write an object"):
            for start in range(0, len(chunks), _CHUNKS_MAX):
                self._write_all(chunks[start : start + _CHUNKS_MAX])

    def _write_all(self, chunks: Sequence[memoryview | bytes]) -> None:
        wanted = sum(map(len, chunks))
        written = self._spool.disk.write(self._descriptor, chunks)
        self.size += written
        if written == wanted:
            return
        # A disk that is nearly full takes a part without an error: go on until it says no.
        rest = memoryview(b"".join(chunks))[written:]
        while rest:
            written = self._spool.disk.write(self._descriptor, (rest,))
            if written <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.size += written
            rest = rest[written:]

    @property
    def relative(self) -> str:
        """Where it will lie, if nothing more is written."""
        digest = self._digest.hexdigest()
        return f"objects/{digest[:2]}/{digest}.dcm"

    def commit(self) -> Stored:
        """Make the object durable under its final name; raises SpoolError and leaves nothing."""
        relative = self.relative
        try:
            with self._spool.faults("make an object durable"):
                fresh = self._spool.place(self._descriptor, self.path, relative)
            self._close()
        finally:
            self.abort()
        digest = self._digest.hexdigest()
        return Stored(path=relative, size=self.size, sha256=digest, fresh=fresh)

    def abort(self) -> None:
        """Forget the object; does nothing after commit() or a former abort()."""
        if self._descriptor < 0:
            return
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)


class Spool:
    """The files under one root. Safe for many threads and processes at once.

    Raises SpoolError if the root cannot be made.
    """

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self.root = root
        self.disk = disk or Disk()
        self._incoming = root / "incoming"
        self._objects = root / "objects"
        self._numbers = itertools.count(1)
        with self.faults("create the spool"):
            self._make_folders()
            self._names_follow = self.disk.names_follow_files(self._incoming)

    def begin(self) -> Incoming:
        """Open a new temporary file; raises SpoolError."""
        with self.faults("open a file"):
            while True:
                path = self._incoming / f"{os.getpid()}-{next(self._numbers)}.part"
                try:
                    return Incoming(self, path, self.disk.open(path))
                except FileExistsError:
                    continue  # left by a dead run that had the same process id: sweep() takes it
                except OSError:
                    path.unlink(missing_ok=True)
                    raise

    def put(self, data: bytes) -> Stored:
        """Store one object that is whole in memory; raises SpoolError."""
        incoming = self.begin()
        try:
            incoming.write((data,))
            return incoming.commit()
        finally:
            incoming.abort()

    def path(self, relative: str) -> Path:
        """The file of a stored object; raises SpoolError for a path that is not of the spool."""
        if _RELATIVE.fullmatch(relative) is None:
            raise SpoolError("this path was not made by the spool")
        return self.root / relative

    def remove(self, relative: str) -> None:
        """Delete a stored object, durably; no error if it is gone; raises SpoolError."""
        path = self.path(relative)
        with self.faults("remove an object"), _locked(path.parent):
            path.unlink(missing_ok=True)
            self.disk.sync_folder(path.parent)

    def sweep(self, writer: int | None = None) -> int:
        """Delete the temporaries of runs that are dead; returns how many. Raises SpoolError.

        writer: of this process alone. Only so while others write: who has just made a file has not
        locked it yet.
        """
        swept = 0
        with self.faults("sweep temporary files"):
            for path in sorted(
                self._incoming.glob("*.part" if writer is None else f"{writer}-*.part")
            ):
                swept += _unlink_if_dead(path)
        return swept

    def shards(self) -> list[str]:
        """The names of the folders that the objects are divided among, sorted."""
        return [f"{number:02x}" for number in range(256)]

    def shard(self, name: str) -> list[str]:
        """The relative paths of the objects in one of shards(), sorted; raises SpoolError."""
        with self.faults("look into a folder"):
            names = sorted(entry.name for entry in os.scandir(self._objects / name))
        relatives = (f"objects/{name}/{file}" for file in names)
        return [relative for relative in relatives if _RELATIVE.fullmatch(relative)]

    def files(self) -> Iterator[str]:
        """The relative paths of all stored objects, sorted; raises SpoolError."""
        for name in self.shards():
            yield from self.shard(name)

    def sha256(self, relative: str) -> str:
        """The digest that a stored object had when it was stored: its name says it."""
        return self.path(relative).stem

    def settle(self, relative: str) -> None:
        """Make an object durable that its writer perhaps did not live to. Raises SpoolError."""
        path = self.path(relative)
        with self.faults("make an object durable"):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self.disk.sync(descriptor)
            finally:
                os.close(descriptor)
            self.disk.sync_folder(path.parent)

    def is_intact(self, relative: str) -> bool:
        """Whether the bytes are those that were stored; reads them all. Raises SpoolError."""
        with self.faults("read an object"), self.path(relative).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256(relative)

    def look(self, relative: str) -> tuple[int, float] | None:
        """Size in bytes and time of storing (UTC seconds) of an object, None if it is not there.

        Raises SpoolError.
        """
        with self.faults("look at an object"):
            try:
                state = self.path(relative).stat()
            except FileNotFoundError:
                return None
        return state.st_size, state.st_mtime

    def stamp(self) -> float:
        """Now, as the spool's file system tells it: what is stored later is not older."""
        with self.faults("ask for the time"):
            path = self._incoming / f"{os.getpid()}.stamp"
            path.touch(mode=0o600)
            try:
                return path.stat().st_mtime
            finally:
                path.unlink(missing_ok=True)

    def remove_older(self, relative: str, before: float) -> bool:
        """As remove(), unless the object was stored, or stored again, at `before` or later."""
        path = self.path(relative)
        with self.faults("remove an object"), _locked(path.parent):
            try:
                state = path.stat()
            except FileNotFoundError:
                return False
            # stored again, it keeps its time; that of its last change nobody can set
            if max(state.st_mtime, state.st_ctime) >= before:
                return False
            path.unlink()
            self.disk.sync_folder(path.parent)
            return True

    @contextmanager
    def held(self, relative: str) -> Iterator[None]:
        """Nothing comes to, or goes from, the folder of this object meanwhile; SpoolError."""
        folder = self.path(relative).parent
        with self.faults("lock a folder"):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with self.faults("lock a folder"):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def discard(self, relatives: Iterable[str], wanted: Callable[[str], bool]) -> int:
        """Delete stored objects, durably, but for those that are wanted: asked while nothing comes
        to their folder. Returns how many there were. Raises SpoolError, and what `wanted` raises.
        """
        removed = 0
        for folder, some in itertools.groupby(sorted(relatives), lambda path: path[:-69]):
            paths = list(some)
            with self.held(paths[0]):
                unwanted = [self.path(relative) for relative in paths if not wanted(relative)]
                with self.faults("remove an object"):
                    for path in unwanted:
                        removed += path.exists()
                        path.unlink(missing_ok=True)
                    self.disk.sync_folder(self.root / folder)
        return removed

    def free_bytes(self) -> int:
        """Bytes the node may still write on the spool's file system; raises SpoolError."""
        with self.faults("ask for free space"):
            state = os.statvfs(self.root)
        return state.f_bavail * state.f_frsize

    def place(self, descriptor: int, temporary: Path, relative: str) -> bool:
        """Give a temporary its final name, both durable; whether the name is new; raises OSError.

        The folder is locked, so that whoever fails takes back only a name that nobody else has
        been told of. What comes again takes the place of what came first, which may have suffered,
        and keeps its time: that says which of two objects with one UID was here first. Where a file
        system writes in no order, the blocks of a file that is replaced may hold another one before
        its name leads to the new one: there a whole first one stays where it is.
        """
        target = self.root / relative
        if not self._names_follow:
            self.disk.sync(descriptor)
        with _locked(target.parent):
            first_at = _stored_at(target)
            known = first_at is not None
            if first_at is not None and not self._names_follow and self._is_whole(relative):
                os.utime(target, ns=(first_at, first_at))  # it was stored again: see remove_older
                self.settle(relative)
                temporary.unlink()
                return False
            if first_at is not None:
                os.utime(descriptor, ns=(first_at, first_at))
                if self._names_follow:  # what is durable is replaced only by what is so already
                    self.disk.sync(descriptor)
            self.disk.rename(temporary, target)
            try:
                if self._names_follow:
                    self.disk.sync_named(descriptor)
                else:
                    self.disk.sync_folder(target.parent)
            except OSError:
                if not known:
                    target.unlink(missing_ok=True)
                raise
        return not known

    def _is_whole(self, relative: str) -> bool:
        """As is_intact(); what cannot be read is not."""
        try:
            return self.is_intact(relative)
        except SpoolError:
            return False

    @contextmanager
    def faults(self, doing: str) -> Iterator[None]:
        """Turn an OSError into a SpoolError that names what failed and why."""
        try:
            yield
        except OSError as error:
            full = error.errno in _FULL
            cause = "the disk is full" if full else error.strerror or type(error).__name__
            raise SpoolError(f"cannot {doing} in {self.root}: {cause}", full=full) from error

    def _make_folders(self) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._incoming.mkdir(mode=0o700, exist_ok=True)
        self._objects.mkdir(mode=0o700, exist_ok=True)
        for number in range(256):
            (self._objects / f"{number:02x}").mkdir(mode=0o700, exist_ok=True)
        for folder in (self._objects, self.root, self.root.parent):
            self.disk.sync_folder(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _stored_at(path: Path) -> int | None:
    """The time of a file in nanoseconds, None if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _unlink_if_dead(path: Path) -> bool:
    """A living writer holds the lock of its temporary; process ids are reused, locks are not."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False  # renamed or aborted meanwhile
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
