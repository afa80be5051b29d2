"""Several pieces of work at a time, their answers in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

_MOST = 16  # pieces at a time: each takes memory
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """How many work at a time, and with how many threads of torch each; 0: as torch has them."""

    workers: int = 1
    threads_each: int = 0

    @classmethod
    def of(cls, threads: int) -> Crew:
        """As many workers as there are threads, up to a limit, which share them."""
        workers = max(1, min(threads, _MOST))
        return cls(workers=workers, threads_each=max(1, threads // workers))


def in_order(work: Callable[[T], R], items: Iterable[T], crew: Crew) -> Iterator[R]:
    """work(item) for each, in their order; no more answers are kept than there are workers."""
    if crew.workers == 1:
        yield from map(work, items)
        return
    before = torch.get_num_threads()
    each = crew.threads_each or before
    pool = ThreadPoolExecutor(crew.workers, initializer=torch.set_num_threads, initargs=(each,))
    try:
        waiting: deque[Future[R]] = deque()
        for item in items:
            if len(waiting) > crew.workers:
                yield waiting.popleft().result()
            waiting.append(pool.submit(work, item))
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # what a worker sets, later threads of the process inherit
