"""The catalog of a node, running or not, for commands that look into it."""

from __future__ import annotations

from dicom_node.catalog import Catalog
from dicom_node.config.load import Config
from dicom_node.domain.errors import CatalogError
from dicom_node.node.layout import catalog_path


def open_catalog(config: Config) -> Catalog:
    """Open the catalog that is there. Raises CatalogError where no node has run yet."""
    path = catalog_path(config)
    if not path.is_file():
        raise CatalogError(f"there is no catalog at {path}: has a node run with this data_dir?")
    return Catalog(path)
