"""The node's clock is the system's, however busy the machine was when it was read."""

from __future__ import annotations

import pytest

from dicom_node.node import clock
from dicom_node.node.clock import SystemClock


@pytest.mark.parametrize("pauses", [[0.5, 0.0], [0.0, 0.5], [0.5, 0.0, 0.0, 0.5, 0.0]])
def test_a_pause_between_two_looks_at_the_clock_does_not_set_it(monkeypatch, pauses):
    passed = [0.0]
    after_each = iter(pauses)

    def wall():
        seen = 1_800_000_000.0 + passed[0]
        passed[0] += next(after_each, 0.0)  # something else runs before the next look
        return seen

    monkeypatch.setattr(clock, "uptime_s", lambda: 1000.0 + passed[0])
    monkeypatch.setattr(clock.time, "time", wall)
    assert SystemClock().offset == pytest.approx(1_800_000_000.0 - 1000.0, abs=1e-6)
