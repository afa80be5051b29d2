"""How far a training has come: kept so that it can go on, and told in training.json."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dicom_node.tools.unet import REACH, UNet

LOSSES_EVERY = 20  # iterations, of which training.json has the mean


@dataclass(slots=True)
class Progress:
    """All that a training needs to go on where it was interrupted.

    facts: what it is a training of; with other ones it cannot go on. planned: iterations in all;
        fewer than those of the configuration where the time is limited.
    """

    network: UNet
    mean: UNet
    step: torch.optim.Optimizer
    facts: dict[str, Any]
    planned: int
    iteration: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)

    def keep(self, path: Path) -> None:
        """Write it; whole, or not at all."""
        state = {
            "network": self.network.state_dict(),
            "mean": self.mean.state_dict(),
            "step": self.step.state_dict(),
            "facts": self.facts,
            "planned": self.planned,
            "iteration": self.iteration,
            "seconds": self.seconds,
            "losses": self.losses,
            "history": self.history,
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def take_up(self, path: Path) -> None:
        """Go on from what `keep` wrote; SystemExit if that was another training."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state.get("facts") != self.facts:
            raise SystemExit(f"{path} is of another training: remove it, or take another --out.")
        self.network.load_state_dict(state["network"])
        self.mean.load_state_dict(state["mean"])
        self.step.load_state_dict(state["step"])
        self.planned = state["planned"]
        self.iteration, self.seconds = state["iteration"], state["seconds"]
        self.losses, self.history = state["losses"], state["history"]

    def told(self) -> dict[str, object]:
        """For training.json."""
        whole = len(self.losses) // LOSSES_EVERY * LOSSES_EVERY
        means = torch.tensor(self.losses[:whole]).reshape(-1, LOSSES_EVERY).mean(dim=1)
        return {
            "iterations": self.iteration,
            "seconds": round(self.seconds),
            "history": self.history,
            "losses_every": LOSSES_EVERY,
            "losses": [round(float(m), 4) for m in means],
            **self.facts,
        }

    def report(self, out: Path, machine: dict[str, object]) -> None:
        """The weights as they are now, how they came about, and what it takes to go on."""
        save(self.mean, out / "weights.safetensors")
        text = json.dumps({**machine, **self.told()}, indent=1)
        (out / "training.json").write_text(text + "\n", "utf-8")
        self.keep(out / "progress.pt")


def save(network: UNet, path: Path, reach: Tensor | None = None) -> None:
    """Half precision: the masks are the same, the file half as long. reach: kept beside."""
    kept = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    state = {k: v.half().cpu().contiguous() for k, v in kept.items()}
    if reach is not None:
        state[REACH] = reach
    save_file(state, path, metadata={"format": "pt"})
