"""When no further image of a Series is to be expected."""

from __future__ import annotations

import pytest

from dicom_node.decide.arriving import awaited_until
from dicom_node.domain.records import Arriving


def a_series(*, instances=1, seconds=0.0, is_open=True):
    """Its first image came at 100 s, its last so many seconds later."""
    return Arriving(
        series_uid="1.2.3",
        instances=instances,
        first_at=100.0,
        last_at=100.0 + seconds,
        is_open=is_open,
    )


@pytest.mark.parametrize(
    ("series", "until"),
    [
        (a_series(), 100.5),  # nobody knows yet how they come
        (a_series(instances=2), 100.5),  # both at once
        (a_series(instances=101, seconds=1.0), 101.5),  # fast: never less than that
        (a_series(instances=9, seconds=1.0), 101.5),  # just as long
        (a_series(instances=5, seconds=8.0), 116.0),  # slowly
        (a_series(instances=2, seconds=30.0), 250.0),
        (a_series(instances=5, seconds=-8.0), 92.5),  # the clock was set back
        (a_series(instances=0, seconds=2.0), 110.0),
        (a_series(is_open=False), None),
        (a_series(instances=5, seconds=8.0, is_open=False), None),
    ],
)
def test_images_are_awaited_for_a_few_times_as_long_as_one_usually_takes(series, until):
    assert awaited_until(series) == until
