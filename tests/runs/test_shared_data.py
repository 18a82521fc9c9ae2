"""The real files, each read as docs/how-to/real-data.md says; the oddities counted in them are found again."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

import tinyruns
from tutelage import assemble, config
from tutelage.data.repeats.decontaminate import Decontaminator
from tutelage.data.split import normal
from tutelage.data.stream import Parsed
from tutelage.data.survey import Survey
from tutelage.recipe import CleanOptions, DataOptions, DuplicateOptions

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "real-data.md"
RECIPE = ROOT / "recipes" / "natural-instructions.yaml"

PUBLIC = {
    "data/alpaca_data_cleaned.json": "sft/alpaca_cleaned_51924.jsonl.gz",
    "data/alpaca_en_demo.json": "sft/llamafactory_alpaca_en_demo.jsonl.gz",
    "data/identity.json": "sft/llamafactory_identity.jsonl",
    "data/instruction-data.json": "sft/rasbt_instruction_data.jsonl.gz",
    "data/math_data.json": "fixtures/llm_adapters_math_data_CONTAMINATED.jsonl.gz",
    "data/databricks-dolly-15k.jsonl": "sft/dolly_6400_no_context.jsonl.gz",
    "data/seed_tasks.jsonl": "sft/self_instruct_seed_tasks.jsonl",
    "data/user_oriented_instructions.jsonl": "eval/self_instruct_user_oriented.jsonl",
    "data/gsm8k/train.jsonl": "sft/gsm8k_train.jsonl.gz",
    "data/gsm8k/test.jsonl": "eval/gsm8k_test.jsonl.gz",
    "data/TruthfulQA.csv": "eval/truthfulqa.jsonl.gz",
    "data/input_response_data_gpt4.jsonl": "eval/ifeval_gpt4_responses_20231107.jsonl.gz",
    "data/input_data.jsonl": "eval/ifeval_input_data.jsonl.gz",
    "data/wikisql/train.jsonl": "sft/mlx_wikisql_train.jsonl.gz",
    "data/wikisql/valid.jsonl": "sft/mlx_wikisql_valid.jsonl",
    "data/wikisql/test.jsonl": "sft/mlx_wikisql_test.jsonl",
    "data/c4_demo.jsonl": "sft/llamafactory_c4_demo_text.jsonl.gz",
    "data/dummy_conversation.json": "chat/fastchat_dummy_conversation.jsonl.gz",
    "data/v1_sft_demo.jsonl": "chat/llamafactory_v1_sft_demo.jsonl.gz",
    "data/en_100_tree.jsonl.gz": "chat/oasst_en_100_tree.jsonl.gz",
    "data/glaive_toolcall_en_demo.json": "tools/llamafactory_glaive_toolcall_en_demo.jsonl.gz",
    "data/glaive_toolcall_zh_demo.json": "tools/llamafactory_glaive_toolcall_zh_demo.jsonl.gz",
    "data/natural-instructions/instances.jsonl.gz": "sft/natural_instructions_v1_instances.jsonl.gz",
    "data/natural-instructions/tasks.jsonl.gz": "sft/natural_instructions_v1_tasks.jsonl.gz",
    "data/python_functions.jsonl": "sft/python_stdlib_functions.jsonl.gz",
    "data/sanitized-mbpp.json": "eval/mbpp_sanitized.jsonl.gz",
    "data/HumanEval.jsonl.gz": "eval/humaneval.jsonl.gz",
    "data/SVAMP.json": "eval/svamp.jsonl.gz",
    "data/question.jsonl": "eval/vicuna_bench_question.jsonl",
    "data/dpo_en_demo.json": "preference/llamafactory_dpo_en_demo.jsonl.gz",
    "data/instruction-data-with-preference.json": "preference/rasbt_preference.jsonl.gz",
    "data/kto_en_demo.json": "preference/llamafactory_kto_en_demo.jsonl.gz",
    "data/reward_00.json": "preference/taskmaster4_reward_00.jsonl.gz",
}
"""Files as the page names them, and as they lie here."""

_NAMES = re.compile("|".join(sorted(map(re.escape, PUBLIC), key=len, reverse=True)))


def here(text: str, shared: Path) -> str:
    """A text with the files of this machine in the place of those of the page."""
    return _NAMES.sub(lambda name: str(shared / PUBLIC[name.group()]), text)


def blocks(language: str) -> list[str]:
    """The blocks of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def sections() -> list[dict[str, Any]]:
    return [YAML(typ="safe").load(text)["data"] for text in blocks("yaml")]


