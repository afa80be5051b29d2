"""`catalog check`: the catalog against itself, its events, and the files of the spool.

Nothing is changed, and the node may be running: what it does meanwhile is not taken for a fault.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dicom_node.catalog.integrity import examine
from dicom_node.catalog.inventory import Inventory, looked_into
from dicom_node.catalog.refold import Unfoldable, differences
from dicom_node.config.load import Config
from dicom_node.domain.errors import SpoolError
from dicom_node.node.adopt import look
from dicom_node.node.layout import catalog_path, spool_path
from dicom_node.spool.store import Spool

Progress = Callable[[str, int, int], None]
"""progress(what is counted, done, total)."""


@dataclass(slots=True, kw_only=True)
class Inspection:
    """page: what SQLite found. differing: table -> rows that are not what the events make of them.

    lost: files that the catalog knows and the spool lacks. unknown: files that nobody knows, and
    unreadable those of them that hold no object. altered: files whose bytes are not those that were
    stored (looked at only if asked). files: how many there are. outdated: the catalog is that of an
    older version of the node: only its pages were looked at.
    """

    page: list[str] = field(default_factory=list)
    differing: dict[str, int] = field(default_factory=dict)
    unfoldable: str = ""
    lost: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    files: int = 0
    outdated: bool = False

    @property
    def catalog_is_sound(self) -> bool:
        """Whether the catalog's file can be gone on with."""
        return not (self.page or self.differing or self.unfoldable)

    @property
    def sound(self) -> bool:
        """Whether nothing at all was found. Files that nobody knows are entered at a start."""
        return self.catalog_is_sound and not (self.lost or self.unreadable or self.altered)


def inspect(config: Config, *, deep: bool, progress: Progress) -> Inspection:
    """Look at everything. deep: read every file, too. Raises CatalogError, SpoolError."""
    path = catalog_path(config)
    found = Inspection()
    progress("pages", 0, 1)
    found.page += examine(path).problems
    progress("pages", 1, 1)
    if found.page:
        return found  # whatever it would say of files may be wrong
    with looked_into(path) as known:
        if known is None:
            found.outdated = True
            return found
        scratch = path.with_name(f"{path.name}.check")
        try:
            found.differing = differences(path, scratch, lambda n, m: progress("events", n, m))
        except Unfoldable as error:
            found.unfoldable = str(error)
        _files(found, Spool(spool_path(config)), known, deep=deep, progress=progress)
    return found


def _files(
    found: Inspection, spool: Spool, catalogued: Inventory, *, deep: bool, progress: Progress
) -> None:
    begun = spool.stamp()
    results = catalogued.of_results()
    shards = spool.shards()
    for number, shard in enumerate(shards, 1):
        prefix = f"objects/{shard}/"
        known = catalogued.between(prefix, f"objects/{shard}0")
        known |= {path for path in results if path.startswith(prefix)}
        present = spool.shard(shard)
        found.files += len(present)
        for path in sorted(known.difference(present)):
            if spool.look(path) is None and catalogued.series_of(path):
                found.lost.append(path)
        for path in present:
            if path not in known:
                _unknown(found, spool, catalogued, path, begun)
            if deep and not _is_intact(spool, path):
                found.altered.append(path)
        progress("folders", number, len(shards))


def _unknown(
    found: Inspection, spool: Spool, catalogued: Inventory, path: str, begun: float
) -> None:
    state = spool.look(path)
    if state is None or catalogued.is_known(path) or begun <= state[1] <= spool.stamp():
        return  # it came or went meanwhile
    try:
        readable = not isinstance(look(spool, path), str)
    except SpoolError:
        readable = False
    (found.unknown if readable else found.unreadable).append(path)


def _is_intact(spool: Spool, path: str) -> bool:
    """True also for one that was removed meanwhile; what the disk does not give is not intact."""
    try:
        return spool.look(path) is None or spool.is_intact(path)
    except SpoolError:
        return False
