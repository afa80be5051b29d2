"""Pieces of work side by side."""

from __future__ import annotations

import threading

import pytest
import torch

from dicom_node.tools.side_by_side import Crew, in_order

pytestmark = pytest.mark.usefixtures("one_torch_thread")  # threads are afterwards as before


@pytest.mark.parametrize(
    ("threads", "workers", "each"), [(1, 1, 1), (2, 2, 1), (16, 16, 1), (64, 16, 4), (0, 1, 1)]
)
def test_the_threads_are_shared_among_the_workers(threads: int, workers: int, each: int) -> None:
    assert Crew.of(threads) == Crew(workers=workers, threads_each=each)


def test_each_worker_has_its_share_and_afterwards_all_is_as_it_was() -> None:
    torch.set_num_threads(2)
    together = threading.Barrier(3, timeout=30)

    def work(number: int) -> tuple[int, int]:
        together.wait()  # only three at a time get further
        return number, torch.get_num_threads()

    answers = list(in_order(work, range(6), Crew(workers=3, threads_each=1)))
    assert answers == [(number, 1) for number in range(6)]
    assert torch.get_num_threads() == 2
    assert list(in_order(lambda _: torch.get_num_threads(), [0], Crew())) == [2]


def test_what_a_piece_raises_is_raised_and_nothing_else_is_begun() -> None:
    torch.set_num_threads(2)
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 1:
            raise torch.OutOfMemoryError("as the test has it")
        return number

    with pytest.raises(torch.OutOfMemoryError):
        list(in_order(work, range(100), Crew(workers=2, threads_each=1)))
    assert len(begun) < 10
    assert torch.get_num_threads() == 2
