"""The parts of the benchmark of receiving work, at sizes that take no time; no figure is judged."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pydicom
import pytest

import bench_receive
import receive_probes as probes
from receive_report import goals, ratios_line, report
from receivers import NAMES
from sending import pdus
from sent_images import instances_of, large_object


def test_a_message_is_cut_into_pdus_that_are_no_longer_than_they_may_be() -> None:
    data = bytes(range(256)) * 10
    cut = list(pdus([data[:700], data[700:]], 0, 1000))
    assert [len(one) for one in cut] == [1006, 1006, 584]
    assert b"".join(one[12:] for one in cut) == data
    assert [one[11] for one in cut] == [0, 0, 2]


def test_a_large_object_is_one_data_set(tmp_path: Path) -> None:
    data = b"".join(large_object(0.006))
    (tmp_path / "large").write_bytes(data)
    read = pydicom.dcmread(tmp_path / "large", force=True)
    assert read.NumberOfFrames == 3
    assert len(read.PixelData) == 3 * 2 * 1024 * 1024
    assert hashlib.sha256(read.PixelData[-2097144:]).digest()


def test_the_instances_of_a_run_are_a_series_of_its_own() -> None:
    one, two = instances_of(2, size=8), instances_of(2, size=8, first=2)
    assert len({i.sop_instance_uid for i in (*one, *two)}) == 4


@pytest.mark.parametrize("kind", ["node", "crew", "unsynced"])
def test_what_a_receiver_stored_is_compared_and_its_cost_is_counted(
    tmp_path: Path, kind: str
) -> None:
    found = probes.throughput(kind, tmp_path, associations=2, pdu=16384, instances=6)
    assert found["images_per_s"] > 0
    assert found["median_wait_ms"] <= found["p99_wait_ms"]
    assert list(tmp_path.iterdir()) == []


def test_memory_echo_and_associations_of_a_node_are_looked_at(tmp_path: Path) -> None:
    grown = probes.memory(tmp_path, [0.004], 2)
    assert [one["gib"] for one in grown["grown"]] == [0.004]
    found = probes.echo("node", tmp_path, count=3, instances=4)
    assert found["idle"]["count"] == found["storing"]["count"] == 3
    many = probes.many(tmp_path, count=8)
    assert many["end"]["descriptors"] <= many["start"]["descriptors"]
    assert many["end"]["threads"] <= many["start"]["threads"]


def test_header_and_catalog_are_timed(tmp_path: Path) -> None:
    found = probes.header(tmp_path, count=4)
    assert all(found[name] > 0 for name in ("check_ms", "record_ms", "volume_ms"))


def a_round(kind: str, **changes: Any) -> dict[str, Any]:
    return {
        "receiver": kind, "associations": 1, "pdu": 131072, "images_per_s": 100.0,
        "cpu_s_per_gb": 1.0, "user_s_per_gb": 0.1, "peak_mb": 80.0, "median_wait_ms": 1.0,
        "p99_wait_ms": 2.0,
    } | changes  # fmt: skip


def measured() -> dict[str, Any]:
    echo = {"count": 200, "median_ms": 0.2, "p99_ms": 3.0}
    look = {"threads": 11, "descriptors": 23, "mb": 80.0}
    sent = {"images_per_s": 100.0, "busy": True}
    return {
        "machine": {
            "date": "2026-01-01", "cores": 2, "processor": "P", "load": 0.1, "sync_ms": 0.4,
            "file_system": "F",
        },
        "rounds": [
            *(a_round("node", images_per_s=x) for x in (200.0, 220.0, 210.0)),
            a_round("storescp", cpu_s_per_gb=2.0),
            a_round("pynetdicom", cpu_s_per_gb=9.0, images_per_s=20.0),
            a_round("node", pdu=16384, images_per_s=7.0),
        ],
        "probes": {
            "memory": {"grown": [{"gib": 1.0, "mb": 0.5}], "association_mb": 0.3},
            "echo": {
                "node": {"idle": {**echo}, "storing": {**echo}},
                "orthanc": {"idle": {**echo}},
            },
            "idle": {"associations": 100, "seconds": 10.0, "percent": 0.2},
            "many": {"count": 1000, "start": look, "quarter": look, "end": look},
            "header": {"count": 93, "check_ms": 0.1, "record_ms": 0.1, "volume_ms": 10.0},
            "live": {"idle": sent, "inferring": sent, "with C-ECHO": sent, "echo": {**echo}},
        },
    }  # fmt: skip


def test_every_goal_is_judged_with_its_bound() -> None:
    found = {(goal.number, goal.what): goal for goal in goals(measured())}
    assert {number for number, _ in found} == {1, 2, 3, 4, 5, 6, 7, 8, 14, 15}
    missed = {what for (_, what), goal in found.items() if not goal.met}
    assert missed == {"CPU <= 0.1x pynetdicom, 1 assoc."}
    assert found[3, "images/s >= 2x DCMTK, 1 assoc."].value == "2.10x"


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        (("probes", "memory", "grown", 0, "mb"), 9.0, "growth <= 8 MB while 1 GiB come"),
        (("probes", "memory", "association_mb"), 0.6, "<= 0.5 MB for each further association"),
        (("probes", "echo", "node", "storing", "p99_ms"), 11.0, "C-ECHO while storing, p99"),
        (("probes", "echo", "orthanc", "idle", "median_ms"), 0.1, "C-ECHO idle, median <= 1x"),
        (("probes", "idle", "percent"), 1.5, "100 idle associations cost"),
        (("probes", "many", "end"), {"threads": 12, "descriptors": 23, "mb": 80}, "threads after"),
        (("probes", "header", "record_ms"), 0.3, "header to catalog"),
        (("probes", "header", "volume_ms"), 21.0, "volume of 93"),
        (("probes", "live", "inferring"), {"images_per_s": 70, "busy": True}, "images/s while a"),
        (("probes", "live", "inferring"), {"images_per_s": 99, "busy": False}, "images/s while a"),
        (("probes", "live", "echo", "p99_ms"), 11.0, "C-ECHO while storing and inferring"),
    ],
)
def test_a_goal_that_is_missed_is_said(path: tuple[Any, ...], value: Any, what: str) -> None:
    given = copy.deepcopy(measured())
    at: Any = given
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    (missed,) = [g for g in goals(given) if not g.met and "pynetdicom" not in g.what]
    assert missed.what.startswith(what)
    assert "**not met**" in report(given)


def test_the_last_line_is_the_ratios() -> None:
    last = report(measured()).splitlines()[-1]
    assert last == ratios_line(measured()["rounds"])
    assert "CPU 0.50 of DCMTK" in last
    assert "images/s 10.50 of pynetdicom" in last
    assert ratios_line([]).endswith("none.")


def test_rounds_of_several_runs_are_put_together(tmp_path: Path) -> None:
    first, second = measured(), measured()
    second["probes"] = {"idle": {**second["probes"]["idle"], "percent": 0.9}}
    for name, run in (("a", first), ("b", second)):
        (tmp_path / name).write_text(json.dumps(run))
    options = bench_receive.options_of(["--from", str(tmp_path / "a"), str(tmp_path / "b")])
    given = bench_receive.given_by(options)
    assert len(given["rounds"]) == 2 * len(first["rounds"])
    assert given["probes"]["idle"]["percent"] == 0.9
    assert given["probes"]["header"] == first["probes"]["header"]
    assert all(one["receiver"] in NAMES for one in given["rounds"])
