"""How many descriptors a node gets itself: what all its associations together may need."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from dicom_node.config.load import read
from dicom_node.node.descriptors import needed, provide

NONE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("had", "hard", "gets", "enough"),
    [
        (64, 100_000, 3384, True),  # as many as it needs, not all that there are
        (64, NONE, 3384, True),
        (4000, 100_000, None, True),
        (NONE, NONE, None, True),
        (64, 3383, 3383, False),
        (3383, 3383, 3383, False),
    ],
)
def test_the_limit_is_raised_where_it_is_too_low(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    had: int,
    hard: int,
    gets: int | None,
    enough: bool,
) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (had, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))
    config = read("[receive]\nmax_associations = 1000", base=tmp_path)
    assert needed(config) == 3384
    assert provide(config) == enough
    assert set_to == ([] if gets is None else [(gets, hard)])
