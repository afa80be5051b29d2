"""Logging for a process of the node: one handler, one form, for our lines and the libraries'."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import structlog

from dicom_node.domain.text import printable

_QUOTING = ("pynetdicom", "pydicom", "highdicom", "py.warnings")
"""Loggers whose lines may hold values of data sets. pydicom sets its own level when imported."""


def _quotes_nobody(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] not in _QUOTING and record.name not in _QUOTING


def _escaped(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """A line stays one line, whoever's words are in it."""
    del logger, method
    event["event"] = printable(str(event["event"]))
    return event


def _traceback(to: TextIO, info: structlog.typing.ExcInfo) -> None:
    """As text, its lines indented: an error may quote what was received, and looks like no line."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, info)
    to.write("\n" + "\n".join(f"  {printable(one)}" for one in text.getvalue().splitlines()))


class _ToStandardError(logging.StreamHandler[TextIO]):
    """Writes to what is standard error when the line is written: that may have changed."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """Standard error, as it is now."""
        return sys.stderr


@contextmanager
def configured(to: TextIO | None = None) -> Iterator[None]:
    """As `configure`, for a while: afterwards nothing is written to `to`, which may be closed."""
    root, own = logging.getLogger(), logging.getLogger("dicom_node")
    handlers, levels = root.handlers[:], (root.level, own.level)
    configure(to=to)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        own.setLevel(levels[1])
        logging.captureWarnings(capture=False)


def configure(*, json_lines: bool = False, verbose: bool = False, to: TextIO | None = None) -> None:
    """Send every log record to `to` (standard error): for people, or as one JSON object a line."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        _escaped,
        structlog.processors.TimeStamper(fmt="iso" if json_lines else "%H:%M:%S", utc=json_lines),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json_lines
        else structlog.dev.ConsoleRenderer(
            colors=(to or sys.stderr).isatty(),
            pad_event_to=0,
            pad_level=False,
            # the default, where rich is installed, prints local variables: pixels and names
            exception_formatter=_traceback,
        )
    )
    handler = logging.StreamHandler(to) if to else _ToStandardError()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_quotes_nobody)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("dicom_node").setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.captureWarnings(capture=True)
