"""What a run folder holds beside the made-up run of `madeup`: the whole answer, put into a folder that has the rest."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

VERDICT = "The tuned model is better: held-out loss 2.312 -> 1.902 nats per token (-0.410; 50 examples, 4,000 tokens)."
BEST = "Step 24 of 30 has the lowest held-out loss, and was exported."


def add_answer(folder: Path, steps: int = 30, say: str = "") -> Path:
    """Give the run every part that a result can have; `say` is put into every text of them."""
    result = json.loads((folder / "result.json").read_text())
    result |= answer(steps, say)
    result["heldout"] |= {"breakdown": breakdown(say), "per_byte": per_byte()}
    (folder / "result.json").write_text(json.dumps(result))
    lines = [json.dumps(one) + "\n" for one in measurements(steps)]
    (folder / "evaluations.jsonl").write_text("".join(lines))
    (folder / "heldout.json").write_text(json.dumps({"rows": [f"r{i}" for i in range(50)]}))
    (folder / "tasks.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked(7, say)))
    (folder / "suspects.jsonl").write_text("".join(json.dumps(one) + "\n" for one in suspects(say)))
    plan = json.loads((folder / "plan.json").read_text())
    plan["predicted"] = {"peak_memory_bytes": 2_900_000_000, "step_seconds": 5.5, "seconds": 190.0}
    plan["measured"] = {"peak_memory_bytes": 2_600_000_000, "step_seconds": 4.0, "seconds": 130.0}
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder


def measurements(steps: int) -> list[dict[str, Any]]:
    found = []
    for place in range(6):
        step = round(place * steps / 5)
        gone = place / 5
        found.append(
            {
                "step": step,
                "model": "base" if step == 0 else f"step {step}",
                "nll": 2.312 - 0.45 * (1 - math.exp(-4 * gone)) + (0.03 if place == 5 else 0),
                "tokens": 4000,
                "examples": 50,
                "se": 0.04,
                "stop_probability": 0.31 + 0.6 * gone,
                "general_nll": 3.1 + 0.09 * gone**2,
                "kl": 0.08 * gone**1.5,
            }
        )
    return found


def interval(difference: float, room: float) -> dict[str, Any]:
    return {"difference": difference, "interval": [difference - room, difference + room]}


def per_byte() -> dict[str, Any]:
    return {"base": 0.612, "tuned": 0.503, "unit": "bits per byte", "bytes": 13_000}


def breakdown(say: str = "") -> dict[str, Any]:
    def line(name: str, n: int, base: float, tuned: float, room: float) -> dict[str, Any]:
        return {
            "name": name + say,
            "n": n,
            "tokens": 80 * n,
            "base_nll": base,
            "tuned_nll": tuned,
            **interval(tuned - base, room),
        }

    return {
        "source": [line("shop/orders.jsonl", 40, 2.4, 1.9, 0.08), line("shop/returns.jsonl", 10, 1.9, 1.92, 0.12)],
        "turn": [line("1", 38, 2.3, 1.8, 0.07), line("2", 12, 2.35, 2.2, 0.11)],
        "length": [line(f"tenth {i}", 5, 2.6 - 0.05 * i, 2.1 - 0.03 * i, 0.2 - 0.01 * i) for i in range(1, 11)],
        "part": [line("answer", 50, 2.312, 1.902, 0.07)],
    }


def health(base: bool) -> dict[str, Any]:
    if base:
        shares = {"stopped": 0.22, "hit_limit": 0.78, "empty": 0.0, "loops": 0.41, "broken_fence": 0.02, "well": 0.18}
        return {"n": 50, **shares, "invalid_json": 0.88, "stop_probability": 0.31}
    shares = {"stopped": 0.74, "hit_limit": 0.26, "empty": 0.0, "loops": 0.08, "broken_fence": 0.0, "well": 0.7}
    return {"n": 50, **shares, "invalid_json": 0.04, "stop_probability": 0.91}


def task(metric: str, base: float, tuned: float, room: float, verdict: str, n: int, say: str = "") -> dict[str, Any]:
    one = {"metric": metric + say, "base": base, "tuned": tuned, **interval(tuned - base, room), "n": n}
    return {**one, "verdict": verdict, "sentence": f"{metric}: {base} -> {tuned}.{say}", "fields": {}}


def asked(number: int, say: str = "") -> list[dict[str, Any]]:
    """Lines of `tasks.jsonl` of a row that is lost."""
    row = {
        "task": "gsm8k",
        "row": f"row-{number}",
        "origin": {"file": "gsm8k.jsonl" + say, "line": number},
        "asked": [{"role": "user", "content": f"A box holds {number} mugs. How many do two boxes hold?{say}"}],
        "reference": str(2 * number) + say,
    }
    return [
        {**row, "model": "base", "answer": str(2 * number) + say, "score": 1.0},
        {**row, "model": "tuned", "answer": f"The boxes hold {number} mugs.{say}", "score": 0.0},
    ]


def answer(steps: int, say: str = "") -> dict[str, Any]:
    best = round(0.8 * steps)
    return {
        "verdict": {
            "word": "better",
            "sentence": VERDICT + say,
            "remarks": ["26% of the tuned model's answers do not stop by themselves (n = 50)." + say],
        },
        "tasks": {
            "orders" + say: task("same JSON value", 0.12, 0.84, 0.1, "better", 50, say),
            "gsm8k": {**task("same number", 0.05, 0.02, 0.02, "worse", 200, say), "lost": ["row-7"], "won": []},
            "ifeval": task("all instructions followed", 0.21, 0.23, 0.05, "no difference", 200, say),
        },
        "health": {"base": health(True), "tuned": health(False)},
        "drift": {
            "tokens": 20_000,
            "base_nll": 3.1,
            "tuned_nll": 3.19,
            **interval(0.09, 0.03),
            "kl": 0.08,
            "verdict": "worse",
            "sentence": "General text became less likely: 3.100 -> 3.190 nats per token (+0.090)." + say,
        },
        "memorising": {
            "verdict": False,
            "epochs": [
                {"epoch": n, "train_nll": 2.1 - 0.15 * n, "heldout_nll": 2.05 - 0.07 * n, "gap": 0.08 * n - 0.05}
                for n in (1, 2, 3)
            ],
            "sentence": "Held-out loss still falls with the training loss: nothing points to memorising." + say,
            "canaries": {
                "n": 8,
                "exposure": 1.2,
                "sentence": "The secrets were not memorised." + say,
                "note": "x" + say,
            },
        },
        "knowledge": {
            "n": 32,
            "tokens": 2400,
            "zero_shot_nll": 3.4,
            "few_shot_nll": 2.9,
            "shots": 3,
            "control_nll": 3.3,
            "gained": interval(-0.4, 0.1),
            "unknown": 13,
            "share": 0.4,
            "interval": [0.25, 0.57],
            "rows": [{"origin": {"file": "shop/orders.jsonl", "line": 8}, "words": ["Meissen" + say, "1744"]}],
            "sentence": "For 40 % of the held-out answers examples do not help: they ask for facts." + say,
            "note": say,
        },
        "exported_step": best,
        "best": {
            "step": best,
            "nll": 1.874,
            "last_step": steps,
            "last_nll": 1.902,
            "exported": True,
            "sentence": BEST.replace("24 of 30", f"{best} of {steps}") + say,
        },
        "frontier": [
            {**{key: one[key] for key in ("step", "nll", "general_nll", "kl")}, "kept": one["step"] > steps / 2}
            for one in measurements(steps)
        ],
    }


def suspects(say: str = "") -> list[dict[str, Any]]:
    kinds = ("mislabelled", "unlearnable", "in conflict", "memorised")
    return [
        {
            "row": f"{n:032x}",
            "origin": f"shop/orders.jsonl:{31 * n + 4}{say}",
            "kind": kinds[n % 4] + say,
            "score": 6.2 - 0.3 * n,
            "losses": [6.2 - 0.3 * n, 5.9 - 0.3 * n, 5.8 - 0.3 * n],
            "weight": 0.0,
            "why": f"its loss stays high at each pass{say}",
            "prompt": f"Two blue mugs, please. Row {n}.{say}",
            "answer": f"One tea towel.{say}",
        }
        for n in range(14)
    ]