def sources() -> dict[str, dict[str, Any]]:
    """Each file of the page with the options of the first entry that reads it."""
    found: dict[str, dict[str, Any]] = {}
    for section in sections():
        for source in (*section["train"], *filter(None, [section.get("heldout")])):
            paths = source["path"] if isinstance(source["path"], list) else [source["path"]]
            for path in paths:
                found.setdefault(path, {name: value for name, value in source.items() if name not in ("path", "where")})
    return found


@dataclass(frozen=True)
class Known:
    """What is in a file: counts of rows."""

    format: str
    rows: int
    dropped: dict[str, int] = field(default_factory=dict)
    repeats: tuple[int, int, int] = (0, 0, 0)
    """Rows that repeat an earlier prompt and answer; an earlier prompt; rows nearly like one with another prompt."""
    found: dict[str, int] = field(default_factory=dict)
    """Rows in which a rule finds something."""


KNOWN = {
    # 92 rows hold `noinput` or the like in some way; one of them speaks of it in a sentence. 147 mention an AI, a
    # language model or "I cannot"; these decline. 56 answers copy their input; three more begin with the whole prompt.
    "data/alpaca_data_cleaned.json": Known(
        "alpaca",
        51924,
        repeats=(0, 0, 17),
        found={
            **{"bidi_controls": 1, "control_characters": 2, "line_endings": 7, "personal_data": 45, "placeholders": 91},
            **{"prompt_copied": 59, "refusals": 51, "repetition_loops": 1, "template_variables": 4, "zero_width": 6},
            "truncated_answers": 76,
        },
    ),
    # Five with brackets were counted; three more are "No input" alone on the last line.
    "data/alpaca_en_demo.json": Known(
        "alpaca",
        999,
        repeats=(14, 14, 0),
        found={"personal_data": 3, "placeholders": 8, "prompt_copied": 1, "refusals": 29, "truncated_answers": 5},
    ),
    "data/identity.json": Known("alpaca", 91, repeats=(0, 3, 0), found={"refusals": 1, "template_variables": 85}),
    "data/instruction-data.json": Known("alpaca", 1100, repeats=(0, 31, 13), found={"prompt_copied": 1}),
    # Nine rows repeat as a whole; 60 have the same prompt and output, and another `answer` or letter case. The near
    # ones were a lower bound.
    "data/math_data.json": Known("alpaca", 3260, {"empty-answer": 3}, (60, 80, 68)),
    "data/databricks-dolly-15k.jsonl": Known(
        "dolly",
        6400,
        repeats=(3, 78, 30),
        found={"personal_data": 4, "prompt_copied": 6, "refusals": 4, "truncated_answers": 750},
    ),
    "data/seed_tasks.jsonl": Known(
        "self-instruct", 175, found={"personal_data": 2, "refusals": 1, "truncated_answers": 2}
    ),
    "data/user_oriented_instructions.jsonl": Known(
        "self-instruct", 252, found={"personal_data": 2, "truncated_answers": 3}
    ),
    "data/gsm8k/train.jsonl": Known(
        "prompt-completion", 7473, repeats=(0, 0, 2), found={"line_endings": 1, "zero_width": 1}
    ),
    "data/gsm8k/test.jsonl": Known("prompt-completion", 1319, found={"zero_width": 1}),
    "data/TruthfulQA.csv": Known("alpaca", 817, repeats=(0, 0, 4), found={"refusals": 1}),
    "data/input_response_data_gpt4.jsonl": Known(
        "prompt-completion", 541, found={"personal_data": 6, "refusals": 1, "template_variables": 4}
    ),
    # 35 were counted without the "A:" that belongs to the prompt here: it makes one more run of words differ wherever
    # the last word does. One row repeats as a whole, another but for spacing.
    "data/wikisql/train.jsonl": Known("text", 1000, repeats=(2, 2, 20)),
    "data/wikisql/valid.jsonl": Known("text", 100, repeats=(0, 0, 2)),
    "data/wikisql/test.jsonl": Known("text", 100),
    # Its 299 repeated prompts were those of rows that have none.
    "data/c4_demo.jsonl": Known("text", 300, found={"personal_data": 10, "replacement_character": 4, "zero_width": 3}),
    # All 283 say that they are a language model; 24 of them to decline.
    "data/dummy_conversation.json": Known("sharegpt", 500, repeats=(0, 346, 0), found={"refusals": 24}),
    # 46 rows with {{name}}, and 4 with {{author}} alone.
    "data/v1_sft_demo.jsonl": Known(
        "messages",
        500,
        repeats=(1, 3, 0),
        found={"personal_data": 3, "refusals": 15, "template_variables": 50, "truncated_answers": 1},
    ),
    "data/en_100_tree.jsonl.gz": Known("oasst", 100, found={"refusals": 3, "truncated_answers": 1}),
    # 68 prompts repeat with what the tools gave back, 73 in what the user said; 35 rows as a whole, 38 but for the
    # tools on offer.
    "data/glaive_toolcall_en_demo.json": Known(
        "sharegpt",
        300,
        repeats=(38, 73, 2),
        found={"personal_data": 9, "refusals": 42, "truncated_answers": 2},
    ),
    # None were near where a text without spaces was one word; here each Han character is one.
    "data/glaive_toolcall_zh_demo.json": Known(
        "sharegpt",
        300,
        repeats=(43, 66, 21),
        found={"other_script": 5, "personal_data": 4, "prompt_copied": 1, "refusals": 47, "truncated_answers": 2},
    ),
    # 3,670 inputs repeat, most of them under another definition, which belongs to the prompt here; the definition also
    # makes nearly the same what has little input.
    "data/natural-instructions/instances.jsonl.gz": Known(
        "natural-instructions", 13657, repeats=(0, 16, 6114), found={"mojibake": 6, "personal_data": 1}
    ),
    # 19 docstrings repeat, 15 of them under the same head.
    "data/python_functions.jsonl": Known(
        "code-functions", 1247, repeats=(7, 15, 12), found={"personal_data": 1, "template_variables": 2}
    ),
    # Two prompts repeat an earlier one but for punctuation, and each is near a third.
    "data/sanitized-mbpp.json": Known("prompt-completion", 427, repeats=(0, 2, 4)),
    "data/HumanEval.jsonl.gz": Known("prompt-completion", 164, repeats=(0, 1, 0)),
    "data/dpo_en_demo.json": Known(
        "preference",
        300,
        repeats=(5, 5, 0),
        found={
            **{"control_characters": 2, "mojibake": 1, "personal_data": 2, "refusals": 6, "template_variables": 1},
            **{"truncated_answers": 2, "zero_width": 1},
        },
    ),
    "data/instruction-data-with-preference.json": Known("preference", 1100, {"bad-row": 6}, (0, 31, 13)),
    # Its two rows of mojibake are judged bad, and left out.
    "data/kto_en_demo.json": Known(
        "preference",
        300,
        {"not chosen": 150},
        (0, 2, 0),
        {"refusals": 2, "template_variables": 2, "truncated_answers": 4},
    ),
    # Of the 401 that are good. 212 prompts of all 500 repeat with what the tools gave back; the agent speaks first.
    "data/reward_00.json": Known("preference", 500, {"not chosen": 99}, (25, 269, 27), {"role_order": 401}),
}


