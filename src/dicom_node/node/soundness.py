"""Before the node speaks: is the catalog one that it may go on with?"""

from __future__ import annotations

import logging

from dicom_node.catalog.damage import damaged, found_damage, mark_of
from dicom_node.catalog.integrity import examine, is_absent, take_closed
from dicom_node.catalog.replace import INTERRUPTED, pending_of
from dicom_node.config.load import Config
from dicom_node.domain.errors import CatalogDamaged
from dicom_node.node.layout import catalog_path
from dicom_node.spool.store import Spool

_log = logging.getLogger("dicom_node")

_ORDERLY_S = 3.0
_DOUBTFUL_S = 20.0  # after a crash, or when something else wrote to the file
_MET_S = 600.0  # damage was met: nothing is taken on trust


def require_sound(config: Config, spool: Spool) -> None:
    """Raise CatalogDamaged, with what to do, unless the catalog is sound or there is none yet.

    After an orderly end every page is looked at, after any other every index, too; as far as the
    time allows. To be called by who holds the data folder.
    """
    path = catalog_path(config)
    if pending_of(path).exists():
        raise CatalogDamaged(INTERRUPTED)
    if is_absent(path):
        if any(True for _ in spool.files()):
            raise CatalogDamaged(
                f"there is no catalog at {path}, but the spool holds objects: restore it from a "
                "copy, or run: dicom-node catalog rebuild"
            )
        return
    orderly, met = take_closed(path), found_damage(path)
    seconds = _MET_S if met else _ORDERLY_S if orderly else _DOUBTFUL_S
    examination = examine(path, seconds=seconds, indexes=bool(met) or not orderly)
    if examination.problems:
        raise damaged(path, examination.problems[0])
    if met:
        mark_of(path).unlink(missing_ok=True)
        _log.warning("the catalog was found damaged before (%s), and is sound now", met)
    if not examination.whole:
        _log.warning(
            "the catalog is too large to be looked at in %g s: have it looked at with "
            "dicom-node catalog check",
            seconds,
        )
