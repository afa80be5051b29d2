"""A picture of a result for people: slices of the volume with the segments laid over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dicom_node.domain.tool import Segment
from dicom_node.domain.volume import Volume, canonical
from dicom_node.iod.overlay import inner

if TYPE_CHECKING:
    from numpy.typing import NDArray

    RGB = tuple[int, int, int]

WINDOW_CENTER_HU, WINDOW_WIDTH_HU = 40.0, 400.0  # soft tissue
BLUES: tuple[RGB, RGB] = ((40, 130, 255), (135, 175, 255))
_SHARE = 0.55  # of the colour, where a segment lies
_GAP = 4
_INK: RGB = (235, 238, 242)
_BACKGROUND: RGB = (12, 14, 18)


@dataclass(frozen=True, slots=True)
class _Sheet:
    """Where the tiles are."""

    columns: int
    rows: int
    width: int
    height: int

    def corner(self, index: int) -> tuple[int, int]:
        row, column = divmod(index, self.columns)
        return _GAP + column * (self.width + _GAP), _GAP + row * (self.height + _GAP)


def contact_sheet(
    volume: Volume,
    labels_zyx: NDArray[np.uint8],
    segments: Sequence[Segment],
    *,
    columns: int = 6,
    tiles: int = 24,
    tile_px: int = 192,
    caption: str = "",
) -> bytes:
    """A PNG of up to `tiles` evenly chosen axial slices, the highest first.

    labels_zyx: on the grid of `volume`, as a tool gave them. Radiological display whatever the
    patient's position: seen from the feet, the patient's right on the left of the picture, the
    front on top. One or two segments are blue, more have the colours of their own.
    tile_px: width of a tile; its height follows from the size of the slice in mm.
    """
    turned, order = canonical(volume)
    labels = order.apply(labels_zyx)
    depth, rows, columns_of_slice = turned.voxels_zyx.shape
    chosen = np.unique(np.linspace(0, depth - 1, min(tiles, depth)).round().astype(int))[::-1]
    _, row_mm, column_mm = turned.spacing_zyx_mm
    height = max(1, round(tile_px * rows * row_mm / (columns_of_slice * column_mm)))
    columns = min(columns, len(chosen))
    sheet = _Sheet(columns, -(-len(chosen) // columns), tile_px, height)
    colours = _colours(segments)
    line = max(11, tile_px // 14)
    picture = _blank(sheet, 2 * line)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(line)
    for position, index in enumerate(chosen):
        tile = _tile(turned.voxels_zyx[index], labels[index], colours, (tile_px, height))
        corner = sheet.corner(position)
        picture.paste(tile, corner)
        _mark(draw, corner, sheet, font, f"{index + 1}/{depth}")
    _legend(draw, picture, segments, colours, font, caption)
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _colours(segments: Sequence[Segment]) -> dict[int, RGB]:
    if len(segments) <= len(BLUES):
        return {s.number: BLUES[i] for i, s in enumerate(segments)}
    return {s.number: s.rgb for s in segments}


def _blank(sheet: _Sheet, footer: int) -> Image.Image:
    width = _GAP + sheet.columns * (sheet.width + _GAP)
    height = _GAP + sheet.rows * (sheet.height + _GAP) + footer
    return Image.new("RGB", (width, height), _BACKGROUND)


def _tile(
    plane: NDArray[np.generic],
    labels: NDArray[np.generic],
    colours: dict[int, RGB],
    size: tuple[int, int],
) -> Image.Image:
    """One slice in the window, with tinted and outlined segments."""
    low = WINDOW_CENTER_HU - WINDOW_WIDTH_HU / 2
    grey = np.clip((plane.astype(np.float32) - low) / WINDOW_WIDTH_HU, 0, 1) * 255
    small = Image.fromarray(grey.astype(np.uint8)).resize(size, Image.Resampling.LANCZOS)
    flat = np.ascontiguousarray(labels).astype(np.uint8)
    marked = np.asarray(Image.fromarray(flat).resize(size, Image.Resampling.NEAREST))
    tinted = np.repeat(np.asarray(small, np.float32)[..., None], 3, axis=2)
    for number, colour in colours.items():
        inside = marked == number
        ink = np.array(colour, np.float32)
        tinted[inside] = tinted[inside] * (1 - _SHARE) + ink * _SHARE
        tinted[inside & ~inner(inside)] = ink
    return Image.fromarray(tinted.astype(np.uint8))


def _mark(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    sheet: _Sheet,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    slice_number: str,
) -> None:
    """R and L half-way up the sides, the slice number below."""
    left, top = corner
    middle, right, bottom = top + sheet.height // 2, left + sheet.width - 3, top + sheet.height - 2
    draw.text((left + 3, middle), "R", _INK, font, anchor="lm")
    draw.text((right, middle), "L", _INK, font, anchor="rm")
    draw.text((right, bottom), slice_number, _INK, font, anchor="rb")


def _legend(
    draw: ImageDraw.ImageDraw,
    picture: Image.Image,
    segments: Sequence[Segment],
    colours: dict[int, RGB],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    caption: str,
) -> None:
    """What the colours mean, and the caption, in the foot of the sheet."""
    line = int(draw.textbbox((0, 0), "Ag", font)[3])
    baseline, left = picture.height - line, 2 * _GAP
    for segment in segments:
        box = (left, baseline - line // 2, left + line, baseline + line // 2)
        draw.rectangle(box, fill=colours[segment.number])
        left += line + 2 * _GAP
        draw.text((left, baseline), segment.label, _INK, font, anchor="lm")
        left += int(draw.textlength(segment.label, font)) + 5 * _GAP
    draw.text((left, baseline), caption, _INK, font, anchor="lm")
