"""The catalog of a node, running or not, for commands that look into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicom_node.catalog import Catalog
from dicom_node.catalog.damage import REBUILD, found_damage
from dicom_node.catalog.replace import INTERRUPTED, pending_of
from dicom_node.cli.common import complain
from dicom_node.config.load import Config
from dicom_node.domain.errors import CatalogError
from dicom_node.node.layout import catalog_path, share_catalog


@contextmanager
def open_catalog(config: Config) -> Iterator[Catalog]:
    """The catalog that is there. Raises CatalogError where no node has run yet, and while the
    catalog is made anew.

    Says so where it was found damaged, even if what is asked for can still be read.
    """
    path = catalog_path(config)
    if not path.is_file():
        raise CatalogError(f"there is no catalog at {path}: has a node run with this data_dir?")
    with share_catalog(config.data_dir):
        if pending_of(path).exists():
            raise CatalogError(INTERRUPTED)
        yield from _opened(path)


def _opened(path: Path) -> Iterator[Catalog]:
    met = found_damage(path)
    if met:
        complain(f"THE CATALOG IS DAMAGED ({met}), nothing is received: {REBUILD}")
    catalog = Catalog(path)
    try:
        yield catalog
    finally:
        catalog.close()
