"""Working ahead, with a real catalog, spool and network: what it does, and that it changes nothing.

What was done when is counted where the network is run, never timed.
"""

from __future__ import annotations

import random
from collections import Counter
from itertools import count
from pathlib import Path

import pydicom
import pytest

import dicom_node.iod.arriving as arriving_module
from dicom_node.catalog import Catalog
from dicom_node.decide import completeness
from dicom_node.decide.match import parse
from dicom_node.decide.routing import Route
from dicom_node.domain import events as e
from dicom_node.domain.errors import DecoderEnded, ToolError
from dicom_node.domain.records import Instance, Peer
from dicom_node.domain.states import SeriesState, StepState
from dicom_node.domain.tool import WorksAhead
from dicom_node.iod.code_stream import Decode
from dicom_node.iod.code_stream import decoded as in_this_process
from dicom_node.iod.image import Reading
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.node.ahead import Ahead
from dicom_node.node.applicability import judges
from dicom_node.node.assemble import Assembler
from dicom_node.node.bell import Bell
from dicom_node.node.journal import Journal
from dicom_node.node.perform import Performer
from dicom_node.node.router import Router
from dicom_node.node.supersede import Superseder
from dicom_node.node.toolbox import Toolbox
from dicom_node.spool.store import Spool
from dicom_node.testing.models import threshold_model
from dicom_node.testing.phantom import chest_phantom
from dicom_node.testing.received import received
from dicom_node.testing.series import (
    Header,
    Pixels,
    a_localizer,
    a_series,
    ct_series,
)
from dicom_node.tools import predictor
from dicom_node.tools.manifest import read_manifest
from dicom_node.tools.registry import build_tool

PACS = Peer(name="pacs", ae_title="CT1", host="h", port=1)
SLICES = 14


@pytest.fixture(scope="module")
def chest():
    volume, _ = chest_phantom(slices=SLICES, size=48, spacing_mm=(5.0, 8.0, 8.0))
    return volume


@pytest.fixture(scope="module")
def models(tmp_path_factory, small_network):
    folder = tmp_path_factory.mktemp("models")
    small_network(folder)
    (folder / "lung-threshold").mkdir()
    (folder / "lung-threshold" / "model.toml").write_text(threshold_model())
    return folder


class Counted:
    """How often the network was run, and on what."""

    def __init__(self) -> None:
        self.slices: list[tuple[str, ...]] = []

    def __len__(self) -> int:
        return len(self.slices)

    def clear(self) -> None:
        self.slices.clear()


