"""Whatever happens, the tables are what the events make of them.

The histories are made from the events' own type hints: a new kind of event, or a new field, is in
them without a line here.
"""

from __future__ import annotations

import dataclasses
import tempfile
import types
import typing
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from random import Random
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from dicom_node.catalog import Catalog
from dicom_node.catalog.refold import differences, refold
from dicom_node.domain import events as e
from dicom_node.domain.errors import CatalogError
from dicom_node.domain.records import Delivery, Instance, Result, Step
from dicom_node.domain.states import DeliveryState

SERIES = ("1.2.1", "1.2.2")
INSTANCES = tuple(f"{series}.{n}" for series in SERIES for n in (1, 2))
RESULTS = ("2.25.1", "2.25.2")
TIMES = st.sampled_from([float(t) for t in range(0, 1000, 100)])

BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    # few values each, so that events meet one another
    "at": TIMES,
    "study_uid": st.just("1.2"),
    "series_uid": st.sampled_from(SERIES),
    "source_series_uid": st.sampled_from(SERIES),
    "sop_instance_uid": st.sampled_from((*INSTANCES, *RESULTS)),
    "result_uid": st.sampled_from(RESULTS),
    "instance_uids": st.lists(st.sampled_from(INSTANCES), max_size=2).map(tuple),
    "replaces": st.lists(st.sampled_from(RESULTS), max_size=2).map(tuple),
    "sha256": st.sampled_from(("a" * 64, "b" * 64)),
    "path": st.sampled_from(("objects/aa/a", "objects/bb/b")),
    "transaction_uid": st.sampled_from(("2.25.8", "2.25.9")),
    "destination": st.sampled_from(("PACS", "OTHER")),
    "number": st.integers(1, 2),
    "association": st.integers(1, 2),
    "revision": st.integers(1, 2),
    "step_id": st.integers(1, 2),
    "delivery_id": st.integers(1, 2),
    "attributes": st.sampled_from(("P1", "P2")).map(
        lambda patient: {
            "Modality": "CT",
            "ImageType": ("ORIGINAL", "PRIMARY"),
            "PatientID": patient,
        }
    ),
    "summary": st.just({"Right lung": 1.5}),
    "seconds": st.just({"infer": 0.5}),
}
BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    str: st.sampled_from(("", "a reason")),
    int: st.integers(0, 2),
    float: TIMES,
    bool: st.booleans(),
}


def values(name: str, hint: Any) -> st.SearchStrategy[Any]:
    """What a field may hold."""
    origin = get_origin(hint)
    if origin in (types.UnionType, typing.Union) and type(None) in get_args(hint):
        (inner,) = (arg for arg in get_args(hint) if arg is not type(None))
        return st.none() | values(name, inner)
    if name in BY_NAME:
        return BY_NAME[name]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(list(hint))
    if dataclasses.is_dataclass(hint):
        return made(typing.cast("type", hint))
    if origin is tuple:
        return st.lists(values("", get_args(hint)[0]), max_size=2).map(tuple)
    if origin is not None and issubclass(origin, Mapping):
        return st.just({})
    return BY_TYPE[hint]


def made(kind: type, **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Any value of a dataclass, but for what is fixed."""
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    drawn = {name: values(name, hints[name]) for name in names if name not in fixed}
    return st.builds(kind, **drawn, **fixed)


KINDS = get_args(e.Event)
ONE = st.just(1)
USUAL = st.tuples(  # the way of one image, to begin with
    made(
        e.InstanceArrived,
        instance=made(
            Instance, sop_instance_uid=st.just(INSTANCES[0]), series_uid=st.just(SERIES[0])
        ),
    ),
    made(e.StepScheduled, step=made(Step, series_uid=st.just(SERIES[0]), revision=ONE)),
    made(e.StepClaimed, step_id=ONE),
    made(
        e.ResultStored,
        result=made(
            Result,
            sop_instance_uid=st.just(RESULTS[0]),
            source_series_uid=st.just(SERIES[0]),
            step_id=ONE,
        ),
    ),
    made(e.DeliveryQueued, delivery=made(Delivery, result_uid=st.just(RESULTS[0]))),
    made(e.DeliveryClaimed, delivery_id=ONE),
    made(e.DeliveryEnded, delivery_id=ONE, state=st.just(DeliveryState.SENT)),
)
HISTORIES = st.builds(
    lambda usual, cut, more: [*usual[:cut], *more],
    USUAL,
    st.integers(0, 7),
    st.lists(st.one_of([made(kind) for kind in KINDS]), min_size=1, max_size=40),
)


def fitting(catalog: Catalog, event: e.Event) -> e.Event:
    """What is refused unless it names the present state, naming it."""
    match event:
        case e.SeriesJudged():
            series = catalog.views.series(event.series_uid)
            revision = series.revision if series else 1
            return dataclasses.replace(event, revision=revision, instances=None)
        case e.StepClaimed():
            return event
    if hasattr(event, "step_id") and hasattr(event, "transaction_uid"):
        step = catalog.views.step(event.step_id)
        if step is not None and step.transaction_uid:
            return dataclasses.replace(event, transaction_uid=step.transaction_uid)
    return event


def unsynced(path: Path) -> Catalog:
    """A catalog that need not survive a power cut."""
    catalog = Catalog(path)
    catalog._db.execute("PRAGMA synchronous = OFF")
    return catalog


def accepted(catalog: Catalog, history: list[e.Event]) -> int:
    """Commit one after the other; those that the catalog refuses have not happened."""
    count = 0
    for event in history:
        try:
            catalog.commit(fitting(catalog, event))
        except CatalogError:
            continue
        count += 1
    return count


def nothing(done: int, total: int) -> None:
    assert done <= total


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=HISTORIES)
def test_whatever_happens_the_events_make_the_tables(history: list[e.Event]):
    with tempfile.TemporaryDirectory() as folder:
        path, again = Path(folder) / "catalog.db", Path(folder) / "again.db"
        catalog = unsynced(path)
        count = accepted(catalog, history)
        catalog.close()
        assert differences(path, Path(folder) / "scratch.db", nothing) == {}
        assert refold(path, again, nothing)
        copy = Catalog(again)
        assert copy.views.counts()["event"] == count
        assert differences(again, Path(folder) / "scratch.db", nothing) == {}
        copy.close()


def brings_in_the_last(history: list[e.Event]) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        catalog = unsynced(Path(folder) / "catalog.db")
        accepted(catalog, history[:-1])
        count = accepted(catalog, history[-1:])
        catalog.close()
    return count == 1


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_event_is_one_that_some_history_brings_in(kind: type):
    """Were a kind always refused, the property would say nothing of it."""
    history = st.builds(
        lambda usual, cut, last: [*usual[:cut], last], USUAL, st.sampled_from((7, 3, 1)), made(kind)
    )
    find(
        history,
        brings_in_the_last,
        settings=settings(max_examples=1000, deadline=None, database=None, phases=[Phase.generate]),
        random=Random(0),
    )
