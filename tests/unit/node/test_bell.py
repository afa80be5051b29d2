"""A stage is woken by its bell, and whoever asks learns whether anybody listens."""

from __future__ import annotations

import sys

import pytest

from dicom_node.node.bell import PERFORM, Bell

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no abstract sockets here")


def test_whether_a_performer_lives_can_be_told(tmp_path):
    bell = Bell(tmp_path)
    assert not bell.is_heard(PERFORM)
    listener = bell.listen(PERFORM)
    assert bell.is_heard(PERFORM)
    assert not bell.is_heard(PERFORM, 1)
    listener.wait(0)
    listener.close()
    assert not bell.is_heard(PERFORM)
    bell.close()


def test_one_that_is_rung_too_often_still_lives(tmp_path):
    bell = Bell(tmp_path)
    listener = bell.listen(PERFORM)
    for _ in range(2000):
        bell.ring(PERFORM)
    assert bell.is_heard(PERFORM)
    listener.close()
    bell.close()
