"""SIGKILL while the log of the catalog grows past its limit, and amid its checkpoints.

With the limit of a real node a checkpoint comes after thousands of pages; here it comes after some
tens, so that each life goes through many.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from faults.harness import Life
from faults.tally import seeds

PAGES = 30
ANYWHERE = {"process": "", "checkpoint_pages": PAGES}


def checkpoints(life: Life) -> int:
    """How often the log was begun anew: the checkpoint sequence number in its header."""
    log = (life.data_dir / "catalog.db-wal").read_bytes()[:16]
    return int.from_bytes(log[12:16], "big")


def killed_amid_a_checkpoint(life: Life, strace: str, nth: int) -> bool:
    """Start, send, and let the nth page be the last that any thread moves out of the log."""
    life.performers_gone()
    todo = life.unfinished() + life.add_series()
    trace = life.folder / "trace"
    inject = f"inject=pwrite64:signal=SIGKILL:when={nth}"
    wrapper = [strace, "-f", "-qq", "-o", trace, "-P", life.data_dir / "catalog.db"]
    life.start(ANYWHERE, wrapper=[*wrapper, "-e", "trace=pwrite64", "-e", inject])
    sender = life.sending(todo)
    life.wait(lambda: life.dead() or life.all_delivered(), "the kill, or the end of the work")
    killed = "killed by SIGKILL" in trace.read_text()
    life.kill()
    sender.join(60)
    life.tally.kills += 1
    life.tally.where["amid a checkpoint" if killed else "when all was delivered"] += 1
    life.check_after_death()
    return killed


@pytest.mark.parametrize(
    ("seed", "kills"),
    [
        *(pytest.param(seed, 2, id=seed) for seed in seeds("checkpoint", 1)),
        *(pytest.param(s, 10, id=s, marks=pytest.mark.faults) for s in seeds("checkpoints", 2)),
    ],
)
@pytest.mark.timeout(900)
def test_killed_amid_a_checkpoint_of_the_catalog_nothing_is_lost_and_no_result_comes_twice(
    new_life: Callable[..., Life], pacs, strace: str, seed: str, kills: int
):
    life = new_life(pacs, seed=seed)
    life.start(ANYWHERE)
    life.sending(life.add_series()).join(60)
    life.wait(life.all_delivered, "the first result comes")
    assert checkpoints(life) > 0, "the log grew past its limit"
    life.kill()
    before = (life.data_dir / "catalog.db").stat().st_size
    met = [killed_amid_a_checkpoint(life, strace, life.luck.randint(1, 9)) for _ in range(kills)]
    assert any(met)
    assert (life.data_dir / "catalog.db").stat().st_size >= before
    life.finish()