def test_every_file_is_on_the_page_and_every_name_of_the_page_is_a_file(shared_data: Path) -> None:
    folders = ("sft", "chat", "tools", "preference", "eval", "fixtures")
    files = {str(path.relative_to(shared_data)) for folder in folders for path in (shared_data / folder).iterdir()}
    assert set(PUBLIC.values()) == files
    assert set(re.findall(r"data/[\w./-]+\w", "".join(blocks("yaml") + blocks("sh")))) == set(PUBLIC)
    assert set(sources()) == set(KNOWN)
    only_asked = {"data/SVAMP.json", "data/input_data.jsonl", "data/question.jsonl"}
    assert set(PUBLIC) - set(KNOWN) == only_asked | {"data/natural-instructions/tasks.jsonl.gz"}


@pytest.mark.parametrize("name", sources())
def test_a_file_is_read_and_its_oddities_are_found_again(name: str, shared_data: Path) -> None:
    keep = dict.fromkeys(CleanOptions.model_fields, "keep")
    source = json.loads(here(json.dumps({"path": name, **sources()[name]}), shared_data))
    options = DataOptions(train=(source,), heldout=0, clean=keep, on_bad_row="quarantine")
    looked = Survey(options, as_chat=False)
    ledger, rows, near = looked.ledger, looked.rows, looked.array("near")
    assert near is not None
    assert ledger.rows == ledger.trained + sum(ledger.dropped.values())
    prompts: dict[int, set[int]] = {}
    for group, prompt in zip(near.tolist(), rows["prompt"].tolist(), strict=True):
        prompts.setdefault(group, set()).add(prompt)
    repeats = (
        len(rows) - len(np.unique(rows["pair"])),
        ledger.duplicates,
        sum(len(prompts[group]) > 1 for group in near.tolist()),
    )
    found: Counter[str] = Counter()
    for item, _, _ in looked.items():
        if isinstance(item, Parsed):
            found.update({finding.rule for finding in item.findings})
    assert Known(looked.stream.formats[0], ledger.rows, dict(ledger.dropped), repeats, dict(found)) == KNOWN[name]


