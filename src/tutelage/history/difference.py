"""How two runs differ: in what they were asked to do, in what they are made of, and from which step on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage import files
from tutelage.config import document
from tutelage.config.names import join
from tutelage.errors import RecipeError
from tutelage.history.listing import status
from tutelage.history.record import Record, number

CLOSE = 1e-6
"""Nats by which losses may differ and still count as the same to rounding."""
STEP = ("rows", "loss", "grad_norm", "learning_rate", "skipped")
"""What a step is; its time and memory are not."""
PLAN = (
    *("steps", "epochs", "global_batch_size", "learning_rate", "epoch_examples", "tokens", "supervised_tokens"),
    *("parameters", "trainable_parameters", "packed", "weights", "compute", "optimizer", "master"),
    *("token_budget", "checkpointing", "rounding"),
)
"""Of plan.json, what does not change with the weather."""
COSTS = ("seconds", "training_seconds", "tokens_per_second", "peak_memory_bytes")
RESULTS = ("status", "steps", "skipped_steps", "heldout", "tasks", "stopped", "ledger")

Difference = dict[str, Any]
"""`what`, and its value in `a` and in `b`."""


def diff(first: str | Path, second: str | Path) -> dict[str, Any]:
    """What is not the same of two runs, by section, and up to which step they are one.

    Raises:
        RecipeError: usage/not-a-run.
    """
    one, other = Record.at(first), Record.at(second)
    both = (one, other)
    begun = [_table(record, "run.json", "begun_with") for record in both]
    ledgers = [_flat(_table(record, "data.json", "ledger"), "ledger") for record in both]
    environments = [record.table("environment.json") for record in both]
    plans = [record.table("plan.json") for record in both]
    results = [record.table("result.json") for record in both]
    steps = _steps(one, other)
    weights = _weights(one, other, steps)
    sections = {
        "recipe": _differ(*(_recipe(record) for record in both)),
        "data": _differ(*({**_part(b, "data"), **ledger} for b, ledger in zip(begun, ledgers, strict=True))),
        "model": _differ(*(_part(b, "model") for b in begun)),
        "environment": _differ(*({k: v for k, v in e.items() if k != "store"} for e in environments)),
        "plan": _differ(*({k: p.get(k) for k in PLAN} for p in plans)),
        "results": _differ(*(_results(r) for r in results)),
    }
    return {
        "a": str(one.folder),
        "b": str(other.folder),
        "status": {"a": status(one), "b": status(other)},
        "sentence": _sentence(steps, weights),
        "identical": bool(
            _is_whole(steps) and weights is not None and weights["same"] and weights["step"] == steps["a"]
        ),
        **sections,
        "steps": steps,
        "weights": weights,
        "cost": [{"what": name, "a": results[0].get(name), "b": results[1].get(name)} for name in COSTS],
        "unreadable": {"a": one.unreadable, "b": other.unreadable},
    }


def _steps(one: Record, other: Record) -> dict[str, Any]:
    """How far the two are the same, and the first step at which each thing differs."""
    same, made = 0, [0, 0]
    first: dict[str, int | None] = dict.fromkeys(("rows", "loss", "loss_beyond_rounding"))
    still = True
    for a, b in itertools.zip_longest(one.lines("metrics.jsonl"), other.lines("metrics.jsonl")):
        made = [made[0] + (a is not None), made[1] + (b is not None)]
        if a is None or b is None:
            continue
        still = still and all(a.get(key) == b.get(key) for key in STEP)
        same += still
        found = {
            "rows": a.get("rows") != b.get("rows"),
            "loss": a.get("loss") != b.get("loss"),
            "loss_beyond_rounding": _apart(a.get("loss"), b.get("loss")),
        }
        for what, differs in found.items():
            if differs and first[what] is None:
                first[what] = made[0]
    return {"a": made[0], "b": made[1], "same_up_to": same, "first_difference": first}


def _apart(a: Any, b: Any) -> bool:
    """Whether two losses are further from each other than rounding takes them; null is a loss that is not finite."""
    left, right = number(a), number(b)
    return a != b if left is None or right is None else abs(left - right) > CLOSE


def _is_whole(steps: Mapping[str, Any]) -> bool:
    return bool(steps["a"] == steps["b"] == steps["same_up_to"])


def _weights(one: Record, other: Record, steps: Mapping[str, Any]) -> dict[str, Any] | None:
    """Whether the weights are the same, bit for bit, at the last point where both are known; None where none is.

    Checkpoints are compared by their manifests, so nothing large is read. Finished models are hashed where there is
    no checkpoint of both runs' last step.
    """
    known = _saved_weights(one, other)
    last = max(steps["a"], steps["b"])
    ours, theirs = one.weights(), other.weights()
    if not ours or not theirs or (known is not None and known["step"] == last):
        return known
    yours = {path.name: path for path in theirs}
    mine = {path.name: path for path in ours}
    differ = [name for name in sorted({*mine, *yours}) if not _same_file(mine.get(name), yours.get(name))]
    return {"at": "finished model", "step": last, "same": not differ, "differ": differ}


def _saved_weights(one: Record, other: Record) -> dict[str, Any] | None:
    """The same of the newest checkpoint that both runs have."""
    theirs = {checkpoint.step: checkpoint for checkpoint in other.saved()}
    for mine in one.saved():
        yours = theirs.get(mine.step)
        names = [name for name in mine.files if name.endswith(".safetensors")]
        if yours is None or not names or set(names) != {n for n in yours.files if n.endswith(".safetensors")}:
            continue  # Written by another number of processes, the same weights lie in other files.
        differ = [name for name in names if mine.files[name]["sha256"] != yours.files[name]["sha256"]]
        return {"at": f"checkpoint of step {mine.step}", "step": mine.step, "same": not differ, "differ": differ}
    return None


def _same_file(one: Path | None, other: Path | None) -> bool:
    if one is None or other is None or one.stat().st_size != other.stat().st_size:
        return False
    return files.sha256(one) == files.sha256(other)


def _sentence(steps: Mapping[str, Any], weights: Mapping[str, Any] | None) -> str:
    """Up to where the two are one, plainly."""
    a, b, same, first = steps["a"], steps["b"], steps["same_up_to"], steps["first_difference"]
    if not a or not b:
        none = "neither run has" if not a and not b else f"{'A' if not a else 'B'} has not"
        return f"nothing to compare: {none} made a step"
    if same < min(a, b):
        what = [name for name in ("rows", "loss") if first[name] == same + 1]
        in_what = f", in its {' and '.join(what)}" if what else ""
        begins = f"the same up to step {same:,}" if same else "different from the first step on"
        return f"{begins}; step {same + 1:,} differs{in_what}" if same else f"{begins}{in_what}"
    if a != b:
        shorter, longer = ("A", "B") if a < b else ("B", "A")
        return f"the same up to step {same:,}, where {shorter} ends; {longer} has {max(a, b):,} steps"
    if weights is None:
        return f"identical in all {same:,} steps, bit for bit; there are no weights to compare"
    if not weights["same"]:
        return f"the same {same:,} steps, but other weights in the {weights['at']}"
    if weights["step"] != same:
        return f"identical in all {same:,} steps, bit for bit; weights are known up to step {weights['step']:,}"
    return f"identical: the same {same:,} steps and the same weights, bit for bit"


def _results(result: Mapping[str, Any]) -> dict[str, Any]:
    """What came of the run; the sentence says the same in words."""
    flat = _flat({name: result.get(name) for name in RESULTS})
    return {name: value for name, value in flat.items() if name != "heldout.sentence"}


def _recipe(record: Record) -> dict[str, Any]:
    """Every option by its dotted name, the output folder left out."""
    try:
        values, _ = document.read(record.folder / "recipe.yaml")
    except RecipeError as error:
        if (record.folder / "recipe.yaml").is_file():
            record.unreadable["recipe.yaml"] = error.problems[0].what
        return {}
    return {name: value for name, value in _flat(values).items() if name != "output"}


def _table(record: Record, name: str, part: str) -> dict[str, Any]:
    return _part(record.table(name), part)


def _part(whole: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = whole.get(name)
    return value if isinstance(value, dict) else {}


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Each value by its dotted name; a list stays whole unless objects stand in it."""
    if isinstance(value, Mapping):
        return {n: v for key, part in value.items() for n, v in _flat(part, join(name, str(key))).items()}
    if isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        return {n: v for place, part in enumerate(value) for n, v in _flat(part, join(name, str(place))).items()}
    return {name: value}


def _differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Difference]:
    names = dict.fromkeys([*one, *other])
    return [{"what": n, "a": one.get(n), "b": other.get(n)} for n in names if one.get(n) != other.get(n)]
