"""Train the lung network: python models/lung-unet/train/train.py --data DIR --out models/lung-unet

DIR holds MANIFEST.toml (or --manifest FILE), and train/NAME/{hu.npy, mask.npy, meta.json}.
--folds K trains K networks instead, each without a part of the patients, and scores them on those.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import data
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its name everywhere)
from augment import Example, augmented
from safetensors.torch import save_file
from torch import Tensor
from validate import Validation

from dicom_node.tools.engine import Engine, engine_for
from dicom_node.tools.unet import UNet, normalised

HERE = Path(__file__).parent


def loss_of(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Weighted cross-entropy, and the Dice of both lungs over what counts at all."""
    entropy = (F.cross_entropy(logits, labels, reduction="none") * weight).mean()
    counts = (weight > 0)[:, None]
    p = logits.softmax(dim=1)[:, 1:] * counts
    t = F.one_hot(labels, 3).permute(0, 3, 1, 2)[:, 1:] * counts
    overlap, sizes = (p * t).sum(dim=(0, 2, 3)), (p + t).sum(dim=(0, 2, 3))
    return entropy + (1 - (2 * overlap + 50) / (sizes + 50)).mean()


def learning_rate(progress: float, config: dict[str, Any]) -> float:
    """Up in a line, down in a cosine."""
    warm, highest = float(config["warmup"]), float(config["learning_rate"])
    if progress < warm:
        return highest * (0.04 + 0.96 * progress / warm)
    falling = 0.5 * (1 + math.cos(math.pi * (progress - warm) / (1 - warm)))
    return highest * (0.002 + falling)


@torch.no_grad()
def follow(mean: UNet, network: UNet, keep: float) -> None:
    for a, b in zip(mean.state_dict().values(), network.state_dict().values(), strict=True):
        if a.dtype.is_floating_point:
            a.lerp_(b, 1 - keep)
        else:
            a.copy_(b)


