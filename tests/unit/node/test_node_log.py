"""Where log lines go: never to a stream that somebody has closed."""

from __future__ import annotations

import io
import logging
import sys
import warnings

import pytest

from dicom_node.node import log


@pytest.fixture(autouse=True)
def logging_as_it_was():
    root = logging.getLogger()
    handlers, level, own = root.handlers[:], root.level, logging.getLogger("dicom_node").level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("dicom_node").setLevel(own)
    logging.captureWarnings(capture=False)


def test_standard_error_is_looked_up_when_a_line_is_written(monkeypatch):
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", first)
    log.configure()
    logging.getLogger("dicom_node").warning("one")
    monkeypatch.setattr(sys, "stderr", second)
    first.close()
    logging.getLogger("dicom_node").warning("two")
    assert "two" in second.getvalue()
    assert "Logging error" not in second.getvalue()


def test_what_is_configured_for_a_while_is_undone(capsys):
    before = logging.getLogger().handlers[:]
    level, showing = logging.getLogger("dicom_node").level, warnings.showwarning
    stream = io.StringIO()
    with log.configured(stream):
        logging.getLogger("dicom_node").warning("inside")
    written = stream.getvalue()
    stream.close()
    logging.getLogger("dicom_node").warning("outside")
    assert "inside" in written
    assert logging.getLogger().handlers == before
    assert logging.getLogger("dicom_node").level == level
    assert warnings.showwarning is showing
    assert "Logging error" not in capsys.readouterr().err


@pytest.mark.parametrize("json_lines", [False, True])
def test_nobody_forges_a_line_or_drives_the_terminal(json_lines: bool):
    stream = io.StringIO()
    log.configure(json_lines=json_lines, to=stream)
    evil = "EVIL\n12:00:00 [info] forged\x1b[2J\r\x85\u2028"
    own = logging.getLogger("dicom_node")
    own.warning("%s calls", evil)
    try:
        raise ValueError(evil)
    except ValueError:
        own.exception("it failed: %s", evil)

    text = stream.getvalue()
    assert "\x1b" not in text
    assert "forged" in text
    lines = text.splitlines()
    assert not [line for line in lines if line.startswith(("12:00:00 [info] forged", "forged"))]
    said = [line for line in lines if "calls" in line]
    assert len(said) == 1
    assert all(c.isprintable() for line in lines for c in line)


@pytest.mark.parametrize("name", ["pynetdicom.acse", "pydicom", "highdicom.seg", "py.warnings"])
def test_loggers_that_quote_data_sets_are_not_heard(name: str):
    stream = io.StringIO()
    log.configure(verbose=True, to=stream)
    logging.getLogger().setLevel(1)
    known = logging.getLogger(name)
    before = known.level
    known.setLevel(1)
    known.critical("(0010,0010) Patient's Name PN: 'Muster^Anna'")
    known.setLevel(before)

    assert stream.getvalue() == ""
