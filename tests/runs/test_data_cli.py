"""`tutelage data VERB` as a user meets it: what it prints and writes, what reads that, and what it refuses."""

from __future__ import annotations

import errno
import json
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import tinyruns
from tutelage import assemble, config
from tutelage.data.stream import Parsed, Stream
from tutelage.recipe import DataOptions
from tutelage.types import Demonstration, Origin

VERBS = ["stats", "show", "clean", "split", "mix", "decontaminate", "convert"]
NOWHERE = Origin("", 0)


def run(*words: object) -> tinyruns.Outcome:
    """`tutelage data ...`, which must do its work."""
    outcome = tinyruns.tutelage("data", *words)
    assert outcome.code == 0, outcome.err
    return outcome


def lines(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").split("\n")[:-1]]


def parsed(*paths: str | Path, **options: Any) -> list[Demonstration]:
    """The rows as a run reads them, without their origins."""
    train = tuple({"path": str(path), **options} for path in paths)
    stream = Stream(DataOptions(train=train, heldout=0), as_chat=True)
    return [replace(item.row, origin=NOWHERE) for item in stream.items() if isinstance(item, Parsed)]


ALPACA = [
    {"instruction": f"Say the number {n} in words.", "input": "" if n % 2 else "Be brief.", "output": f"Number {n}."}
    for n in range(40)
]
CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "sky"}}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CHATS = [
    {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": f"What is up there, {n}?", "name": "Ann"},
            {"role": "assistant", "content": "", "tool_calls": [{**CALL, "id": "c1"}], "weight": 0.5},
            {"role": "tool", "content": "blue", "tool_call_id": "c1"},
            {"role": "assistant", "content": "It is blue.", "thinking": "The sky."},
        ],
        "tools": [TOOL],
        "weight": 2.0,
    }
    for n in range(20)
]
QUESTIONS = [{"question": f"Q: what follows {n}?\nA:", "answer": f" {n + 1}"} for n in range(20)]
PAGES = [{"text": f"Page {n}.\u00a0It ends."} for n in range(20)]
FIELDS = "data.train.0.fields={prompt: question, completion: answer}"


@pytest.fixture
def files(workdir: Path) -> Path:
    """A current folder with a file of each kind."""
    for name, values in {"alpaca": ALPACA, "chats": CHATS, "questions": QUESTIONS, "pages": PAGES}.items():
        tinyruns.write_rows(workdir / f"{name}.jsonl", values)
    return workdir


# ---------------------------------------------------------------------------------------------- looking


def test_every_verb_is_explained_with_an_example(workdir: Path) -> None:
    shown = tinyruns.tutelage("data", "--help").out
    for verb in VERBS:
        assert re.search(rf"^  {verb} +[A-Z].*\.$", shown, re.MULTILINE), "one whole sentence"
        assert f"tutelage data {verb} " in tinyruns.tutelage("data", verb, "--help").out


