"""Train the lung network: python models/lung-unet/train/train.py --data DIR --out models/lung-unet

DIR holds MANIFEST.toml (or --manifest FILE), and train/NAME/{hu.npy, mask.npy, meta.json}.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
import tomllib
from pathlib import Path

import augment
import data
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its name everywhere)
from safetensors.torch import save_file
from torch import Tensor

from dicom_node.tools.unet import Engine, Predictor, UNet, cut, engine_for, normalised

HERE = Path(__file__).parent


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy and the Dice of both lungs over the batch."""
    entropy = F.cross_entropy(logits, labels)
    p = logits.softmax(dim=1)[:, 1:]
    t = F.one_hot(labels, 3).permute(0, 3, 1, 2)[:, 1:].to(p.dtype)
    overlap, sizes = (p * t).sum(dim=(0, 2, 3)), (p + t).sum(dim=(0, 2, 3))
    return entropy + (1 - (2 * overlap + 50) / (sizes + 50)).mean()


def learning_rate(progress: float, config: dict) -> float:
    """Up in a line, down in a cosine."""
    warm = config["warmup"]
    if progress < warm:
        return config["learning_rate"] * (0.04 + 0.96 * progress / warm)
    falling = 0.5 * (1 + math.cos(math.pi * (progress - warm) / (1 - warm)))
    return config["learning_rate"] * (0.002 + falling)


@torch.no_grad()
def follow(mean: UNet, network: UNet, keep: float) -> None:
    for a, b in zip(mean.state_dict().values(), network.state_dict().values(), strict=True):
        if a.dtype.is_floating_point:
            a.lerp_(b, 1 - keep)
        else:
            a.copy_(b)


class Validation:
    """Slices of the volumes that may not be trained on, as they are and with disease painted."""

    def __init__(self, slices: list[data.Slice], window: tuple[float, float], seed: int) -> None:
        state = torch.get_rng_state()
        torch.manual_seed(seed)
        chosen = [s for s in slices if (s.labels > 0).any()][::8]
        plain = [augment.sampled(s, s.hu, augment.grid_for(s, 1.0, 0.0)) for s in chosen]
        self.labels = torch.stack([labels for _, labels in plain])
        self.hu = torch.stack([cut(s.hu[None, None], s.box, window[0])[0] for s in chosen])
        self.painted = torch.stack([augment.with_disease(h, t) for h, t in plain])[:, None]
        self.dense = (self.painted[:, 0] > -300) & (self.hu[:, 0] < -500) & (self.labels > 0)
        torch.set_rng_state(state)

    def score(self, network: UNet, engine: Engine, window: tuple[float, float]) -> dict[str, float]:
        predictor = Predictor(copy.deepcopy(network), engine, window)
        plain = self._classes(predictor, self.hu)
        painted = self._classes(predictor, self.painted)
        found = (painted == self.labels)[self.dense].float().mean()
        sides = {f"dice_{n}": self._dice(plain, k) for n, k in (("right", 1), ("left", 2))}
        return {**sides, "painted_found": float(found)}

    def _classes(self, predictor: Predictor, hu: Tensor) -> Tensor:
        return torch.cat([predictor.logits(part).argmax(dim=1) for part in hu.split(8)])

    def _dice(self, found: Tensor, k: int) -> float:
        a, b = found == k, self.labels == k
        return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def save(network: UNet, path: Path) -> None:
    """Half precision: the masks are the same, the file half as long."""
    kept = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    state = {k: v.half().contiguous() for k, v in kept.items()}
    save_file(state, path, metadata={"format": "pt"})


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--data", type=Path, required=True)
    ask.add_argument("--manifest", type=Path)
    ask.add_argument("--out", type=Path, required=True)
    ask.add_argument("--config", type=Path, default=HERE / "config.toml")
    ask.add_argument("--threads", type=int, default=2)
    ask.add_argument("--minutes", type=float, default=1e9, help="stop then, with what is there")
    args = ask.parse_args()
    config = tomllib.loads(args.config.read_text("utf-8"))
    torch.set_num_threads(args.threads)
    torch.manual_seed(config["seed"])
    args.out.mkdir(parents=True, exist_ok=True)
    names, held_back = data.split(args.manifest or args.data / "MANIFEST.toml")
    slices = [s for n in names for s in data.load(args.data / "train" / n)]
    unseen = [s for n in held_back for s in data.load(args.data / "train" / n)]
    print(f"train: {len(slices)} slices of {names}\nvalidate: {held_back}", flush=True)
    train(config, slices, unseen, args.out, args.minutes * 60, names)


def train(
    config: dict, slices: list, unseen: list, out: Path, limit_s: float, names: list[str]
) -> None:
    window = tuple(config["window_hu"])
    engine = engine_for("auto", 0)
    device = torch.device(engine.device)
    network = UNet().to(device, memory_format=torch.channels_last)
    mean = copy.deepcopy(network).eval()
    step = torch.optim.AdamW(network.parameters(), weight_decay=config["weight_decay"])
    sampler = data.Sampler(slices, config["mix"], config["seed"])
    validation = Validation(unseen, window, config["seed"])
    began, losses, history = time.monotonic(), [], []
    bf16 = engine.precision == "bf16" or device.type == "cuda"
    for i in range(1, config["iterations"] + 1):
        progress = i / config["iterations"]
        painting = progress > config["stage"]["disease_from"]
        pairs = sampler.batch(config["batch"])
        made = [augment.augmented(pair, config["probability"], painting) for pair in pairs]
        x = normalised(torch.stack([m[0] for m in made])[:, None].to(device), window)
        y = torch.stack([m[1] for m in made]).to(device)
        for group in step.param_groups:
            group["lr"] = learning_rate(progress, config)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = network(x.contiguous(memory_format=torch.channels_last))
        loss = loss_of(logits.float(), y)
        step.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        step.step()
        follow(mean, network, min(config["ema"], i / (i + 10)))
        losses.append(loss.item())
        if i % 20 == 0:
            spent = time.monotonic() - began
            print(f"{i:5d} loss {np.mean(losses[-20:]):.4f} {spent:6.0f} s", flush=True)
        over = time.monotonic() - began > limit_s
        if i % config["check_every"] == 0 or i == config["iterations"] or over:
            score = validation.score(mean, engine, window)
            history.append({"iteration": i, **score})
            print(f"{i:5d} {score}", flush=True)
            save(mean, out / "weights.safetensors")
            facts = {"iterations": i, "seconds": time.monotonic() - began, "volumes": names}
            facts |= {"slices": len(slices), "history": history, "config": config}
            (out / "training.json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
        if over:
            break


if __name__ == "__main__":
    main()
