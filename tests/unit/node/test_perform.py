"""The performer with a real catalog and spool: whatever goes wrong, the catalog knows what."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pydicom
import pytest

import dicom_node.node.perform as perform_module
import dicom_node.node.performer as performer_module
from dicom_node.catalog import Catalog
from dicom_node.config.load import read
from dicom_node.decide import completeness
from dicom_node.decide.routing import Route
from dicom_node.domain import events as e
from dicom_node.domain.errors import CatalogError, SpoolError, ToolError
from dicom_node.domain.records import Peer, Step
from dicom_node.domain.states import DeliveryState, SeriesState, StepState
from dicom_node.domain.tool import Applicable
from dicom_node.iod.image import Reading
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.node import bell as bells
from dicom_node.node import fallback, pulse, stage
from dicom_node.node.assemble import Assembler
from dicom_node.node.bell import Bell
from dicom_node.node.clock import SystemClock, uptime_s
from dicom_node.node.journal import Journal
from dicom_node.node.layout import hand_over, taken_over
from dicom_node.node.perform import Performer
from dicom_node.node.router import Router
from dicom_node.node.supersede import Superseder, owed
from dicom_node.node.supervise import Supervisor, quarantine_fatal
from dicom_node.node.toolbox import Toolbox
from dicom_node.node.why import stories
from dicom_node.spool.store import Spool
from dicom_node.testing.models import threshold_model
from dicom_node.testing.received import received
from dicom_node.testing.series import Header, a_series
from dicom_node.tools.manifest import read_manifest
from dicom_node.tools.registry import build_tool

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SC = "1.2.840.10008.5.1.4.1.1.7"
KOS = "1.2.840.10008.5.1.4.1.1.88.59"


class World:
    """A data folder with a catalog and a spool, and what a node does to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalog = Catalog(folder / "catalog.db")
        self.spool = Spool(folder / "spool")
        self.clock = SystemClock()
        self.bell = Bell(folder)
        self.journal = Journal(self.catalog, self.bell)
        (folder / "lung-threshold").mkdir()
        (folder / "lung-threshold" / "model.toml").write_text(threshold_model())
        self.association = 0
        self.now = self.clock.now()

    @property
    def views(self):
        return self.catalog.views

    def close(self) -> None:
        self.catalog.close()
        self.bell.close()

    def build(self, tool_id: str):
        if tool_id != "lung-threshold":
            raise ToolError(f"there is no model {tool_id}")
        return build_tool(read_manifest(self.folder / "lung-threshold"), device="cpu", threads=1)

    def performer(
        self, *, told=(), build=None, max_attempts=3, alive=lambda: None, settings=None
    ) -> Performer:
        settings = settings or SegSettings()
        return Performer(
            name="performer 0",
            tools=Toolbox(build=build or self.build),
            settings=settings,
            reading=Reading(threads=1),
            max_attempts=max_attempts,
            spool=self.spool,
            journal=self.journal,
            clock=self.clock,
            superseder=Superseder(
                told=frozenset(told), settings=settings, spool=self.spool, journal=self.journal
            ),
            alive=alive,
        )

    def receive(self, datasets) -> str:
        """Store objects as a sender would have, over one association."""
        self.association += 1
        self.journal.commit(
            e.AssociationOpened(
                at=self.now,
                number=self.association,
                calling_ae="CT1",
                called_ae="NODE",
                address="127.0.0.1",
            )
        )
        for dataset in datasets:
            instance = received(self.spool, dataset, association=self.association, at=self.now)
            self.journal.commit(
                e.InstanceArrived(at=self.now, instance=instance, judge_at=self.now)
            )
        self.journal.commit(
            e.AssociationEnded(at=self.now, number=self.association, how="released")
        )
        return str(datasets[0].SeriesInstanceUID)

    def assemble(self, *, to=("pacs",), results=("seg",)) -> None:
        """Judge it whole, and schedule its step."""
        route = Route(
            name="lungs", tool_id="lung-threshold", destinations=tuple(to), results=tuple(results)
        )
        peers = tuple(Peer(name=name, ae_title=name, host="h", port=1) for name in to)
        assembler = Assembler(
            policy=completeness.Policy(release_s=1.0, quiet_s=2.0, give_up_s=4.0),
            ask_source=False,
            router=Router(
                routes=(route,),
                peers=peers,
                tools={"lung-threshold": lambda _header: Applicable()},
                catalog=self.catalog,
            ),
            journal=self.journal,
        )
        self.now += 60
        assembler.run_due(self.now)

    def run(self, performer: Performer, turns: int = 3) -> None:
        for _ in range(turns):
            performer.run_due(self.clock.now() + 1000)

    def step(self, uid: str, index: int = -1) -> Step:
        return self.views.steps(uid)[index]

    def results(self, uid: str, kind: str):
        return [r for r in self.views.results(uid) if r.kind == kind]

    def delivery(self, result):
        (found,) = self.views.deliveries(result.sop_instance_uid)
        return found

    def sent(self, result, state=DeliveryState.SENT) -> None:
        """What the deliverer commits about a result."""
        number = self.delivery(result).delivery_id
        self.journal.commit(e.DeliveryClaimed(at=self.now, delivery_id=number))
        self.ended(number, state)

    def ended(self, number: int, state) -> None:
        self.journal.commit(
            e.DeliveryEnded(
                at=self.now,
                delivery_id=number,
                state=state,
                status=0,
                reason="" if state is DeliveryState.SENT else "as the test has it",
                due_at=self.now,
            )
        )

    def claimable(self):
        """What the deliverer could claim now."""
        return [r.kind for _, r in self.catalog.owing.due(self.now + 1e6, 100, ())]

    def object(self, result) -> pydicom.Dataset:
        return pydicom.dcmread(self.spool.path(result.path))

    def told(self, uid: str) -> str:
        (story,) = stories(self.catalog, uid)
        return "\n".join([story.verdict, *(line.text for line in story.lines)])


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.close()