def test_stats_as_text_json_and_page(files: Path) -> None:
    outcome = run("stats", "alpaca.jsonl", "chats.jsonl", "data.heldout=0.1", "--html", "pages/look.html")
    said = dict(line.split(None, 1) for line in outcome.out.splitlines())
    assert re.fullmatch(r"60 = \d+ trained \+ \d+ held out", said["rows"])
    assert said["page"] == "pages/look.html"
    assert outcome.err == ""
    page = (files / "pages" / "look.html").read_text("utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert "alpaca.jsonl" in page
    facts = json.loads(run("stats", "alpaca.jsonl", "chats.jsonl", "--json").out)
    assert [(s["name"], s["format"], s["rows"]) for s in facts["sources"]] == [
        ("alpaca.jsonl", "alpaca", 40),
        ("chats.jsonl", "messages", 20),
    ]
    assert facts["statistics"]["holding"]["calling"] == 20
    assert "tokens" not in facts


def test_a_named_model_counts_tokens(files: Path, tiny_model: Callable[..., Path]) -> None:
    model = [f"model.path={tiny_model('llama')}", "data.max_length=256"]
    fields = FIELDS.replace(".0.", ".1.")
    facts = json.loads(run("stats", "alpaca.jsonl", "questions.jsonl", fields, *model, "--json").out)
    assert list(facts["tokens"]["sources"]) == ["alpaca.jsonl", "questions.jsonl"]
    assert facts["tokens"]["examples"] == 60
    shown = Counter(Path(sample["origin"]["file"]).name for sample in facts["samples"])
    assert shown == {"alpaca.jsonl": 10, "questions.jsonl": 10}, "each source has its samples"
    recipe = tinyruns.recipe(tiny_model("llama"), files / "alpaca.jsonl", files / "run")
    tinyruns.write_recipe(files / "recipe.yaml", recipe)
    alike = json.loads(run("stats", "recipe.yaml", "data.heldout=0", "--json").out)
    assert alike["tokens"]["total"] == facts["tokens"]["sources"]["alpaca.jsonl"]["tokens"]
    assert not (files / "run").exists()


def test_show_as_text(files: Path) -> None:
    text = run("show", "chats.jsonl", "--limit", 1).out
    shown = [line for line in text.splitlines() if line]
    assert shown[0] == "chats.jsonl:1"
    assert [line.split()[0] for line in shown[1:]] == [
        *("tools", "system", "user", "call", "tool", "thinking", "assistant", "weight")
    ]
    assert len(re.findall(r"^alpaca\.jsonl:\d+$", run("show", "alpaca.jsonl").out, re.MULTILINE)) == 5
    assert "completion" in run("show", "questions.jsonl", FIELDS).out


def test_show_for_machines_is_every_row_with_what_was_found(files: Path) -> None:
    tinyruns.write_rows(
        files / "odd.jsonl",
        [
            {"instruction": "One?", "output": "As an AI language model, I cannot."},
            {"instruction": "Two?", "output": "<nooutput>"},
            {"instruction": "Three?", "output": ""},
            {"instruction": "Four\u2028lines?", "output": "four"},
        ],
    )
    refused, placeholder, empty, repaired = map(json.loads, run("show", "odd.jsonl", "--json").out.splitlines())
    assert refused["found"][0].startswith("refusals (kept): ")
    assert (placeholder["origin"], placeholder["dropped"]) == ("odd.jsonl:2", "placeholders")
    assert (empty["origin"], empty["dropped"]) == ("odd.jsonl:3", "empty-answer")
    assert repaired["messages"][0]["content"] == "Four\nlines?"
    text = run("show", "odd.jsonl").out
    assert "dropped    placeholders: <nooutput>" in text
    assert "dropped    empty-answer: `output` is empty" in text


# ---------------------------------------------------------------------------------------- what is written


@pytest.mark.parametrize(
    ("name", "words", "read"),
    [
        ("alpaca", [], {}),
        ("alpaca", ["--alpaca"], {}),
        ("chats", [], {}),
        ("questions", [FIELDS], {"fields": {"prompt": "question", "completion": "answer"}}),
        ("pages", [], {}),
    ],
)
@pytest.mark.parametrize("verb", ["clean", "split", "mix", "decontaminate", "convert"])
def test_what_is_written_reads_as_the_same_rows(
    files: Path, verb: str, name: str, words: list[str], read: dict[str, Any]
) -> None:
    if verb == "convert":
        words = ["--to" if word == "--alpaca" else word for word in words]
        words += ["alpaca"] if "--to" in words else []
        if name == "pages":
            assert "plain text has no turns" in tinyruns.tutelage("data", verb, "pages.jsonl", "-o", "x.jsonl").err
            return
    if verb == "decontaminate":
        tinyruns.write_rows(files / "asked.jsonl", [{"question": "Who painted the ceiling of the chapel in Rome?"}])
        words = [*words, "--against", "asked.jsonl"]
    run(verb, f"{name}.jsonl", "-o", "out" if verb == "split" else "out.jsonl", *words)
    written = [files / "out" / "train.jsonl", files / "out" / "heldout.jsonl"] if verb == "split" else ["out.jsonl"]
    wanted, got = parsed(f"{name}.jsonl", **read), parsed(*written)
    if "--alpaca" not in words and "alpaca" not in words:  # messages do not keep the parts of an instruction
        wanted, got = (
            [replace(r, instruction=None) if hasattr(r, "instruction") else r for r in rows] for rows in (wanted, got)
        )
    if verb == "split":
        wanted, got = sorted(wanted, key=repr), sorted(got, key=repr)
    assert got == wanted
    for path in written:
        assert all(re.fullmatch(rf"{name}\.jsonl:\d+", line["origin"]) for line in lines(path))


def test_a_run_on_what_was_written_trains_the_same_tokens(files: Path, tiny_model: Callable[..., Path]) -> None:
    def tokens(*paths: Path, fields: dict[str, str] | None = None) -> list[list[int]]:
        train = [{"path": str(path), "fields": fields or {}} for path in paths]
        values = tinyruns.recipe(tiny_model("llama"), files / "-", files / "run", data={"train": train, "heldout": 0})
        prepared = assemble.prepare_data(config.resolve(values).recipe)
        return sorted(example.input_ids.tolist() for example in prepared.train)

    run("clean", "alpaca.jsonl", "-o", "a.jsonl")
    run("clean", "questions.jsonl", "-o", "q.jsonl", FIELDS)
    run("split", "alpaca.jsonl", "-o", "parts")
    whole = tokens(files / "alpaca.jsonl")
    assert tokens(files / "a.jsonl") == whole
    assert tokens(files / "parts" / "train.jsonl", files / "parts" / "heldout.jsonl") == whole
    asked = tokens(files / "questions.jsonl", fields={"prompt": "question", "completion": "answer"})
    assert tokens(files / "q.jsonl") == asked


def test_what_leaves_is_listed_with_its_reason(files: Path) -> None:
    question = "Who carried the seven blue lanterns over the old stone bridge on the last evening of the long winter?"
    tinyruns.write_rows(files / "asked.jsonl", [{"question": "Nothing to see?"}, {"question": question}])
    rows = [
        *ALPACA[:5],
        ALPACA[2],
        {"instruction": question, "output": "Nobody."},
        {"instruction": "Two?", "output": "<nooutput>"},
        {"instruction": "Three?", "output": ""},
    ]
    tinyruns.write_rows(files / "raw.jsonl", rows)
    words = ["data.duplicates.exact=drop", "data.on_bad_row=quarantine", "data.max_quarantined=0.5"]
    outcome = run("decontaminate", "raw.jsonl", "-o", "out.jsonl", "--against", "set=asked.jsonl", *words)
    assert len(lines("out.jsonl")) == 5
    left = {line["origin"]: line for line in lines("out.jsonl.dropped")}
    assert {origin: line["dropped"] for origin, line in left.items()} == {
        "raw.jsonl:6": "duplicate row",
        "raw.jsonl:7": "in evaluation set set",
        "raw.jsonl:8": "placeholders",
        "raw.jsonl:9": "empty-answer",
    }
    assert left["raw.jsonl:6"]["repeats"] == "raw.jsonl:3"
    assert left["raw.jsonl:6"]["messages"][-1]["content"] == ALPACA[2]["output"]
    assert left["raw.jsonl:7"]["question"] == "asked.jsonl:2"
    (said,) = re.findall("^rows .*", outcome.out, re.MULTILINE)
    assert said.startswith("rows    9 read = 5 kept + 1 dropped (")
    assert sum(map(int, re.findall(r"(\d+) (?:kept|dropped)", said))) == 9
    ledger = json.loads(run("clean", "raw.jsonl", "-o", "b.jsonl", "--json", *words).out)["ledger"]
    assert ledger["rows"] == ledger["trained"] + sum(ledger["dropped"].values()) == 9


def test_what_was_dropped_is_not_read_again_with_its_folder(files: Path) -> None:
    (files / "made").mkdir()
    run("clean", "alpaca.jsonl", "alpaca.jsonl", "-o", "made/rows.jsonl", "data.duplicates.exact=drop")
    assert (files / "made" / "rows.jsonl.dropped").is_file()
    assert len(parsed("made")) == len(parsed("made/*")) == len(parsed("made/**")) == 40


def test_nothing_dropped_makes_no_file_of_dropped_rows(files: Path) -> None:
    before = {path.name for path in files.iterdir()}
    assert "dropped" not in run("clean", "alpaca.jsonl", "-o", "out.jsonl").out
    assert {path.name for path in files.iterdir()} - before == {"out.jsonl"}


def test_sources_of_different_formats_go_into_one_file(files: Path) -> None:
    run("clean", "alpaca.jsonl", "questions.jsonl", "-o", "out.jsonl", FIELDS.replace(".0.", ".1."))
    assert len(parsed("out.jsonl")) == 60
    outcome = tinyruns.tutelage("data", "clean", "alpaca.jsonl", "pages.jsonl", "-o", "mixed.jsonl")
    assert (outcome.code, "alpaca.jsonl: alpaca; pages.jsonl: text" in outcome.err) == (2, True)


# ------------------------------------------------------------------------------------------------- split


def runs(prompt: str) -> set[tuple[str, ...]]:
    words = prompt.lower().split()
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}


