"""Bad input of every kind, one function each, with what the command must say about it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tinyruns

GOOD = {"instruction": "Name a colour, number {}.", "input": "", "output": "red"}


def good(count: int) -> list[dict[str, str]]:
    return [{**GOOD, "instruction": GOOD["instruction"].format(n)} for n in range(count)]


def text(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


class Case:
    """A working folder with a model, rows and a recipe, of which one thing is spoiled."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.rows = folder / "rows.jsonl"
        self.rows.write_bytes(text(good(20)))
        self.values = tinyruns.recipe(model, "rows.jsonl", "run")

    def command(self, verb: str) -> list[str]:
        tinyruns.write_recipe(self.folder / "recipe.yaml", self.values)
        return [verb, "recipe.yaml"]


def missing_data(case: Case) -> None:
    case.rows.rename(case.folder / "row.jsonl")


def empty_file(case: Case) -> None:
    case.rows.write_bytes(b"")


def only_blank_lines(case: Case) -> None:
    case.rows.write_bytes(b"\n\n  \n")


def wrong_columns(case: Case) -> None:
    case.rows.write_bytes(text([{"question": "?", "verdict": n} for n in range(5)]))


def malformed_line(case: Case) -> None:
    lines = text(good(5100)).splitlines(keepends=True)
    lines[4999] = lines[4999][:30] + b"\n"
    case.rows.write_bytes(b"".join(lines))


def truncated_file(case: Case) -> None:
    case.rows.write_bytes(text(good(20))[:-20])


def empty_answer(case: Case) -> None:
    case.rows.write_bytes(text([*good(6), {**GOOD, "output": "  "}, *good(3)]))


def number_for_text(case: Case) -> None:
    case.rows.write_bytes(text([*good(6), {**GOOD, "output": 7}, *good(3)]))


def invalid_utf8(case: Case) -> None:
    case.rows.write_bytes(text(good(2)) + text(good(1)).replace(b"red", b"r\xe9d") + text(good(2)))


def unknown_ending(case: Case) -> None:
    case.rows = case.rows.rename(case.folder / "rows.xlsx")
    case.values["data"]["train"] = [{"path": "rows.xlsx"}]


def broken_parquet(case: Case) -> None:
    (case.folder / "rows.parquet").write_bytes(b"PAR1 but no more")
    case.values["data"]["train"] = [{"path": "rows.parquet"}]


def over_long(case: Case) -> None:
    case.rows.write_bytes(text([*good(6), {**GOOD, "instruction": "word " * 400}, *good(3)]))


def all_bad_when_quarantined(case: Case) -> None:
    case.rows.write_bytes(text([{**GOOD, "output": ""}] * 3 + good(3)))
    case.values["data"]["on_bad_row"] = "quarantine"


def unknown_key(case: Case) -> None:
    case.values["train"]["learning_rte"] = 1e-4


def wrong_type(case: Case) -> None:
    case.values["train"]["epochs"] = "three"
    del case.values["train"]["steps"]


def contradiction(case: Case) -> None:
    case.values["train"]["epochs"] = 2


def no_model(case: Case) -> None:
    case.values["model"]["path"] = "./models/none"


def no_weights(case: Case) -> None:
    shutil.copytree(case.model, case.folder / "model")
    (case.folder / "model" / "model.safetensors").unlink()
    case.values["model"]["path"] = "model"


