"""Curves over time as an SVG, drawn by hand: one panel below the other, with one axis of time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 150  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 26, 14
LINE, POINT, GRID = "#7a8ca3", "#c2410c", "#d7dce2"
TEXT = 'font-family="sans-serif" font-size="12" fill="#333"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """line, points: (minutes, value), drawn as a line, and as dots over it."""

    title: str
    line: Sequence[tuple[float, float]]
    points: Sequence[tuple[float, float]] = ()


def svg(panels: Sequence[Panel], minutes: float) -> str:
    """The whole picture; each panel from 0 to what it needs."""
    height = HEIGHT * len(panels) + 34
    body = "\n".join(
        line for n, panel in enumerate(panels) for line in _panel(panel, n * HEIGHT, minutes)
    )
    foot = f'<text x="{WIDTH - RIGHT}" y="{height - 4}" text-anchor="end" {TEXT}>minutes</text>'
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n{body}\n'
        f"{_minutes(minutes, height - 20)}\n{foot}\n</svg>\n"
    )


def _panel(panel: Panel, top: float, minutes: float) -> Iterator[str]:
    highest = max((value for _, value in (*panel.line, *panel.points)), default=1.0)
    step = _step(highest)
    scale = step * math.ceil(highest / step) or 1.0

    def at(point: tuple[float, float]) -> str:
        x, y = _x(point[0], minutes), top + HEIGHT - BOTTOM
        return f"{x:.1f},{y - point[1] / scale * (HEIGHT - TOP - BOTTOM):.1f}"

    yield f'<text x="{LEFT}" y="{top + 16}" {TEXT}>{escape(panel.title)}</text>'
    for n in range(round(scale / step) + 1):
        x, y = at((0.0, n * step)).split(",")
        yield f'<line x1="{x}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" stroke="{GRID}"/>'
        label = f"{n * step:g}"
        yield f'<text x="{LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end" {TEXT}>{label}</text>'
    line = " ".join(map(at, panel.line))
    yield f'<polyline points="{line}" fill="none" stroke="{LINE}" stroke-width="1.2"/>'
    for point in panel.points:
        x, y = at(point).split(",")
        yield f'<circle cx="{x}" cy="{y}" r="2.4" fill="{POINT}"/>'


def _minutes(minutes: float, y: float) -> str:
    step = _step(minutes)
    marks = [n * step for n in range(int(minutes / step) + 1)]
    place = f'y="{y}" text-anchor="middle" {TEXT}'
    return "\n".join(f'<text x="{_x(m, minutes):.1f}" {place}>{m:g}</text>' for m in marks)


def _x(minute: float, minutes: float) -> float:
    return LEFT + minute / minutes * (WIDTH - LEFT - RIGHT)


def _step(highest: float) -> float:
    """A round number that goes into it at most five times."""
    power = 10.0 ** math.floor(math.log10(max(highest, 1e-9)))
    return next(power * part for part in (0.2, 0.5, 1.0, 2.0) if highest / (power * part) <= 5)
