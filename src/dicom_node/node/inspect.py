"""`catalog check`: the catalog against itself, its events, and the files of the spool.

Nothing is changed, and the node may be running: what it does meanwhile is not taken for a fault.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dicom_node.catalog import Catalog
from dicom_node.catalog.integrity import examine
from dicom_node.catalog.refold import Unfoldable, differences
from dicom_node.config.load import Config
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
    stored (looked at only if asked). files: how many there are.
    """

    page: list[str] = field(default_factory=list)
    differing: dict[str, int] = field(default_factory=dict)
    unfoldable: str = ""
    lost: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    files: int = 0

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
    scratch = path.with_name(f"{path.name}.check")
    try:
        found.differing = differences(path, scratch, lambda n, m: progress("events", n, m))
    except Unfoldable as error:
        found.unfoldable = str(error)
    catalog = Catalog(path)
    try:
        _files(found, Spool(spool_path(config)), catalog, deep=deep, progress=progress)
    finally:
        catalog.close()
    return found


def _files(
    found: Inspection, spool: Spool, catalog: Catalog, *, deep: bool, progress: Progress
) -> None:
    begun = spool.stamp()
    results = catalog.files.of_results()
    shards = spool.shards()
    for number, shard in enumerate(shards, 1):
        prefix = f"objects/{shard}/"
        known = catalog.files.between(prefix, f"objects/{shard}0")
        known |= {path for path in results if path.startswith(prefix)}
        present = spool.shard(shard)
        found.files += len(present)
        for path in sorted(known.difference(present)):
            if spool.look(path) is None and catalog.files.series_of(path):
                found.lost.append(path)
        for path in present:
            if path not in known:
                _unknown(found, spool, catalog, path, begun)
            if deep and not _is_intact(spool, path):
                found.altered.append(path)
        progress("folders", number, len(shards))


def _unknown(found: Inspection, spool: Spool, catalog: Catalog, path: str, begun: float) -> None:
    state = spool.look(path)
    if state is None or state[1] >= begun or catalog.files.is_known(path):
        return  # it came or went meanwhile
    kind = found.unreadable if isinstance(look(spool, path), str) else found.unknown
    kind.append(path)


def _is_intact(spool: Spool, path: str) -> bool:
    """True also for one that was removed meanwhile."""
    return spool.look(path) is None or spool.is_intact(path)
