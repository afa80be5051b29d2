"""Every kind of event has words: in the log, and in the story that `why` tells."""

from __future__ import annotations

import dataclasses
import logging
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any

import pytest

from dicom_node.catalog import Catalog
from dicom_node.domain import events as e
from dicom_node.domain.states import DeliveryState
from dicom_node.node.bell import Bell
from dicom_node.node.digest import Line, digest
from dicom_node.node.journal import Journal
from dicom_node.node.words import Names, is_well, sentence

KINDS = typing.get_args(e.Event)


def example(hint: Any) -> Any:
    """Any value of a type: texts and numbers that can be found again."""
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return hint(**{f.name: example(hints[f.name]) for f in dataclasses.fields(hint)})
    if origin in (types.UnionType, typing.Union):
        return example(typing.get_args(hint)[0])
    if origin is tuple:
        return (example(typing.get_args(hint)[0]),)
    if origin is not None and issubclass(origin, Mapping):
        _, value = typing.get_args(hint)
        return {"name": example(value)}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return next(iter(hint))
    return {str: "1.2.3", int: 7, float: 8.0, bool: True}.get(hint, "1.2.3")


@pytest.fixture
def catalog(tmp_path):
    catalog = Catalog(tmp_path / "catalog.db")
    yield catalog
    catalog.close()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_event_is_told_in_words(kind, catalog):
    told = sentence(example(kind), Names(views=catalog.views))

    assert len(told.split()) >= 3
    assert kind.__name__ not in told, "no names of the program"
    assert "  " not in told
    assert not told.endswith(".")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_event_has_its_line_in_the_log(kind, catalog, tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "dicom_node")
    bell = Bell(tmp_path)
    journal = Journal(catalog, bell)
    journal.log(example(kind))
    bell.close()

    (line,) = [record.getMessage() for record in caplog.records]
    assert sentence(example(kind), Names(views=catalog.views)) in line


def test_what_went_wrong_is_a_warning_and_what_went_well_is_not():
    sent = example(e.DeliveryEnded)
    assert not is_well(dataclasses.replace(sent, state=DeliveryState.PARKED))
    assert is_well(dataclasses.replace(sent, state=DeliveryState.SENT))


def line(at, text, group="", thread="t", **more):
    return Line(at=at, text=text, group=group, thread=thread, **more)


def test_repetitions_are_told_as_one():
    lines = [line(10.0 + n, f"attempt {n}", "failed") for n in range(12)]

    (told,) = digest(lines)

    assert told.text == "12 times from 00:00:10 to 00:00:21, last: attempt 11"
    assert told.at == 21.0


def test_what_comes_between_in_the_same_thread_parts_the_repetitions():
    lines = [
        line(1, "away", "failed"),
        line(2, "away", "failed"),
        line(3, "sent"),
        line(4, "away", "failed"),
    ]
    assert [told.at for told in digest(lines)] == [2, 3, 4]


def test_other_threads_do_not_part_repetitions_and_keep_their_place():
    lines = [line(1, "a", "g"), line(2, "other", thread="u"), line(3, "a", "g")]

    assert [(told.at, told.text.split()[0]) for told in digest(lines)] == [(2, "other"), (3, "2")]


def test_few_of_a_group_are_told_one_by_one_and_details_not_at_all():
    lines = [line(1, "a", "g", few=2), line(2, "b", "g", few=2), line(3, "c", detail=True)]

    assert [told.text for told in digest(lines)] == ["a", "b"]


def test_a_wait_that_was_over_at_once_is_not_told_and_a_long_one_is():
    short = [line(1.0, "waits", "waits", fleeting_s=5.0), line(2.0, "complete")]
    long = [line(1.0, "waits", "waits", fleeting_s=5.0), line(9.0, "complete")]

    assert [told.text for told in digest(short)] == ["complete"]
    assert [told.text for told in digest(long)] == ["waits", "complete"]
    assert [told.text for told in digest(short[:1])] == ["waits"]