def ready(world: World, *, slices=5, seed=0, **more) -> str:
    """A series whose step waits to be performed."""
    uid = world.receive(a_series(slices, header=Header(seed=seed)))
    world.assemble(**more)
    assert world.step(uid).state is StepState.SCHEDULED
    return uid


# --- how a step ends


def test_a_step_makes_its_result_once(world):
    uid = ready(world)
    world.run(world.performer())
    (result,) = world.results(uid, "seg")
    assert world.step(uid).state is StepState.COMPLETED
    assert world.object(result).SOPClassUID == SEG
    assert world.delivery(result).state is DeliveryState.QUEUED


def test_only_what_is_asked_for_is_made(world):
    uid = ready(world, results=("sc",))
    world.run(world.performer())
    assert world.results(uid, "seg") == []
    pictures = world.results(uid, "sc")
    assert len(pictures) == 5
    assert len({r.series_uid for r in pictures}) == 1
    assert world.object(pictures[0]).SOPClassUID == SC
    assert all(world.delivery(r).state is DeliveryState.QUEUED for r in pictures)


def test_a_source_that_cannot_be_read_is_named_and_tried_again(world):
    uid = ready(world)
    first = world.views.instances(uid)[0]
    path = world.spool.path(first.path)
    path.unlink()
    path.mkdir()  # which is there, and can be read by nobody
    world.run(world.performer(), turns=1)
    step = world.step(uid)
    assert step.state is StepState.SCHEDULED
    assert first.sop_instance_uid in step.reason
    assert "cannot be read" in step.reason


def test_an_error_of_the_node_fails_the_step_and_is_raised(world, monkeypatch):
    uid = ready(world)

    def broken(*_args, **_more):
        raise LookupError("a secret of the patient")

    monkeypatch.setattr(perform_module, "produce", broken)
    with pytest.raises(LookupError):
        world.performer().run_due(world.clock.now() + 1000)
    step = world.step(uid)
    assert step.state is StepState.SCHEDULED
    assert "LookupError, an error of the node itself" in step.reason
    assert "secret" not in step.reason
    assert "LookupError" in world.told(uid)


def losing(world: World, at: str):
    """A builder of tools with which the process loses its device, when loaded or when run."""

    def lost(*_: object):
        raise ToolError("The device cuda:0 does not answer any more.", lost=True)

    class Tool:
        def __init__(self, tool) -> None:
            self.tool = tool

        def __getattr__(self, name: str):
            return lost if name == "process" else getattr(self.tool, name)

    def build(tool_id: str):
        return lost() if at == "load" else Tool(world.build(tool_id))

    return build


@pytest.mark.parametrize("at", ["load", "run"])
def test_a_performer_that_lost_its_device_fails_its_step_and_ends(world, at, monkeypatch):
    uid = ready(world)
    performer = world.performer(build=losing(world, at))
    for hours in (1, 2):  # the one that is started then, too
        monkeypatch.setattr(performer.clock, "now", lambda hours=hours: world.now + 3600 * hours)
        listener = world.bell.listen(bells.PERFORM, 0)
        with pytest.raises(ToolError, match="does not answer any more"):
            stage.run("perform", performer.run_due, listener, performer.clock, threading.Event())
    step = world.step(uid)
    assert (step.state, step.attempt) == (StepState.SCHEDULED, 2)


def test_a_performer_that_loses_its_device_while_it_loads_ends(world):
    with pytest.raises(ToolError, match="does not answer any more"):
        world.performer(build=losing(world, "load")).warm({"lung-threshold"})


def test_a_performer_that_lost_its_device_says_so_at_its_end(monkeypatch, caplog):
    def lost(*_: object, **_more: object):
        raise ToolError("The device cuda:0 does not answer any more.", lost=True)

    monkeypatch.setattr(performer_module, "_perform", lost)
    monkeypatch.setattr(performer_module.log, "configure", lambda: None)
    assert performer_module.main(["0", "cuda:0", "0.0", "configuration"]) == 1
    assert "performer 0 ends, and a fresh one is to go on: The device cuda:0" in caplog.text


def test_a_model_without_memory_fails_its_step(world):
    uid = ready(world)

    def heavy(_tool_id):
        raise MemoryError

    world.run(world.performer(build=heavy), turns=1)
    assert "out of memory" in world.step(uid).reason


