"""The checks of `doctor`: each looks at one thing, harms nothing, and says what to do."""

from __future__ import annotations

import errno
import fcntl
import importlib
import os
import pwd
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from dicom_node.catalog import Catalog
from dicom_node.catalog.damage import damaged
from dicom_node.catalog.integrity import examine, is_absent
from dicom_node.catalog.replace import pending_of
from dicom_node.cli.opened import open_catalog
from dicom_node.config.load import Config
from dicom_node.decide.routing import SENDER
from dicom_node.domain.errors import CatalogError
from dicom_node.node.clock import SystemClock
from dicom_node.node.layout import GIB, catalog_path, spool_path
from dicom_node.node.why import clock_text

ROOMY_GIB = 10.0  # more than the limit: with less the operator is warned
EARLIEST = 1_767_225_600.0  # 2026-01-01: no clock that runs this version shows less
AHEAD_S = 60.0  # the catalog's newest record may lie so far in the future
CONNECT_S = 2.0
NEWEST = 3  # series whose files are looked for
LOOK_S = 3.0  # at the pages of the catalog

_DISTANT = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs"})
_VOLATILE = frozenset({"tmpfs", "ramfs", "overlay", "aufs"})
_DECODERS = {
    "gdcm": ("python-gdcm", "JPEG Baseline, Extended, Lossless"),
    "jpeg_ls": ("pyjpegls", "JPEG-LS"),
    "openjpeg": ("pylibjpeg-openjpeg", "JPEG 2000, HTJ2K"),
    "rle": ("pylibjpeg-rle", "RLE"),
}
_VERSIONS = ("dicom-node", "pydicom", "pynetdicom", "highdicom", "SimpleITK", "torch")


class State(StrEnum):
    """What a check says."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line: what was looked at, how it is, and what to do if it is not well."""

    check: str
    state: State
    text: str
    advice: str = ""


