"""Segments drawn over an image, with what a person must know burned in; the same on any machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from numpy.typing import NDArray

RGB = tuple[int, int, int]

SIDE_MIN_PX, SIDE_MAX_PX = 256, 512
"""The shorter side is at least, the longer at most that long; only by whole factors."""

_MARGIN_PX = 4
LINE_PX = 13
_OBLIQUE = 0.38  # a second letter from about 22 degrees on
_FONT = ImageFont.load_default_imagefont()  # of bits: no rasterizer that could change its mind


def factor(rows: int, columns: int) -> tuple[int, int]:
    """(up, down): by how much an image is enlarged or reduced; one of them is 1."""
    down = -(-max(rows, columns) // SIDE_MAX_PX)
    if down > 1:
        return 1, down
    return max(1, min(-(-SIDE_MIN_PX // min(rows, columns)), SIDE_MAX_PX // max(rows, columns))), 1


def windowed(plane: NDArray[np.generic], low: float, high: float) -> NDArray[np.uint8]:
    """Grey values of a plane: `low` and below black, `high` and above white."""
    grey = (plane.astype(np.float32) - np.float32(low)) * np.float32(255.0 / (high - low))
    clipped: NDArray[np.float32] = np.clip(grey, 0, 255)
    return clipped.astype(np.uint8)


def drawn(
    grey: NDArray[np.uint8], labels: NDArray[np.uint8], colours: Mapping[int, RGB]
) -> NDArray[np.uint8]:
    """RGB [row, column, 3] of a plane, resized: segments half-transparent, with an outline."""
    up, down = factor(*grey.shape)
    grey = _reduced(grey, down)
    labels = labels[::down, ::down][: grey.shape[0], : grey.shape[1]]
    grey, labels = (a.repeat(up, axis=0).repeat(up, axis=1) for a in (grey, labels))
    picture: NDArray[np.uint8] = np.stack([grey, grey, grey], axis=2)
    for number, colour in colours.items():
        inside = labels == number
        ink = np.array(colour, np.uint16)
        picture[inside] = (picture[inside].astype(np.uint16) + ink) // 2
        picture[inside & ~inner(inside)] = ink
    return picture


def _reduced(grey: NDArray[np.uint8], down: int) -> NDArray[np.uint8]:
    """The mean of each block of pixels; what makes no whole block at the end is left out."""
    if down == 1:
        return grey
    rows, columns = grey.shape[0] // down, grey.shape[1] // down
    blocks = grey[: rows * down, : columns * down].reshape(rows, down, columns, down)
    sums: NDArray[np.uint32] = blocks.sum(axis=(1, 3), dtype=np.uint32)
    return (sums // (down * down)).astype(np.uint8)


def inner(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels whose four neighbours are all in the mask, too; [row, column]."""
    padded = np.pad(mask, 1)
    beside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(beside & mask)


def letters(direction: Sequence[float]) -> str:
    """Where a direction (LPS) points to: L, R, P, A, H, F (PS3.3 C.7.6.1.1.1), the nearest first.

    "LP" where it is oblique; a third letter is not given.
    """
    pairs = zip(("LR", "PA", "HF"), direction, strict=True)
    named = [(names[value < 0], abs(value)) for names, value in pairs]
    first, second, _ = sorted(named, key=lambda pair: -pair[1])
    return first[0] + (second[0] if second[1] > _OBLIQUE else "")


def opposite(towards: str) -> str:
    """The letters of the other end."""
    return towards.translate(str.maketrans("LRPAHF", "RLAPFH"))


def burn_sides(picture: NDArray[np.uint8], right: str, bottom: str, *, foot_lines: int) -> None:
    """The letters of where the picture's right and bottom edge lie, and of the others.

    foot_lines: of text at the bottom, above which the letters stay.
    """
    rows, columns = picture.shape[0] - foot_lines * LINE_PX, picture.shape[1]
    left, top = opposite(right), opposite(bottom)
    for text, x, y in ((right, 1.0, 0.5), (left, 0.0, 0.5), (bottom, 0.5, 1.0), (top, 0.5, 0.0)):
        mask = _mask(text, 2)
        free_y = rows - mask.shape[0] - 2 * _MARGIN_PX
        free_x = columns - mask.shape[1] - 2 * _MARGIN_PX
        _ink(picture, mask, (_MARGIN_PX + int(y * free_y), _MARGIN_PX + int(x * free_x)))


def burn_lines(
    picture: NDArray[np.uint8], lines: Sequence[tuple[str, RGB | None]], *, bottom: bool
) -> None:
    """Lines of text in the left corner, top or bottom, each with a square of a colour, or none.

    What is too long for the picture is cut: see `wrapped`.
    """
    rows, columns = picture.shape[:2]
    height = LINE_PX
    top = rows - _MARGIN_PX - height * len(lines) if bottom else _MARGIN_PX
    for number, (text, colour) in enumerate(lines):
        y, x = top + number * height, _MARGIN_PX
        if colour is not None:
            picture[y + 2 : y + height - 3, x : x + height - 5] = colour
            x += height
        mask = _mask(text, 1)[:, : max(0, columns - x - _MARGIN_PX)]
        _ink(picture, mask, (y, x))


def wrapped(
    lines: Sequence[tuple[str, RGB | None]], columns: int, lines_max: int
) -> list[tuple[str, RGB | None]]:
    """The same in lines that a picture of so many columns has room for; the colour stands first.

    Of more than `lines_max` the last ends with an ellipsis. A word that is too long stays whole.
    """
    made: list[tuple[str, RGB | None]] = []
    for text, colour in lines:
        room = columns - 2 * _MARGIN_PX - (LINE_PX if colour is not None else 0)
        parts = [""]
        for word in text.split():
            longer = f"{parts[-1]} {word}".strip()
            if parts[-1] and _FONT.getlength(longer) > room:
                parts.append(word)
            else:
                parts[-1] = longer
        made += [(parts[0], colour), *((part, None) for part in parts[1:])]
    if len(made) > lines_max > 0:
        text, colour = made[lines_max - 1]
        made[lines_max - 1 :] = [(f"{text.rpartition(' ')[0]} ...", colour)]
    return made


def _mask(text: str, size: int) -> NDArray[np.bool_]:
    """The pixels of one line of ASCII text, each `size` pixels wide and high."""
    space = int(_FONT.getlength(" "))  # a T begins left of its place, and loses that at the start
    box = _FONT.getbbox(text)
    image = Image.new("1", (max(1, int(box[2]) + 1), max(1, int(box[3]))))
    ImageDraw.Draw(image).text((1 - space, 0), f" {text}", 1, _FONT)
    return np.asarray(image, bool).repeat(size, axis=0).repeat(size, axis=1)


def _ink(picture: NDArray[np.uint8], mask: NDArray[np.bool_], at: tuple[int, int]) -> None:
    """White letters with a black rim, so that they can be read on any ground."""
    y, x = max(1, at[0]), max(1, at[1])
    height = min(mask.shape[0], picture.shape[0] - y - 1)
    width = min(mask.shape[1], picture.shape[1] - x - 1)
    if height <= 0 or width <= 0:
        return
    letters_, area = mask[:height, :width], picture[y - 1 : y + height + 1, x - 1 : x + width + 1]
    rim = np.zeros(area.shape[:2], bool)
    for dy in range(3):
        for dx in range(3):
            rim[dy : dy + height, dx : dx + width] |= letters_
    area[rim] = 0
    area[1:-1, 1:-1][letters_] = 255