def test_a_tool_that_always_fails_is_quarantined(world):
    uid = ready(world)

    def heavy(tool_id):
        raise MemoryError

    performer = world.performer(build=heavy, max_attempts=2)
    world.run(performer)
    step = world.step(uid)
    assert (step.state, step.attempt) == (StepState.QUARANTINED, 2)


def test_a_tool_that_cannot_be_loaded_is_waited_for_and_then_quarantined(world):
    uid = ready(world)
    there = []

    def away(tool_id):
        if not there:
            raise ToolError("the weights are gone")
        return world.build(tool_id)

    performer = world.performer(build=away, max_attempts=2)
    world.run(performer, turns=5)
    step = world.step(uid)
    assert (step.state, step.attempt) == (StepState.SCHEDULED, 5)
    assert "the weights are gone" in step.reason
    there.append("again")
    world.run(performer, turns=1)
    assert world.step(uid).state is StepState.COMPLETED


def test_a_tool_that_stays_away_is_quarantined(world):
    uid = ready(world)

    def gone(tool_id):
        raise ToolError("the weights are gone")

    world.run(world.performer(build=gone, max_attempts=2), turns=20)
    step = world.step(uid)
    assert (step.state, step.attempt) == (StepState.QUARANTINED, 10)


class Interrupting:
    """A builder of tools that does something while the step is performed."""

    def __init__(self, world: World, act) -> None:
        self.world, self.act = world, act

    def __call__(self, tool_id):
        self.act()
        return self.world.build(tool_id)


def test_what_was_superseded_while_it_ran_makes_no_result_and_no_untruth(world):
    series = a_series(6)
    uid = world.receive(series[:5])
    world.assemble()
    late = Interrupting(world, lambda: world.receive(series[5:]))
    world.performer(build=late).run_due(world.clock.now() + 1000)
    step = world.step(uid, 0)
    assert step.state is StepState.CANCELED
    assert "superseded" in step.reason
    assert world.views.results(uid) == []
    assert "failed" not in world.told(uid)


def test_a_failure_does_not_end_the_claim_of_another(world):
    uid = ready(world)

    def stolen_and_broken():
        number = world.step(uid).step_id
        world.journal.commit(e.StepFailed(at=1.0, step_id=number, reason="lost", retry_at=1.0))
        world.catalog.claim_step(
            now=world.clock.now() + 1000, lease_s=60, transaction_uid="2.25.9", performer="other"
        )
        raise ToolError("broken")

    world.performer(build=Interrupting(world, stolen_and_broken)).run_due(world.clock.now() + 1000)
    step = world.step(uid)
    assert (step.state, step.transaction_uid) == (StepState.IN_PROGRESS, "2.25.9")


def test_the_heart_beats_on_after_an_error_of_the_catalog(world, monkeypatch):
    ready(world)
    monkeypatch.setattr(perform_module, "LEASE_S", 0.06)
    beats = threading.Semaphore(0)
    real = world.catalog.extend_lease
    failed: list[int] = []

    def locked_once(step_id, transaction_uid, until):
        if not failed:
            failed.append(1)
            raise CatalogError("the lease could not be extended: database is locked")
        real(step_id, transaction_uid, until)
        beats.release()

    monkeypatch.setattr(world.catalog, "extend_lease", locked_once)
    slow = Interrupting(world, lambda: beats.acquire(timeout=20))
    performer = world.performer(build=slow)
    performer.run_due(world.clock.now() + 1000)
    assert failed
    (series,) = world.views.all_series(5)
    assert world.step(series.series_uid).state is StepState.COMPLETED


def test_a_lease_is_extended_by_who_claimed_the_step_alone(world):
    uid = ready(world)
    now = world.clock.now() + 1000
    world.catalog.claim_step(now=now, lease_s=60, transaction_uid="2.25.1", performer="p")
    number = world.step(uid).step_id
    world.catalog.extend_lease(number, "2.25.2", now + 999)
    assert world.step(uid).lease_until == now + 60
    world.catalog.extend_lease(number, "2.25.1", now + 999)
    assert world.step(uid).lease_until == now + 999


# --- what ends with a process

DEADLY = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_perform as t
from dicom_node.node.bell import Bell

class Deadly(t.World):
    def __init__(self, folder):
        self.folder = folder
        self.catalog = t.Catalog(folder / "catalog.db")
        self.spool, self.clock = t.Spool(folder / "spool"), t.SystemClock()
        self.journal = t.Journal(self.catalog, Bell(folder))
        self.association = 0

    def build(self, tool_id):
        tool = super().build(tool_id)
        class Tool:
            def __getattr__(self, name):
                return getattr(tool, name)
            def process(self, volume, context):
                if len(volume.voxels_zyx) == 5:
                    os.kill(os.getpid(), 9)
                return tool.process(volume, context)
        return Tool()

world = Deadly(Path(sys.argv[-1]))
performer = world.performer()
for _ in range(4):
    performer.run_due(world.clock.now() + 1000)
