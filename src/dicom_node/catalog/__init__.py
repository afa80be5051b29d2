"""The facts: events, due work, claims and views. The only room that speaks SQL."""

from dicom_node.catalog.store import Catalog

__all__ = ["Catalog"]
