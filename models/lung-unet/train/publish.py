"""Put what a training left in its folder into the model's: weights, digest, pictures, model card.

    python models/lung-unet/train/publish.py FOLDER --data DIR --manifest FILE \\
        --date 2026-01-31 --machine "2 CPU cores" [--version 2.1.0] [--private DIR]

FOLDER holds weights.safetensors and training.json (of train.py), evaluation.json (of evaluate.py
with these weights), and folds.json where there was a cross-validation. Pictures of series whose
licence is CC BY go into the model's folder; --private DIR gets those of all of them, which must not
be published.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tomllib
from pathlib import Path
from string import Template
from typing import Any

import data
import evaluate
import pictures
import reading
from mend import described
from model_folder import pin
from tables import markdown

from dicom_node.tools.unet import CHANNELS, TISSUE_HU

HERE = Path(__file__).parent
MODEL = HERE.parent
Found = dict[str, Any]


def checked(folder: Path, manifest: Path) -> tuple[Found, Found, Found]:
    """training.json, evaluation.json, folds.json; SystemExit where they may not be published."""
    training = json.loads((folder / "training.json").read_text("utf-8"))
    licences = {str(e["name"]): str(e["licence"]) for e in data.entries(manifest, "train")}
    seen = [*training["volumes"], *training["before"].get("volumes", ())]
    unfree = sorted({name for name in seen if not data.is_free(licences.get(name, ""))})
    if unfree:
        raise SystemExit(f"Trained on what may not be published: {', '.join(unfree)}.")
    training["licences"] = {name: licences[name] for name in sorted(set(seen))}
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    path = folder / "evaluation.json"
    evaluation = json.loads(path.read_text("utf-8")) if path.exists() else {"tool": {}}
    if evaluation["tool"].get("digest") != digest:
        raise SystemExit(f"No evaluation of these weights: evaluate.py --weights ... --out {path}")
    folds = folder / "folds.json"
    return training, evaluation, json.loads(folds.read_text("utf-8")) if folds.exists() else {}


def may_be_shown(entry: Found) -> bool:
    """Whether small pictures of a series may be published: with its attribution, if CC BY."""
    licence = str(entry["licence"])
    return licence.startswith("CC BY") and data.is_free(licence)


def folds_table(folds: Found, training: Found) -> str:
    """Each archive, scored by a network that saw none of its patient."""
    if not folds:
        return "*(no cross-validation was run with this recipe)*"
    rows, sides = [], []
    for name, r in sorted(folds["archives"].items()):
        if "right" in r:
            sides += [r["right"], r["left"]]
            worst = f"{r['worst']:.2f}"
            rows.append([name, r["slices"], f"{r['right']:.3f}", f"{r['left']:.3f}", worst])
        else:
            rows.append([name, r["slices"], "no lung", f"{r['false_percent']} % false", "-"])
    head = ["archive", "slices scored", "right", "left", "worst slice"]
    mean = sum(sides) / max(1, len(sides))
    lungs = len(sides) // 2
    each = folds["iterations"] + folds["config"].get("finish", {}).get("iterations", 0)
    whole = training["iterations"] + training.get("before", {}).get("iterations", 0)
    short = " Trained so briefly, they tell which archives are hard, and not how good the weights "
    said = (
        f"{folds['folds']} folds, {each} iterations each, of the {whole} of the committed weights; "
        f"{lungs} archives with lung: mean Dice of a side {mean:.3f}, worst "
        f"{min(sides, default=0):.3f}.{short + 'are.' if 2 * each < whole else ''}\n\n"
    )
    return said + markdown(head, rows)


def history_table(training: Found) -> str:
    history = training["history"]
    names = [k for k in history[-1] if k != "iteration"]
    return markdown(
        ["iteration", *names], [[h["iteration"], *(h[n] for n in names)] for h in history]
    )


def volumes(entries: list[Found], names: list[str]) -> str:
    rows = [
        [e["name"], e["collection"], e["licence"], json.loads(str(e["shape_zyx"]))[0], e["source"]]
        for e in entries
        if e["name"] in names
    ]
    return markdown(["archive", "collection", "licence", "slices", "copied from"], rows)


def citations(entries: list[Found]) -> str:
    """Of each collection that is used, once."""
    known = tomllib.loads((HERE / "citations.toml").read_text("utf-8"))["cite"]
    said: dict[str, None] = {}
    for entry in entries:
        own = str(entry.get("citation", "")).partition(" Clark K, Vendt B")[0]
        texts = [c["text"] for c in known if str(entry["collection"]).startswith(c["collection"])]
        for text in [own] if own else texts:
            said.setdefault(str(text), None)
        if not own and not texts:
            raise SystemExit(f"citations.toml does not know {entry['collection']}.")
    return "\n".join(f"* {text}" for text in said)


def shown(entries: list[Found]) -> str:
    """The pictures, with their attribution."""
    lines = []
    for entry in entries:
        name = entry["name"]
        if (MODEL / "pictures" / f"{name}.png").exists():
            lines += [f"![{name}](pictures/{name}.png)", ""]
            lines += [f"*{name}: {entry['collection']}, {entry['licence']}.*", ""]
        else:
            lines += [f"{name}: not shown, for its licence ({entry['licence']}).", ""]
    return "\n".join(lines).strip()


def drawn(args: argparse.Namespace, training: Found, entries: list[Found]) -> None:
    """All pictures, each where it may be."""
    public = MODEL / "pictures"
    public.mkdir(exist_ok=True)
    pictures.curves(training, public / "training.png")
    may = {entry["name"] for entry in entries if may_be_shown(entry)}
    with evaluate.the_tool(args) as (tool, _):
        for this in evaluate.labelled(args.data, args.manifest, None):
            name = f"{this.name}.png"
            if args.private:
                args.private.mkdir(parents=True, exist_ok=True)
                pictures.picture(tool, this, args.private / name)
                if this.name in may:
                    shutil.copy(args.private / name, public / name)
            elif this.name in may:
                pictures.picture(tool, this, public / name)


def card(args: argparse.Namespace, training: Found, evaluation: Found, folds: Found) -> str:
    """MODEL_CARD.md."""
    model = tomllib.loads((MODEL / "model.toml").read_text("utf-8"))
    digest, config, before = model["weights"]["sha256"], training["config"], training["before"]
    entries = data.entries(args.manifest, "train")
    used = [e for e in entries if e["name"] in training["volumes"]]
    scored = [e for e in data.entries(args.manifest, "test") if e["name"] in evaluation["test"]]
    _, held_back = data.split(args.manifest)
    tables = {
        key: markdown(*table) if table[1] else "*(not run)*"
        for key, table in {
            "results": reading.dice_table(evaluation),
            "worst": reading.worst_table(evaluation),
            "disease": reading.painted_table(evaluation),
            "drawn": reading.drawn_table(evaluation),
            "trade": reading.trade_table(evaluation),
            "far": reading.far_table(evaluation),
            "without": reading.without_table(evaluation),
            "positions": reading.positions_table(evaluation),
            "fields": reading.fields_table(evaluation),
            "unlabelled": reading.unlabelled_table(evaluation),
        }.items()
    }
    words = {
        "name": model["name"],
        "version": model["version"],
        "licence": model["licence"],
        "sha256": digest,
        "channels": "-".join(str(c) for c in config.get("channels", CHANNELS)),
        "window": "{:.0f} to {:.0f}".format(*config["window_hu"]),
        "tissue": "{:.0f} to {:.0f}".format(*TISSUE_HU),
        "engine": evaluation["tool"]["version"].rpartition(".")[2],
        "mean": f"{reading.mean_dice(evaluation):.3f}",
        "history": "\n\n".join(history_table(stage) for stage in (before, training)),
        "folds": folds_table(folds, training),
        "held_back": ", ".join(held_back),
        "seed": config["seed"],
        "first_iterations": before["iterations"],
        "iterations": training["iterations"],
        "batch": config["batch"],
        "minutes": round((before["seconds"] + training["seconds"]) / 60),
        "machine": args.machine,
        "date": args.date,
        "disease_percent": round(100 * config["probability"]["disease"]),
        "first_disease_percent": round(100 * before["config"]["probability"]["disease"]),
        "first_dense_weight": f"{before['config']['dense_weight']:g}",
        "dense_weight": f"{config['dense_weight']:g}",
        "phantoms": len(config["phantom"]["seeds"]),
        "phantom_percent": round(100 * config["mix"]["phantom"]),
        "single_percent": round(100 * config["mix"]["single_slices"]),
        "slices": training["slices"],
        "volumes": len(training["volumes"]),
        "data": volumes(entries, training["volumes"]),
        "mended": described(data.MENDED),
        "citations": citations([*used, *scored]),
        "test_data": "; ".join(f"{e['name']} ({e['collection']}, {e['licence']})" for e in scored),
        "pictures": shown(scored),
        "known": (HERE / "known.md").read_text("utf-8").strip(),
    }
    return Template((HERE / "card.md").read_text("utf-8")).substitute(words | tables)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    ask.add_argument("folder", type=Path)
    ask.add_argument("--data", type=Path, required=True)
    ask.add_argument("--manifest", type=Path, required=True)
    ask.add_argument("--date", required=True)
    ask.add_argument("--machine", required=True)
    ask.add_argument("--version", help="of the model, where it changes")
    ask.add_argument("--private", type=Path, help="folder for pictures of all test series")
    ask.add_argument("--device", default="cpu")
    ask.add_argument("--threads", type=int, default=2)
    args = ask.parse_args()
    args.models, args.model, args.weights = MODEL.parent, MODEL.name, None
    training, evaluation, folds = checked(args.folder, args.manifest)
    shutil.copyfile(args.folder / "weights.safetensors", MODEL / "weights.safetensors")
    for name, facts in (("training", training), ("evaluation", evaluation), ("folds", folds)):
        text = json.dumps(facts, indent=1) + "\n"
        if facts:
            (HERE / f"{name}.json").write_text(text, "utf-8")
        else:
            (HERE / f"{name}.json").unlink(missing_ok=True)
    print(pin(MODEL, args.version))
    scored = [e for e in data.entries(args.manifest, "test") if e["name"] in evaluation["test"]]
    drawn(args, training, scored)
    (MODEL / "MODEL_CARD.md").write_text(card(args, training, evaluation, folds), "utf-8")


if __name__ == "__main__":
    main()