def test_every_section_of_the_page_is_a_recipe() -> None:
    for section in sections():
        resolved = config.resolve({"model": {"path": "none"}, "data": section, "output": "none"})
        assert resolved.recipe.data.train


def test_every_evaluation_set_is_read_as_questions(shared_data: Path) -> None:
    (against,) = [section["decontaminate"] for section in sections() if "decontaminate" in section]
    options = DataOptions(train=({"path": "none"},), decontaminate=json.loads(here(json.dumps(against), shared_data)))
    asked = {
        one.name: len({question.origin for question in one.questions})
        for one in Decontaminator(options.decontaminate).sets
    }
    assert asked == {
        **{"gsm8k": 1319, "svamp": 1000, "humaneval": 164, "mbpp": 427, "truthfulqa": 817, "ifeval": 541},
        **{"vicuna": 80, "user-oriented": 252},
    }


@pytest.fixture(scope="module")
def done(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder in which every command of the page was run, one after another, and what each printed."""
    folder = tmp_path_factory.mktemp("page")
    printed: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in "".join(blocks("sh")).splitlines():
            _, *arguments = shlex.split(here(line, shared_data))
            outcome = tinyruns.tutelage(*arguments)
            assert outcome.code == 0, f"{line}\n{outcome.err}"
            printed[" ".join(line.split())] = outcome.out
    return folder, printed


def rows_of(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_the_commands_say_what_became_of_the_rows(done: tuple[Path, dict[str, str]]) -> None:
    said = {}
    for line, printed in done[1].items():
        _, _, verb, file, *_ = line.split()
        said[verb, Path(file).name] = re.findall(r"^(?:rows|lines) +(.*)", printed, re.MULTILINE)
    assert said == {
        ("stats", "alpaca_data_cleaned.json"): ["51,924 = 51,891 trained + 0 held out + 33 dropped (placeholders)"],
        ("show", "alpaca_data_cleaned.json"): [],
        ("stats", "train.jsonl"): ["7,473 = 7,473 trained + 0 held out"],
        ("convert", "dpo_en_demo.json"): ["300 read = 300 kept", "300 written"],
        ("convert", "instruction-data-with-preference.json"): [
            "1,100 read = 1,094 kept + 6 dropped (bad-row)",
            "1,094 written",
        ],
        ("convert", "en_100_tree.jsonl.gz"): ["100 read = 100 kept", "754 written"],
        ("decontaminate", "math_data.json"): [
            "3,260 read = 2,205 kept + 3 dropped (empty-answer) + 1,052 dropped (in evaluation set gsm8k)"
        ],
        ("clean", "alpaca_data_cleaned.json"): [
            "51,924 read = 51,830 kept + 10 dropped (near-duplicate prompt) + 33 dropped (placeholders) "
            "+ 51 dropped (refusals)"
        ],
        ("split", "clean.jsonl"): ["51,830 read = 46,502 in train.jsonl + 5,328 in heldout.jsonl"],
        ("mix", "clean.jsonl"): ["51,921 read = 51,921 kept", "51,921 written"],
        ("convert", "glaive_toolcall_en_demo.json"): ["300 read = 300 kept"],
    }


def test_contaminated_rows_are_listed_with_their_questions(
    done: tuple[Path, dict[str, str]], shared_data: Path
) -> None:
    """With the three rows without an answer, these are the 1,055 questions that are in the file word by word."""
    left = rows_of(done[0] / "math.jsonl.dropped")
    hits = [row for row in left if row["dropped"] == "in evaluation set gsm8k"]
    empty = [row for row in left if row["dropped"] == "empty-answer"]
    assert (len(hits), len(empty), len(left)) == (1052, 3, 1055)
    questions = {row["question"] for row in hits}
    assert len(questions) == 1052
    assert {place.rpartition(":")[0] for place in questions} == {str(shared_data / "eval" / "gsm8k_test.jsonl.gz")}
    records = {n: row["question"] for n, row in enumerate(_lines(shared_data / "eval" / "gsm8k_test.jsonl.gz"), 1)}
    rows = {n: row["instruction"] for n, row in enumerate(_lines(shared_data / PUBLIC["data/math_data.json"]), 1)}
    for row in hits:
        asked, held = int(row["question"].rpartition(":")[2]), int(row["origin"].rpartition(":")[2])
        assert normal(records[asked]) == normal(rows[held])
    assert {normal(rows[int(row["origin"].rpartition(":")[2])]) for row in empty} <= set(map(normal, records.values()))


def _lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def test_pairs_are_pairs(done: tuple[Path, dict[str, str]]) -> None:
    for name, count in (("dpo", 300), ("short", 1094), ("trees", 754)):
        pairs = rows_of(done[0] / "pairs" / f"{name}.jsonl")
        assert len(pairs) == count
        for pair in pairs:
            assert pair["chosen"] != pair["rejected"]
            assert pair["prompt"][-1]["role"] == "user"
            assert {answer[0]["role"] for answer in (pair["chosen"], pair["rejected"])} == {"assistant"}
    assert sum(pair.get("weight", 1) for pair in pairs) == pytest.approx(212)


def test_natural_instructions_prepare_as_a_mixture_of_tasks(
    shared_data: Path, tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    """29 tasks are trained, 10 others held out; each task takes the share that the temperature gives it."""
    model = shutil.copytree(tiny_model("llama"), tmp_path / "model")
    described = json.loads((model / "config.json").read_text("utf-8")) | {"max_position_embeddings": 16384}
    (model / "config.json").write_text(json.dumps(described), "utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(here(RECIPE.read_text("utf-8"), shared_data), "utf-8")
    overrides = [f"model.path={model}", "data.max_length=16384", f"output={tmp_path / 'run'}"]
    prepared = assemble.prepare_data(config.load(recipe, overrides).recipe)
    ledger = prepared.dataset.ledger
    assert (ledger.rows, ledger.trained, ledger.heldout, dict(ledger.dropped)) == (13657, 10176, 3481, {})
    sizes = {portion.name: portion.size for portion in prepared.mixture.portions}
    assert len(sizes) == 29
    assert min(sizes.values()) == sizes["multirc-correct-bad-question"] == 58
    roots = {name: size**0.5 for name, size in sizes.items()}
    for portion in prepared.mixture.portions:
        wanted = sum(sizes.values()) * roots[portion.name] / sum(roots.values())
        assert abs(portion.taken - wanted) < 1, portion.name
    assert prepared.mixture.size == 10176
    tasks = {row["task"]: row["split"] for row in _lines(shared_data / "sft/natural_instructions_v1_tasks.jsonl.gz")}
    trained = {source.where["task"] for source in prepared.recipe.data.train}
    assert trained == {task for task, split in tasks.items() if split == "train"}
    assert Counter(tasks.values()) == {"train": 29, "eval": 10}


def test_a_training_task_that_resembles_a_held_out_one_needs_near_off(shared_data: Path) -> None:
    """What the recipe's comment says about duplicates.near."""
    source = {"path": here("data/natural-instructions/instances.jsonl.gz", shared_data)}
    source["join"] = {"path": here("data/natural-instructions/tasks.jsonl.gz", shared_data), "on": "task"}
    options = DataOptions(
        train=({**source, "where": {"task": "subtask053_multirc_correct_bad_question"}},),
        heldout={**source, "where": {"split": "eval"}},
    )
    dropped = Survey(options).ledger.dropped
    assert dropped["nearly held out"] > 0
    off = options.model_copy(update={"duplicates": DuplicateOptions(near="off")})
    assert Survey(off).ledger.dropped == {}
