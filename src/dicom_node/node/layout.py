"""Where a node keeps what, and the values that the stages get from its configuration."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import IO

from dicom_node.config.load import Config, read
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


def hand_over(config: Config) -> Path:
    """Write what the configuration was made of for the performers, and say where."""
    path = config.data_dir / "performer.json"
    body = {"text": config.text, "base": str(config.base), "source": config.source}
    path.touch(mode=0o600, exist_ok=True)
    path.write_text(json.dumps(body), encoding="utf-8")
    return path


def taken_over(path: Path) -> Config:
    """The configuration that was handed over. Raises ConfigurationError."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        text, base, source = body["text"], Path(body["base"]), body["source"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError([f"{path.name} cannot be read: {error}"]) from error
    return read(text, base=base, source=source)


def seg_settings(config: Config) -> SegSettings:
    """What the operator wants written into segmentations."""
    return SegSettings(
        manufacturer=config.results.manufacturer,
        series_number_offset=config.results.series_number_offset,
        research_use=config.results.research_use,
        omit_empty_frames=config.results.omit_empty_frames,
    )
