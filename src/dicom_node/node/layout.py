"""Where a node keeps what, and the values that the stages get from its configuration."""

from __future__ import annotations

from pathlib import Path

from dicom_node.config.load import Config
from dicom_node.iod.seg_settings import SegSettings

GIB = 1024**3


def catalog_path(config: Config) -> Path:
    """The catalog's file."""
    return config.data_dir / "catalog.db"


def spool_path(config: Config) -> Path:
    """The spool's folder."""
    return config.data_dir / "spool"


def make_data_dir(config: Config) -> None:
    """Make the data folder, for its owner only."""
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)


def seg_settings(config: Config) -> SegSettings:
    """What the operator wants written into segmentations."""
    return SegSettings(
        manufacturer=config.results.manufacturer,
        series_number_offset=config.results.series_number_offset,
        research_use=config.results.research_use,
    )