def pickled_weights(case: Case) -> None:
    no_weights(case)
    (case.folder / "model" / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")


def torn_weights(case: Case) -> None:
    no_weights(case)
    whole = (case.model / "model.safetensors").read_bytes()
    (case.folder / "model" / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def bad_config(case: Case) -> None:
    no_weights(case)
    shutil.copy(case.model / "model.safetensors", case.folder / "model")
    (case.folder / "model" / "config.json").write_text("{")


def pattern_that_backtracks(case: Case) -> None:
    """The tokenizer cuts by a pattern that needs exponentially many tries where the text does not fit it."""
    shutil.copytree(case.model, case.folder / "model")
    case.values["model"]["path"] = "model"
    path = case.folder / "model" / "tokenizer.json"
    whole = json.loads(path.read_text())
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    whole["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, whole["pre_tokenizer"]]}
    path.write_text(json.dumps(whole))
    rows = good(20)
    rows[6]["instruction"] = "a" * 40 + "b"
    case.rows.write_bytes(text(rows))


def own_code(case: Case) -> None:
    no_weights(case)
    shutil.copy(case.model / "model.safetensors", case.folder / "model")
    code = "open('it-ran', 'w')\n"
    (case.folder / "model" / "modeling_own.py").write_text(code)
    config = {"auto_map": {"AutoConfig": "modeling_own.C", "AutoModelForCausalLM": "modeling_own.M"}}
    (case.folder / "model" / "config.json").write_text(json.dumps({**config, "model_type": "own"}))


def too_long_for_the_model(case: Case) -> None:
    case.values["data"]["max_length"] = 4096


def output_below_a_file(case: Case) -> None:
    (case.folder / "notes.txt").write_text("mine")
    case.values["output"] = "notes.txt/run"


def output_taken(case: Case) -> None:
    (case.folder / "run").mkdir()
    (case.folder / "run" / "notes.txt").write_text("mine")


def output_in_the_kernel(case: Case) -> None:
    case.values["output"] = "/proc/run"


def no_such_template(case: Case) -> None:
    case.values["model"]["template"] = "chatlm"


CASES: dict[Callable[[Case], None], tuple[int, str, str]] = {
    missing_data: (3, "data/missing-file", r"fix .*row\.jsonl"),
    empty_file: (3, "data/empty-file", r"where rows\.jsonl"),
    only_blank_lines: (3, "data/empty-file", r"where rows\.jsonl"),
    wrong_columns: (3, "data/unknown-format", r"rows\.jsonl(.|\n)*question"),
    malformed_line: (3, "data/bad-json", r"where rows\.jsonl:5000$"),
    truncated_file: (3, "data/bad-json", r"where rows\.jsonl:20$"),
    empty_answer: (3, "data/empty-answer", r"where rows\.jsonl:7$"),
    number_for_text: (3, "data/bad-row", r"where rows\.jsonl:7$"),
    invalid_utf8: (3, "data/bad-encoding", r"where rows\.jsonl:3$"),
    unknown_ending: (3, "data/unknown-type", r"fix .*\.jsonl"),
    broken_parquet: (3, "data/unreadable", r"where rows\.parquet"),
    pattern_that_backtracks: (3, "data/not-encoded", r"where rows\.jsonl:7$(.|\n)*found .*retry-limit"),
    over_long: (3, "data/over-long", r"where rows\.jsonl:7$"),
    all_bad_when_quarantined: (3, "data/too-many-dropped", r"where rows\.jsonl:1, rows\.jsonl:2"),
    unknown_key: (2, "recipe/unknown-option", r"where recipe\.yaml:\d+$(.|\n)*fix .*learning_rate"),
    wrong_type: (2, "recipe/bad-value", r"where recipe\.yaml:\d+$(.|\n)*found .*three"),
    contradiction: (2, "recipe/conflict", r"where recipe\.yaml:\d+"),
    no_model: (4, "model/missing", r"found .*models/none"),
    no_weights: (4, "model/no-weights", r"where model$"),
    pickled_weights: (4, "model/no-weights", r"found .*pytorch_model\.bin"),
    torn_weights: (4, "model/bad-weights", r"where model/model.safetensors$"),
    bad_config: (4, "model/unreadable", r"where model/config\.json"),
    own_code: (7, "security/remote-code", r"where model/config\.json"),
    too_long_for_the_model: (4, "model/too-short", r"fix .*data\.max_length=512"),
    output_below_a_file: (5, "machine/read-only", r"where notes\.txt"),
    output_taken: (2, "recipe/run-exists", r"where run$"),
    output_in_the_kernel: (5, "machine/read-only", r"where /proc/run$"),
    no_such_template: (4, "template/missing", r"fix .*chatml"),
}
