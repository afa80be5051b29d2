"""Pin the weights in model.toml and write MODEL_CARD.md from what was recorded.

    python publish.py --manifest FILE --date 2026-01-31 --machine "2 CPU cores"

Reads train/training.json (of train.py) and train/evaluation.json (of evaluate.py).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import tomllib
from pathlib import Path
from string import Template

import data

HERE = Path(__file__).parent
MODEL = HERE.parent


def table(head: list[str], rows: list[list[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(c) for c in line) + " |" for line in lines)


def pin() -> str:
    """The digest of the weights, written into model.toml."""
    digest = hashlib.sha256((MODEL / "weights.safetensors").read_bytes()).hexdigest()
    path = MODEL / "model.toml"
    text = re.sub(r'^sha256 = ".*"$', f'sha256 = "{digest}"', path.read_text("utf-8"), flags=re.M)
    path.write_text(text, "utf-8")
    return digest


def results(test: dict[str, dict]) -> str:
    head = ["series", "label", "slices", "right", "left", "worst slice right / left", "wrong side"]
    rows = [
        [
            name,
            r["label"],
            r["slices"],
            f"{r['right']:.3f}",
            f"{r['left']:.3f}",
            f"{r['right_worst_slice']:.2f} / {r['left_worst_slice']:.2f}",
            f"{r['wrong_side_ml']} ml",
        ]
        for name, r in test.items()
    ]
    return table(head, rows)


def quirks(found: dict[str, dict]) -> str:
    said = [[n, r.get("refused") or f"{r['worst_slice_cm2']} cm²"] for n, r in found.items()]
    return table(["series", "false lung"], said)


def volumes(entries: list[dict], names: list[str]) -> str:
    rows = [
        [e["name"], e["collection"], e["licence"], json.loads(str(e["shape_zyx"]))[0], e["source"]]
        for e in entries
        if e["name"] in names
    ]
    return table(["archive", "collection", "licence", "slices", "copied from"], rows)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--manifest", type=Path, required=True)
    ask.add_argument("--date", required=True)
    ask.add_argument("--machine", required=True)
    args = ask.parse_args()
    training = json.loads((HERE / "training.json").read_text("utf-8"))
    evaluation = json.loads((HERE / "evaluation.json").read_text("utf-8"))
    digest = pin()
    model = tomllib.loads((MODEL / "model.toml").read_text("utf-8"))
    config, test = training["config"], evaluation["test"]
    _, held_back = data.split(args.manifest)
    history = [
        [
            h["iteration"],
            f"{h['dice_right']:.3f}",
            f"{h['dice_left']:.3f}",
            f"{h['painted_found']:.2f}",
        ]
        for h in training["history"]
    ]
    scored = [e for e in data.entries(args.manifest, "test") if e["name"] in test]
    begins = config["stage"]["disease_from"] * config["iterations"]
    card = Template((HERE / "card.md").read_text("utf-8")).substitute(
        name=model["name"],
        version=model["version"],
        licence=model["licence"],
        sha256=digest,
        window="{:.0f} to {:.0f}".format(*config["window_hu"]),
        tool_version=evaluation["tool"]["version"],
        results=results(test),
        disease=table(
            ["series", "level (left)", "ball (right)"],
            [[n, r["painted_level"], r["painted_ball"]] for n, r in test.items()],
        ),
        quirks=quirks(evaluation["quirks"]),
        history=table(["iteration", "right", "left", "painted"], history),
        held_back=", ".join(held_back),
        seed=config["seed"],
        iterations=training["iterations"],
        planned=config["iterations"],
        batch=config["batch"],
        minutes=round(training["seconds"] / 60),
        machine=args.machine,
        date=args.date,
        disease_from=round(begins),
        slices=training["slices"],
        volumes=len(training["volumes"]),
        data=volumes(data.entries(args.manifest, "train"), training["volumes"]),
        test_data="; ".join(f"{e['name']} ({e['collection']}, {e['licence']})" for e in scored),
        known=(HERE / "known.md").read_text("utf-8").strip(),
    )
    (MODEL / "MODEL_CARD.md").write_text(card, "utf-8")


if __name__ == "__main__":
    main()