def well(check: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(check=check, state=State.OK, text=text)


def doubtful(check: str, text: str, advice: str = "") -> Finding:
    """The node works, but perhaps not as it was meant."""
    return Finding(check=check, state=State.WARNING, text=text, advice=advice)


def failed(check: str, text: str, advice: str = "") -> Finding:
    """Something will not work."""
    return Finding(check=check, state=State.FAILED, text=text, advice=advice)


def node_runs(config: Config) -> bool:
    """Whether a node holds the data folder."""
    try:
        handle = (config.data_dir / "lock").open("rb")
    except OSError:
        return False
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def data_folder(config: Config) -> Iterator[Finding]:
    """Can the node write there, durably, and is there room?"""
    folder = config.data_dir
    there = next(p for p in (folder, *folder.parents) if _may(p, os.F_OK))
    if not there.is_dir():
        yield failed("data folder", f"{there} is not a folder", "change node.data_dir")
        return
    if there != folder:
        if _may(there, os.W_OK | os.X_OK):
            yield well("data folder", f"{folder} will be made at the first start")
        else:
            yield _not_writable(there, f"{folder} cannot be made in {there}")
    else:
        yield _written(folder)
    yield _room(there, config.receive.min_free_gib)
    yield from _kind_of_disk(there)


def _may(path: Path, mode: int) -> bool:
    """Whether this user may; unlike `Path.exists`, no error where it may not even look."""
    return os.access(path, mode, effective_ids=True)


def _written(folder: Path) -> Finding:
    began = time.perf_counter()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return _not_writable(folder, f"{folder} cannot be written: {error.strerror}")
    milliseconds = (time.perf_counter() - began) * 1000
    return well("data folder", f"{folder} is writable; a write is durable in {milliseconds:.0f} ms")


def _not_writable(folder: Path, text: str) -> Finding:
    try:
        owner, me = (pwd.getpwuid(i).pw_name for i in (folder.stat().st_uid, os.geteuid()))
    except (KeyError, OSError):
        return failed("data folder", text, "give the node's user the right to write there")
    if owner == me:
        return failed("data folder", text, "is the file system mounted read-only?")
    return failed(
        "data folder",
        f"{text} (it belongs to {owner}, and this is {me})",
        f"run as {owner}, or give {me} the right to write there",
    )


def _room(folder: Path, min_free_gib: float) -> Finding:
    free_gib = shutil.disk_usage(folder).free / GIB
    text = f"{free_gib:.1f} GiB free"
    limit = f"receive.min_free_gib = {min_free_gib:g}"
    if free_gib < min_free_gib:
        return failed(
            "disk", f"{text}, less than {limit}: every image is refused", "free some space"
        )
    if free_gib < min_free_gib + ROOMY_GIB:
        return doubtful("disk", f"{text}; below {limit} every image is refused", "free some space")
    return well("disk", f"{text}; images are refused below {limit}")


def _kind_of_disk(folder: Path) -> Iterator[Finding]:
    kind = file_system(folder)
    if kind in _DISTANT:
        yield doubtful(
            "disk",
            f"the data folder is on a network file system ({kind}), where the catalog is not safe",
            "put node.data_dir on a local disk",
        )
    if kind in _VOLATILE:
        yield doubtful(
            "disk",
            f"the data folder is on {kind}: it is lost with the machine or the container",
            "put node.data_dir on a disk or a volume",
        )


def file_system(folder: Path) -> str:
    """The type of the file system that a folder is on, "" where the system does not tell."""
    try:
        lines = Path("/proc/mounts").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    resolved, best = folder.resolve(), ("", "")
    for line in lines:
        _, mounted, kind, *_ = line.split(" ")
        point = mounted.replace("\\040", " ")
        if resolved.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def ports(config: Config, *, runs: bool) -> Iterator[Finding]:
    """Free, or ours. A probe of our own SCP opens no association: nothing is recorded of it."""
    if config.tls.plain:
        yield _port(config.node.host, config.node.port, "node.port", runs=runs)
    if config.tls.certificate is not None:
        yield _port(config.node.host, config.tls.port, "tls.port", runs=runs)


def _port(host: str, number: int, key: str, *, runs: bool) -> Finding:
    where = f"{host}:{number}"
    if number == 0:
        return doubtful("port", "any that is free: peers cannot know it", f"set {key}")
    if _answers("127.0.0.1" if host == "0.0.0.0" else "::1" if host == "::" else host, number):  # noqa: S104
        if runs:
            return well("port", f"this node is running, and {where} answers")
        return failed("port", f"another program listens at {where}", f"stop it, or change {key}")
    if runs:
        return failed(
            "port",
            f"a node is running on this data folder, but nobody answers at {where}",
            "restart it, if the configuration was changed since it started",
        )
    return _bindable(host, number, key)


def _answers(host: str, number: int) -> bool:
    try:
        with socket.create_connection((host, number), CONNECT_S):
            return True
    except OSError:
        return False


def _bindable(host: str, number: int, key: str) -> Finding:
    where = f"{host}:{number}"
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror:
        return failed("port", f"the host name {host} is unknown", "change node.host")
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            return failed("port", f"{host} is no address of this machine", "change node.host")
        if error.errno == errno.EACCES:
            return failed(
                "port",
                f"this user may not listen at {where}",
                f"take a {key} above 1023, or allow the service CAP_NET_BIND_SERVICE",
            )
        return failed("port", f"cannot listen at {where}: {error.strerror}", f"change {key}")
    return well("port", f"{where} is free; no node is running on this data folder")


def facts(config: Config) -> Iterator[Finding]:
    """Catalog, spool and clock: looked at through one connection that commits nothing."""
    now = SystemClock().now()
    last_at = 0.0
    data_dir = config.data_dir
    if _may(data_dir, os.F_OK) and not _may(data_dir, os.R_OK | os.W_OK | os.X_OK):
        yield failed("catalog", "this user may not look into the data folder", "see data folder")
        return
    path = catalog_path(config)
    if not _may(path, os.F_OK) or is_absent(path) or _may(pending_of(path), os.F_OK):
        yield _absent(config)
        yield _clock(now, last_at)
        return
    try:
        problems = examine(path, seconds=LOOK_S, indexes=False).problems
        if problems:
            raise damaged(path, problems[0])
        with open_catalog(config) as catalog:
            yield _counted(catalog)
            yield from _refused(catalog)
            newest = catalog.views.all_series(NEWEST)
            last_at = max((series.last_at for series in newest), default=0.0)
            yield _spool(config, catalog, [series.series_uid for series in newest])
    except CatalogError as error:
        yield failed("catalog", str(error), "restore it from a copy, or make it anew")
    yield _clock(now, last_at)


def _absent(config: Config) -> Finding:
    if _may(pending_of(catalog_path(config)), os.F_OK):
        return failed("catalog", "a rebuild of it was interrupted", "dicom-node catalog rebuild")
    objects = spool_path(config) / "objects"
    if _may(objects, os.R_OK | os.X_OK) and any(True for _ in objects.glob("*/*.dcm")):
        return failed(
            "catalog",
            f"there is none, but {spool_path(config)} holds objects",
            "restore it from a copy, or make it anew: dicom-node catalog rebuild",
        )
    return well("catalog", "none yet: no node has run with this data folder")


def _counted(catalog: Catalog) -> Finding:
    counts, unhappy = catalog.views.counts(), catalog.views.unhappy()
    text = ", ".join(f"{counts[name]} {word}" for name, word in _COUNTED.items())
    if unhappy:
        states = ", ".join(f"{number} {state}" for state, number in unhappy)
        return doubtful("catalog", f"{text}; {states}", "dicom-node status; dicom-node why UID")
    return well("catalog", text)


_REFUSED_MAX = 5
_COUNTED = {"series": "series", "instance": "instances", "result": "results"}


def _refused(catalog: Catalog) -> Iterator[Finding]:
    for one in catalog.attention.refused(_REFUSED_MAX):
        text = f"{one.times} of {one.calling_ae} since the start with {one.status:04X}"
        yield doubtful("refused", f"{text}: {one.reason}", f"dicom-node why '{one.calling_ae}'")


def _spool(config: Config, catalog: Catalog, newest: list[str]) -> Finding:
    root = spool_path(config)
    paths = [i.path for uid in newest for i in catalog.views.instances(uid)]
    missing = sum(not (root / path).is_file() for path in paths)
    if missing:
        return failed(
            "spool",
            f"{missing} of {len(paths)} files of the newest series are missing in {root}",
            "restore them, or have the images sent again",
        )
    if not _may(root, os.R_OK | os.W_OK | os.X_OK):
        return failed("spool", f"{root} is not readable and writable", "mend its permissions")
    return well("spool", f"the files of the newest series are there ({len(paths)} looked for)")


def _clock(now: float, last_at: float) -> Finding:
    shown = f"{clock_text(now)[:19]} UTC"
    if now < EARLIEST:
        return failed("clock", f"{shown} is in the past", "set the clock (NTP)")
    if last_at > now + AHEAD_S:
        return failed(
            "clock",
            f"{shown}, but images were received {last_at - now:.0f} s later than that",
            "set the clock (NTP)",
        )
    return well("clock", f"{shown} (compare with the PACS)")


def senders(config: Config) -> Iterator[Finding]:
    """Can what a route owes to `@sender` be sent?"""
    deaf = [p.name for p in config.peers if "store" in p.may and "store" not in p.offers]
    for route in config.routes:
        if not route.enabled or SENDER not in route.destinations:
            continue
        mute = [name for name in deaf if {"*", name} & set(route.sources)]
        if not config.peers:
            advice = "add [[peer]] with its AE title, host and port"
            yield doubtful("route", f"{route.name}: no sender is a configured peer", advice)
        elif mute:
            yield doubtful(
                "route",
                f"{route.name}: {', '.join(mute)} may send, but cannot be sent the results",
                'add "store" to its offers',
            )
        elif config.receive.unknown_peers == "accept" and "*" in route.sources:
            yield doubtful(
                "route",
                f"{route.name}: a sender that is no [[peer]] gets no results",
                "add [[peer]] for each sender",
            )
        else:
            yield well("route", f"{route.name}: every sender can be sent its results")


def decoders() -> Iterator[Finding]:
    """The packages that decode compressed images."""
    missing = dict[str, str]()
    for module, (package, syntaxes) in _DECODERS.items():
        try:
            importlib.import_module(module)
        except ImportError:
            missing[package] = syntaxes
    for package, syntaxes in missing.items():
        yield failed("decoders", f"{syntaxes} cannot be decoded", f"pip install {package}")
    if not missing:
        names = ", ".join(syntaxes for _, syntaxes in _DECODERS.values())
        yield well("decoders", names)


def versions() -> Finding:
    """What to write into a bug report."""
    found: Mapping[str, str] = {name: _version(name) for name in _VERSIONS}
    text = ", ".join(f"{name} {number}" for name, number in found.items())
    return well("versions", f"{text}, Python {sys.version.split()[0]}")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"
