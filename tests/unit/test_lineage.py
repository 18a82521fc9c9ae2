"""A run goes on as itself: values, rows and model are compared by content, and what differs is named with both."""

from __future__ import annotations

import json
import shutil

import pytest

import tinyruns
from conftest import make_tokenizer
from tutelage import config, lineage
from tutelage.assemble import prepare_data
from tutelage.config import Resolved
from tutelage.errors import DataError, ModelError, RecipeError
from tutelage.lineage import Lineage, begin, describe, weights_digest
from tutelage.recipe.resume import MEANINGS
from tutelage.runs import Run

KNOWN = {"run": "0123456789abcdef", "begun_with": {"model": {}, "data": {}}, "sessions": [{"pid": 1}]}


@pytest.fixture
def recipe(workdir):
    """The values of a recipe whose run would be written to `run`."""
    return tinyruns.recipe("a-model", "rows.jsonl", workdir / "run")


@pytest.fixture
def begun(recipe, workdir):
    """The same, of a run that was begun."""
    run, resolved = Run(workdir / "run"), config.resolve(recipe)
    run.create()
    run.write_json("run.json", KNOWN)
    run.write_text("recipe.yaml", config.dump(resolved.recipe))
    run.write_json("origins.json", resolved.origins)
    return recipe


def again(values, *overrides, resume=True):
    resolved = config.resolve(values, overrides)
    return begin(Run(resolved.recipe.output), resolved, resume=resume)


def test_every_option_has_a_meaning_and_no_other_name_has():
    names = {option.name for option in config.options()}
    sections = {name.rpartition(".")[0] for name in names}
    assert names - set(MEANINGS) == set()
    assert {name for name in MEANINGS if name not in names and name not in sections} <= {"data.heldout", "data.train"}


def test_a_run_begins_in_an_empty_folder_with_or_without_resume(recipe):
    names = set()
    for resume in (False, True):
        made, resolved = again(recipe, resume=resume)
        assert (made.resumed, made.sessions, made.changes) == (False, [], [])
        assert resolved.recipe.train.steps == 3
        names.add(made.run)
    assert len(names) == 2
    assert all(len(name) == 16 for name in names)


def test_without_resume_a_run_is_never_touched(begun, workdir):
    before = tinyruns.tree(workdir)
    with pytest.raises(RecipeError, match="--resume continues the run in this one") as caught:
        again(begun, resume=False)
    assert (caught.value.code, caught.value.exit_code) == ("recipe/run-exists", 2)
    assert tinyruns.tree(workdir) == before


def test_a_folder_that_holds_something_else_is_refused_with_resume_too(recipe, workdir):
    (workdir / "run").mkdir()
    (workdir / "run" / "thesis.tex").write_text("mine")
    with pytest.raises(RecipeError) as caught:
        again(recipe)
    assert caught.value.code == "recipe/run-exists"
    assert "--resume" not in str(caught.value)


def test_the_same_recipe_goes_on_as_the_same_run(begun):
    made, _ = again(begun)
    assert (made.run, made.resumed, made.sessions, made.changes) == (KNOWN["run"], True, [{"pid": 1}], [])


def test_a_run_broken_off_before_its_recipe_was_written_goes_on(begun, workdir):
    (workdir / "run" / "recipe.yaml").unlink()
    made, resolved = again(begun, "train.learning_rate=0.5")
    assert (made.run, made.resumed) == (KNOWN["run"], True)
    assert resolved.recipe.train.learning_rate == 0.5


@pytest.mark.parametrize(
    ("override", "before", "now"),
    [
        ("train.learning_rate=0.5", "0.001", "0.5"),
        ("train.seed=7", "0", "7"),
        ("train.global_batch_size=8", "4", "8"),
        ("data.max_length=64", "128", "64"),
        ("data.heldout=0.5", "0.25", "0.5"),
        ("data.train.0.weight=2", "1.0", "2.0"),
        ("model.adapter.kind=lora", "'full'", "'lora'"),
        ("train.schedule.kind=constant", "'cosine'", "'constant'"),
    ],
)
def test_a_value_that_decides_the_weights_is_refused_with_both(begun, workdir, override, before, now):
    tree = tinyruns.tree(workdir)
    with pytest.raises(RecipeError) as caught:
        again(begun, override)
    name = override.partition("=")[0]
    problem = next(problem for problem in caught.value.problems if problem.where == name)
    assert caught.value.code == "recipe/changed"
    assert problem.found == f"{before} before, {now} now"
    assert problem.fix.startswith(f"{name}={before.strip(chr(39))} continues the run")
    assert tinyruns.tree(workdir) == tree