def test_a_split_leaks_no_near_duplicate(workdir: Path) -> None:
    words = [f"{a}{b}" for a, b in product("bdfgklmnprst", ("ada", "eko", "ilu", "omi"))]
    rows = []
    for n in range(60):
        first = [words[(7 * n + k * (n % 5 + 1) + k * k) % len(words)] for k in range(36)]
        changed = [*first[:18], "another", *first[19:]]
        rows += [{"instruction": " ".join(text), "output": str(n)} for text in (first, changed, first)]
    tinyruns.write_rows(workdir / "rows.jsonl", rows)
    run("split", "rows.jsonl", "-o", "parts", "data.heldout=0.3")
    sides = [
        [runs(line["messages"][0]["content"]) for line in lines(f"parts/{name}.jsonl")] for name in ("train", "heldout")
    ]
    assert min(map(len, sides)) > 20
    assert sum(map(len, sides)) == 180
    assert not [1 for one, other in product(*sides) if len(one & other) >= 0.8 * len(one | other)]
    run("split", "rows.jsonl", "-o", "cut", "data.heldout=0.3", "data.duplicates.near=off")
    cut = [
        [runs(line["messages"][0]["content"]) for line in lines(f"cut/{name}.jsonl")] for name in ("train", "heldout")
    ]
    assert [1 for one, other in product(*cut) if len(one & other) >= 0.8 * len(one | other)], "else nothing was tested"


