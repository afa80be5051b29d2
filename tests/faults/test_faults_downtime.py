"""The time in which a node is down is no quiet time: nothing is made of the part that had come."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from faults.harness import Life, wait_until
from faults.sender import SLICES, Sent, send
from faults.tally import seeds

QUIET_S = 8.0


def killed_amid(life: Life, sent: Sent) -> None:
    """Some of the images were acknowledged when the node died; then it is down for too long."""
    nth = life.luck.randint(2, SLICES - 2)
    life.performers_gone()
    life.start({"process": "serve", "point": "C-STORE answered", "when": "after", "nth": nth})
    sender = life.sending([sent])
    life.wait(life.dead, "the kill")
    died_at = time.monotonic()
    sender.join(60)
    assert 0 < len(sent.acknowledged) < SLICES
    life.tally.kills += 1
    life.tally.where["serve, amid a series"] += 1
    life.check_after_death()
    life.performers_gone()
    wait_until(lambda: time.monotonic() > died_at + QUIET_S + 0.5, "it is down")


def goes_on(life: Life, sent: Sent) -> bool:
    """Start anew, and send the rest at once; False if the machine was too busy for "at once"."""
    begun = time.monotonic()
    life.start()
    life.ready()
    send(life.address, sent)
    assert len(sent.acknowledged) == SLICES
    return time.monotonic() - begun < QUIET_S


@pytest.mark.parametrize(
    ("seed", "kills"),
    [
        *(pytest.param(seed, 1, id=seed) for seed in seeds("downtime", 1)),
        *(pytest.param(seed, 4, id=seed, marks=pytest.mark.faults) for seed in seeds("longer", 3)),
    ],
)
def test_killed_amid_a_series_and_down_for_longer_than_the_quiet_time_a_node_makes_one_result(
    new_life: Callable[..., Life], pacs, seed: str, kills: int
):
    shown = 0
    for number in range(kills + 3):  # a machine that is too busy now may not be so later
        life = new_life(pacs, seed=f"{seed}:{number}", quiet_s=QUIET_S)
        (sent,) = life.add_series()
        killed_amid(life, sent)
        if goes_on(life, sent):
            life.finish()
            revisions = life.catalog("SELECT revision FROM series")
            assert revisions == [(1,)], f"a part was taken for the whole\n{life.told()}"
            shown += 1
        life.end()
        if shown == kills:
            return
    pytest.skip("the machine is too busy: no sender can go on within the quiet time")
