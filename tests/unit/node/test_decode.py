"""Decoding in processes of its own: the same pixels, and whatever happens there is a sentence."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dicom_node.domain.errors import DecoderEnded, PixelsUndecodable, ToolUnavailable
from dicom_node.iod.code_stream import CodeStream, decoded, joined
from dicom_node.iod.image import Reading, read_volume
from dicom_node.node.decode import Bounds, Decoders
from dicom_node.testing.series import Pixels, a_series, write_files

RLE, J2K, JPEG_LS = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80"
SAYS_READY = "import os, signal, socket, sys, time; c = socket.socket(fileno=int(sys.argv[1])); "
SAYS_READY += "c.sendall(b'{}\\n'); asked = c.recv(1 << 20); "


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with Decoders() as made:
        yield made


def a_stream(syntax: str = J2K, size: int = 32) -> CodeStream:
    dataset = a_series(1, size=size, pixels=Pixels(transfer_syntax=syntax))[0]
    return CodeStream(
        name="the image",
        transfer_syntax=syntax,
        frame=joined(dataset.PixelData),
        rows=size,
        columns=size,
        bits_allocated=16,
        bits_stored=16,
        pixel_representation=1,
    )


def faked(code: str) -> tuple[str, ...]:
    """The command of a decoder that does this with the first request."""
    return ("-c", SAYS_READY + code)


@pytest.mark.parametrize("syntax", [RLE, J2K, JPEG_LS])
def test_the_pixels_are_those_that_are_decoded_here(decoders: Decoders, syntax: str) -> None:
    for size in (40, 1100, 32):  # more than the memory that is shared at first, and less again
        stream = a_stream(syntax, size)
        ours, theirs = decoded(stream).array(size, size), decoders(stream).array(size, size)
        np.testing.assert_array_equal(theirs, ours)
        assert theirs.dtype == ours.dtype
        assert theirs.flags.writeable


def test_a_series_is_read_by_several_threads_and_those_who_ask_at_once_have_a_process_each(
    decoders: Decoders, tmp_path: Path
) -> None:
    paths = write_files(tmp_path, a_series(40, pixels=Pixels(transfer_syntax=JPEG_LS)))
    expected = read_volume(paths).voxels_zyx
    found = read_volume(paths, reading=Reading(threads=2, decode=decoders)).voxels_zyx
    np.testing.assert_array_equal(found, expected)
    assert 1 <= len(decoders._idle) <= 2


def test_a_damaged_code_stream_is_a_sentence_and_the_process_is_asked_again(
    decoders: Decoders, tmp_path: Path
) -> None:
    series = a_series(3, pixels=Pixels(transfer_syntax=J2K))
    content = bytearray(series[1].PixelData)
    content[-80:] = b"\x55" * 80
    series[1].PixelData = bytes(content)
    paths = write_files(tmp_path, series)
    decoders(a_stream())
    known = {process._process.pid for process in decoders._idle}
    with pytest.raises(PixelsUndecodable, match="its JPEG 2000 Lossless code stream is damaged"):
        read_volume(paths, reading=Reading(threads=1, decode=decoders))
    decoders(a_stream())
    assert {process._process.pid for process in decoders._idle} == known


def test_what_does_not_fit_its_header_never_gets_there(tmp_path: Path) -> None:
    def never(_stream: CodeStream) -> None:
        pytest.fail("a decoder was asked")

    series = a_series(3, pixels=Pixels(transfer_syntax=J2K))
    for dataset in series:
        dataset.Rows = 31
    with pytest.raises(PixelsUndecodable, match="has 32 rows and 32 columns, not 31 and 32 as its"):
        read_volume(write_files(tmp_path, series), reading=Reading(threads=1, decode=never))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended its decoder: signal SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGXCPU)", "took longer than 30 s to decode"),
        ("os._exit(3)", "ended its decoder: exit code 3"),
    ],
)
def test_an_image_that_ends_its_decoder_is_told(code: str, words: str) -> None:
    with Decoders(command=faked(code)) as made:
        with pytest.raises(DecoderEnded, match=words) as seen:
            made(a_stream())
        assert str(seen.value).startswith("the image: its JPEG 2000 Lossless code stream ")
        assert not made._idle


def noted(folder: Path, code: str) -> tuple[str, ...]:
    """The same, of one that leaves its process id there."""
    return faked(f"open(os.path.join({str(folder)!r}, str(os.getpid())), 'w').close(); {code}")


def pids(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir()]


@pytest.mark.parametrize("code", ["time.sleep(600)", "os.kill(os.getpid(), signal.SIGSTOP)"])
def test_a_decoder_that_only_waits_is_ended_and_another_asked_and_no_image_blamed(
    tmp_path: Path, code: str
) -> None:
    made = Decoders(Bounds(wall_s=1.0), command=noted(tmp_path, code))
    with made, pytest.raises(ToolUnavailable, match="the image got next to no time to compute in"):
        made(a_stream())
    assert len(pids(tmp_path)) == 2
    assert not any(map(runs, pids(tmp_path)))


def test_a_decoder_that_computes_and_does_not_end_is_ended_with_its_image(tmp_path: Path) -> None:
    much = Bounds(wall_s=1.0, cpu_s=0)  # whatever it has computed is too much
    made = Decoders(much, command=noted(tmp_path, "time.sleep(600)"))
    with made, pytest.raises(DecoderEnded, match="took longer than 1 s to decode"):
        made(a_stream())
    (pid,) = pids(tmp_path)
    assert not runs(pid)


SAYS_ZEROS = 'c.sendall(b\'{"dtype": "u2", "again": true}\\n\'); '


def test_an_image_whose_decoder_was_frozen_is_decoded_by_another(tmp_path: Path) -> None:
    freeze = (
        f"os.kill(os.getpid(), signal.SIGSTOP) if len(os.listdir({str(tmp_path)!r})) == 1 else 0"
    )
    with Decoders(Bounds(wall_s=3.0), command=noted(tmp_path, f"{freeze}; {SAYS_ZEROS}")) as made:
        assert made(a_stream()).dtype == "u2"
    assert len(pids(tmp_path)) == 2


def test_the_start_of_a_decoder_is_no_part_of_its_time(tmp_path: Path) -> None:
    command = ("-c", f"import time; time.sleep(2.5); {SAYS_READY}{SAYS_ZEROS}")
    with Decoders(Bounds(wall_s=2.0), command=command) as made:
        assert made(a_stream()).dtype == "u2"


def test_who_was_killed_from_outside_is_no_fault_of_the_image() -> None:
    made = Decoders(command=faked("os.kill(os.getpid(), 9)"))
    with made, pytest.raises(ToolUnavailable, match="ended from outside, perhaps for want of memo"):
        made(a_stream())


def test_a_decoder_that_was_killed_between_two_images_is_replaced(decoders: Decoders) -> None:
    stream = a_stream()
    decoders(stream)
    for process in decoders._idle:
        process._process.kill()
        process._process.wait()
    np.testing.assert_array_equal(decoders(stream).array(32, 32), decoded(stream).array(32, 32))


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_the_signals_of_a_stop_are_not_for_it(decoders: Decoders, signal_number: int) -> None:
    decoders(a_stream())
    for process in decoders._idle:
        process._process.send_signal(signal_number)
    known = {process._process.pid for process in decoders._idle}
    decoders(a_stream())
    assert {process._process.pid for process in decoders._idle} == known


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (rb'{"dtype": "u2"', "ended its decoder: exit code 0"),  # no end: it ends instead
        (rb"[1]\n", "gave no answer"),
        (rb'{"dtype": ["u2"], "again": true}\n', "gave no answer"),
        (rb'{"dtype": "f8"}\n', "gave no answer"),
        (rb'{"problem": "it is full"}\n', "it is full"),
        (
            rb'{"problem": "it is \ud800\u001b"}\n',
            r"it is \\ud800\\x1b",
        ),  # can be stored
        (rb"nonsense\n", "ended its decoder: what it says makes no sense"),
        (rb"{}\n{}\n", "ended its decoder: what it says makes no sense"),
        (rb"\xff\n", "ended its decoder: what it says makes no sense"),
        (b"[" * 60_000 + rb"\n", "ended its decoder: what it says makes no sense"),
        (b"1" * 70_000, "ended its decoder: it says too much"),
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error_too(says: bytes, words: str) -> None:
    code = f"c.sendall({says!r}.replace(b'\\\\n', b'\\n')); c.close(); sys.exit(0)"
    with Decoders(command=faked(code)) as made, pytest.raises(PixelsUndecodable, match=words):
        made(a_stream())


@pytest.mark.parametrize(
    "command", [("-c", "raise SystemExit(4)"), ("-c", "import os; os.close(0)")]
)
def test_a_decoder_that_does_not_start_is_waited_for_as_a_model_is(
    command: tuple[str, ...],
) -> None:
    made = Decoders(command=command)
    with made, pytest.raises(ToolUnavailable, match="a decoder does not start: exit code"):
        made(a_stream())


def test_its_memory_is_limited_and_the_next_image_has_a_fresh_one() -> None:
    with Decoders(Bounds(memory_bytes=8 << 20)) as made:
        with pytest.raises(PixelsUndecodable, match=r"its JPEG 2000 Lossless code stream "):
            made(a_stream(size=1600))
        np.testing.assert_array_equal(
            made(a_stream()).array(32, 32), decoded(a_stream()).array(32, 32)
        )


def test_it_has_limits_and_leaves_no_core(decoders: Decoders) -> None:
    decoders(a_stream())
    limits = Path(f"/proc/{decoders._idle[-1]._process.pid}/limits").read_text()
    found = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()}
    assert found["Max core file size"] == "0"
    assert (1 << 30) < int(found["Max address space"]) < (64 << 30)
    assert 30 <= int(found["Max cpu time"]) < 300


def test_it_cannot_take_back_the_memory_that_is_read(tmp_path: Path) -> None:
    def said(what: str) -> str:
        return f'c.sendall(b\'{{"problem": "{what}"}}\\n\')'

    take_back = (
        f"\ntry: os.ftruncate(int(sys.argv[2]), 0); {said('it shrank')}"
        f"\nexcept PermissionError: {said('it is sealed')}"
    )
    made = Decoders(command=faked(take_back))
    with made, pytest.raises(PixelsUndecodable, match="it is sealed"):
        made(a_stream())


def test_it_inherits_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACS_TOKEN", "abc")
    monkeypatch.setenv("LC_ALL", "C")
    with Decoders() as made:
        made(a_stream())
        (process,) = made._idle
        environment = Path(f"/proc/{process._process.pid}/environ").read_bytes().split(b"\0")
    assert b"LC_ALL=C" in environment
    assert b"PACS_TOKEN=abc" not in environment


def test_it_ends_with_who_started_it() -> None:
    code = (
        "import os, sys\n"
        "from test_decode import a_stream\n"
        "from dicom_node.node.decode import Decoders\n"
        "made = Decoders()\n"
        "made(a_stream())\n"
        "print(made._idle[0]._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    assert until(lambda: not runs(int(done.stdout)))


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def until(condition: Callable[[], bool]) -> bool:
    pause = threading.Event()
    return any(condition() or pause.wait(0.05) for _ in range(400))


def test_nothing_is_left_of_it() -> None:
    def descriptors() -> set[str]:
        here = Path("/proc/self/fd").iterdir()
        return {str(path.readlink()) for path in here if path.is_symlink()}

    before = descriptors()
    with Decoders() as made:
        made(a_stream())
        (process,) = made._idle
        pid = process._process.pid
    assert not runs(pid)
    assert {name for name in descriptors() - before if "memfd" in name} == set()
