"""Train the lung network: python models/lung-unet/train/train.py --data DIR --out FOLDER

DIR holds MANIFEST.toml (or --manifest FILE), and train/NAME/{hu.npy, mask.npy, meta.json}.
--teachers trains the larger networks of [teacher] first, and then the small one on their answers,
too: for a machine with a GPU. --folds K trains K networks instead, each without a part of the
patients, and scores them on those. What was interrupted goes on when it is called again.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import data
import numpy as np
import torch
from augment import augmented
from folds import cross_validated, summary
from losses import distance_to, follow, learning_rate, loss_of, opinion
from progress import Progress, save
from reach import reach_of
from safetensors.torch import load_file
from torch import Tensor
from validate import Validation

from dicom_node.tools.engine import Engine, engine_for
from dicom_node.tools.unet import CHANNELS, UNet, fused, network_from, normalised

HERE = Path(__file__).parent
PROBE = 30  # after so many iterations it is known how many there is time for
Batch = list[Tensor]


class Examples(torch.utils.data.Dataset[tuple[Tensor, ...]]):
    """Augmented examples; which one a number gives hangs on it and on the seed, and nothing else.

    So a training that goes on after an interruption, or with another count of processes that make
    examples, is shown the same.
    """

    def __init__(self, archives: list[data.Archive], config: dict[str, Any]) -> None:
        self._config = config
        self._sampler = data.Sampler(archives, config["mix"], config["probability"]["alone"])

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self._config["seed"] * 1_000_003 + number)
            stack = self._sampler.draw()
            made = augmented(stack, self._config["probability"])
        return made.hu, made.labels, made.counts, made.dense


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to train on, and within which limits.

    start: the folder of a training that this one goes on from. teachers: trained networks, to be
    learned from.
    """

    archives: list[data.Archive]
    validation: Validation | None
    start: Path | None = None
    limit_s: float = math.inf
    workers: int = 0
    teachers: Sequence[UNet] = ()


class Trainer:
    """A network in training on one device."""

    def __init__(self, config: dict[str, Any], task: Task, engine: Engine) -> None:
        self._config, self._task, self._engine = config, task, engine
        self._device = torch.device(engine.device)
        self._bf16 = engine.precision == "bf16" or self._device.type == "cuda"
        torch.backends.cudnn.benchmark = True
        torch.manual_seed(config["seed"])
        network, before = begun(task.start, config)
        network = network.to(self._device, memory_format=torch.channels_last)
        step = torch.optim.AdamW(network.parameters(), weight_decay=config["weight_decay"])
        mean = copy.deepcopy(network).eval()
        facts = {
            "volumes": [a.name for a in task.archives if not a.drawn],
            "slices": sum(len(a.hu) for a in task.archives if not a.drawn),
            "teachers": len(task.teachers),
            "config": config,
            "before": before,
        }
        self.done = Progress(network, mean, step, facts, config["iterations"])
        self._teachers = [
            fused(t.eval()).to(self._device, memory_format=torch.channels_last)
            for t in task.teachers
        ]

    def batches(self) -> torch.utils.data.DataLoader[Batch]:
        """Those that are still to be shown."""
        size = self._config["batch"]
        return torch.utils.data.DataLoader(
            Examples(self._task.archives, self._config),
            batch_size=size,
            sampler=range(self.done.iteration * size, self._config["iterations"] * size),
            num_workers=self._task.workers,
            pin_memory=self._device.type == "cuda",
        )

    def reach(self) -> Tensor:
        """Of the layers of the mean, over examples that were not shown."""
        examples = Examples(self._task.archives, self._config)
        first = self._config["iterations"] * self._config["batch"]
        shown = (examples[n][0][None] for n in range(first, first + self._config["reach_of"]))
        low, high = self._config["window_hu"]
        return reach_of(self.done.mean, shown, (float(low), float(high)))

    def learn(self, batch: Batch) -> None:
        """One step."""
        done, config = self.done, self._config
        done.iteration += 1
        i = done.iteration
        hu, labels, counts, dense = (part.to(self._device, non_blocking=True) for part in batch)
        x = normalised(hu, tuple(config["window_hu"]))
        x = x.contiguous(memory_format=torch.channels_last)
        for group in done.step.param_groups:
            group["lr"] = learning_rate(min(1.0, i / done.planned), config)
        weight = counts * torch.where(dense, float(config["dense_weight"]), 1.0)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            wanted = opinion(self._teachers, x) if self._teachers else None
            logits = done.network(x)
        loss = loss_of(logits.float(), labels, weight)
        if wanted is not None:
            share = float(config["teacher"]["share"])
            loss = (1 - share) * loss + share * distance_to(wanted, logits.float(), weight)
        done.step.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(done.network.parameters(), 2.0)
        done.step.step()
        follow(done.mean, done.network, min(config["ema"], i / (i + 10)))
        done.losses.append(loss.item())

    def look(self, out: Path) -> None:
        """Score it, and write down how it stands."""
        done, every = self.done, self._config["check_every"]
        score = (
            self._task.validation.score(done.mean, self._engine) if self._task.validation else {}
        )
        lately = float(np.mean(done.losses[-every:]))
        done.history.append({"iteration": done.iteration, "loss": round(lately, 4), **score})
        print(f"{done.iteration:5d} {score}", flush=True)
        done.report(out, {"device": self._engine.device, "threads": torch.get_num_threads()})


