"""The front under mutated conversations: `make fuzz` at length, these few with every test run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from dicom_node.dimse.part10 import file_head
from fuzz.drive import Front
from fuzz.mutate import case
from fuzz.oracle import NotWhole, uids_of
from fuzz.run import failing
from raw import objects as o
from raw.wire import CT, EXPLICIT

SEED, CASES = 13, 2000


def test_whatever_is_sent_the_front_answers_or_closes_and_keeps_only_what_is_whole():
    tally: Counter[str] = Counter()
    assert list(failing(SEED, range(CASES), tally)) == []
    assert tally.total() == CASES
    for ended in ("0x0000", "0xC000", "0xA900", "aborted"):
        assert tally[ended] > 5, f"{ended}: the mutations reach all of the front"


def test_a_case_is_the_same_again_and_another_seed_gives_another():
    assert case(1, 7) == case(1, 7)
    assert case(1, 7).stream != case(2, 7).stream


def test_what_nobody_changed_is_acknowledged():
    sound = [one for one in (case(SEED, number) for number in range(400)) if one.sound]
    assert len(sound) > 5
    with Front() as front:
        heard = [front.run(one) for one in sound]
    assert sum(one.stored for one in heard) == sum(one.objects for one in sound) > 0


def stored(changed: Callable[[bytes], bytes]) -> bytes:
    """A file with a data set as the node keeps it."""
    head = file_head(sop_class_uid=CT, sop_instance_uid="1.2.3", transfer_syntax_uid=EXPLICIT)
    return head + changed(o.encoded(o.ct("1.2.3")))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:-516],
        lambda data: data + b"junk",
        lambda data: data + data,
        lambda data: data.replace(b"1.2.3\0", b"1..23\0"),
        lambda data: data[:-524],
    ],
    ids=["a byte less", "inside a header", "junk", "twice", "no UID", "no pixels"],
)
def test_the_other_reader_knows_what_is_not_whole(damage):
    assert uids_of(stored(lambda data: data), EXPLICIT)["SOPInstanceUID"] == "1.2.3"
    with pytest.raises(NotWhole):
        uids_of(stored(damage), EXPLICIT)
