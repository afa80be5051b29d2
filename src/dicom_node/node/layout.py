"""Where a node keeps what, and the values that the stages get from its configuration."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from dicom_node.config.load import Config
from dicom_node.domain.errors import ConfigurationError
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


def lock_data_dir(data_dir: Path) -> IO[bytes]:
    """Hold the data folder, until what is returned is closed: two nodes would tread on each other.

    Raises ConfigurationError if somebody holds it.
    """
    handle = (data_dir / "lock").open("wb")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise ConfigurationError([f"another node uses the data folder {data_dir}"]) from error
    return handle


def seg_settings(config: Config) -> SegSettings:
    """What the operator wants written into segmentations."""
    return SegSettings(
        manufacturer=config.results.manufacturer,
        series_number_offset=config.results.series_number_offset,
        research_use=config.results.research_use,
    )
