"""The way of a published notebook: each slice by itself through a large 2D U-Net, then a picture.

For each file: read it, find the body, cut it out and shrink it to 256 x 256, run the network (eager
fp32, one slice at a time), clean the mask up, write it over the slice as JPEG, and that again as a
Secondary Capture of its own. The network has the shape of the published one, and random weights:
its time does not depend on them. What follows the network would: so it is given a mask by
threshold. Sizes of the notebook's parts are those that its description gives; the code is this
project's own.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813  (as its own examples do)
import torch
import torch.nn.functional as F  # noqa: N812  (its name everywhere)
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, SecondaryCaptureImageStorage
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dicom_node.domain.identifiers import derived_uid
from dicom_node.testing.pacs import send_series

SIDE = 256
LOW_HU, HIGH_HU = -1024.0, 600.0


class ConvBlock(nn.Sequential):
    """Twice: 3 x 3 convolution, rectified, then normalised."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(outputs),
            nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(outputs),
        )  # fmt: skip


class LargeUNet(nn.Module):
    """`depth` levels from 2**wf channels, doubled at each: 28.95 M parameters with 6 and 5."""

    def __init__(self, *, wf: int = 6, depth: int = 5, classes: int = 3) -> None:
        super().__init__()
        widths = [1 << (wf + level) for level in range(depth)]
        self.down = nn.ModuleList(ConvBlock(a, b) for a, b in pairwise((1, *widths)))
        steps = [(b, a) for a, b in pairwise(widths)][::-1]
        self.halve = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in steps)
        self.up = nn.ModuleList(ConvBlock(a, b) for a, b in steps)
        self.last = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) -> logarithms of the shares of the classes (B, classes, H, W)."""
        across: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if level else x)
            across.append(x)
        across.pop()
        for halve, block in zip(self.halve, self.up, strict=True):
            x = halve(F.interpolate(x, scale_factor=2.0, mode="bilinear"))
            x = block(torch.cat((x, across.pop()), dim=1))
        return F.log_softmax(self.last(x), dim=1)


@dataclass(kw_only=True)
class Notebook:
    """weights: a file, made by `made_weights`. wf, depth: of its network. out: for what it writes.

    pacs: (host, port, AE title) that the Secondary Captures are sent to, as they are finished.
    """

    weights: Path
    out: Path
    pacs: tuple[str, int, str]
    device: str = "cpu"
    wf: int = 6
    depth: int = 5
    seconds: Counter[str] = field(default_factory=Counter)

    def load(self) -> nn.Module:
        """The network, made and filled with its weights."""
        with self._timed("load"):
            network = LargeUNet(wf=self.wf, depth=self.depth)
            network.load_state_dict(load_file(self.weights))
            return network.eval().to(self.device)

    def run(self, files: Sequence[Path], number: int, *, load_each: bool) -> dict[str, float]:
        """Do some files; seconds by step. load_each: the network is made anew for each of them."""
        self.seconds = Counter()
        network = None if load_each else self.load()
        written = [
            self._slice(file, n, number, self.load() if network is None else network)
            for n, file in enumerate(files)
        ]
        with self._timed("send"):
            host, port, called = self.pacs
            statuses = send_series((host, port), called, written, calling_ae="NOTEBOOK")
        if set(statuses) != {0}:
            raise SystemExit(f"the PACS refused Secondary Captures: {sorted(set(statuses))}")
        return dict(self.seconds)

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[step] += time.perf_counter() - began

    def _slice(self, file: Path, n: int, number: int, network: nn.Module) -> Path:
        with self._timed("read"):
            hu = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))[0].astype(np.float32)
        with self._timed("prepare"):
            box = body_box(hu)
            inputs = prepared(hu[box]).to(self.device)
        with self._timed("network"), torch.inference_mode():
            classes = network(inputs).argmax(dim=1)[0].to(torch.uint8).cpu()
        if classes.shape != (SIDE, SIDE):
            raise SystemExit("the network gives another size than it was given")
        stand_in = by_threshold(inputs[0, 0].cpu().numpy())  # not timed
        with self._timed("clean-up"):
            mask = pasted(cleaned(stand_in), box, (hu.shape[0], hu.shape[1]))
        with self._timed("write"):
            jpeg = self.out / f"{number}-{n:04d}.jpg"
            overlay(hu, mask).save(jpeg)
            return secondary_capture(jpeg, number, n)


def made_weights(folder: Path, *, wf: int = 6, depth: int = 5) -> Path:
    """Random ones."""
    torch.manual_seed(0)
    path = folder / "weights.safetensors"
    save_file(LargeUNet(wf=wf, depth=depth).state_dict(), path)
    return path


def body_box(hu: NDArray[np.float32]) -> tuple[slice, slice]:
    """Rows and columns around the largest thing denser than -500 HU, looked for at 128 x 128."""
    rows, columns = (np.arange(128) * n // 128 for n in hu.shape)
    dense = np.clip(hu[np.ix_(rows, columns)], LOW_HU, HIGH_HU) > -500.0
    image = sitk.BinaryMorphologicalClosing(
        sitk.GetImageFromArray(dense.astype(np.uint8)), (1, 1), sitk.sitkCross
    )
    image = sitk.BinaryErode(sitk.BinaryFillhole(image), (2, 2), sitk.sitkCross)
    pieces = sitk.RelabelComponent(sitk.ConnectedComponent(image)) == 1
    body = sitk.GetArrayFromImage(sitk.BinaryDilate(pieces, (2, 2), sitk.sitkCross)) > 0
    if not body.any():
        return slice(None), slice(None)
    limits = []
    for axis, size in enumerate(hu.shape):
        found = np.flatnonzero(body.any(axis=1 - axis))
        limits.append(slice(int(found[0]) * size // 128, (int(found[-1]) + 1) * size // 128))
    return limits[0], limits[1]


def prepared(hu: NDArray[np.float32]) -> Tensor:
    """(1, 1, SIDE, SIDE), 0..1 over the window."""
    image = torch.from_numpy(np.clip(hu, LOW_HU, HIGH_HU))[None, None]
    small = F.interpolate(image, size=(SIDE, SIDE), mode="bilinear", align_corners=True)
    return (small - LOW_HU) / (HIGH_HU - LOW_HU)


def by_threshold(shown: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Air inside the body, as 1 on one half of the picture and 2 on the other."""
    air = (shown < (-500.0 - LOW_HU) / (HIGH_HU - LOW_HU)).astype(np.uint8)
    outside = sitk.ConnectedThreshold(sitk.GetImageFromArray(air), [(0, 0)], lower=1)
    inside = air * (1 - sitk.GetArrayFromImage(outside))
    inside[:, SIDE // 2 :] *= 2
    return np.asarray(inside, np.uint8)


def cleaned(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The largest piece of each class, its holes filled."""
    out = np.zeros_like(labels)
    for k in (1, 2):
        mask = sitk.GetImageFromArray((labels == k).astype(np.uint8))
        largest = sitk.RelabelComponent(sitk.ConnectedComponent(mask, True)) == 1
        out[sitk.GetArrayFromImage(sitk.BinaryFillhole(largest)) > 0] = k
    return out


def pasted(
    labels: NDArray[np.uint8], box: tuple[slice, slice], shape: tuple[int, int]
) -> NDArray[np.uint8]:
    """On the grid of the slice, each pixel the nearest of `labels`."""
    out = np.zeros(shape, np.uint8)
    inside = out[box]
    rows, columns = (np.arange(n) * SIDE // n for n in inside.shape)
    inside[...] = labels[np.ix_(rows, columns)]
    return out


def overlay(hu: NDArray[np.float32], mask: NDArray[np.uint8]) -> Image.Image:
    """Grey, with the mask in one colour."""
    grey = 0.8 * np.clip((hu - LOW_HU) / 2048.0, 0.0, 1.0)
    picture = np.repeat(grey[:, :, None], 3, axis=2)
    picture[:, :, 2] += 0.2 * (mask > 0)
    return Image.fromarray((255 * picture).astype(np.uint8))


def secondary_capture(jpeg: Path, number: int, n: int) -> Path:
    """The picture read again, as a file of Secondary Capture Image Storage."""
    with Image.open(jpeg) as picture:
        pixels = np.asarray(picture)
    dataset = Dataset()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = derived_uid("notebook", str(number), str(n))
    dataset.StudyInstanceUID = derived_uid("notebook study", str(number))
    dataset.SeriesInstanceUID = derived_uid("notebook series", str(number))
    dataset.PatientName, dataset.PatientID = "Notebook", str(number)
    dataset.AccessionNumber, dataset.StudyID = f"{number}002", f"{number}001"
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "CT", 201, n
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = pixels.tobytes()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.file_meta = meta
    path = jpeg.with_suffix(".dcm")
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path
