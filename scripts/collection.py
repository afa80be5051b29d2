"""Real CT series on the disk, for verdicts.py and guard_table.py: as objects, and as volumes.

A folder holds DICOM files, or a volume: hu.npy [slice, row, column] from feet to head, front to
back, patient right to left, and meta.json with its spacing_zyx; mask.npy has its labels. Labels are
1 = left lung, 2 = right lung, 3 = not to be judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicom_node.decide.geometry import Fault, split_localizers
from dicom_node.domain.errors import NodeError
from dicom_node.domain.volume import Volume
from dicom_node.iod.image import read_volume
from dicom_node.node.offline import find_series
from dicom_node.testing.series import Header, write_series

LEAST_SLICES = 3
Truth = Mapping[str, NDArray[np.uint8]]
"""Labels [row, column] of a slice, by SOP Instance UID."""


def folders(folder: Path) -> list[Path]:
    """What is not hidden in it."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def is_volume(folder: Path) -> bool:
    """Whether it is a stored volume, and no objects."""
    return (folder / "hu.npy").exists()


def stored_volume(folder: Path) -> Volume | None:
    """The volume of a folder, None where its slices do not belong together."""
    meta = json.loads((folder / "meta.json").read_text("utf-8"))
    if "single_slices" in meta:
        return None
    affine = np.diag((*reversed(meta["spacing_zyx"]), 1.0))[:, [2, 1, 0, 3]]
    return Volume(voxels_zyx=np.load(folder / "hu.npy"), affine_lps_mm=affine)


def as_series(folder: Path, out: Path) -> bool:
    """Write a stored volume as a CT series; false where there is none."""
    volume = stored_volume(folder)
    if volume is not None:
        write_series(out, volume, header=_header(folder))
    return volume is not None


def truth_of(folder: Path, labels: Path | None) -> Truth:
    """What the slices of a folder hold, as far as it is known. labels: folder of NAME.*.npz."""
    if is_volume(folder):
        if not (folder / "mask.npy").exists():
            return {}
        masks, header = np.load(folder / "mask.npy"), _header(folder)
        return {header.instance_uid(i): mask for i, mask in enumerate(masks)}
    for path in sorted(labels.glob(f"{folder.name}.*.npz")) if labels else ():
        stored = np.load(path)
        return dict(zip(stored["sop_instance_uid"].tolist(), stored["mask"], strict=True))
    return {}


def volumes_of(folder: Path) -> Iterator[Volume]:
    """Each CT volume of at least LEAST_SLICES slices in a folder."""
    if is_volume(folder):
        volume = stored_volume(folder)
        if volume is not None:
            yield volume
        return
    for series in find_series(folder)[0]:
        planes = split_localizers([source.attributes for source in series.sources]).volume
        wanted = {str(plane["SOPInstanceUID"]) for plane in planes}
        if not planes or planes[0].get("Modality", "CT") != "CT" or len(planes) < LEAST_SLICES:
            continue
        paths = [source.path for source in series.sources if source.uid in wanted]
        try:
            yield read_volume(paths, tolerate=frozenset(Fault))
        except NodeError:
            continue


def _header(folder: Path) -> Header:
    return Header(series=folder.name, body_part="")
