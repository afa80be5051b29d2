"""Bytes of the upper layer as a peer would send them: see raw.wire."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from raw import wire as raw


@pytest.fixture
def wire() -> Iterator[SimpleNamespace]:
    """Builders of raw.wire, and call(port) -> Caller, closed afterwards."""
    callers: list[raw.Caller] = []

    def call(port: int) -> raw.Caller:
        callers.append(raw.Caller(port))
        return callers[-1]

    yield SimpleNamespace(
        associate_rq=raw.associate_rq,
        command_set=raw.command_set,
        c_store=raw.c_store,
        c_echo=raw.c_echo,
        pdv=raw.pdv,
        p_data=raw.p_data,
        call=call,
        CT=raw.CT,
        EXPLICIT=raw.EXPLICIT,
        INSTANCE=raw.INSTANCE,
        VERIFICATION=raw.VERIFICATION,
    )
    for caller in callers:
        caller.close()
