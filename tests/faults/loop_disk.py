"""A disk whose power can be cut: a file system in a file, in an XFS that can clone it at once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from pathlib import Path

from faults.harness import wait_until

FICLONE = 0x40049409  # ioctl_ficlone(2)
OUTER_MIB = 1024
INNER_MIB = 320  # XFS does not go below 300
_KINDS: dict[str, tuple[str, ...]] = {
    # nothing is committed for its age while a test runs: what is durable is so by a sync
    "ext4": ("mkfs.ext4 -q -F", "loop,commit=300"),
    "ext4, no journal": ("mkfs.ext4 -q -F -O ^has_journal", "loop", "e2fsck -f -y"),
    "ext4, fast commits": ("mkfs.ext4 -q -F -O fast_commit", "loop,commit=300"),
    "xfs": ("mkfs.xfs -q", "loop,nouuid"),
}
"""How it is made, and mounted; and what a boot does before."""
KINDS = ("ext4", "ext4, no journal", "xfs")


class Refused(Exception):
    """This machine does not let us."""


def run(*command: object, fine: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode not in fine:
        raise Refused(f"{command[0]}: {done.stderr.strip() or done.returncode}")


def lacking() -> str:
    """What stands in the way of any, "" if nothing is known to."""
    if os.geteuid():
        return "loop mounts need root"
    missing = [p for p in ("mkfs.xfs", "mkfs.ext4", "e2fsck") if shutil.which(p) is None]
    return f"{' and '.join(missing)} missing" if missing else ""


class LoopDisk:
    """A disk in a file, mounted at `top`. Raises Refused."""

    def __init__(self, folder: Path, kind: str = "ext4") -> None:
        self.kind, self.top = kind, folder / "inner"
        self._made, self._options, *self._booted = _KINDS[kind]
        self._outer = folder / "outer"
        self._cuts = 0
        for path in (folder, self.top, self._outer):
            path.mkdir()
        image = folder / "outer.img"
        self._sized(image, OUTER_MIB)
        run("mkfs.xfs", "-q", "-m", "reflink=1", image)
        run("mount", "-o", "loop", image, self._outer)
        try:
            self._sized(self._image, INNER_MIB)
            run(*self._made.split(), self._image)
            self._mount()
        except Refused:
            self.close()
            raise

    @property
    def _image(self) -> Path:
        return self._outer / f"{self._cuts}.img"

    def _sized(self, path: Path, mib: int) -> None:
        with path.open("wb") as file:
            file.truncate(mib * 1024 * 1024)

    def _mount(self) -> None:
        run("mount", "-o", self._options, self._image, self.top)

    def cut(self) -> None:
        """Keep the disk as it is at this instant; what is written from now on is lost."""
        before = self._image
        self._cuts += 1
        with before.open("rb") as source, self._image.open("wb") as clone:
            fcntl.ioctl(clone, FICLONE, source.fileno())

    def come_back(self) -> None:
        """Mount what was kept by the last cut. Nobody may use the disk."""
        wait_until(self._unmounted, "the disk is free")
        for command in self._booted:
            run(*command.split(), self._image, fine=(0, 1))  # 1: something was mended
        self._mount()

    def _unmounted(self) -> bool:
        """A process that is dying has lost its memory before it closes its files."""
        with contextlib.suppress(Refused):
            run("umount", self.top)
        return not os.path.ismount(self.top)

    def close(self) -> None:
        """Nothing stays mounted, and no loop device attached, whatever happened."""
        for path in (self.top, self._outer):
            with contextlib.suppress(Refused):
                if os.path.ismount(path):
                    run("umount", path)
            if os.path.ismount(path):  # somebody still lives in it: it goes with them
                run("umount", "--lazy", path)
