"""Vectors of three floats."""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector = tuple[float, float, float]


def vector(values: Sequence[float]) -> Vector:
    """Three values as a Vector. Raises ValueError for another number of them."""
    x, y, z = values
    return x, y, z


def cross(a: Vector, b: Vector) -> Vector:
    """a × b."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def dot(a: Vector, b: Vector) -> float:
    """a · b."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def minus(a: Vector, b: Vector) -> Vector:
    """a − b."""
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def scaled(a: Vector, factor: float) -> Vector:
    """a, factor times as long."""
    return a[0] * factor, a[1] * factor, a[2] * factor


def length(a: Vector) -> float:
    """|a|."""
    return math.sqrt(dot(a, a))


def unit(a: Vector) -> Vector:
    """a with length 1. Raises ZeroDivisionError for the null vector."""
    return scaled(a, 1 / length(a))


def across(a: Vector, normal: Vector) -> Vector:
    """The part of `a` that is perpendicular to the unit vector `normal`."""
    return minus(a, scaled(normal, dot(a, normal)))