@dataclass(slots=True)
class Progress:
    """All that a training needs to go on where it was interrupted."""

    network: UNet
    mean: UNet
    step: torch.optim.Optimizer
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
            "chance": torch.get_rng_state(),
            "iteration": self.iteration,
            "seconds": self.seconds,
            "losses": self.losses,
            "history": self.history,
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def take_up(self, path: Path) -> None:
        """Go on from what `keep` wrote."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.network.load_state_dict(state["network"])
        self.mean.load_state_dict(state["mean"])
        self.step.load_state_dict(state["step"])
        torch.set_rng_state(state["chance"])
        self.iteration, self.seconds = state["iteration"], state["seconds"]
        self.losses, self.history = state["losses"], state["history"]


def save(network: UNet, path: Path) -> None:
    """Half precision: the masks are the same, the file half as long."""
    kept = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    state = {k: v.half().contiguous() for k, v in kept.items()}
    save_file(state, path, metadata={"format": "pt"})


class Examples(torch.utils.data.IterableDataset[Example]):
    """Augmented examples without end; each process of the loader has its own chance."""

    def __init__(self, archives: list[data.Archive], config: dict[str, Any]) -> None:
        self._archives, self._config = archives, config

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        p = self._config["probability"]
        sampler = data.Sampler(self._archives, self._config["mix"], p["alone"])
        while True:
            example = augmented(sampler.draw(), p, self._config["dense_weight"])
            yield example.hu, example.labels, example.weight


def train(
    config: dict[str, Any],
    archives: list[data.Archive],
    validation: Validation | None,
    out: Path,
    limit_s: float,
    workers: int,
) -> UNet:
    """The running mean of the weights after all iterations, or when the time is over.

    What was interrupted goes on from its last look at the validation volumes.
    """
    torch.manual_seed(config["seed"])
    engine = engine_for("auto", 0)
    device = torch.device(engine.device)
    network = UNet().to(device, memory_format=torch.channels_last)
    step = torch.optim.AdamW(network.parameters(), weight_decay=config["weight_decay"])
    loader = torch.utils.data.DataLoader(
        Examples(archives, config), batch_size=config["batch"], num_workers=workers
    )
    done = Progress(network, copy.deepcopy(network).eval(), step)
    if (out / "progress.pt").exists():
        done.take_up(out / "progress.pt")
        print(f"goes on after {done.iteration} iterations", flush=True)
    before = time.monotonic() - done.seconds
    bf16 = engine.precision == "bf16" or device.type == "cuda"
    for i, batch in enumerate(loader, start=done.iteration + 1):
        hu, labels, weight = (part.to(device, non_blocking=True) for part in batch)
        x = normalised(hu, tuple(config["window_hu"]))
        for group in step.param_groups:
            group["lr"] = learning_rate(i / config["iterations"], config)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = network(x.contiguous(memory_format=torch.channels_last))
        loss = loss_of(logits.float(), labels, weight)
        step.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        step.step()
        follow(done.mean, network, min(config["ema"], i / (i + 10)))
        done.losses.append(loss.item())
        done.iteration, done.seconds = i, time.monotonic() - before
        if i % 20 == 0:
            lately = np.mean(done.losses[-20:])
            print(f"{i:5d} loss {lately:.4f} {done.seconds:6.0f} s", flush=True)
        over = i >= config["iterations"] or done.seconds > limit_s
        if i % config["check_every"] == 0 or over:
            score = validation.score(done.mean, engine) if validation else {}
            lately = float(np.mean(done.losses[-config["check_every"] :]))
            done.history.append({"iteration": i, "loss": round(lately, 4), **score})
            print(f"{i:5d} {score}", flush=True)
            report(done, config, archives, engine, out)
        if over:
            (out / "progress.pt").unlink()
            return done.mean
    raise AssertionError("the examples have no end")


def report(
    done: Progress,
    config: dict[str, Any],
    archives: list[data.Archive],
    engine: Engine,
    out: Path,
) -> None:
    """The weights as they are now, how they came about, and what it takes to go on."""
    save(done.mean, out / "weights.safetensors")
    facts = {
        "iterations": done.iteration,
        "seconds": round(done.seconds),
        "device": engine.device,
        "volumes": [archive.name for archive in archives],
        "slices": sum(len(archive.hu) for archive in archives),
        "history": done.history,
        "config": config,
    }
    (out / "training.json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    done.keep(out / "progress.pt")


def cross_validated(
    config: dict[str, Any], archives: list[data.Archive], folds: int, out: Path, workers: int
) -> None:
    """Each archive is scored by a network that saw none of its patient."""
    engine: Engine = engine_for("auto", 0)
    table: dict[str, dict[str, float]] = {}
    for n in range(folds):
        held = [a for a in archives if _fold_of(a.name, archives, folds) == n]
        rest = [a for a in archives if a not in held]
        print(f"fold {n + 1} of {folds}: without {', '.join(a.name for a in held)}", flush=True)
        network = train(config, rest, None, out, float("inf"), workers)
        window = (float(config["window_hu"][0]), float(config["window_hu"][1]))
        table |= Validation(held, window).by_archive(network, engine)
        facts = {"folds": folds, "iterations": config["iterations"], "archives": table}
        (out / "folds.json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


PATIENTS = {  # archives of one patient, or perhaps of one, are never on both sides
    "acrin001-b": "acrin001-a",
    "totalseg-abdomen": "totalseg-example",
    "totalseg-cta-crop": "totalseg-example",
    "tcga-slices-b": "tcga-slices-a",
}


def _fold_of(name: str, archives: list[data.Archive], folds: int) -> int:
    patients = sorted({PATIENTS.get(a.name, a.name) for a in archives})
    return patients.index(PATIENTS.get(name, name)) % folds


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--data", type=Path, required=True)
    ask.add_argument("--manifest", type=Path)
    ask.add_argument("--out", type=Path, required=True)
    ask.add_argument("--config", type=Path, default=HERE / "config.toml")
    ask.add_argument("--threads", type=int, default=2)
    ask.add_argument("--workers", type=int, default=0, help="processes that make examples")
    ask.add_argument("--minutes", type=float, default=1e9, help="stop then, with what is there")
    ask.add_argument("--iterations", type=int, help="instead of those of the configuration")
    ask.add_argument("--folds", type=int, help="cross-validation over all labelled patients")
    args = ask.parse_args()
    config = tomllib.loads(args.config.read_text("utf-8"))
    if args.iterations:
        config["iterations"] = args.iterations
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    names, held_back = data.split(args.manifest or args.data / "MANIFEST.toml")
    archives = [data.load(args.data / "train" / name) for name in names]
    unseen = [data.load(args.data / "train" / name) for name in held_back]
    if args.folds:
        cross_validated(config, archives + unseen, args.folds, args.out, args.workers)
        return
    window = (float(config["window_hu"][0]), float(config["window_hu"][1]))
    print(f"train: {names}\nvalidate: {held_back}", flush=True)
    validation = Validation(unseen, window)
    train(config, archives, validation, args.out, args.minutes * 60, args.workers)


if __name__ == "__main__":
    main()