@pytest.fixture
def network(monkeypatch):
    counted = Counted()
    real = predictor._answers  # where all its work is done

    def answers(placed, shown, chosen):
        counted.slices.extend(shown.key(t) if shown.keys else ("",) for t in chosen)
        return real(placed, shown, chosen)

    monkeypatch.setattr(predictor, "_answers", answers)
    return counted


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that were decoded ahead."""
    names: list[str] = []
    real = arriving_module.read_plane

    def read(path, decode):
        names.append(path.name)
        return real(path, decode)

    monkeypatch.setattr(arriving_module, "read_plane", read)
    return names


class Clock:
    """Stands still, but for what the tests do."""

    def __init__(self) -> None:
        self.at, self._uids = 1_700_000_000.0, count()

    def now(self) -> float:
        return self.at

    def luck(self) -> float:
        return 0.5

    def new_uid(self) -> str:
        return f"2.25.{next(self._uids)}"


class World:
    """A data folder, and what a node does to it; performers share it, as processes do."""

    def __init__(self, folder: Path, models: Path, tool: str = "small-unet") -> None:
        folder.mkdir()
        self.models, self.tool = models, tool
        self.catalog, self.spool = Catalog(folder / "catalog.db"), Spool(folder / "spool")
        self.clock, self.bell = Clock(), Bell(folder)
        self.journal = Journal(self.catalog, self.bell)
        self.association = 0
        self.when = 'Modality == "CT"'
        self.decode: Decode = in_this_process

    def close(self) -> None:
        self.catalog.close()
        self.bell.close()

    @property
    def router(self) -> Router:
        route = Route(
            name="lungs", when=parse(self.when), tool_id=self.tool, destinations=("pacs",),
            results=("seg",),
        )  # fmt: skip
        names = ("small-unet", "lung-threshold")
        manifests = {name: read_manifest(self.models / name) for name in names}
        return Router(routes=(route,), peers=(PACS,), tools=judges(manifests), catalog=self.catalog)

    def performer(self, *, ahead_bytes: int = 1 << 30, warm: bool = True, build=None) -> Performer:
        def load(tool_id):
            return build_tool(read_manifest(self.models / tool_id), device="cpu", threads=1)

        tools = Toolbox(build=build or load)
        settings = SegSettings()
        ahead = Ahead(
            journal=self.journal,
            spool=self.spool,
            clock=self.clock,
            expected=lambda uid: self.router.expected(uid),  # noqa: PLW0108  # `when` may change
            tools=tools,
            decode=self.decode,
            most_bytes=ahead_bytes,
        )
        performer = Performer(
            name="performer 0",
            tools=tools,
            settings=settings,
            reading=Reading(threads=1, decode=self.decode),
            max_attempts=1,
            spool=self.spool,
            journal=self.journal,
            clock=self.clock,
            superseder=Superseder(
                told=frozenset(), settings=settings, spool=self.spool, journal=self.journal
            ),
            ahead=ahead if ahead_bytes else None,
        )
        if warm:
            performer.warm({self.tool})
        return performer

    def opens(self) -> None:
        self.association += 1
        self.journal.commit(
            e.AssociationOpened(
                at=self.clock.now(),
                number=self.association,
                calling_ae="CT1",
                called_ae="NODE",
                address="127.0.0.1",
            )
        )

    def arrives(self, dataset) -> Instance:
        """One object over the association that is open."""
        now = self.clock.now()
        instance = received(self.spool, dataset, association=self.association, at=now)
        self.journal.commit(e.InstanceArrived(at=now, instance=instance, judge_at=now + 1))
        return instance

    def ends(self) -> None:
        self.journal.commit(
            e.AssociationEnded(at=self.clock.now(), number=self.association, how="released")
        )

    def judge(self) -> None:
        self.clock.at += 60
        Assembler(
            policy=completeness.Policy(release_s=1.0, quiet_s=1.0, give_up_s=2.0),
            ask_source=False,
            router=self.router,
            journal=self.journal,
        ).run_due(self.clock.at)

    def receive(self, datasets, performer: Performer | None = None) -> None:
        """All over one association; a performer has its turns in between."""
        self.opens()
        for dataset in datasets:
            self.arrives(dataset)
            if performer is not None:
                idle(performer)
        self.ends()
        if performer is not None:
            idle(performer)

    def perform(self, performer: Performer, uid: str) -> bytes:
        """The result of the Series, as its file is."""
        self.judge()
        for _ in range(3):
            performer.run_due(self.clock.at)
        step = self.catalog.views.steps(uid)[-1]
        assert step.state is StepState.COMPLETED, step.reason
        result = self.catalog.views.results(uid)[-1]
        assert result.step_id == step.step_id
        return self.spool.path(result.path).read_bytes()


def idle(performer: Performer) -> None:
    """Turns until there is nothing to do."""
    for _ in range(200):
        later = performer.run_due(performer.clock.now())
        if later is None or later > performer.clock.now():
            return
    pytest.fail("there is no end to working ahead")


@pytest.fixture
def a_world(tmp_path, models):
    worlds: list[World] = []

    def begin(**more) -> World:
        worlds.append(World(tmp_path / f"world{len(worlds)}", models, **more))
        return worlds[-1]

    yield begin
    for world in worlds:
        world.close()


@pytest.fixture
def batch(a_world):
    """The result of a series on which nobody worked ahead."""

    def run(datasets, **more) -> bytes:
        world = a_world(**more)
        world.receive(datasets)
        return world.perform(world.performer(ahead_bytes=0), str(datasets[0].SeriesInstanceUID))

    return run


def frames(result: bytes) -> int:
    return int(pydicom.dcmread(pydicom.filebase.DicomBytesIO(result)).NumberOfFrames)


ORDERS = {
    "in order": lambda objects: objects,
    "backwards": lambda objects: objects[::-1],
    "at random": lambda objects: random.Random(4).sample(objects, len(objects)),
    "interleaved": lambda objects: [*objects[::2], *objects[1::2]],
    "each twice": lambda objects: [d for d in objects for _ in range(2)],
    "all, and all again": lambda objects: [*objects, *objects],
    "from the middle": lambda objects: [*objects[5:], *objects[:5]],
}


@pytest.mark.parametrize("order", ORDERS)
def test_whatever_the_order_the_result_is_that_of_the_whole_series(
    a_world, batch, chest, network, order
):
    objects = ct_series(chest)
    expected = batch(objects)
    assert frames(expected) >= SLICES, "the network finds something, or nothing is shown by this"
    world = a_world()
    performer = world.performer()
    network.clear()
    world.receive(ORDERS[order](objects), performer)
    assert len(network) >= SLICES
    network.clear()
    assert world.perform(performer, objects[0].SeriesInstanceUID) == expected
    assert len(network) == 0, "nothing was left for the step"


def test_in_order_no_slice_is_worked_on_twice(a_world, chest, network):
    world = a_world()
    performer = world.performer()
    world.receive(ct_series(chest), performer)
    assert Counter(network.slices).most_common(1)[0][1] == 1
    assert len(network) == SLICES


def test_while_the_association_is_open_slices_with_their_neighbours_are_worked_on(
    a_world, chest, network
):
    world = a_world()
    performer = world.performer()
    world.opens()
    for dataset in ct_series(chest):
        world.arrives(dataset)
    idle(performer)
    assert len(network) == SLICES - 4, "10 mm below and above are two slices each"


def test_where_the_association_stays_open_a_pause_is_taken_for_the_end(a_world, chest, network):
    world = a_world()
    performer = world.performer()
    world.opens()
    for dataset in ct_series(chest):
        world.arrives(dataset)
        world.clock.at += 0.4
        idle(performer)
    assert len(network) == SLICES - 4
    later = performer.run_due(world.clock.at)
    assert later is not None
    world.clock.at = later
    idle(performer)
    assert len(network) == SLICES


def test_one_that_comes_late_makes_another_result_as_if_all_had_come_at_once(
    a_world, batch, chest, network
):
    objects = ct_series(chest)
    uid, late = objects[0].SeriesInstanceUID, objects[-1:]
    world = a_world()
    performer = world.performer()
    world.receive(objects[:-1], performer)
    first = world.perform(performer, uid)
    assert first == batch(objects[:-1])
    world.receive(late, performer)
    network.clear()
    second = world.perform(performer, uid)
    assert len(network) == 0
    alone = a_world()
    alone.receive(objects[:-1])
    alone.perform(alone.performer(ahead_bytes=0), uid)
    alone.receive(late)
    assert second == alone.perform(alone.performer(ahead_bytes=0), uid), "it names the earlier one"
    assert second != first


def test_one_that_comes_before_the_step_was_performed_is_in_its_result(a_world, batch, chest):
    objects = ct_series(chest)
    world = a_world()
    performer = world.performer()
    world.receive(objects[:-1], performer)
    world.judge()
    world.receive(objects[-1:], performer)
    uid = objects[0].SeriesInstanceUID
    assert [s.state for s in world.catalog.views.steps(uid)] == [StepState.CANCELED]
    assert world.perform(performer, uid) == batch(objects)


@pytest.mark.parametrize("when", ["in the middle", "before the step"])
def test_another_performer_makes_the_same_of_it(a_world, batch, chest, when):
    objects = ct_series(chest)
    world = a_world()
    gone = world.performer()
    world.receive(objects[:7], gone)
    other = world.performer()
    world.receive(objects[7:], other if when == "in the middle" else gone)
    assert world.perform(other, objects[0].SeriesInstanceUID) == batch(objects)


def test_what_no_route_takes_is_not_begun(a_world, chest, network, decoded):
    world = a_world()
    world.when = 'Modality == "MR"'
    world.receive(ct_series(chest), world.performer())
    assert decoded == []
    assert len(network) == 0


def test_a_route_that_wants_more_images_is_waited_for(a_world, chest, decoded):
    world = a_world()
    world.when = f"InstancesInSeries >= {SLICES - 6}"
    performer = world.performer()
    world.opens()
    for number, dataset in enumerate(ct_series(chest), start=1):
        world.arrives(dataset)
        idle(performer)
        assert bool(decoded) == (number >= SLICES - 6)


def test_a_model_that_needs_the_volume_waits_for_it(a_world, batch, chest, decoded):
    objects = ct_series(chest)
    world = a_world(tool="lung-threshold")
    performer = world.performer()
    assert not isinstance(performer.tools.get("lung-threshold"), WorksAhead)
    world.receive(objects, performer)
    assert decoded == []
    expected = batch(objects, tool="lung-threshold")
    assert world.perform(performer, objects[0].SeriesInstanceUID) == expected


def test_without_it_nothing_is_done_ahead(a_world, chest, network, decoded):
    world = a_world()
    world.receive(ct_series(chest), world.performer(ahead_bytes=0))
    assert decoded == []
    assert len(network) == 0


def test_a_model_is_not_loaded_for_it(a_world, chest, network):
    world = a_world()
    performer = world.performer(warm=False)
    world.receive(ct_series(chest), performer)
    assert performer.tools.loaded == frozenset()
    performer.warm({"small-unet"})
    idle(performer)
    assert len(network) == SLICES


@pytest.mark.parametrize("error", [ToolError("broken"), RuntimeError("broken"), MemoryError()])
def test_a_model_that_fails_ahead_is_judged_by_its_step(a_world, batch, chest, error, monkeypatch):
    objects = ct_series(chest)
    expected = batch(objects)
    world = a_world()
    performer = world.performer()
    calls = []

    def broken(self, volume, context):
        calls.append(1)
        raise error

    tool = performer.tools.get("small-unet")
    monkeypatch.setattr(type(tool), "ahead", broken)
    world.receive(objects, performer)
    assert calls == [1], "it is not tried again and again"
    assert world.perform(performer, objects[0].SeriesInstanceUID) == expected


def test_a_device_that_is_lost_ahead_ends_the_performer(a_world, chest, monkeypatch):
    def lost(self, volume, context):
        raise ToolError("The device cuda:0 does not answer any more.", lost=True)

    world = a_world()
    performer = world.performer()
    monkeypatch.setattr(type(performer.tools.get("small-unet")), "ahead", lost)
    with pytest.raises(ToolError, match="does not answer any more"):
        world.receive(ct_series(chest), performer)


def test_an_image_that_cannot_be_read_keeps_no_other_from_it(a_world, chest, network):
    objects = ct_series(chest)
    objects[3].PixelData = objects[3].PixelData[:100]
    other = ct_series(chest, header=Header(seed=5))
    world = a_world()
    performer = world.performer()
    world.receive([d for pair in zip(objects, other, strict=True) for d in pair], performer)
    assert len(network) == 2 * SLICES - 1


def test_an_image_that_ends_its_decoder_is_the_last_that_is_read_ahead(a_world, chest, decoded):
    asked: list[str] = []

    def ended(stream):
        asked.append(stream.name)
        raise DecoderEnded(f"{stream.name}: its code stream took longer than 60 s to decode")

    compressed = Pixels(transfer_syntax="1.2.840.10008.1.2.4.90")
    objects = ct_series(chest, pixels=compressed)
    other = ct_series(chest, header=Header(seed=5))
    world = a_world()
    world.decode = ended
    performer = world.performer()
    world.receive([d for pair in zip(objects, other, strict=True) for d in pair], performer)
    assert len(asked) == 1  # the others would take as long, and hold up every step
    assert len(decoded) == 1 + SLICES
    world.judge()
    performer.run_due(world.clock.at)
    step = world.catalog.views.steps(objects[0].SeriesInstanceUID)[-1]
    assert step.state is StepState.CANCELED
    assert "its code stream took longer than 60 s to decode" in step.reason


def test_a_step_that_is_due_comes_first(a_world, chest, network):
    one, two = ct_series(chest, header=Header(seed=1)), ct_series(chest, header=Header(seed=2))
    world = a_world()
    performer = world.performer()
    world.receive(one)
    world.judge()
    world.receive(two)
    ahead = performer.ahead
    assert ahead is not None
    began = world.clock.now()
    assert ahead.turn(lambda: True) >= began, "it comes back at once"
    assert len(network) == 0
    performer.run_due(world.clock.at)
    assert [s.state for s in world.catalog.views.steps(one[0].SeriesInstanceUID)] == ["COMPLETED"]


def test_it_leaves_off_between_two_slices_when_a_step_is_due(a_world, chest, network):
    world = a_world()
    performer = world.performer()
    world.receive(ct_series(chest))
    assert performer.ahead is not None
    performer.ahead.turn(lambda: len(network) >= 3)
    assert len(network) == 3


@pytest.mark.parametrize("localizers", [1, 2])
def test_localizers_of_another_matrix_that_come_first_keep_nothing_from_it(
    a_world, batch, chest, network, localizers
):
    larger, _ = chest_phantom(slices=SLICES, size=64, spacing_mm=(5.0, 8.0, 8.0))
    objects = ct_series(chest)
    scouts = ct_series(larger, header=Header(seed=9))[5 : 5 + localizers]
    for scout in scouts:
        scout.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        scout.SeriesInstanceUID = objects[0].SeriesInstanceUID
        scout.StudyInstanceUID = objects[0].StudyInstanceUID
        scout.FrameOfReferenceUID = objects[0].FrameOfReferenceUID
    objects = [*scouts, *objects]
    expected = batch(objects)
    world = a_world()
    performer = world.performer()
    world.receive(objects, performer)
    network.clear()
    assert world.perform(performer, objects[0].SeriesInstanceUID) == expected
    assert len(network) == 0, "nothing was left for the step"


@pytest.mark.parametrize("what", ["a localizer first", "planes that lie differently"])
def test_what_does_not_fit_in_changes_nothing(a_world, batch, chest, network, what):
    objects = ct_series(chest)
    if what == "a localizer first":
        objects.insert(0, a_localizer(chest))
    else:
        (odd,) = ct_series(chest, header=Header(seed=3))[9:10]  # one is taken for a localizer
        odd.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        odd.SeriesInstanceUID = objects[0].SeriesInstanceUID
        odd.StudyInstanceUID = objects[0].StudyInstanceUID
        odd.FrameOfReferenceUID = objects[0].FrameOfReferenceUID
        objects.insert(5, odd)
    expected = batch(objects)
    world = a_world()
    performer = world.performer()
    network.clear()
    world.receive(objects, performer)
    assert len(network) > 6
    assert world.perform(performer, objects[-1].SeriesInstanceUID) == expected


def test_slices_that_need_fractions_turn_all_of_them_into_floats(a_world, batch, chest):
    halves = ct_series(chest, pixels=Pixels(slope=0.5))
    objects = [
        h if i == 8 else d for i, (d, h) in enumerate(zip(ct_series(chest), halves, strict=True))
    ]
    expected = batch(objects)
    world = a_world()
    performer = world.performer()
    world.receive(objects, performer)
    assert world.perform(performer, objects[0].SeriesInstanceUID) == expected


def test_pixels_of_another_size_are_another_slice(a_world, chest, network):
    """The geometry of all follows that of the lowest slice, which comes last."""
    objects = ct_series(chest)
    for dataset in objects[1:]:
        dataset.PixelSpacing = [8.0004, 8.0004]  # the same, within what is tolerated
    world = a_world()
    performer = world.performer()
    world.receive(objects[1:], performer)
    world.receive(objects[:1])
    network.clear()
    result = world.perform(performer, objects[0].SeriesInstanceUID)
    assert len(network) == SLICES
    fresh = a_world()
    fresh.receive(objects)
    assert result == fresh.perform(fresh.performer(ahead_bytes=0), objects[0].SeriesInstanceUID)


def test_other_content_under_a_known_uid_is_not_looked_at(a_world, batch, chest):
    objects = ct_series(chest)
    other = objects[4].copy()
    other.PixelData = objects[9].PixelData
    world = a_world()
    performer = world.performer()
    world.receive([*objects[:6], other, *objects[6:]], performer)
    assert world.perform(performer, objects[0].SeriesInstanceUID) == batch(objects)


def test_a_file_that_is_gone_is_missed_although_its_planes_are_known(a_world, chest):
    objects = ct_series(chest)
    world = a_world()
    performer = world.performer()
    world.receive(objects, performer)
    uid = objects[0].SeriesInstanceUID
    world.spool.path(world.catalog.views.instances(uid)[3].path).unlink()
    world.judge()
    performer.run_due(world.clock.at)
    (step,) = world.catalog.views.steps(uid)
    assert step.state is not StepState.COMPLETED
    assert "lost 1 of the 14 files" in step.reason


def test_two_series_at_once_are_not_mixed_up(a_world, batch, chest, network):
    one = ct_series(chest, header=Header(series="one"))
    turned = chest.voxels_zyx[::-1]
    other = type(chest)(voxels_zyx=turned, affine_lps_mm=chest.affine_lps_mm)
    two = ct_series(other, header=Header(series="two"))
    expected = [batch(one), batch(two)]
    assert expected[0] != expected[1]
    world = a_world()
    performer = world.performer()
    world.receive([d for pair in zip(one, two, strict=True) for d in pair], performer)
    network.clear()
    made = [world.perform(performer, s[0].SeriesInstanceUID) for s in (one, two)]
    assert made == expected
    assert len(network) == 0


def test_its_memory_is_bounded_and_a_series_that_is_too_large_has_its_result(
    a_world, batch, chest, decoded
):
    objects = ct_series(chest)
    plane = 48 * 48 * 2
    world = a_world()
    performer = world.performer(ahead_bytes=10 * plane)
    world.receive(objects, performer)
    assert len(decoded) == 5, "where they are shown to the model they take as much again"
    assert world.perform(performer, objects[0].SeriesInstanceUID) == batch(objects)


def test_series_that_compete_for_memory_do_not_push_one_another_out(a_world, chest, decoded):
    one, two = ct_series(chest, header=Header(seed=1)), ct_series(chest, header=Header(seed=2))
    world = a_world()
    performer = world.performer(ahead_bytes=30 * 48 * 48 * 2)
    world.receive([d for pair in zip(one, two, strict=True) for d in pair], performer)
    assert len(decoded) == 20
    assert Counter(decoded).most_common(1)[0][1] == 1


def test_a_series_that_made_room_for_another_does_not_push_it_out_in_its_turn(
    a_world, batch, chest, decoded
):
    one, two = ct_series(chest, header=Header(seed=1)), ct_series(chest, header=Header(seed=2))
    ids = [objects[0].SeriesInstanceUID for objects in (one, two)]
    world = a_world()
    performer = world.performer(ahead_bytes=20 * 48 * 48 * 2)
    world.opens()
    for dataset in one[:12]:
        world.arrives(dataset)
        idle(performer)
    assert performer.ahead is not None
    assert performer.ahead.holds == {ids[0]: 10}
    world.clock.at += 15  # a pause, and its association stays open
    for dataset in two[:6]:
        world.arrives(dataset)
    for _ in range(30):
        performer.run_due(world.clock.now())
        world.clock.at += 1.0
    assert performer.ahead.holds == {ids[0]: 0, ids[1]: 6}
    assert len(decoded) == 10 + 6
    world.arrives(one[12])  # now it takes the room that is left, and no more
    idle(performer)
    assert performer.ahead.holds[ids[1]] == 6
    assert 0 < performer.ahead.holds[ids[0]] < 10
    began = len(decoded)
    for _ in range(30):
        performer.run_due(world.clock.now())
        world.clock.at += 1.0
    assert len(decoded) == began
    for dataset in (one[13], *two[6:]):
        world.arrives(dataset)
        idle(performer)
    world.ends()
    assert [world.perform(performer, uid) for uid in ids] == [batch(one), batch(two)]


def test_what_is_not_expected_any_more_is_forgotten(a_world, chest):
    objects = ct_series(chest, missing=(6,))
    uid = objects[0].SeriesInstanceUID
    world = a_world()
    performer = world.performer()
    world.receive(objects, performer)
    assert performer.ahead is not None
    assert performer.ahead.holds == {uid: len(objects)}
    for _ in range(5):
        world.judge()
    series = world.catalog.views.series(uid)
    assert series is not None
    assert series.state is SeriesState.INCOMPLETE
    idle(performer)
    assert performer.ahead.holds == {}


def test_what_was_prepared_is_given_away_with_the_step(a_world, chest):
    objects = ct_series(chest)
    world = a_world()
    performer = world.performer()
    world.receive(objects, performer)
    world.perform(performer, objects[0].SeriesInstanceUID)
    assert performer.ahead is not None
    assert performer.ahead.holds == {}


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_the_smallest_series_end_as_they_would(a_world, slices):
    objects = a_series(slices)
    ends = []
    for ahead_bytes in (0, 1 << 30):
        world = a_world()
        performer = world.performer(ahead_bytes=ahead_bytes)
        world.receive(objects, performer)
        for _ in range(3):
            world.judge()
            performer.run_due(world.clock.at)
        uid = objects[0].SeriesInstanceUID
        steps = [(s.state, s.reason) for s in world.catalog.views.steps(uid)]
        ends.append((steps, [r.sha256 for r in world.catalog.views.results(uid)]))
    assert ends[0] == ends[1]