def test_what_the_fix_says_to_type_continues_the_run(begun):
    with pytest.raises(RecipeError) as caught:
        again(begun, "train.learning_rate=0.5", "train.betas=[0.5,0.6]", "train.seed=1")
    typed = [problem.fix.partition(" continues")[0] for problem in caught.value.problems]
    assert len(typed) == 3
    assert again(begun, "train.learning_rate=0.5", "train.betas=[0.5,0.6]", "train.seed=1", *typed)[0].changes == []


def test_every_difference_is_named_at_once(begun):
    with pytest.raises(RecipeError) as caught:
        again(begun, "train.seed=7", "train.eps=1e-3", "checkpoint.every=3", "train.steps=9")
    assert [problem.where for problem in caught.value.problems] == ["train.eps", "train.seed"]


def test_another_source_of_rows_is_refused(begun):
    begun["data"]["train"].append({"path": "more.jsonl"})
    with pytest.raises(RecipeError) as caught:
        again(begun)
    assert caught.value.code == "recipe/changed"


def test_more_steps_are_allowed_and_recorded(begun):
    made, resolved = again(begun, "train.steps=9", "guard.limit=3")
    assert made.changes == ["train.steps: 3 before, 9 now", "guard.limit: 10 before, 3 now"]
    assert resolved.recipe.train.steps == 9


@pytest.mark.parametrize(
    "override", ["checkpoint.every=1", "checkpoint.keep=9", "train.token_budget=64", "track.project=other"]
)
def test_what_changes_no_weight_is_free(begun, override):
    assert again(begun, override)[0].changes == []


def test_a_file_may_lie_elsewhere_since_its_content_is_compared(begun):
    made, resolved = again(begun, "data.train.0.path=moved/rows.jsonl", "model.path=moved/model")
    assert made.changes == []
    assert resolved.recipe.model.path == "moved/model"


def test_steps_that_a_plan_chose_come_with_the_run(recipe, workdir):
    recipe["train"].pop("steps")
    run, resolved = Run(workdir / "run"), config.resolve(recipe)
    train = resolved.recipe.train.model_copy(update={"steps": 17})
    run.create()
    run.write_json("run.json", KNOWN)
    run.write_text("recipe.yaml", config.dump(resolved.recipe.model_copy(update={"train": train})))
    run.write_json("origins.json", {**resolved.origins, "train.steps": "budget.time"})
    made, gone_on = again(recipe)
    assert (made.changes, gone_on.recipe.train.steps) == ([], 17)
    assert gone_on.origins["train.steps"] == "budget.time"
    made, gone_on = again(recipe, "train.steps=20")
    assert (made.changes, gone_on.recipe.train.steps) == (["train.steps: 17 before, 20 now"], 20)


