"""The command as a user meets it: what it prints, where, how fast, and with which exit code."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import pytest

import tinyruns
from tutelage.config import options
from tutelage.errors import CODES

VERBS = ["check", "preview", "train", "chat", "report", "options", "explain", "demo"]
HEAVY = ["torch", "transformers", "peft", "tokenizers", "numpy", "pyarrow", "safetensors", "jinja2"]
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def loaded_after(*arguments: object) -> set[str]:
    """The heavy packages that a fresh process has imported when the command ends."""
    code = (
        "import sys, atexit\n"
        f"sys.argv = ['tutelage', *{list(map(str, arguments))!r}]\n"
        f"atexit.register(lambda: print('LOADED', *[m for m in {HEAVY!r} if m in sys.modules]))\n"
        "from tutelage.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return set(done.stdout.rpartition("LOADED")[2].split())


@pytest.fixture
def recipe(workdir, tiny_model):
    """A recipe file beside its rows, in the current folder."""
    tinyruns.write_rows(workdir / "rows.jsonl", tinyruns.demonstrations())
    return tinyruns.write_recipe(workdir / "recipe.yaml", tinyruns.recipe(tiny_model("llama"), "rows.jsonl", "run"))


def test_help_starts_at_once_and_loads_nothing():
    assert loaded_after("--help") == set()
    assert loaded_after("train", "--help") == set()
    best = min(_seconds("--help") for _ in range(3))
    assert best < 0.7, f"--help takes {best:.2f} s"


def _seconds(*arguments: str) -> float:
    started = time.perf_counter()
    tinyruns.process(*arguments)
    return time.perf_counter() - started


@pytest.mark.parametrize("verb", ["check", "preview", "train"])
def test_a_bad_recipe_is_refused_without_torch(recipe, verb):
    assert not loaded_after(verb, recipe, "train.epoch=2") & {"torch", "transformers", "peft"}


def test_help_names_every_verb_with_an_example():
    shown = tinyruns.tutelage("--help")
    assert shown.code == 0
    for verb in VERBS:
        assert re.search(rf"^\s+{verb}\s+\w", shown.out, re.MULTILINE), verb
        assert f"tutelage {verb} " in tinyruns.tutelage(verb, "--help").out
    assert tinyruns.tutelage().out == shown.out
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", tinyruns.tutelage("--version").out)


@pytest.mark.parametrize("arguments", [["train"], ["no-such-verb"], ["check", "a.yaml", "--no-such-flag"]])
def test_wrong_usage_is_exit_2(workdir, arguments):
    outcome = tinyruns.tutelage(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert "Traceback" not in outcome.err


def test_check_says_what_would_be_trained(recipe):
    before = tinyruns.tree(recipe.parent)
    outcome = tinyruns.process("check", recipe, "train.epochs=2", "train.steps=null", folder=recipe.parent)
    assert outcome.code == 0, outcome.err
    assert re.search(r"rows\s+24 = \d+ trained \+ \d+ held out", outcome.out)
    assert re.search(r"plan\s+\d+ steps, 2 epochs", outcome.out)
    assert "train.epochs  (command line)" in outcome.out
    assert not [line for line in outcome.err.splitlines() if not line.startswith("done ")]
    assert tinyruns.tree(recipe.parent) == before


def test_check_for_machines(recipe):
    outcome = tinyruns.tutelage("check", recipe, "--json")
    result = json.loads(outcome.out)
    assert (result["plan"]["steps"], result["plan"]["epochs"], result["plan"]["epoch_examples"]) == (3, None, 19)
    assert result["plan"]["mixture"][0]["epochs"] == pytest.approx(3 * 4 / 19, abs=0.001)
    assert result["ledger"]["rows"] == 24
    assert re.search(r"recipe\.yaml:\d+$", result["set"]["train.steps"])


def test_preview_for_machines_holds_exactly_what_is_trained(recipe):
    outcome = tinyruns.tutelage("preview", recipe, "--json")
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert len(rows) == 24
    for number, row in enumerate(rows, start=1):
        assert list(row) == ["origin", "input_ids", "weights", "split"]
        assert row["origin"] == {"file": "rows.jsonl", "line": number}
        assert len(row["input_ids"]) == len(row["weights"]) > 0
        assert row["weights"][0] == 0
        assert row["split"] in {"train", "heldout"}
        assert any(row["weights"])
    assert tinyruns.tutelage("preview", recipe, "--json", "--limit", 3).out.splitlines() == outcome.out.splitlines()[:3]


def test_preview_as_text_marks_the_trained_tokens(recipe):
    outcome = tinyruns.tutelage("preview", recipe, "--limit", 1)
    assert "«It is red.<|im_end|>»" in outcome.out
    assert outcome.out.splitlines()[0].startswith("rows.jsonl:1  ")
    assert outcome.out.rstrip().splitlines()[-1].startswith("24 rows = ")


def test_a_reader_that_leaves_is_no_error(recipe, workdir):
    """`preview --json | head -1`, with more output than a pipe holds."""
    tinyruns.write_rows(workdir / "rows.jsonl", tinyruns.demonstrations(2000))
    command = [sys.executable, "-m", "tutelage", "preview", str(recipe), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stdout.readline())["origin"]["line"] == 1
        process.stdout.close()
        said = process.stderr.read()
        process.wait(60)
    assert "Traceback" not in said
    assert "BrokenPipe" not in said


def test_train_prints_the_answer_on_stdout_and_progress_on_stderr(recipe, monkeypatch):
    tinyruns.prove_here(monkeypatch)
    outcome = tinyruns.tutelage("train", recipe, "output=one")
    assert outcome.code == 0, outcome.err
    assert "held-out loss" in outcome.out
    assert "tutelage chat one" in outcome.out
    assert re.search(r"(?m)^model   .* on cpu; weights float32", outcome.err)
    assert re.search(r"^train   [\d,]+ parameters, 3 steps of 4 examples", outcome.err, re.MULTILINE)
    machine = tinyruns.tutelage("train", recipe, "output=two", "--json")
    assert json.loads(machine.out)["status"] == "done"


def test_output_that_is_no_terminal_has_no_control_characters(recipe, workdir, monkeypatch):
    """Neither ours nor any that rows hold: a row must not be able to write to the user's terminal."""
    rows = tinyruns.demonstrations(12)
    rows[0] |= {"instruction": "\x1b[31mRed\x1b[0m\x07\x9b1m?", "output": "\x1b]0;title\x07done"}
    tinyruns.write_rows(workdir / "rows.jsonl", rows)
    tinyruns.prove_here(monkeypatch)
    for verb in ("check", "preview", "train"):
        outcome = tinyruns.tutelage(verb, recipe)
        assert outcome.code == 0
        assert not CONTROL.search(outcome.out + outcome.err), verb
    tinyruns.write_rows(workdir / "rows.jsonl", [{**rows[0], "output": "\x1b[2J"}, {"\x1b[2J": 1}])
    assert not CONTROL.search(tinyruns.tutelage("check", recipe, "output=other").err)