def test_a_split_is_the_one_that_a_run_makes(files: Path, tiny_model: Callable[..., Path]) -> None:
    run("split", "alpaca.jsonl", "-o", "parts", "data.heldout=0.25")
    values = tinyruns.recipe(tiny_model("llama"), Path("alpaca.jsonl"), files / "run")
    dataset = assemble.prepare_data(config.resolve(values).recipe).dataset
    for name in ("train", "heldout"):
        here = {line["origin"] for line in lines(f"parts/{name}.jsonl")}
        assert here == {str(example.origin) for example in dataset.examples(name)}


# ------------------------------------------------------------------------------------------------- mix


def taken(path: str | Path) -> Counter[str]:
    return Counter(line["origin"].rpartition(":")[0] for line in lines(path))


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], (40, 20)),
        (["data.mixture.by=examples"], (30, 30)),
        (["data.mixture.by=examples", "data.train.1.share=3"], (15, 45)),
        (["data.mixture.by=examples", "data.mixture.epoch_examples=200"], (100, 100)),
        (["data.mixture.by=examples", "data.train.1.cap=7"], (30, 7)),
        (["data.mixture.by=temperature", "data.mixture.temperature=2"], (35, 25)),
    ],
)
def test_a_mix_has_the_proportions_that_were_asked_for(files: Path, words: list[str], wanted: tuple[int, int]) -> None:
    result = json.loads(run("mix", "alpaca.jsonl", "chats.jsonl", "-o", "out.jsonl", "--json", *words).out)
    counts = taken("out.jsonl")
    assert (counts["alpaca.jsonl"], counts["chats.jsonl"]) == wanted
    assert [portion["taken"] for portion in result["mixture"]] == list(wanted)
    times = Counter(line["origin"] for line in lines("out.jsonl"))
    for name, size in (("alpaca.jsonl", 40), ("chats.jsonl", 20)):
        of_one = [times[f"{name}:{n}"] for n in range(1, size + 1)]
        assert max(of_one) - min(of_one) <= 1, "no row comes again before all others had their turn"


