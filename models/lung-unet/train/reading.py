"""What evaluate.py found, as tables: for a terminal of 100 columns, and for the model card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tables import columns

Found = dict[str, Any]
Rows = list[list[object]]


def as_text(report: Found) -> str:
    """Everything, 100 columns wide."""
    return "\n\n".join(f"{title}\n{columns(head, rows)}" for title, head, rows in parts(report))


def parts(report: Found) -> list[tuple[str, Sequence[str], Rows]]:
    """Titles, heads and rows of the tables that have rows."""
    made: list[tuple[str, tuple[Sequence[str], Rows]]] = [
        ("Dice", dice_table(report)),
        ("Worst slices (0 = lowest)", worst_table(report)),
        ("Painted disease: share found on its side", painted_table(report)),
        ("What drawn contours leave out", drawn_table(report)),
        ("Drawn contours against painted disease", trade_table(report)),
        ("Lung far from the label, worst slice", far_table(report)),
        ("No lung in view: worst slice", without_table(report)),
        ("Stored otherwise: voxels that differ", positions_table(report)),
        ("Parts of a chest", fields_table(report)),
        ("Real series without a label: area in a slice", unlabelled_table(report)),
    ]
    return [(title, head, rows) for title, (head, rows) in made if rows]


def dice_table(report: Found) -> tuple[Sequence[str], Rows]:
    head = ("series", "label", "slices", "right", "left", "wrong side", "doubts")
    rows: Rows = [
        [
            name,
            r["label"],
            r["slices"],
            f"{r['right']:.3f}",
            f"{r['left']:.3f}",
            f"{r['wrong_side_ml']} ml",
            len(r["doubts"]),
        ]
        for name, r in report["test"].items()
    ]
    return head, rows


def mean_dice(report: Found) -> float:
    sides = [r[side] for r in report["test"].values() for side in ("right", "left")]
    return float(sum(sides) / max(1, len(sides)))


def worst_table(report: Found) -> tuple[Sequence[str], Rows]:
    def said(worst: list[Found]) -> str:
        return ", ".join(f"{w['slice']}: {w['dice']:.2f}" for w in worst)

    rows: Rows = [
        [name, said(r["right_worst"]), said(r["left_worst"])] for name, r in report["test"].items()
    ]
    return ("series", "right", "left"), rows


def painted_table(report: Found) -> tuple[Sequence[str], Rows]:
    sick = {name: r["painted"] for name, r in report["test"].items() if r.get("painted")}
    heads = list(dict.fromkeys(key for painted in sick.values() for key in painted))
    rows: Rows = [
        [trial, *(f"{p[trial]:.2f}" if trial in p else "-" for p in sick.values())]
        for trial in heads
    ]
    return ("disease", *sick), rows


def drawn_table(report: Found) -> tuple[Sequence[str], Rows]:
    head = ("series", "side", "solid, left out", "else more", "else less", "Dice", "Dice without")
    rows: Rows = [
        [
            name,
            side,
            f"{s['left_out_ml']:.0f} ml",
            f"{s['more_ml']:.0f} ml",
            f"{s['less_ml']:.0f} ml",
            f"{report['test'][name][side]:.3f}",
            f"{s['dice_without']:.3f}",
        ]
        for name, r in report.get("drawn", {}).items()
        for side, s in r["sides"].items()
    ]
    return head, rows


def trade_table(report: Found) -> tuple[Sequence[str], Rows]:
    named = ("right", "left", "level right", "level left", "ball right", "ball left")
    head = ("series", "reluctance", "Dice right", "Dice left", *named[2:])
    rows: Rows = [
        [name, f"{row['reluctance']:g}", f"{row['right']:.3f}", f"{row['left']:.3f}"]
        + [f"{row[n]:.2f}" for n in named[2:]]
        for name, r in report.get("drawn", {}).items()
        for row in r["trade"]
    ]
    return head, rows


def far_table(report: Found) -> tuple[Sequence[str], Rows]:
    def said(worst: Found) -> str:
        return f"{worst['cm2']} cm² ({worst['slice']})" if worst else "no room"

    rows: Rows = [
        [
            name,
            said(r["false_gas"]),
            said(r["false_dense"]),
            said(r["stomach_gas"]) if "stomach_gas" in r else "-",
        ]
        for name, r in report["test"].items()
    ]
    return ("series", "dark (slice)", "dense (slice)", "in painted stomach gas"), rows


def without_table(report: Found) -> tuple[Sequence[str], Rows]:
    rows: Rows = [
        [
            name,
            r["shows"],
            "yes" if r["patient_trained_on"] else "no",
            r.get("refused") or f"{r['cm2']} cm²",
        ]
        for name, r in report["without_lung"].items()
    ]
    return ("series", "shows", "patient trained on", "false lung"), rows


def positions_table(report: Found) -> tuple[Sequence[str], Rows]:
    rows: Rows = [
        [name, position, r["other_voxels"], r["other_side"]]
        for name, table in report["positions"].items()
        for position, r in table.items()
    ]
    return ("series", "stored", "voxels that differ", "on the other side"), rows


def fields_table(report: Found) -> tuple[Sequence[str], Rows]:
    def side(r: Found, name: str) -> str:
        return f"{r[name]:.3f}" if name in r else f"false: {r[f'false_{name}_ml']} ml"

    rows: Rows = [
        [name, field, side(r, "right"), side(r, "left"), " ".join(r["doubts"] + r["notes"]) or "-"]
        for name, table in report["fields"].items()
        for field, r in table.items()
    ]
    return ("series", "part", "right", "left", "what the result says"), rows


def unlabelled_table(report: Found) -> tuple[Sequence[str], Rows]:
    sides = {True: "yes", False: "NO", None: "one side"}
    rows: Rows = [
        [name, r["shows"], "-", "-", "-", r["refused"]]
        if "refused" in r
        else [
            name,
            r["shows"],
            f"{r['right_cm2']} cm²",
            f"{r['left_cm2']} cm²",
            sides[r["sides_right"]],
            " ".join(r["doubts"] + r["notes"]) or "-",
        ]
        for name, r in report["unlabelled"].items()
    ]
    return ("series", "shows", "right", "left", "sides as in the patient", "what it says"), rows
