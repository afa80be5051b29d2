"""A Segmentation read back as labels on its sources' grid, and our own results recognised."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from dicom_node.domain.errors import NotDicom, ObjectError, PixelsUndecodable
from dicom_node.iod.elements import UNCOMPRESSED

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"


def read_segmentation(source: Path | bytes, order: Sequence[str]) -> NDArray[np.uint8]:
    """The labels of a BINARY Segmentation: uint8 [slice, row, column], 0 is background.

    order: SOP Instance UIDs of the source slices; each frame goes where its Derivation Image
    Sequence says. Where segments overlap the highest number wins. Raises NotDicom,
    PixelsUndecodable, or ObjectError if a frame refers to no instance of `order`.
    """
    try:
        dataset = pydicom.dcmread(BytesIO(source) if isinstance(source, bytes) else source)
    except InvalidDicomError as error:
        raise NotDicom("not a DICOM file") from error
    if dataset.get("SegmentationType") != "BINARY":
        raise PixelsUndecodable("it is not a BINARY segmentation")
    if dataset.file_meta.TransferSyntaxUID not in UNCOMPRESSED:
        raise PixelsUndecodable("its pixel data is compressed")
    rows, columns, frames = int(dataset.Rows), int(dataset.Columns), int(dataset.NumberOfFrames)
    packed = np.frombuffer(dataset.PixelData, np.uint8)
    if packed.size * 8 < rows * columns * frames:
        raise PixelsUndecodable("its pixel data is too short")
    bits = np.unpackbits(packed, count=rows * columns * frames, bitorder="little")
    masks = bits.reshape(frames, rows, columns).view(np.bool_)
    index = {uid: i for i, uid in enumerate(order)}
    labels = np.zeros((len(order), rows, columns), np.uint8)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for mask, group in zip(masks, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        uid = _source_of(group)
        if uid not in index:
            raise ObjectError("a frame refers to none of the source instances")
        number = _segment_of(group, shared)
        here = labels[index[uid]]
        here[mask & (here < number)] = number
    return labels


def _source_of(group: Dataset) -> str:
    try:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        return str(source.ReferencedSOPInstanceUID)
    except (AttributeError, IndexError) as error:
        raise ObjectError("a frame does not say what it was derived from") from error


def _segment_of(group: Dataset, shared: Dataset) -> int:
    """Of the frame; of all frames where there is one segment only."""
    for place in (group, shared):
        if "SegmentIdentificationSequence" in place:
            return int(place.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
    raise ObjectError("a frame does not say which segment it is of")
