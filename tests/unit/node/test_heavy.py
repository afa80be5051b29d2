"""What computes for long leaves the others their turns, and nothing of that is left behind."""

from __future__ import annotations

import sys
import threading

import pytest

from dicom_node.node.heavy import Heavy


def test_turns_are_shorter_for_as_long_as_it_lasts() -> None:
    usual_s, heavy = sys.getswitchinterval(), Heavy()
    for _ in range(2):
        with heavy:
            assert sys.getswitchinterval() <= usual_s / 10
        assert sys.getswitchinterval() == usual_s


def test_an_error_in_it_ends_it_too() -> None:
    usual_s, heavy = sys.getswitchinterval(), Heavy()
    with pytest.raises(RuntimeError), heavy:
        raise RuntimeError
    assert sys.getswitchinterval() == usual_s
    with heavy:  # nobody holds it
        pass


def test_one_waits_for_the_other() -> None:
    heavy, inside, seen = Heavy(), threading.Event(), []

    def other() -> None:
        inside.set()
        with heavy:
            seen.append("other")

    with heavy:
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(10)
        seen.append("first")
    thread.join(10)
    assert seen == ["first", "other"]
