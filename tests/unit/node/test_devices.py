"""How many performers there are, on what, and what falls to each."""

from __future__ import annotations

import os

import pytest

from dicom_node.node import devices
from dicom_node.node.devices import Place, cores, places


@pytest.mark.parametrize(
    ("device", "gpus", "each", "expected"),
    [
        ("cpu", 4, 1, ("cpu",)),
        ("cpu", 0, 3, ("cpu", "cpu", "cpu")),
        ("auto", 0, 2, ("auto", "auto")),
        ("auto", 1, 1, ("auto",)),
        ("auto", 2, 1, ("cuda:0", "cuda:1")),
        ("auto", 2, 2, ("cuda:0", "cuda:1", "cuda:0", "cuda:1")),
        ("cuda", 1, 1, ("cuda:0",)),
        ("cuda", 0, 1, ("cuda",)),
        ("cuda:1", 4, 2, ("cuda:1", "cuda:1")),
    ],
)
def test_there_is_a_performer_for_each_device(monkeypatch, device, gpus, each, expected):
    monkeypatch.setattr(devices, "_cuda_devices", lambda: gpus)
    assert places(device, each) == expected


def test_each_performer_has_the_device_of_its_number():
    names = ("cuda:0", "cuda:1", "cuda:0")
    assert [Place(number=n, devices=names).device for n in range(3)] == list(names)


@pytest.mark.parametrize(
    ("performers", "asked", "there", "expected"),
    [(1, 0, 8, 8), (2, 0, 8, 4), (3, 0, 8, 2), (8, 0, 2, 1), (2, 3, 8, 3)],
)
def test_performers_share_the_cores(performers, asked, there, expected):
    place = Place(number=0, devices=("cpu",) * performers)
    assert place.threads(asked, there) == expected


def test_a_series_falls_to_one_performer_and_the_others_leave_it_alone_for_a_moment():
    uids = [f"1.2.826.0.1.{n}" for n in range(200)]
    three = [Place(number=n, devices=("cpu",) * 3) for n in range(3)]
    for uid in uids:
        assert sorted(place.leaves_s(uid) > 0 for place in three) == [False, True, True]
    assert all(sum(place.is_mine(uid) for uid in uids) > 30 for place in three)
    assert all(Place(number=0, devices=("cpu",)).is_mine(uid) for uid in uids)


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """groups(own, {group: cpu.max}) -> cores, on a machine of 16."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)), raising=False)

    def ask(own: str, limits: dict[str, str]) -> int:
        membership = tmp_path / "membership"
        membership.write_text(f"1:name=systemd:/elsewhere\n0::{own}\n")
        for group, limit in limits.items():
            folder = tmp_path / "cgroup" / group
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "cpu.max").write_text(limit)
        return cores(tmp_path / "cgroup", membership)

    return ask


def test_without_a_limit_all_cores_are_used(groups):
    assert groups("/", {}) == 16
    assert groups("/", {"": "max 100000"}) == 16


def test_a_control_group_limits_the_cores_and_so_do_those_above_it(groups):
    assert groups("/", {"": "400000 100000"}) == 4
    limits = {"": "max 100000", "system": "250000 100000", "system/node": "max 100000"}
    assert groups("/system/node", limits) == 3
    assert groups("/system/node", {"system/node": "50000 100000"}) == 1


def test_what_the_process_is_pinned_to_counts_too(groups, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 5}, raising=False)
    assert groups("/", {"": "800000 100000"}) == 2
