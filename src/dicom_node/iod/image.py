"""One Series of single-frame images as a Volume (PS3.3 C.7.6.2.1.1 plane position, C.11.1 rescale).

MONOCHROME1 asks for an inverted display, not for other values (PS3.3 C.7.6.3.1.2): the Hounsfield
units of such a CT are those of its rescale, as with MONOCHROME2.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from dicom_node.decide.geometry import Fault, NotAStack, Stack, stack
from dicom_node.decide.planes import Plane, plane_of
from dicom_node.decide.plausibility import AIR_HU as LUNG_HU
from dicom_node.decide.plausibility import DENSE_HU, TISSUE_HU, Values
from dicom_node.domain.errors import NotAVolume
from dicom_node.domain.volume import Volume
from dicom_node.iod.code_stream import Decode, decoded
from dicom_node.iod.header import read_attributes
from dicom_node.iod.pixels import Picture, find_picture, stored_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")
R = TypeVar("R")

AIR_HU = -1024
MAX_VOLUME_BYTES = 4 << 30
_STEP = 4
_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How many threads read files, and who decodes what is compressed in them."""

    threads: int = 2
    decode: Decode = decoded


HERE = Reading()
"""Decoded in this process: fit for images that are known not to harm it."""


class _DoesNotFit(Exception):
    """A value of a slice is beyond int16."""


def read_headers(paths: Sequence[Path]) -> list[dict[str, object]]:
    """The header attributes of each file, in the order given. Raises NotDicom."""
    return [read_attributes(path) for path in paths]


def read_volume(
    paths: Sequence[Path],
    *,
    tolerate: Collection[Fault] = frozenset(),
    reading: Reading = HERE,
    max_bytes: int = MAX_VOLUME_BYTES,
    planes: Mapping[Path, NDArray[np.generic]] | None = None,
) -> Volume:
    """Stack the slices of one Series, in patient coordinates, whatever the order of the files.

    Values are int16 where every rescale is integral and fits, else float32; Hounsfield units where
    Modality is CT or unsaid, and then nothing is below AIR_HU: what lies outside the scan circle
    (Pixel Padding Value, or stored values far below air) is air. tolerate: see geometry.stack.
    planes: what `read_plane` gave of some of the files; they are not decoded again.
    Raises NotDicom, PixelsUndecodable, or NotAVolume, each with the reason.
    """
    pictures = _in_parallel(find_picture, paths, reading.threads)
    for picture in pictures:
        _refuse_what_is_no_slice(picture)
    judged, pictures = _stacked(pictures, tolerate)
    shape = (len(pictures), *pictures[0].shape)
    if shape[0] * shape[1] * shape[2] * 4 > max_bytes:
        raise NotAVolume(f"{shape[0]} x {shape[1]} x {shape[2]} voxels are more than is allowed")
    try:
        voxels = _voxels(pictures, shape, np.dtype(np.int16), reading, planes or {})
    except _DoesNotFit:
        voxels = _voxels(pictures, shape, np.dtype(np.float32), reading, planes or {})
    uids = tuple(str(p.attributes.get("SOPInstanceUID", "")) for p in pictures)
    uneven = judged.has(Fault.UNEVEN, Fault.HOLE)
    return Volume(
        voxels_zyx=voxels,
        affine_lps_mm=affine_of(judged),
        instance_uids=uids,
        heights_mm=judged.positions_mm if uneven else (),
        depth_known=len(judged.planes) > 1 or judged.planes[0].thickness_mm > 0,
    )


def read_plane(path: Path, decode: Decode = decoded) -> NDArray[np.generic]:
    """One image as it will be in a Volume: int16, or float32 where its rescale needs it.

    Raises NotDicom, PixelsUndecodable, or NotAVolume.
    """
    picture = find_picture(path)
    _refuse_what_is_no_slice(picture)
    integers = np.empty(picture.shape, np.int16)
    try:
        _fill_integers(picture, integers, decode)
    except _DoesNotFit:
        floats = np.empty(picture.shape, np.float32)
        _fill_floats(picture, floats, decode)
        return floats
    return integers


