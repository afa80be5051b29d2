"""When the content of a result was made."""

from datetime import datetime as at

import pytest

from dicom_node.decide.moment import UNKNOWN, content_moment

DAY = {"ContentDate": "20240131"}


@pytest.mark.parametrize(
    ("source", "moment"),
    [
        (DAY | {"ContentTime": "101112.5"}, at(2024, 1, 31, 10, 11, 12, 500000)),
        ({"ContentDate": "20240131"}, at(2024, 1, 31)),
        ({"StudyDate": "20240131", "StudyTime": "10"}, at(2024, 1, 31, 10)),
        ({"SeriesDate": "2024.01.31", "SeriesTime": "10:11:12"}, at(2024, 1, 31, 10, 11, 12)),
        ({"ContentDate": "20240131", "ContentTime": "235960"}, at(2024, 1, 31, 23, 59, 59)),
        ({"ContentDate": "20241399"}, UNKNOWN),
        ({"ContentDate": "yesterday"}, UNKNOWN),
        ({}, UNKNOWN),
    ],
)  # fmt: skip
def test_a_source_names_its_moment(source, moment):
    assert content_moment([source]) == moment


def test_of_several_sources_the_latest_counts_whatever_their_order():
    early = {"ContentDate": "20240131", "ContentTime": "100000"}
    late = {"ContentDate": "20240131", "ContentTime": "100001"}
    assert content_moment([early, late]) == content_moment([late, early])
    assert content_moment([late, early]) == at(2024, 1, 31, 10, 0, 1)
