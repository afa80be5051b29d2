"""From labels to a SEG file: this project's way against highdicom's own, in the same run.

    make bench-encode               93 and 512 slices of 512 x 512, two segments, five rounds
    make bench-encode ARGS="--rounds 3 --slices 93"

highdicom's default path is its constructor with a label map and the source headers, and `save_as`.
Both are given the headers of the sources and the labels; both write to a file.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from pydicom.sr.codedict import codes

from dicom_node.domain.tool import AlgorithmIdentity, SegmentationResult
from dicom_node.iod.header import read_attributes
from dicom_node.iod.image import read_volume
from dicom_node.iod.seg import encode_segmentation
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.testing.series import a_series, write_files
from dicom_node.tools.manifest import read_manifest

LUNGS = read_manifest(Path(__file__).parents[2] / "models" / "lung-unet").segments
WHO = AlgorithmIdentity(tool_id="lung-unet", name="Lung U-Net", version="1", digest="ab" * 32)
SIZE = 512


def lungs(slices: int) -> np.ndarray:
    """Two ellipses; 84 % of the slices show both, as in a chest that was scanned whole."""
    labels = np.zeros((slices, SIZE, SIZE), np.uint8)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    first, last = round(0.08 * slices), round(0.92 * slices)
    for z in range(first, last):
        wide = 0.6 + 0.4 * np.sin(np.pi * (z - first) / (last - first))
        for n, middle in ((1, 0.3), (2, 0.7)):
            inside = ((y - 0.5) / 0.28) ** 2 + ((x - middle) / 0.13) ** 2 < wide**2
            labels[z][inside] = n
    return labels


def by_highdicom(headers: list[pydicom.Dataset], labels: np.ndarray, out: Path) -> None:
    """As its documentation shows."""
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="Lung U-Net", family=codes.cid7162.ArtificialIntelligence, version="1"
    )
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=segment.number,
            segment_label=segment.label,
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.Lung,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for segment in LUNGS
    ]
    highdicom.seg.Segmentation(
        source_images=headers,
        pixel_array=labels,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=highdicom.UID(),
        series_number=1,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="dicom-node",
        manufacturer_model_name="Lung U-Net",
        software_versions="1",
        device_serial_number="1",
    ).save_as(out)


def timed(action: Callable[[], None]) -> float:
    began = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - began)


def measured(slices: int, rounds: int, folder: Path) -> None:
    files = write_files(folder, a_series(slices, size=SIZE, spacing_mm=(2.0, 0.7, 0.7)))
    by_uid = {str(pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID): f for f in files}
    paths = [by_uid[uid] for uid in read_volume(files).instance_uids]
    known = [read_attributes(path) for path in paths]
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    labels = lungs(slices)
    out = folder / "seg.dcm"

    def ours() -> None:
        data = encode_segmentation(
            SegmentationResult(labels_zyx=labels, segments=LUNGS),
            source_paths=paths,
            headers=known,
            identity=WHO,
            settings=SegSettings(),
            uids=("2.25.1", "2.25.2"),
            content_at=datetime(2026, 1, 5),
        )
        out.write_bytes(data)

    theirs_ms, ours_ms = [], []
    by_highdicom(copy.deepcopy(headers), labels, out)  # the first call of a process makes tables
    ours()
    for _ in range(rounds):
        given = copy.deepcopy(headers)
        theirs_ms.append(timed(lambda given=given: by_highdicom(given, labels, out)))
        ours_ms.append(timed(ours))
    a, b = statistics.median(theirs_ms), statistics.median(ours_ms)
    print(f"{slices:5d} slices  highdicom {a:7.0f} ms  here {b:7.0f} ms  ratio {b / a:.2f}")
    print(f"        rounds: {[round(t) for t in theirs_ms]}, {[round(t) for t in ours_ms]}")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--slices", type=int, nargs="*", default=[93, 512])
    ask.add_argument("--rounds", type=int, default=5)
    args = ask.parse_args()
    for slices in args.slices:
        with tempfile.TemporaryDirectory() as folder:
            measured(slices, args.rounds, Path(folder))


if __name__ == "__main__":
    main()
