"""Synthetic objects for the benchmarks of receiving, encoded before any clock starts."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

from sending import CT, Instance

FRAME = 1024  # rows and columns of a frame of the large object
LARGE = 99_999  # its number


def uid_of(number: int) -> str:
    """SOP Instance UID."""
    return f"1.2.826.0.1.3680043.2.3.{number + 1}"


def image(number: int, pixels: bytes, size: int, **more: object) -> Dataset:
    """A CT slice with its own UID and position."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = CT, uid_of(number)
    made.StudyDate, made.Modality, made.PatientName = "20240101", "CT", "Phantom^Bench"
    made.PatientID, made.StudyInstanceUID = "BENCH", "1.2.826.0.1.3680043.2.4"
    made.SeriesInstanceUID, made.InstanceNumber = "1.2.826.0.1.3680043.2.5", number + 1
    made.FrameOfReferenceUID = "1.2.826.0.1.3680043.2.6"
    made.ImagePositionPatient = [-180, -180, number]
    made.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows = made.Columns = size
    made.PixelSpacing, made.SliceThickness = [0.7, 0.7], 1
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation = 15, 1
    made.RescaleIntercept, made.RescaleSlope, made.RescaleType = 0, 1, "HU"
    for keyword, value in more.items():
        setattr(made, keyword, value)
    made.add_new("PixelData", "OW", pixels)
    return made


def instances_of(count: int, *, size: int = 512, first: int = 0, **more: object) -> list[Instance]:
    """Synthetic slices, noisy as real ones: a Series. more: other attributes of each."""
    noise = np.random.default_rng(1).normal(40, 25, (size, size + count)).astype("<i2")
    made = []
    for number in range(count):
        pixels = noise[:, number : number + size].tobytes()
        uid = f"1.2.826.0.1.3680043.2.5.{first}"
        one = image(first + number, pixels, size, **{"SeriesInstanceUID": uid, **more})
        made.append(
            Instance(sop_instance_uid=one.SOPInstanceUID, data_set=encode(one, False, True))
        )
    return made


def large_object(gib: float) -> Iterator[bytes]:
    """A data set of so many GiB, each frame another."""
    frames = max(1, round(gib * 2**30 / (2 * FRAME * FRAME)))
    raw = np.random.default_rng(2).integers(0, 2**15, FRAME * FRAME, "<u2").tobytes()
    head = encode(image(LARGE, b"", FRAME, NumberOfFrames=frames), False, True)
    yield head[:-12] + struct.pack("<HH2sxxI", 0x7FE0, 0x0010, b"OW", frames * len(raw))
    for number in range(frames):
        yield struct.pack("<Q", number) + raw[8:]