def begun(start: Path | None, config: dict[str, Any]) -> tuple[UNet, dict[str, Any]]:
    """A new network, or one that was trained before; and what is known of that training."""
    if start is None:
        return UNet(tuple(config.get("channels", CHANNELS))), {}
    told = json.loads((start / "training.json").read_text("utf-8"))
    kept = ("iterations", "seconds", "volumes", "slices", "history", "config", "before")
    return trained_in(start).train(), {name: told[name] for name in kept if name in told}


def trained_in(folder: Path) -> UNet:
    """The network that a training left in its folder."""
    return network_from(load_file(folder / "weights.safetensors"))


def finished(config: dict[str, Any], task: Task, out: Path) -> UNet:
    """Both stages, or the second one only where the task has a start."""
    if task.start is None:
        first = out / "first"
        first.mkdir(parents=True, exist_ok=True)
        if not (first / "training.json").exists() or (first / "progress.pt").exists():
            train(config, task, first)
        task = replace(task, start=first)
    return train({**config, **config["finish"]}, task, out)


def train(config: dict[str, Any], task: Task, out: Path) -> UNet:
    """The running mean of the weights after all iterations, or when the time is over.

    With a limit of time, the first iterations tell for how many more there is time: the learning
    rate falls accordingly. What was interrupted goes on from its last look at the validation.
    """
    engine = engine_for("auto", 0)
    trainer = Trainer(config, task, engine)
    done = trainer.done
    if (out / "progress.pt").exists():
        done.take_up(out / "progress.pt")
        print(f"goes on after {done.iteration} iterations", flush=True)
    began = time.monotonic() - done.seconds
    after_ten = 0.0
    for batch in trainer.batches():
        trainer.learn(batch)
        done.seconds = time.monotonic() - began
        if done.iteration == 10:
            after_ten = done.seconds
        if done.iteration == PROBE and math.isfinite(task.limit_s):
            each_s = (done.seconds - after_ten) / (PROBE - 10)
            room = int(0.9 * (task.limit_s - done.seconds) / each_s)
            done.planned = min(done.planned, PROBE + max(1, room))
            print(f"{done.planned} iterations", flush=True)
        if done.iteration % 20 == 0:
            lately = np.mean(done.losses[-20:])
            print(f"{done.iteration:5d} loss {lately:.4f} {done.seconds:6.0f} s", flush=True)
        over = done.iteration >= done.planned or done.seconds > task.limit_s
        if done.iteration % config["check_every"] == 0 or over:
            trainer.look(out)
        if over:
            break
    save(done.mean, out / "weights.safetensors", trainer.reach())
    (out / "progress.pt").unlink()
    return done.mean


def taught_by(config: dict[str, Any], task: Task, out: Path) -> list[UNet]:
    """The larger networks, one for each seed; those that are there already are not trained anew."""
    own = {k: v for k, v in config["teacher"].items() if k not in ("seeds", "share")}
    made = []
    for seed in config["teacher"]["seeds"]:
        folder = out / f"teacher-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "training.json").exists() or (folder / "progress.pt").exists():
            print(f"teacher {seed}", flush=True)
            train({**config, **own, "seed": seed}, task, folder)
        made.append(trained_in(folder))
    return made


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    ask.add_argument("--data", type=Path, required=True)
    ask.add_argument("--manifest", type=Path)
    ask.add_argument("--out", type=Path, required=True)
    ask.add_argument("--config", type=Path, default=HERE / "config.toml")
    ask.add_argument("--threads", type=int, default=2)
    ask.add_argument("--workers", type=int, default=0, help="processes that make examples")
    ask.add_argument("--minutes", type=float, default=math.inf, help="at most, for each network")
    ask.add_argument(
        "--iterations",
        type=int,
        help="of the first stage, instead of those of the "
        "configuration; the second is shortened alike",
    )
    ask.add_argument("--start", type=Path, help="folder of a first stage: only the second is run")
    ask.add_argument("--teachers", action="store_true", help="larger networks first")
    ask.add_argument("--folds", type=int, help="cross-validation over all labelled patients")
    args = ask.parse_args()
    config = tomllib.loads(args.config.read_text("utf-8"))
    if args.iterations:
        share = args.iterations / config["iterations"]
        config["finish"]["iterations"] = max(1, round(share * config["finish"]["iterations"]))
        config["iterations"] = args.iterations
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    names, held_back = data.split(args.manifest or args.data / "MANIFEST.toml")
    archives = [data.load(args.data / "train" / name) for name in names]
    unseen = [data.load(args.data / "train" / name) for name in held_back]
    drawn = data.phantoms(**config["phantom"])
    limits = {"limit_s": args.minutes * 60, "workers": args.workers}
    if args.folds:

        def trained(some: list[data.Archive], folder: Path) -> UNet:
            return finished(config, Task(archives=some + drawn, validation=None, **limits), folder)

        engine = engine_for("auto", 0)
        every = archives + unseen
        print(summary(cross_validated(config, every, args.folds, args.out, engine, trained)))
        return
    window = (float(config["window_hu"][0]), float(config["window_hu"][1]))
    print(f"train: {names}\nvalidate: {held_back}", flush=True)
    validation = Validation(unseen, window)
    teachers: list[UNet] = []
    if args.teachers:
        own = Task(archives=archives + drawn, validation=validation, **limits)
        teachers = taught_by(config, own, args.out)
    task = Task(
        archives=archives + drawn,
        validation=validation,
        start=args.start,
        teachers=teachers,
        **limits,
    )
    finished(config, task, args.out)


if __name__ == "__main__":
    main()