def test_a_mix_by_tokens(files: Path, tiny_model: Callable[..., Path]) -> None:
    long = [{"instruction": f"Repeat {n}.", "output": f"{n} " + "word " * 30} for n in range(40)]
    tinyruns.write_rows(files / "long.jsonl", long)
    model = [f"model.path={tiny_model('llama')}", "data.max_length=512"]
    words = ["data.mixture.by=tokens", "data.mixture.epoch_examples=400"]
    run("mix", "alpaca.jsonl", "long.jsonl", "-o", "out.jsonl", *model, *words)
    counts = taken("out.jsonl")
    facts = json.loads(run("stats", "alpaca.jsonl", "long.jsonl", *model, "--json").out)["tokens"]["sources"]
    short, wordy = (counts[name] * facts[name]["tokens"] / 40 for name in ("alpaca.jsonl", "long.jsonl"))
    assert short == pytest.approx(wordy, rel=0.02)
    assert counts["alpaca.jsonl"] > 2 * counts["long.jsonl"]
    assert counts.total() == 400


# --------------------------------------------------------------------------------------------- convert


PAIRS = [{"prompt": f"Which is better, {n}?", "chosen": "The first.", "rejected": "The second."} for n in range(10)]


def test_pairs_are_written_from_pairs_and_from_trees(workdir: Path) -> None:
    replies = [{"role": "assistant", "text": text, "rank": rank, "replies": []} for rank, text in enumerate("abc")]
    tree = {"prompt": {"role": "prompter", "text": "Which?", "replies": replies}}
    tinyruns.write_rows(workdir / "trees.jsonl", [tree])
    tinyruns.write_rows(workdir / "pairs.jsonl", PAIRS)
    assert "lines   3 written" in run("convert", "trees.jsonl", "-o", "t.jsonl", "--to", "pairs").out
    order = [(line["chosen"][0]["content"], line["rejected"][0]["content"]) for line in lines("t.jsonl")]
    assert order == [("a", "b"), ("a", "c"), ("b", "c")]
    assert sum(line["weight"] for line in lines("t.jsonl")) == pytest.approx(1)
    run("convert", "pairs.jsonl", "-o", "p.jsonl", "--to", "pairs")
    run("convert", "p.jsonl", "-o", "again.jsonl", "--to", "pairs")
    first, again = lines("p.jsonl"), lines("again.jsonl")
    assert [{**line, "origin": 0} for line in first] == [{**line, "origin": 0} for line in again]
    run("convert", "pairs.jsonl", "-o", "chosen.jsonl", "data.train.0.format=preference")
    assert [line["messages"][-1]["content"] for line in lines("chosen.jsonl")] == ["The first."] * 10


def test_bad_pairs_are_set_aside_only_if_asked(workdir: Path) -> None:
    tinyruns.write_rows(workdir / "pairs.jsonl", [*PAIRS, {**PAIRS[0], "rejected": "The first."}])
    outcome = tinyruns.tutelage("data", "convert", "pairs.jsonl", "-o", "p.jsonl", "--to", "pairs")
    assert (outcome.code, "where pairs.jsonl:11" in outcome.err) == (3, True)
    words = ["data.on_bad_row=quarantine", "data.max_quarantined=0.1"]
    said = run("convert", "pairs.jsonl", "-o", "p.jsonl", "--to", "pairs", *words).out
    assert "11 read = 10 kept + 1 dropped (bad-row)" in said
    assert [line["origin"] for line in lines("p.jsonl.dropped")] == ["pairs.jsonl:11"]
    outcome = tinyruns.tutelage("data", "convert", "pairs.jsonl", "-o", "q.jsonl", "--to", "pairs", words[0])
    assert outcome.err.startswith("error[data/too-many-dropped]")
    assert not list(workdir.glob("*q.jsonl*"))