def test_colour_only_where_it_is_wanted(recipe, monkeypatch):
    assert "\x1b[" not in tinyruns.tutelage("preview", recipe).out
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = tinyruns.tutelage("preview", recipe).out
    assert "\x1b[1;32m" in coloured
    assert "«" not in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert "32m" not in tinyruns.tutelage("preview", recipe).out


def test_chat_answers_a_message_or_a_pipe(learned_run):
    one = tinyruns.tutelage("chat", learned_run, "-m", "Colour 3?")
    assert (one.code, one.out, one.err) == (0, "red\n", "")
    command = [sys.executable, "-m", "tutelage", "chat", str(learned_run / "model")]
    piped = subprocess.run(command, input="Colour 4?\nColour 5?\n", capture_output=True, text=True, check=False)
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout.splitlines()[0] == "red"
    assert len(piped.stdout.splitlines()) >= 2


def test_chat_says_when_an_answer_was_cut(learned_run):
    outcome = tinyruns.tutelage("chat", learned_run, "-m", "Colour 3?", "--max-new-tokens", 1)
    assert "--max-new-tokens" in outcome.err
    assert outcome.code == 0


def test_report_is_written_again(learned_run):
    page = learned_run / "report.html"
    before = page.read_bytes()
    page.unlink()
    outcome = tinyruns.tutelage("report", learned_run)
    assert (outcome.code, outcome.out) == (0, f"{page}\n")
    assert page.read_bytes() == before


@pytest.mark.parametrize("verb", ["report", "chat"])
def test_what_is_no_run_is_refused(workdir, verb):
    outcome = tinyruns.tutelage(verb, workdir)
    assert outcome.code == 2
    assert outcome.err.startswith("error[usage/not-a-run]")


def test_options_lists_every_option():
    shown = tinyruns.tutelage("options").out
    for option in options():
        assert f"\n{option.name}  (" in f"\n{shown}"
    assert tinyruns.tutelage("options", "train").out.count("train.") >= 10
    outcome = tinyruns.tutelage("options", "trian")
    assert (outcome.code, "train" in outcome.err) == (2, True)


def test_explain_knows_every_code():
    for code, sentence in CODES.items():
        assert tinyruns.tutelage("explain", code).out == f"{sentence}\n"
    outcome = tinyruns.tutelage("explain", "data/overlong")
    assert outcome.code == 2
    assert "data/over-long" in outcome.err


def test_an_interrupt_is_no_traceback(recipe, monkeypatch):
    """The run folder says that it was interrupted; so does the exit code."""

    def interrupt(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("tutelage.train.loop.Step", interrupt)
    outcome = tinyruns.tutelage("train", recipe)
    assert outcome.code == 128 + signal.SIGINT
    assert outcome.err.rstrip().endswith("interrupted")
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(("local", "says"), [("0", True), ("1", False)])
def test_of_several_processes_of_a_machine_one_says_what_is_wrong_with_the_recipe(workdir, monkeypatch, local, says):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", local)
    recipe = tinyruns.write_recipe(workdir / "recipe.yaml", {"tarin": {}})
    outcome = tinyruns.tutelage("train", recipe)
    assert (outcome.code, outcome.out) == (2, "")
    assert ("did you mean `train`" in outcome.err) == says
    assert bool(outcome.err) == says
