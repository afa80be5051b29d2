"""A tool that takes its process along, and a catalog whose bytes were overwritten."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable

import pytest

from faults.harness import PATIENCE_S, Life
from faults.sender import SLICES
from faults.tally import seeds

PAGE_BYTES = 4096  # of SQLite


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_series_that_kills_its_performer_is_put_aside_and_holds_up_no_other(
    new_life: Callable[..., Life], pacs
):
    life = new_life(pacs, seed="poison", max_attempts=3)
    life.start({"process": "performer", "point": "tool run", "when": "before", "only": "poison"})
    life.ready()
    (poisoned,) = life.add_series(series_description="poison")
    life.sending([poisoned]).join(60)
    (good,) = life.add_series()
    life.sending([good]).join(60)
    step = f"SELECT state, attempt, reason FROM step WHERE series_uid = '{poisoned.uid}'"
    life.wait(lambda: life.catalog(step)[0][0] == "QUARANTINED", "the step is put aside")
    ((_, attempt, reason),) = life.catalog(step)
    assert attempt == 3
    assert "SIGKILL" in reason
    life.wait(lambda: len(life.mine()) == 1, "the other result comes")
    assert life.unfinished() == [poisoned]
    assert not life.lost()
    life.tally.kills += 3


def run(life: Life, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the node, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "dicom_node.cli.main", *words, "--config", str(life.config)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def overwrite(life: Life, luck: random.Random, share: float) -> None:
    """Random bytes over a part of the catalog's pages: the first one, or some of the others."""
    path = life.data_dir / "catalog.db"
    data = bytearray(path.read_bytes())
    pages = len(data) // PAGE_BYTES
    assert pages > 10
    chosen = [0] if share == 0 else luck.sample(range(1, pages), max(1, int(share * pages)))
    for page in chosen:
        start = page * PAGE_BYTES
        data[start : start + PAGE_BYTES] = luck.randbytes(PAGE_BYTES)
    path.write_bytes(data)


@pytest.mark.parametrize("ended", ["in order", pytest.param("killed", marks=pytest.mark.faults)])
@pytest.mark.parametrize("share", [0.3, pytest.param(0.0, marks=pytest.mark.faults)])
@pytest.mark.parametrize("seed", seeds("damage", 1))
def test_a_node_refuses_a_damaged_catalog_in_one_sentence_and_goes_on_with_a_rebuilt_one(
    new_life: Callable[..., Life], pacs, ended: str, share: float, seed: str
):
    life = new_life(pacs, seed=f"{seed}:{share}:{ended}")
    life.add_series(2)
    life.deliver_everything()
    life.wait(lambda: life.catalog("SELECT DISTINCT state FROM delivery") == [("SENT",)], "SENT")
    life.stop()
    if ended == "killed":  # with a start that has left its log of changes behind
        life.start()
        life.ready()
        life.kill()
        life.performers_gone()
    overwrite(life, random.Random(seed), share)
    refused = run(life, "serve")
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    said = refused.stderr.strip()
    assert "damaged" in said, said
    assert "dicom-node catalog rebuild" in " ".join(said.split()), said
    rebuilt = run(life, "catalog", "rebuild")
    assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
    assert not life.lost()
    (more,) = life.add_series()
    life.start()
    life.ready()
    life.sending([more]).join(60)
    life.wait(life.all_delivered, "a new series goes its way")
    life.stop()
    assert not life.lost()
    assert len(more.acknowledged) == SLICES
    results = life.destination.received()
    assert sorted(life.destination.source_series(uid) for uid in life.mine()) == sorted(
        sent.uid for sent in life.sent
    )
    assert all(len(results[uid]) == 1 for uid in life.mine())
