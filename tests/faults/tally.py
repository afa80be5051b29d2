"""What a run of the fault tests counts, and the seeds by which a trial is done again."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Tally:
    """What a whole run did and found; its line is the last of `make faults`."""

    kills: int = 0
    power_cuts: int = 0
    acknowledged: int = 0
    found: int = 0
    expected: int = 0
    results: int = 0
    duplicated: int = 0
    where: Counter[str] = field(default_factory=Counter)

    def add(self, other: Mapping[str, Any]) -> None:
        """Count what another process has counted, as a mapping of the same names."""
        for name, value in other.items():
            if name == "where":
                self.where.update(value)
            else:
                setattr(self, name, getattr(self, name) + value)

    def line(self) -> str:
        return (
            f"{self.kills} kills, {self.power_cuts} power cuts; "
            f"instances: {self.acknowledged} acknowledged, {self.found} found; "
            f"results: {self.expected} expected, {self.results} found, "
            f"{self.duplicated} duplicated"
        )


def seeds(name: str, count: int) -> list[str]:
    """Seeds for `count` trials: FAULTS_SEED=2 gives others, FAULTS_SEED=kills:1:7 that one."""
    chosen = os.environ.get("FAULTS_SEED", "1")
    if ":" in chosen:
        return [chosen] if chosen.startswith(f"{name}:") else []
    return [f"{name}:{chosen}:{n}" for n in range(count)]
