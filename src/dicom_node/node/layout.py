"""Where a node keeps what, and the values that the stages get from its configuration."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import ExitStack
from pathlib import Path

from dicom_node.config.load import Config, read
from dicom_node.decide.patience import Patience
from dicom_node.dimse.scp import Extra, Limits
from dicom_node.domain.errors import CatalogError, ConfigurationError, NodeError
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.spool.disk import sync_folder

GIB = 1024**3


def catalog_path(config: Config) -> Path:
    """The catalog's file."""
    return config.data_dir / "catalog.db"


def spool_path(config: Config) -> Path:
    """The spool's folder."""
    return config.data_dir / "spool"


def make_data_dir(config: Config) -> None:
    """Make the data folder, for its owner only, and durably with all that leads to it.

    Raises ConfigurationError.
    """
    folder = config.data_dir
    made = [folder, *folder.parents][: sum(not p.exists() for p in (folder, *folder.parents))]
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for one in made:
            sync_folder(one.parent)
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigurationError([f"the data folder {folder} cannot be made: {why}"]) from error


def lock_data_dir(data_dir: Path) -> ExitStack:
    """Hold the data folder, until what is returned is closed: two nodes would tread on each other.

    Raises ConfigurationError if somebody holds it.
    """
    held = ConfigurationError([f"another node uses the data folder {data_dir}"])
    return _locked(data_dir / "lock", os.O_WRONLY | os.O_CREAT, fcntl.LOCK_EX, held)


def share_catalog(data_dir: Path) -> ExitStack:
    """Work in the catalog beside others, until what is returned is closed.

    Raises CatalogError while it is made anew: what is written then would be in the old one.
    """
    held = CatalogError(
        "the catalog is being made anew: try again when dicom-node catalog rebuild has ended"
    )
    return _locked(data_dir, os.O_RDONLY | os.O_DIRECTORY, fcntl.LOCK_SH, held)


def lock_catalog(data_dir: Path) -> ExitStack:
    """Have the catalog alone, to make it anew, until what is returned is closed.

    Raises CatalogError while somebody works in it.
    """
    held = CatalogError("another command works in the catalog: try again when it has ended")
    return _locked(data_dir, os.O_RDONLY | os.O_DIRECTORY, fcntl.LOCK_EX, held)


def _locked(path: Path, flags: int, how: int, held: NodeError) -> ExitStack:
    with ExitStack() as undo:
        try:
            descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
            undo.callback(os.close, descriptor)
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            raise held from None
        except OSError as error:
            raise ConfigurationError([f"{path} cannot be locked: {error.strerror}"]) from error
        return undo.pop_all()


def hand_over(config: Config) -> Path:
    """Write what the configuration was made of for the performers, and say where.

    Raises ConfigurationError.
    """
    path = config.data_dir / "performer.json"
    body = {"text": config.text, "base": str(config.base), "source": config.source}
    try:
        path.touch(mode=0o600, exist_ok=True)
        path.write_text(json.dumps(body), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError([f"{path} cannot be written: {error.strerror}"]) from error
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


def limits(config: Config) -> Limits:
    """What the SCP of a node with this configuration bears."""
    receive = config.receive
    return Limits(
        associations_max=receive.max_associations,
        patience=Patience(idle_s=receive.idle_s),
        pdu_bytes=receive.max_pdu,
        object_bytes=int(receive.max_object_gib * GIB),
    )


def min_free_bytes(config: Config) -> int:
    """What must be free on the spool's file system for anything to come in."""
    return int(config.receive.min_free_gib * GIB)


def extra(config: Config) -> Extra:
    """What the operator adds to that which the SCP takes."""
    receive = config.receive
    return Extra(classes=receive.extra_sop_classes, syntaxes=receive.extra_transfer_syntaxes)