def test_weights_are_known_by_content(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    (one / "model.safetensors").write_bytes(b"weights")
    (one / "config.json").write_text("{}")
    shutil.copytree(one, other)
    (other / "README.md").write_text("of no matter")
    assert weights_digest(one, None) == weights_digest(other, None)
    (other / "model.safetensors").write_bytes(b"weightz")
    assert weights_digest(one, None) != weights_digest(other, None)
    shutil.copy(one / "model.safetensors", other)
    (other / "config.json").write_text("{ }")
    assert weights_digest(one, None) != weights_digest(other, None)
    assert weights_digest(tmp_path / "not there", None) is None


@pytest.fixture(scope="module")
def made_of(tmp_path_factory, tiny_model):
    """`made_of(change)` is the data and model of a recipe after `change(folder, values)`, prepared."""

    def prepare(change=lambda folder, values: None):
        folder = tmp_path_factory.mktemp("made")
        data = tinyruns.write_rows(folder / "rows.jsonl", tinyruns.demonstrations())
        shutil.copytree(tiny_model(), folder / "model")
        values = tinyruns.recipe(folder / "model", data, folder / "run")
        change(folder, values)
        resolved: Resolved = config.resolve(values)
        return prepare_data(resolved.recipe)

    return prepare


@pytest.fixture(scope="module")
def before(made_of):
    """What a run was begun with."""
    return json.loads(json.dumps(describe(made_of())))


def rows_of(folder):
    return (folder / "rows.jsonl").read_text().splitlines(keepends=True)


def swapped(folder, values):
    one, other, *rest = rows_of(folder)
    (folder / "rows.jsonl").write_text("".join([other, one, *rest]))


def one_letter(folder, values):
    (folder / "rows.jsonl").write_text("".join(rows_of(folder)).replace("It is red.", "It is rad.", 1))


def one_less(folder, values):
    (folder / "rows.jsonl").write_text("".join(rows_of(folder)[:-1]))


def moved(folder, values):
    (folder / "rows.jsonl").rename(folder / "other.jsonl")
    values["data"]["train"][0]["path"] = str(folder / "other.jsonl")


def other_weights(folder, values):
    path = folder / "model" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def other_template(folder, values):
    from conftest import CHATML

    make_tokenizer(folder / "model", template=CHATML.replace("assistant\n", "assistant \n"))


def test_the_same_content_goes_on(made_of, before):
    known = Lineage("run", before)
    known.refuse_other_content(made_of())
    known.refuse_other_content(made_of(moved))
    assert known.changes == []
    Lineage.new().refuse_other_content(made_of(one_less))


@pytest.mark.parametrize("change", [swapped, one_letter, one_less])
def test_other_rows_are_refused_with_both_digests(made_of, before, change):
    prepared = made_of(change)
    with pytest.raises(DataError) as caught:
        Lineage("run", before).refuse_other_content(prepared)
    assert (caught.value.code, caught.value.exit_code) == ("data/changed", 3)
    first = caught.value.problems[0]
    then, now = before["data"]["rows of source 1"], describe(prepared)["data"]["rows of source 1"]
    assert first.what == "the rows are not those that the run was begun with: rows of source 1"
    assert first.found == f"{then} before, {now} now"


def test_other_rows_may_be_allowed_and_are_recorded(made_of, before):
    known = Lineage("run", json.loads(json.dumps(before)))
    prepared = made_of(one_letter)
    known.refuse_other_content(prepared, allow_data_change=True)
    assert len(known.changes) >= 2
    assert known.changes[0].startswith("rows of source 1: ")
    assert known.begun_with["data"] == describe(prepared)["data"]


@pytest.mark.parametrize(("change", "name"), [(other_weights, "weights"), (other_template, "template")])
def test_another_model_or_template_is_refused_whatever_is_allowed(made_of, before, change, name):
    with pytest.raises(ModelError) as caught:
        Lineage("run", before).refuse_other_content(made_of(change), allow_data_change=True)
    assert (caught.value.code, caught.value.exit_code) == ("model/changed", 4)
    assert f"the model is not the one that the run was begun with: {name}" in [p.what for p in caught.value.problems]


def test_another_environment_is_noted_and_goes_on():
    known = Lineage("run", {"model": {}, "data": {}})
    then = {"threads": 2, "torch": "2.13.0", "store": {"bytes": 1}}
    notes = known.compare_environment(then, {"threads": 1, "torch": "2.13.0", "store": {"bytes": 2}, "kernels": []})
    assert notes == ["from here on not bit for bit as it would have gone on; threads: 2 before, 1 now"]
    assert known.changes == ["threads: 2 before, 1 now"]
    assert Lineage.new().compare_environment(None, then) == []


def test_each_session_is_written_down(tmp_path, made_of):
    prepared, run = made_of(), Run(tmp_path)
    first = Lineage.new()
    first.write(run, prepared, environment={"threads": 3, "store": {}})
    known = run.read_json(lineage.FILE)
    assert known["run"] == first.run
    assert known["begun_with"] == json.loads(json.dumps(describe(prepared)))
    second = Lineage(known["run"], known["begun_with"], known["sessions"], ["train.steps: 3 before, 9 now"])
    second.write(run, prepared, environment={"threads": 4})
    sessions = run.read_json(lineage.FILE)["sessions"]
    assert [session["changes"] for session in sessions] == [[], ["train.steps: 3 before, 9 now"]]
    assert [session["environment"]["threads"] for session in sessions] == [3, 4]
    assert "store" not in sessions[0]["environment"]
