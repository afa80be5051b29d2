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
