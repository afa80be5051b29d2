"""The folder of the demo: each run begins with an empty one, and none but a demo's is emptied."""

from __future__ import annotations

import shutil
from pathlib import Path

from dicom_node.domain.errors import NodeError
from dicom_node.node.layout import lock_data_dir

MARK = "# written by `dicom-node demo`: everything here is made anew by the next one\n"

_CONFIG = "ae_config.toml"
_FOLDERS = ("var", "pacs")
_FILES = ("seg.dcm", "lungs.png", "node.log")


def empty(out: Path) -> None:
    """Make `out`, or clear what an earlier demo left there: its result would pass for the new one.

    The phantom stays. Raises NodeError for a folder that holds something else's files, and
    ConfigurationError while a node uses it.
    """
    out.mkdir(parents=True, exist_ok=True)
    config = out / _CONFIG
    ours = config.is_file() and config.read_text("utf-8", "replace").startswith(MARK)
    taken = [name for name in (_CONFIG, *_FOLDERS, *_FILES) if (out / name).exists()]
    if taken and not ours:
        raise NodeError(f"{out / taken[0]} is not from a demo: give another folder with --out")
    if (out / "var").is_dir():
        lock_data_dir(out / "var").close()
    for name in _FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)
    for name in _FILES:
        (out / name).unlink(missing_ok=True)
    config.write_text(MARK, encoding="utf-8")