def test_converting_changes_no_text_unless_a_rule_is_named(workdir: Path) -> None:
    odd = {"instruction": "One\u2028line?", "input": "<noinput>", "output": "a\u200bb\r\n"}
    tinyruns.write_rows(workdir / "odd.jsonl", [odd, {"instruction": "Two?", "output": "<nooutput>"}])
    run("convert", "odd.jsonl", "-o", "same.jsonl", "--to", "alpaca")
    assert {name: lines("same.jsonl")[0][name] for name in odd} == odd
    run("convert", "odd.jsonl", "-o", "mended.jsonl", "--to", "alpaca", "data.clean.zero_width=repair")
    assert lines("mended.jsonl")[0]["output"] == "ab\r\n"
    assert len(lines("mended.jsonl")) == 2


# -------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("words", "code", "name", "says"),
    [
        (["stats"], 2, None, "Missing argument"),
        (["clean", "alpaca.jsonl"], 2, None, "'-o'"),
        (["stats", "data.heldout=0.1"], 2, "recipe/missing-option", "no data is named"),
        (["stats", "alpace.jsonl"], 3, "data/missing-file", r"did you mean `alpaca\.jsonl`"),
        (["stats", "no/*.jsonl"], 3, "data/missing-file", r"no/\*\.jsonl"),
        (["stats", "recipe.yaml"], 2, "recipe/missing-file", r"recipe\.yaml"),
        (["stats", "recipe.yaml", "alpaca.jsonl"], 2, "recipe/conflict", "stands alone"),
        (["stats", "alpaca.jsonl", "heldout=0.1"], 2, "recipe/unknown-option", "`heldout` .section data"),
        (["stats", "alpaca.jsonl", "data.clean.refusal=drop"], 2, "recipe/unknown-option", "did you mean `refusals`"),
        (["stats", "alpaca.jsonl", "train.epochs=2"], 2, "recipe/conflict", "`train.epochs` has no effect"),
        (["show", "alpaca.jsonl", "model.path=x"], 2, "recipe/conflict", "begin with data"),
        (["stats", "alpaca.jsonl", "--html", "page.jsonl"], 2, "recipe/bad-value", r"fix   page\.html"),
        (["stats", "alpaca.jsonl", "--html", "old.html"], 2, "usage/output-exists", r"old\.html"),
        (["stats", "questions.jsonl"], 3, "data/unknown-format", "`question` .text., `answer`"),
        (["stats", "pairs.jsonl"], 3, "data/unknown-format", "hold preferences"),
        (["clean", "alpaca.jsonl", "-o", "out.csv"], 2, "recipe/bad-value", r"fix   out\.jsonl"),
        (["clean", "alpaca.jsonl", "-o", "folder"], 2, "recipe/bad-value", r"fix   folder/rows\.jsonl"),
        (["clean", "alpaca.jsonl", "-o", "chats.jsonl"], 2, "usage/output-exists", r"where chats\.jsonl"),
        (["clean", "alpaca.jsonl", "-o", "taken.jsonl"], 2, "usage/output-exists", r"taken\.jsonl\.dropped"),
        (["clean", "alpaca.jsonl", "-o", "old.html/x.jsonl"], 5, "machine/read-only", "a file stands where"),
        # Before any row is read, or hours may pass.
        (["clean", "alpace.jsonl", "-o", "/proc/x.jsonl"], 5, "machine/read-only", "where /proc"),
        (["clean", "chats.jsonl", "-o", "out.jsonl", "--alpaca"], 3, "data/bad-row", "write messages instead"),
        (["clean", "mostly.jsonl", "-o", "out.jsonl"], 3, "data/empty-answer", r"where mostly\.jsonl:3"),
        (
            ["clean", "alpaca.jsonl", "-o", "out.jsonl", "data.clean.refusals=gone"],
            2,
            "recipe/bad-value",
            "keep . drop",
        ),
        (["split", "alpaca.jsonl", "-o", "parts.jsonl"], 2, "recipe/bad-value", r"fix   parts\n"),
        (["split", "alpaca.jsonl", "-o", "folder"], 2, "usage/output-exists", r"folder/train\.jsonl"),
        (["split", "alpaca.jsonl", "-o", "new", "data.heldout=0"], 3, "data/no-rows", r"new/heldout\.jsonl"),
        (["mix", "alpaca.jsonl", "-o", "out.jsonl", "data.mixture.by=tokens"], 2, "recipe/conflict", "model.path="),
        (["decontaminate", "alpaca.jsonl", "-o", "out.jsonl"], 2, None, "'--against'"),
        (["decontaminate", "alpaca.jsonl", "-o", "o.jsonl", "--against", "x.jsonl"], 3, "data/missing-file", "x.jsonl"),
        (
            ["decontaminate", "q.jsonl", "-o", "o.jsonl", "--against", "q.jsonl"],
            3,
            "data/no-rows",
            "in evaluation set q",
        ),
        (["convert", "alpaca.jsonl", "-o", "out.jsonl", "--to", "parquet"], 2, "recipe/bad-value", "--to pairs"),
        (["convert", "alpaca.jsonl", "-o", "out.jsonl", "--to", "pairs"], 3, "data/unknown-format", "no pairs"),
        (
            ["convert", "judged.jsonl", "-o", "out.jsonl", "--to", "pairs"],
            3,
            "data/unknown-format",
            "judged one by one",
        ),
        (["convert", "chats.jsonl", "-o", "out.jsonl", "--to", "alpaca"], 3, "data/bad-row", "20 in all"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_explained_and_leaves_nothing_behind(
    files: Path, words: list[str], code: int, name: str | None, says: str
) -> None:
    tinyruns.write_rows(files / "pairs.jsonl", PAIRS)
    tinyruns.write_rows(files / "judged.jsonl", [{"messages": CHATS[0]["messages"], "label": True}])
    tinyruns.write_rows(files / "mostly.jsonl", [*ALPACA[:2], {**ALPACA[2], "output": " "}])
    question = "How many apples are left when Ann eats three of the twelve that Bob has put on the kitchen table?"
    tinyruns.write_rows(files / "q.jsonl", [{"instruction": question, "output": "Nine."}])
    (files / "old.html").write_text("old", "utf-8")
    (files / "taken.jsonl.dropped").write_text("old", "utf-8")
    tinyruns.write_rows(files / "folder" / "train.jsonl", ALPACA)
    before, folders = tinyruns.tree(files), {path for path in files.rglob("*") if path.is_dir()}
    outcome = tinyruns.tutelage("data", *words)
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert re.search(says, outcome.err), outcome.err
    if name is not None:
        assert f"\nerror[{name}]: " in f"\n{outcome.err}", outcome.err
        assert re.search(r"^  (where|found) ", outcome.err, re.MULTILINE)
    assert tinyruns.tree(files) == before
    assert {path for path in files.rglob("*") if path.is_dir()} <= {*folders, files / "new"}


def test_a_file_whose_name_looks_like_an_override_is_a_file(files: Path) -> None:
    shutil.copy("alpaca.jsonl", "a=b.jsonl")
    assert "40 read = 40 kept" in run("clean", "a=b.jsonl", "-o", "out.jsonl").out


@pytest.mark.parametrize("verb", ["clean", "split", "mix", "convert"])
def test_an_interrupted_write_leaves_nothing(files: Path, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tinyruns.tree(files)
    for stopped, code in ((KeyboardInterrupt, 130), (OSError(errno.ENOSPC, "No space left on device"), 5)):
        with monkeypatch.context() as patch:
            patch.setattr("tutelage.data.written.json.dumps", _after(3, stopped))
            outcome = tinyruns.tutelage("data", verb, "alpaca.jsonl", "-o", "out" if verb == "split" else "out.jsonl")
        assert outcome.code == code, outcome.err
        assert tinyruns.tree(files) == before


def _after(count: int, stopped: Any) -> Callable[..., str]:
    calls: Iterator[int] = iter(range(count))

    def dumps(*values: Any, **options: Any) -> str:
        if next(calls, None) is None:
            raise stopped
        return "{}"

    return dumps


def test_a_full_disk_is_told_when_the_rows_reach_it(files: Path) -> None:
    """`/dev/full` takes no byte; here it stands where the rows are written before they get their name."""
    (files / ".out.jsonl.part").symlink_to("/dev/full")
    outcome = tinyruns.tutelage("data", "clean", "alpaca.jsonl", "-o", "out.jsonl")
    assert (outcome.code, outcome.err.splitlines()[0]) == (5, "error[machine/disk-full]: the disk is full")
    assert not list(files.glob("*out.jsonl*"))


def test_a_killed_write_leaves_no_file_that_anything_reads(files: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from tutelage.data import written\n"
        "dumps, left = written.json.dumps, iter(range(20))\n"
        "class Json:\n"
        "    @staticmethod\n"
        "    def dumps(*a, **o):\n"
        "        next(left, None) is None and os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return dumps(*a, **o)\n"
        "written.json = Json\n"
        "sys.argv = ['tutelage', 'data', 'clean', 'alpaca.jsonl', '-o', 'made/out.jsonl']\n"
        "from tutelage.cli import main\n"
        "main()\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert all(path.name.startswith(".") for path in (files / "made").iterdir())
    assert "error[data/missing-file]" in tinyruns.tutelage("data", "stats", "made/*").err
    run("clean", "alpaca.jsonl", "-o", "made/out.jsonl")
    assert [path.name for path in (files / "made").iterdir()] == ["out.jsonl"]


# ------------------------------------------------------------------------------------- as a process


def test_the_verbs_as_processes(files: Path) -> None:
    said = tinyruns.process("data", "clean", "alpaca.jsonl", "-o", "out.jsonl", folder=files)
    assert (said.code, said.err) == (0, "")
    assert said.out == "output  out.jsonl\nrows    40 read = 40 kept\n"
    again = tinyruns.process("data", "clean", "alpaca.jsonl", "-o", "out.jsonl", folder=files)
    assert (again.code, again.out) == (2, "")
    assert again.err.splitlines()[0] == "error[usage/output-exists]: `out.jsonl` exists already"
    shown = tinyruns.process("data", "show", "*.jsonl", "--json", folder=files)
    assert (shown.code, shown.err.splitlines()[0].partition(":")[0]) == (3, "error[data/mixed-formats]")
    facts = tinyruns.process("data", "stats", "out.jsonl", "--json", folder=files)
    assert json.loads(facts.out)["ledger"]["rows"] == 40


def test_a_reader_that_leaves_is_no_error(workdir: Path) -> None:
    tinyruns.write_rows(workdir / "rows.jsonl", tinyruns.demonstrations(3000))
    command = [sys.executable, "-m", "tutelage", "data", "show", "rows.jsonl", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stdout.readline())["origin"] == "rows.jsonl:1"
        process.stdout.close()
        said = process.stderr.read()
        process.wait(60)
    assert said == ""


def test_rows_cannot_steer_the_terminal(workdir: Path) -> None:
    rows = [{"instruction": f"\x1b[31mRed {n}\x07\x9b1m?", "output": "\x1b]0;title\x07done"} for n in range(3)]
    tinyruns.write_rows(workdir / "rows.jsonl", rows)
    for words in (["show"], ["stats"], ["clean", "-o", "out.jsonl"], ["show", "data.clean.control_characters=keep"]):
        outcome = run(words[0], "rows.jsonl", *words[1:])
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", outcome.out + outcome.err), words