def values_of(volume: Volume) -> Values:
    """A few numbers about the voxels, from each fourth row and column of every slice."""
    some: NDArray[Any] = volume.voxels_zyx[:, ::_STEP, ::_STEP]
    low, high = TISSUE_HU
    return Values(
        lowest=float(some.min()),
        highest=float(some.max()),
        air=float(np.mean(some < LUNG_HU)),
        tissue=float(np.mean((some >= low) & (some <= high))),
        dense=float(np.mean(some > DENSE_HU)),
    )


def same_pixels(paths: Sequence[Path], decode: Decode = decoded) -> bool:
    """Whether the images have the same stored values and rescale.

    Raises NotDicom, or PixelsUndecodable.
    """
    first, *others = [find_picture(path) for path in paths]
    values = stored_values(first, decode=decode)
    return all(
        _rescale(other) == _rescale(first)
        and np.array_equal(stored_values(other, decode=decode), values)
        for other in others
    )


def _refuse_what_is_no_slice(picture: Picture) -> None:
    attributes = picture.attributes
    frames = picture.number("NumberOfFrames", 1)
    if frames > 1:
        raise NotAVolume(f"{picture.name} is a multi-frame object of {frames} frames")
    samples = picture.number("SamplesPerPixel", 1)
    photometric = str(attributes.get("PhotometricInterpretation", "MONOCHROME2"))
    if samples != 1 or not photometric.startswith("MONOCHROME"):
        raise NotAVolume(f"{picture.name} is a colour picture ({photometric})")
    if attributes.get("Modality") == "CT" and not _has_rescale(picture):
        raise NotAVolume(f"{picture.name} has no Rescale Slope and Intercept: HU are unknown")
    if _rescale(picture)[0] == 0:
        raise NotAVolume(f"{picture.name} has a Rescale Slope of 0")


def _stacked(
    pictures: Sequence[Picture], tolerate: Collection[Fault]
) -> tuple[Stack, list[Picture]]:
    """The geometry, and the pictures in its order."""
    planes: list[Plane] = []
    for index, picture in enumerate(pictures):
        plane = plane_of({**picture.attributes, "SOPInstanceUID": str(index)})
        if not isinstance(plane, Plane):
            raise NotAVolume(f"{picture.name} cannot be placed: {plane}")
        planes.append(plane)
    judged = stack(planes, tolerate)
    if isinstance(judged, NotAStack):
        raise NotAVolume(judged.reason)
    return judged, [pictures[int(uid)] for uid in judged.uids]


def _voxels(
    pictures: Sequence[Picture],
    shape: tuple[int, int, int],
    dtype: np.dtype[np.generic],
    reading: Reading,
    planes: Mapping[Path, NDArray[np.generic]],
) -> NDArray[np.generic]:
    """All slices. Raises _DoesNotFit where int16 cannot hold them."""
    voxels = np.empty(shape, dtype)

    def fill(index: int) -> None:
        picture = pictures[index]
        known = planes.get(picture.path)
        if known is not None:
            if known.dtype != np.int16 and dtype == np.int16:
                raise _DoesNotFit
            voxels[index] = known
        elif dtype == np.int16:
            _fill_integers(picture, voxels[index], reading.decode)
        else:
            _fill_floats(picture, voxels[index], reading.decode)

    _in_parallel(fill, range(len(pictures)), reading.threads)
    return voxels


def _fill_integers(picture: Picture, out: NDArray[np.int16], decode: Decode) -> None:
    """One slice as int16. Raises _DoesNotFit."""
    slope, intercept = _rescale(picture)
    if slope != int(slope) or intercept != int(intercept):
        raise _DoesNotFit
    stored, padding = _clean_values(picture, out, decode)
    low, high = int(stored.min()), int(stored.max())
    values = sorted((low * int(slope) + int(intercept), high * int(slope) + int(intercept)))
    if values[1] > _INT16.max or (values[0] < _INT16.min and not _is_hounsfield(picture)):
        raise _DoesNotFit
    if slope == 1 and stored.dtype.itemsize == 2:
        floor = AIR_HU - int(intercept)
        if _is_hounsfield(picture) and low < floor:
            np.maximum(stored, floor, out=stored)
        if stored.base is not out:
            out[...] = stored.view(np.int16)
        # unsigned values wrap here, and come back: the sum fits
        np.add(out, np.array(int(intercept)).astype(np.int16), out=out)
    else:
        wide = stored.astype(np.int64) * int(slope) + int(intercept)
        out[...] = np.maximum(wide, AIR_HU) if _is_hounsfield(picture) else wide
    if padding is not None:
        out[padding] = AIR_HU