sys.stdin.read()
"""


def test_an_input_that_kills_its_performer_is_quarantined_and_others_are_performed(world, tmp_path):
    deadly = ready(world, slices=5, seed=1)
    script = tmp_path / "deadly.py"
    script.write_text(DEADLY.format(tests=str(Path(__file__).parent)))
    supervisor = Supervisor(
        command=(str(script),),
        arguments=(str(tmp_path),),
        count=1,
        data_dir=tmp_path,
        step_limit_s=100.0,
        max_attempts=2,
        journal=world.journal,
        clock=world.clock,
    )
    harmless = ""
    try:
        at, ticks = world.clock.now(), threading.Event()
        for _ in range(1200):
            if not any(child.process for child in supervisor.children):
                at += 10  # one that ended is started again at once; no lease ends while one lives
            supervisor.run_due(at)
            if world.step(deadly).state is StepState.QUARANTINED and not harmless:
                harmless = ready(world, slices=6, seed=2)
            if harmless and world.step(harmless).state is StepState.COMPLETED:
                break
            ticks.wait(0.1)
    finally:
        supervisor.end()
    step = world.step(deadly)
    assert (step.state, step.attempt) == (StepState.QUARANTINED, 2)
    assert step.reason == "its process ended: signal SIGKILL"
    assert world.step(harmless).state is StepState.COMPLETED
    assert "its process ended: signal SIGKILL; it is tried again" in world.told(deadly)


def test_a_performer_that_is_ended_in_order_leaves_no_attempt_behind(world, tmp_path):
    uid = ready(world)
    script = tmp_path / "idle.py"
    script.write_text("import sys; sys.stdin.read()")
    supervisor = Supervisor(
        command=(str(script),),
        arguments=(),
        count=1,
        data_dir=tmp_path,
        step_limit_s=100.0,
        max_attempts=2,
        journal=world.journal,
        clock=world.clock,
    )
    supervisor.run_due(world.clock.now())
    world.catalog.claim_step(
        now=world.clock.now() + 1000, lease_s=60, transaction_uid="2.25.1", performer="performer 0"
    )
    supervisor.end()
    step = world.step(uid)
    assert (step.state, step.attempt, step.transaction_uid) == (StepState.SCHEDULED, 0, None)


def test_what_took_the_whole_node_down_too_often_is_not_tried_again(world):
    uid = ready(world)
    for attempt in (1, 2):
        world.catalog.claim_step(
            now=world.clock.now() + 1000, lease_s=60, transaction_uid="2.25.1", performer="p"
        )
        quarantine_fatal(world.journal, 2, world.clock.now())
        world.journal.commit(e.NodeStarted(at=world.clock.now(), version="1"))
        expected = StepState.SCHEDULED if attempt == 1 else StepState.QUARANTINED
        assert world.step(uid).state is expected
    assert "the node itself ended" in world.step(uid).reason
    assert "dicom-node retry" in world.told(uid)


def supervisor(world: World, *command: str, **more) -> Supervisor:
    values = {"step_limit_s": 1800.0, "max_attempts": 2, "count": 1, "arguments": (), **more}
    return Supervisor(
        command=command, data_dir=world.folder, journal=world.journal, clock=world.clock, **values
    )


IDLE = ("-c", "import sys; sys.stdin.read()")


def ended(supervisor: Supervisor) -> None:
    """Until the performer that was ended is seen to have ended."""
    process = supervisor.children[0].process
    assert process is not None
    process.wait(30)


def test_a_frozen_performer_is_ended_when_its_lease_is_lost(world):
    uid = ready(world)
    watch = supervisor(world, *IDLE)
    now = world.clock.now() + 1000
    watch.run_due(now)
    pid = watch.children[0].process.pid
    os.kill(pid, signal.SIGSTOP)
    world.catalog.claim_step(
        now=now + 1, lease_s=60, transaction_uid="2.25.1", performer="performer 0"
    )
    try:
        watch.run_due(now + 50)
        assert world.step(uid).state is StepState.IN_PROGRESS
        assert watch.children[0].process.poll() is None
        watch.run_due(now + 70)
        assert world.step(uid).state is StepState.SCHEDULED
        assert world.step(uid).reason == "its performer was not heard of"
        ended(watch)
        watch.run_due(now + 80)
        assert watch.children[0].process.pid != pid
    finally:
        watch.end()


def test_a_performer_that_is_frozen_while_idle_is_ended_and_is_not_said_to_live(world):
    watch = supervisor(world, *IDLE)
    now = world.clock.now()
    watch.run_due(now)
    process = watch.children[0].process
    with contextlib.closing(world.bell.listen(bells.PERFORM)):
        try:
            watch.run_due(now + 10)
            assert process.poll() is None
            assert pulse.living(world.folder) == 1
            watch.children[0].pulse.path.unlink()
            watch.run_due(now + 10)
            assert process.poll() is None, "a disk that is away is no sign of anything"
            watch.children[0].pulse.beat()
            earlier = uptime_s() - pulse.SILENT_S - 1
            os.utime(watch.children[0].pulse.path, (earlier, earlier))
            assert pulse.living(world.folder) == 0
            watch.run_due(now + 11)
            assert process.wait(30) == -signal.SIGKILL
            watch.run_due(now + 12)
            assert watch.children[0].process.pid != process.pid
            assert pulse.living(world.folder) == 1
        finally:
            watch.end()


def test_performers_of_devices_that_are_gone_are_not_waited_for(world):
    for number in range(4):  # of an earlier start
        pulse.Pulse(data_dir=world.folder, number=number).beat()
    watch = supervisor(world, *IDLE, count=2)
    try:
        watch.run_due(world.clock.now())
        assert pulse.started(world.folder) == [0, 1]
    finally:
        watch.end()


def test_a_sign_of_life_from_before_the_machine_was_started_is_none(tmp_path):
    beat = pulse.Pulse(data_dir=tmp_path)
    assert beat.silence_s() == float("inf")
    beat.beat()
    assert beat.silence_s() < pulse.SILENT_S
    later = uptime_s() + 10_000
    os.utime(beat.path, (later, later))
    assert beat.silence_s() == float("inf")


def test_after_one_that_ended_before_it_claimed_anything_the_next_loads_nothing_in_advance(world):
    told = world.folder / "told"
    script = world.folder / "starting.py"
    script.write_text(
        "import sys\n"
        f"print(sys.argv[1:], file=open({str(told)!r}, 'a'))\n"
        "sys.exit(1) if 'cold' not in sys.argv else sys.stdin.read()\n"
    )
    watch = supervisor(world, str(script), arguments=("clock", "file"))
    now = world.clock.now()
    try:
        watch.run_due(now)
        ended(watch)
        watch.run_due(now + 10)
        watch.children[0].process.stdin.close()
        ended(watch)
    finally:
        watch.end()
    assert told.read_text() == "['0', 'clock', 'file']\n['0', 'cold', 'clock', 'file']\n"


def test_after_one_that_has_claimed_a_step_the_next_loads_in_advance_again(world):
    ready(world)
    watch = supervisor(world, "-c", "pass")
    now = world.clock.now() + 1000
    try:
        watch.run_due(now)
        world.catalog.claim_step(
            now=now + 1, lease_s=60, transaction_uid="2.25.1", performer="performer 0"
        )
        ended(watch)
        watch.run_due(now + 2)
        assert not watch.children[0].cold
    finally:
        watch.end()


@pytest.mark.parametrize(
    "error", [ImportError("no onnx"), OSError("gone"), MemoryError(), LookupError("torch")]
)
def test_a_model_that_cannot_be_loaded_in_advance_keeps_no_other_from_it(world, error):
    def bad(tool_id):
        if tool_id == "bad":
            raise error
        return world.build(tool_id)

    beats = []
    performer = world.performer(build=bad, alive=lambda: beats.append(1))
    performer.warm({"bad", "lung-threshold"})
    assert performer.tools.loaded == {"lung-threshold"}
    uid = ready(world)
    world.run(performer, turns=1)
    assert world.step(uid).state is StepState.COMPLETED
    assert beats


@pytest.mark.parametrize("error", [ImportError("no onnx"), OSError("stale file handle")])
def test_a_model_that_cannot_be_loaded_for_a_step_is_waited_for(world, error):
    uid = ready(world)

    def bad(_tool_id):
        raise error

    world.run(world.performer(build=bad, max_attempts=1), turns=1)
    step = world.step(uid)
    assert step.state is StepState.SCHEDULED
    assert str(error) in step.reason


def test_a_configuration_that_was_spoiled_meanwhile_does_not_matter_to_a_performer(tmp_path):
    config = read('[node]\ndata_dir = "var"\n', base=tmp_path, source="as started")
    config.data_dir.mkdir()
    path = hand_over(config)
    assert path.stat().st_mode & 0o077 == 0
    assert taken_over(path) == config


def test_a_performer_says_in_one_sentence_why_it_cannot_start(tmp_path):
    spoiled = tmp_path / "performer.json"
    spoiled.write_text('{"text": "[nonsense]", "base": "/", "source": "ae_config.toml"}')
    ended = subprocess.run(
        [sys.executable, "-m", "dicom_node.node.performer", "0", "cpu", "0.0", str(spoiled)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
        env=dict(os.environ),
    )
    assert ended.returncode == 1
    assert "performer 0 cannot start: ae_config.toml:" in ended.stderr
    assert "Traceback" not in ended.stderr


# --- results that replace others


def two_revisions(world: World, *, told=(), before_late=None, **more):
    """A result of five slices, then one of six: what they are, and the performer."""
    series = a_series(6)
    uid = world.receive(series[:5])
    world.assemble(**more)
    performer = world.performer(told=told)
    world.run(performer)
    first = world.views.results(uid)
    if before_late is not None:
        before_late(first)
    world.receive(series[5:])
    world.assemble(**more)
    world.run(performer)
    known = {r.sop_instance_uid for r in first}
    second = [
        r
        for r in world.views.results(uid)
        if r.sop_instance_uid not in known and r.kind != "rejection"
    ]
    return uid, first, second, performer


def test_a_result_from_more_images_names_the_one_that_it_replaces(world):
    _uid, (first,), (second,), _ = two_revisions(world)
    made = world.object(second)
    (related,) = made.RelatedSeriesSequence
    assert related.SeriesInstanceUID == first.series_uid
    assert len(made.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 6
    assert "RelatedSeriesSequence" not in world.object(first)


def test_what_was_not_sent_yet_is_withdrawn_with_the_reason(world):
    uid, (first,), (second,), _ = two_revisions(world)
    assert world.delivery(first).state is DeliveryState.WITHDRAWN
    assert "superseded" in world.delivery(first).reason
    assert world.delivery(second).state is DeliveryState.QUEUED
    assert "superseded" in world.told(uid)


@pytest.mark.parametrize(
    "state", [DeliveryState.DEFERRED, DeliveryState.PARKED, DeliveryState.DEAD]
)
def test_what_was_tried_and_did_not_arrive_is_withdrawn_too(world, state):
    _uid, (first,), _, _ = two_revisions(world, before_late=lambda made: world.sent(made[0], state))
    assert world.delivery(first).state is DeliveryState.WITHDRAWN


def test_what_is_being_sent_is_left_alone_and_settled_when_it_ends(world):
    def claim(made):
        number = world.delivery(made[0]).delivery_id
        world.journal.commit(e.DeliveryClaimed(at=world.now, delivery_id=number))

    _uid, (first,), (second,), performer = two_revisions(world, before_late=claim)
    assert world.delivery(first).state is DeliveryState.SENDING
    world.ended(world.delivery(first).delivery_id, DeliveryState.DEFERRED)
    assert [r.sop_instance_uid for _, r in world.catalog.owing.due(world.now + 1e6, 100, ())] == [
        second.sop_instance_uid
    ], "the older one is not sent again, whoever is first"
    world.run(performer, turns=1)
    assert world.delivery(first).state is DeliveryState.WITHDRAWN


def test_a_peer_that_honours_rejection_notes_is_told_after_it_has_the_newer_one(world):
    uid, (first,), (second,), performer = two_revisions(
        world, told={"pacs"}, before_late=lambda made: world.sent(made[0])
    )
    assert world.results(uid, "rejection") == [], "the newer one is on its way"
    world.sent(second)
    world.run(performer, turns=2)
    (note,) = world.results(uid, "rejection")
    assert world.delivery(note).state is DeliveryState.QUEUED
    document = world.object(note)
    assert document.SOPClassUID == KOS
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert [r.ReferencedSOPInstanceUID for r in series.ReferencedSOPSequence] == [
        first.sop_instance_uid
    ]
    assert second.series_uid in document.ContentSequence[0].TextValue
    assert document.StudyInstanceUID == world.object(first).StudyInstanceUID
    world.run(performer, turns=2)
    assert len(world.results(uid, "rejection")) == 1, "once"
    assert "rejection" in world.told(uid)


def test_a_note_that_could_not_be_made_is_made_later(world, monkeypatch):
    uid, (first,), (second,), performer = two_revisions(
        world, told={"pacs"}, before_late=lambda made: world.sent(made[0])
    )
    world.sent(second)

    def full(_data):
        raise SpoolError("the disk is full", full=True)

    with monkeypatch.context() as patch:
        patch.setattr(world.spool, "put", full)
        performer.superseder.run_due(world.now)
    performer.superseder.run_due(world.now + 1)
    assert world.results(uid, "rejection") == [], "not at once"
    performer.superseder.run_due(world.now + 100)
    assert len(world.results(uid, "rejection")) == 1
    assert world.delivery(first).state is DeliveryState.SENT


def test_without_any_file_of_its_study_a_note_is_given_up(world):
    uid, _, (second,), performer = two_revisions(
        world, told={"pacs"}, before_late=lambda made: world.sent(made[0])
    )
    world.sent(second)
    for path in (world.folder / "spool").rglob("*"):
        if path.is_file():
            path.unlink()
    performer.superseder.run_due(world.now)
    assert len(performer.superseder.given_up) == 1
    performer.superseder.run_due(world.now + 100)
    assert world.results(uid, "rejection") == []


def test_a_peer_that_honours_none_keeps_both(world):
    uid, (first,), (second,), performer = two_revisions(
        world, before_late=lambda made: world.sent(made[0])
    )
    world.sent(second)
    world.run(performer)
    assert world.results(uid, "rejection") == []
    assert world.delivery(first).state is DeliveryState.SENT
    assert "pacs has it; pacs has the earlier one beside it" in world.told(uid)


def test_a_result_that_was_superseded_on_its_way_to_be_the_newer_one_tells_in_the_end(world):
    """The first is with the PACS, the second never got there, the third did."""
    series = a_series(7)
    uid = world.receive(series[:5])
    world.assemble()
    performer = world.performer(told={"pacs"})
    world.run(performer)
    (first,) = world.results(uid, "seg")
    world.sent(first)
    for slices in (series[5:6], series[6:]):
        world.receive(slices)
        world.assemble()
        world.run(performer)
    _, second, third = sorted(world.results(uid, "seg"), key=lambda r: r.step_id)
    assert world.delivery(second).state is DeliveryState.WITHDRAWN
    world.sent(third)
    world.run(performer)
    (note,) = world.results(uid, "rejection")
    evidence = world.object(note).CurrentRequestedProcedureEvidenceSequence[0]
    rejected = evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert [r.ReferencedSOPInstanceUID for r in rejected] == [first.sop_instance_uid]


def test_pictures_are_rejected_by_one_note_when_all_of_the_newer_ones_have_arrived(world):
    uid, first, second, performer = two_revisions(
        world,
        told={"pacs"},
        results=("sc",),
        before_late=lambda made: [world.sent(r) for r in made],
    )
    assert (len(first), len(second)) == (5, 6)
    for result in second[:-1]:
        world.sent(result)
    world.run(performer)
    assert world.results(uid, "rejection") == []
    world.sent(second[-1])
    world.run(performer)
    (note,) = world.results(uid, "rejection")
    evidence = world.object(note).CurrentRequestedProcedureEvidenceSequence[0]
    assert len(evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence) == 5


def test_the_older_result_stays_valid_where_the_newer_step_is_canceled(world):
    series = a_series(6)
    uid = world.receive(series[:5])
    world.assemble()
    performer = world.performer(told={"pacs"})
    world.run(performer)
    (first,) = world.results(uid, "seg")
    world.receive(series[5:])
    world.assemble()
    step = world.step(uid)
    assert step.replaces == (first.sop_instance_uid,)
    world.journal.commit(e.StepCanceled(at=world.now, step_id=step.step_id, reason="unsuitable"))
    world.run(performer)
    assert world.delivery(first).state is DeliveryState.QUEUED
    assert world.claimable() == ["seg"]
    assert "stays valid" in world.told(uid)


def test_the_same_steps_give_the_same_objects_in_another_node(tmp_path):
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        world = World(tmp_path / name)
        uid, _, (second,), performer = two_revisions(
            world, told={"pacs"}, before_late=lambda made, world=world: world.sent(made[0])
        )
        world.sent(second)
        world.run(performer)
        (note,) = world.results(uid, "rejection")
        made.append((second.sop_instance_uid, second.sha256, note.sop_instance_uid, note.sha256))
        world.close()
    assert made[0] == made[1]


def rerun(world: World, uid: str, performer: Performer, **more) -> None:
    """What `retry --judge` does, and what comes of it."""
    world.journal.commit(e.SeriesReopened(at=world.now, series_uid=uid, reason="asked for"))
    world.assemble(**more)
    world.run(performer, turns=2)


def test_the_same_again_replaces_nothing(world):
    uid, (first,), (second,), performer = two_revisions(world)
    rerun(world, uid, performer)
    assert {r.sop_instance_uid for r in world.results(uid, "seg")} == {
        first.sop_instance_uid,
        second.sop_instance_uid,
    }
    step = world.step(uid)
    assert (step.state, step.revision) == (StepState.COMPLETED, 3)
    assert step.replaces == (first.sop_instance_uid,), "as the first time"
    assert world.delivery(second).state is DeliveryState.QUEUED
    assert world.claimable() == ["seg"]


@pytest.mark.parametrize("results", [("seg",), ("seg", "sc")])
def test_made_with_other_settings_it_replaces_what_was_made_before(world, results):
    uid = ready(world, slices=3, results=results)
    world.run(world.performer(), turns=1)
    first = world.views.results(uid)
    for result in first:
        world.sent(result)
    other = world.performer(told={"pacs"}, settings=SegSettings(manufacturer="Another"))
    rerun(world, uid, other, results=results)
    second = [r for r in world.views.results(uid) if r not in first]
    assert len(second) == len(first)
    assert set(world.step(uid).replaces) == {r.sop_instance_uid for r in first}
    (related,) = world.object(second[0]).RelatedSeriesSequence
    assert related.SeriesInstanceUID in {r.series_uid for r in first}
    for result in second:
        world.sent(result)
    world.run(other, turns=1)
    assert len(world.results(uid, "rejection")) == len(results)
    known = world.views.results(uid)
    rerun(world, uid, other, results=results)
    assert world.views.results(uid) == known, "the same again"
    rerun(world, uid, world.performer(), results=results)
    third = [r for r in world.views.results(uid) if r not in known]
    assert len(third) == len(first), "as it was at first, but in place of the second"
    assert set(world.step(uid).replaces) == {r.sop_instance_uid for r in second}


# --- pictures for a peer that takes no Segmentation


def refused(world: World, result, peer: Peer) -> list:
    """What the deliverer commits when the peer refuses the kind of a result."""
    delivery = world.delivery(result)
    world.journal.commit(e.DeliveryClaimed(at=world.now, delivery_id=delivery.delivery_id))
    parked = e.DeliveryEnded(
        at=world.now,
        delivery_id=delivery.delivery_id,
        state=DeliveryState.PARKED,
        status=None,
        reason="the peer does not take this SOP Class",
        due_at=world.now,
    )
    follows = fallback.instead(world.catalog, world.clock)(delivery, result, peer)
    world.journal.commit(parked, *follows)
    return follows


OLD = Peer(name="pacs", ae_title="pacs", host="h", port=1, fallback="sc")


def test_a_peer_that_takes_no_segmentation_gets_pictures(world):
    uid = ready(world)
    performer = world.performer()
    world.run(performer)
    (seg,) = world.results(uid, "seg")
    refused(world, seg, OLD)
    assert world.delivery(seg).state is DeliveryState.WITHDRAWN
    assert "Secondary Captures go instead" in world.delivery(seg).reason
    world.run(performer)
    pictures = world.results(uid, "sc")
    assert len(pictures) == 5
    assert {world.delivery(p).destination for p in pictures} == {"pacs"}
    assert set(world.claimable()) == {"sc"}
    assert refused(world, pictures[0], OLD) == [], "there is nothing below pictures"


def test_a_peer_without_a_fallback_gets_none(world):
    uid = ready(world)
    world.run(world.performer())
    (seg,) = world.results(uid, "seg")
    assert refused(world, seg, Peer(name="pacs", ae_title="pacs", host="h", port=1)) == []
    assert world.delivery(seg).state is DeliveryState.PARKED


def test_a_peer_that_is_owed_pictures_anyway_gets_them_once(world):
    uid = ready(world, results=("seg", "sc"))
    world.run(world.performer())
    (seg,) = world.results(uid, "seg")
    (only,) = refused(world, seg, OLD)
    assert isinstance(only, e.DeliveryWithdrawn)
    assert len(world.views.steps(uid)) == 1


def test_where_more_images_have_arrived_the_refused_result_waits_for_theirs(world):
    series = a_series(6)
    uid = world.receive(series[:5])
    world.assemble()
    performer = world.performer()
    world.run(performer)
    (seg,) = world.results(uid, "seg")
    world.receive(series[5:])
    assert refused(world, seg, OLD) == []
    assert world.delivery(seg).state is DeliveryState.PARKED
    world.assemble()
    again(world, seg)
    assert refused(world, seg, OLD) == [], "the newer step waits for its turn"
    world.run(performer)
    assert world.delivery(seg).state is DeliveryState.WITHDRAWN
    assert "a newer result was made" in world.delivery(seg).reason


def test_where_the_newer_images_give_no_result_there_are_pictures_of_the_fewer(world):
    series = a_series(6)
    uid = world.receive(series[:5])
    world.assemble()
    performer = world.performer()
    world.run(performer)
    (seg,) = world.results(uid, "seg")
    world.receive(series[5:])
    world.assemble()
    number = world.step(uid).step_id
    world.journal.commit(e.StepCanceled(at=world.now, step_id=number, reason="unsuitable"))
    refused(world, seg, OLD)
    world.run(performer)
    assert len(world.results(uid, "sc")) == 5
    assert set(world.claimable()) == {"sc"}


def again(world: World, result) -> None:
    """An operator asks for it."""
    number = world.delivery(result).delivery_id
    world.journal.commit(e.DeliveryReset(at=world.now, delivery_id=number))


def test_a_peer_that_was_mended_gets_the_segmentation_when_an_operator_asks(world):
    uid = ready(world)
    performer = world.performer()
    world.run(performer)
    (seg,) = world.results(uid, "seg")
    refused(world, seg, OLD)
    world.run(performer)
    again(world, seg)
    assert world.delivery(seg).state is DeliveryState.QUEUED
    world.sent(seg)
    assert world.delivery(seg).state is DeliveryState.SENT


def test_a_peer_that_was_mended_gets_the_segmentation_when_it_is_made_again(world):
    uid = ready(world)
    performer = world.performer()
    world.run(performer)
    (seg,) = world.results(uid, "seg")
    refused(world, seg, OLD)
    world.journal.commit(e.SeriesReopened(at=world.now, series_uid=uid, reason="asked for"))
    world.assemble()
    world.run(performer)
    assert world.results(uid, "seg") == [seg]
    assert world.delivery(seg).state is DeliveryState.QUEUED
    assert len(refused(world, seg, OLD)) == 2, "refused again, there are pictures again"


def test_what_a_newer_result_replaced_is_never_sent_again(world):
    _uid, (first,), (second,), performer = two_revisions(world)
    again(world, first)
    queued = owed(first.sop_instance_uid, "pacs", world.now)
    world.journal.commit(e.DeliveryQueued(at=world.now, delivery=queued))
    assert world.delivery(first).state is DeliveryState.WITHDRAWN
    world.run(performer)
    assert world.claimable() == ["seg"]
    assert world.delivery(second).state is DeliveryState.QUEUED


def test_pictures_of_more_images_replace_those_of_fewer(world):
    series = a_series(6)
    uid = world.receive(series[:5])
    world.assemble()
    performer = world.performer()
    world.run(performer)
    (seg,) = world.results(uid, "seg")
    refused(world, seg, OLD)
    world.run(performer)
    early = {r.sop_instance_uid for r in world.results(uid, "sc")}
    world.receive(series[5:])
    world.assemble()
    world.run(performer)
    newer = next(r for r in world.results(uid, "seg") if r != seg)
    refused(world, newer, OLD)
    world.run(performer)
    late = [r for r in world.results(uid, "sc") if r.sop_instance_uid not in early]
    assert len(late) == 6
    step = world.step(uid)
    assert set(step.replaces) == early
    assert all(
        world.delivery(r).state is DeliveryState.WITHDRAWN
        for r in world.results(uid, "sc")
        if r.sop_instance_uid in early
    )
    assert world.views.series(uid).state is SeriesState.COMPLETE