def _fill_floats(picture: Picture, out: NDArray[np.float32], decode: Decode) -> None:
    slope, intercept = _rescale(picture)
    stored, padding = _clean_values(picture, None, decode)
    np.multiply(stored, slope, out=out, casting="unsafe")
    out += intercept
    if _is_hounsfield(picture):
        np.maximum(out, AIR_HU, out=out)
    if padding is not None:
        out[padding] = AIR_HU


def _clean_values(
    picture: Picture, out: NDArray[np.int16] | None, decode: Decode
) -> tuple[NDArray[np.integer], NDArray[np.bool_] | None]:
    """Stored values without what is above Bits Stored, and where they are padding."""
    stored = stored_values(picture, out, decode)
    padding = _padding(picture, stored)
    bits, allocated = picture.number("BitsStored"), stored.dtype.itemsize * 8
    if 0 < bits < allocated:
        signed = stored.dtype.kind == "i"
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        if int(stored.max()) > high or int(stored.min()) < low:
            shift = allocated - bits  # old overlays live there (PS3.5 §8.1.1)
            if not stored.flags.writeable:
                stored = stored.copy()
            np.left_shift(stored, shift, out=stored)
            np.right_shift(stored, shift, out=stored)
    return stored, padding


def _padding(picture: Picture, stored: NDArray[np.integer]) -> NDArray[np.bool_] | None:
    """Where a slice is padding, as far as its value does not say so by being below air.

    A declared value is believed where a corner has it: some files declare 0 and mean it nowhere.
    """
    if not _is_hounsfield(picture) or "PixelPaddingValue" not in picture.attributes:
        return None
    value = picture.number("PixelPaddingValue")
    low, high = sorted((value, picture.number("PixelPaddingRangeLimit", value)))
    slope, intercept = _rescale(picture)
    if max(low * slope, high * slope) + intercept <= AIR_HU:
        return None
    corners = stored[:: max(stored.shape[0] - 1, 1), :: max(stored.shape[1] - 1, 1)]
    if not np.any((corners >= low) & (corners <= high)):
        return None
    return np.asarray((stored >= low) & (stored <= high))


def _is_hounsfield(picture: Picture) -> bool:
    return picture.attributes.get("Modality", "CT") == "CT"


def _has_rescale(picture: Picture) -> bool:
    return {"RescaleSlope", "RescaleIntercept"} <= picture.attributes.keys()


def _rescale(picture: Picture) -> tuple[float, float]:
    """Slope and intercept; identity where none is said."""
    slope = picture.attributes.get("RescaleSlope", 1.0)
    intercept = picture.attributes.get("RescaleIntercept", 0.0)
    both = [v if isinstance(v, (int, float)) else d for v, d in ((slope, 1.0), (intercept, 0.0))]
    return both[0], both[1]


def affine_of(judged: Stack) -> NDArray[np.float64]:
    """Index (slice, row, column, 1) -> LPS in mm."""
    first, last = judged.planes[0], judged.planes[-1]
    affine = np.eye(4)
    if len(judged.planes) > 1:
        step = np.subtract(last.position, first.position) / (len(judged.planes) - 1)
    else:
        step = np.multiply(judged.normal, first.thickness_mm or 1.0)
    affine[:3, 0] = step
    affine[:3, 1] = np.multiply(first.column, first.spacing_mm[0])
    affine[:3, 2] = np.multiply(first.row, first.spacing_mm[1])
    affine[:3, 3] = first.position
    return affine


def _in_parallel(work: Callable[[T], R], values: Iterable[T], threads: int) -> list[R]:
    if threads <= 1:
        return [work(v) for v in values]
    with ThreadPoolExecutor(threads) as executor:
        return list(executor.map(work, values))
