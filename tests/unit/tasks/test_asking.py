"""Tasks: five lines of YAML, what is asked, shots by hash, and answers that stand in the prompt."""

from __future__ import annotations

import json

import pytest

from tutelage.errors import DataError, RecipeError
from tutelage.generate.generation import Generation, Prompt
from tutelage.generate.sampling import GREEDY
from tutelage.scoring.text import Exact
from tutelage.tasks import Task, ask, builtin, load
from tutelage.tasks.asked import asking, stands_in
from tutelage.tasks.errand import Row
from tutelage.tasks.marking import marked
from tutelage.tasks.wording import BadWording, fill
from tutelage.types import Message, Origin, Record

FIVE_LINES = """name: colours
data: {data}
prompt: "Which colour is {{thing}}?"
reference: colour
scorer: {{kind: exact}}
"""


def records(*rows: dict) -> list[Record]:
    return [Record(Origin("a.jsonl", number), row) for number, row in enumerate(rows, start=1)]


def task(**options) -> Task:
    given = {"name": "t", "prompt": "Q: {q}", "reference": "a", "scorer": {"kind": "exact"}}
    return Task.model_validate({key: value for key, value in {**given, **options}.items() if value is not None})


PAIRS = records(*({"q": f"question number {n}", "a": f"answer number {n}"} for n in range(30)))


def test_a_file_of_rows_is_a_task_in_five_lines(tmp_path):
    data, file = tmp_path / "a.jsonl", tmp_path / "t.yaml"
    data.write_text(json.dumps({"thing": "snow", "colour": "white"}) + "\n")
    file.write_text(FIVE_LINES.format(data=data))
    assert len(FIVE_LINES.splitlines()) == 5
    found = load(str(file))
    (one,) = ask(found).asked
    assert one.messages == (Message("user", "Which colour is snow?"),)
    assert found.scorer.mark(" white", one.reference).score == 1.0
    assert found.scorer.mark("black", one.reference).score == 0.0
    assert one.text() == "Which colour is snow?"


@pytest.mark.parametrize("name", builtin())
def test_tasks_that_come_along_are_whole(name):
    found = load(name)
    assert found.name == name
    described = found.described()
    assert (described["version"], described["scorer"]["version"]) == (found.version, type(found.scorer).version)
    json.dumps(described, allow_nan=False)


def test_which_tasks_come_along():
    assert {"gsm8k", "ifeval", "json", "multiple-choice", "letter", "humaneval", "mbpp"} == set(builtin())


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        ("reference:", "refrence:", "recipe/unknown-option", "did you mean `reference`"),
        ("kind: exact", "kind: vibes", "recipe/bad-value", "one of exact, json"),
        ("kind: exact", "kind: exact, fences: 1", "recipe/unknown-option", "t.yaml:5"),
        ("name: colours", "name: ''", "recipe/bad-value", "t.yaml:1"),
        ('prompt: "Which colour is {thing}?"', "", "recipe/conflict", "give `prompt` or `messages`"),
        ("reference: colour", "", "recipe/conflict", "`reference` is not given"),
        ("reference: colour", "reference: colour\noptions: list", "recipe/conflict", "`options` goes with"),
        ("scorer: {kind: exact}", "", "recipe/missing-option", "`scorer` is not given"),
        ("{kind: exact}", "{kind: pattern, pattern: '('}", "recipe/bad-value", "not a regular expression"),
        ("reference: colour", "reference: colour\nshots: many", "recipe/bad-value", "shots = "),
        ("name: colours", "name: [", "recipe/bad-yaml", "t.yaml"),
    ],
)
def test_mistakes_in_a_task_are_named_with_their_line(old, new, code, said, tmp_path):
    text = FIVE_LINES.format(data="a.jsonl")
    assert old in text
    (tmp_path / "t.yaml").write_text(text.replace(old, new))
    with pytest.raises(RecipeError) as refused:
        load(str(tmp_path / "t.yaml"))
    assert code in {problem.code for problem in refused.value.problems}
    assert said in str(refused.value)


def test_a_task_that_is_not_there():
    with pytest.raises(RecipeError, match="did you mean gsm8k"):
        load("gsm8")
    with pytest.raises(RecipeError, match="no recipe"):
        load("nowhere.yaml")
    with pytest.raises(RecipeError, match="names no rows"):
        ask(load("gsm8k"))


def test_wordings():
    row = {"a": "x", "n": 2.0, "list": ["u", "v"], "in": {"side": [1, None]}, "a.b": 3}
    assert fill("{a} {n} {list.1} {in.side.0} {a.b} {{a}}", row) == "x 2 v 1 3 {a}"
    assert fill("{list:lettered}", row) == "A. u\nB. v"
    assert fill("{in:json} {in}", row) == '{"side": [1, null]} {"side": [1, null]}'
    for bad in ("{b}", "{", "}", "{list.2}", "{a:lettered}", "{a:upper}", "{in.x}"):
        with pytest.raises(BadWording):
            fill(bad, row)


def test_what_a_row_holds_is_never_read_as_a_wording():
    assert fill("{a}", {"a": "{b} {{c}}", "b": "secret"}) == "{b} {{c}}"


def test_rows_that_cannot_be_asked_are_named():
    with pytest.raises(DataError) as refused:
        asking(task(), records({"q": "1", "a": "2"}, {"a": "2"}), [])
    assert refused.value.problems[0].code == "data/bad-row"
    assert refused.value.problems[0].where == "a.jsonl:2"


def test_shots_are_other_rows_with_their_answers():
    found = asking(task(shots=3), PAIRS, PAIRS)
    assert found.answer_in_prompt == ()
    for one, row in zip(found.asked, PAIRS, strict=True):
        assert len(one.messages) == 7
        assert [message.role for message in one.messages] == ["user", "assistant"] * 3 + ["user"]
        assert one.messages[-1].content == f"Q: {row.fields['q']}"
        questions = [message.content for message in one.messages[::2]]
        assert len(set(questions)) == 4
        for question, answer in zip(one.messages[:-1:2], one.messages[1::2], strict=True):
            assert answer.content == question.content.replace("Q: question", "answer")
    assert len({one.messages[0].content for one in found.asked}) > 5


def test_shots_depend_on_the_row_alone():
    """Not on which other rows are asked, nor on the order of the pool."""
    everything = {one.origin: one for one in asking(task(shots=2), PAIRS, PAIRS).asked}
    few = asking(task(shots=2), PAIRS[4:6], PAIRS[::-1]).asked
    assert [one.messages for one in few] == [everything[one.origin].messages for one in few]
    other = asking(task(shots=2, seed=1), PAIRS[4:6], PAIRS).asked
    assert [one.messages for one in other] != [one.messages for one in few]


def test_a_row_that_is_there_twice_is_no_shot_for_itself():
    twice = [*PAIRS[:3], *records({"q": "Question  number 0!", "a": "answer number 0"})]
    found = asking(task(shots=2), twice[:1], twice)
    assert "number 0" not in "".join(message.content for message in found.asked[0].messages[:-1])
    with pytest.raises(DataError, match="there are 2 other rows"):
        asking(task(shots=3), twice[:1], twice)


def test_a_system_message_comes_before_the_shots():
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "{q}"}]
    (one,) = asking(task(prompt=None, messages=messages, shots=1), PAIRS[:1], PAIRS).asked
    assert [message.role for message in one.messages] == ["system", "user", "assistant", "user"]
    assert one.text().startswith("S\n\nquestion number ")
    assert one.text().endswith("\n\nquestion number 0")


def test_an_answer_in_the_prompt_is_flagged_with_its_row():
    rows = records(
        {"q": "What is the capital of France?", "a": "The capital is Paris"},
        {"q": "Answer with: the capital, is PARIS.", "a": "The capital is Paris"},
        {"q": "Say yes or no", "a": "yes"},
        {"q": "Is it so? yes", "a": "yes"},
    )
    found = asking(task(), rows, [])
    assert found.answer_in_prompt == (Origin("a.jsonl", 2), Origin("a.jsonl", 4))
    assert found.note() == ("in 2 of 4 rows the prompt holds the reference answer: a.jsonl:2, a.jsonl:4")
    assert asking(task(), rows[:1], []).note() == ""


def test_an_answer_among_the_shots_is_flagged():
    pool = records({"q": "the same, asked in other words", "a": "answer number 0"}, {"q": "other", "a": "another"})
    assert asking(task(shots=2), PAIRS[:1], pool).answer_in_prompt == (Origin("a.jsonl", 1),)


@pytest.mark.parametrize(
    ("answer", "prompt", "stands"),
    [("", ["a"], False), ("cat sat", ["a cat sat."], True), ("cat sat", ["concat sat"], False)],
)
def test_standing_in(answer, prompt, stands):
    assert stands_in(answer, prompt) is stands


def test_options_and_several_fields():
    likely = task(prompt="{q}\n{o:lettered}", options="o", scorer={"kind": "likelihood"})
    (one,) = asking(likely, records({"q": "?", "o": ["x", 2], "a": 1}), []).asked
    assert (one.options, one.reference) == (("x", "2"), 1)
    code = task(reference={"tests": "a"}, scorer={"kind": "code"})
    assert asking(code, records({"q": "?", "a": ["assert 1"]}), []).asked[0].reference == {"tests": ["assert 1"]}


def test_a_limit_takes_the_same_rows_in_any_order():
    limited = task(rows=5)
    taken = {one.origin for one in asking(limited, PAIRS, []).asked}
    assert len(taken) == 5
    assert {one.origin for one in asking(limited, PAIRS[::-1], []).asked} == taken
    assert {one.origin for one in asking(task(rows=5, seed=1), PAIRS, []).asked} != taken


@pytest.mark.parametrize(
    ("options", "fields", "said"),
    [
        ({}, {"a": None}, "the reference is null"),
        ({}, {"q": None}, "`q` is null"),
        ({"scorer": {"kind": "pattern", "pattern": "x"}}, {"a": None}, "the reference is null"),
        ({"scorer": {"kind": "number"}}, {"a": "many"}, "no number"),
        ({"scorer": {"kind": "letter"}}, {"a": "9"}, "neither one of A, B, C, D"),
        ({"prompt": "{o:lettered}"}, {"o": ["x", None]}, "not a list of up to 26 options"),
        ({"options": "o", "scorer": {"kind": "likelihood"}}, {"a": 7, "o": ["x", "y"]}, "none of the options"),
        ({"options": "o", "scorer": {"kind": "likelihood"}}, {"a": 0, "o": "xy"}, "`o` is not a list"),
        ({"options": "o", "scorer": {"kind": "likelihood"}}, {"a": 0, "o": ["x", None]}, "`o` is not a list"),
        ({"options": "o", "scorer": {"kind": "likelihood"}}, {"a": 0, "o": ["x", " "]}, "an option that says nothing"),
        ({"reference": {"tests": "a"}, "scorer": {"kind": "code"}}, {"a": "assert ("}, "`tests` is not Python"),
        ({"shots": 1}, {"a": None}, "null"),
    ],
)
def test_rows_that_no_answer_can_be_right_by_are_named_when_they_are_read(options, fields, said):
    right = {"number": "1", "letter": "A", "code": "pass"}.get(options.get("scorer", {}).get("kind"), "x")
    good = {"q": "?", "a": right, "o": ["x", "y"]}
    rows = records(good, {**good, "q": "Other?", **fields})
    with pytest.raises(DataError) as refused:
        asking(task(**options), rows, rows)
    (problem, *_) = refused.value.problems
    assert (problem.code, problem.where) == ("data/bad-row", "a.jsonl:2")
    assert said in problem.found


def test_an_instruction_of_no_known_kind_is_named_when_the_rows_are_read():
    pytest.importorskip("if_verifiable")
    good = {"prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    rows = records(good, {**good, "instruction_id_list": ["words:haiku"]})
    with pytest.raises(DataError, match="words:haiku") as refused:
        asking(load("ifeval"), rows, [])
    assert refused.value.problems[0].where == "a.jsonl:2"


def test_letters_and_numbers_of_a_table_are_references(tmp_path):
    """Every value of a CSV is a text."""
    (tmp_path / "a.csv").write_text("q,a\nWhat,2\nWhich,1\nWho,c\n")
    own = task(scorer={"kind": "letter"}, data=str(tmp_path / "a.csv"))
    assert [own.scorer.mark("C", one.reference).score for one in ask(own).asked] == [1.0, 0.0, 1.0]


def test_a_shot_shows_its_reference_as_a_prompt_would():
    rows = records(*({"q": f"number {n}", "a": value} for n, value in enumerate((2.0, True, {"b": 1}))))
    found = asking(task(shots=2), rows, rows).asked
    assert {message.content for one in found for message in one.messages[1::2]} == {"2", "true", '{"b": 1}'}


CHATTED = "Here it is:\n\n```python\n# sort, then take the middle\ndef f(x):\n    return x\n```\n"


@pytest.mark.parametrize(("plain", "answer"), [(False, CHATTED), (True, "Here it is:\n\n```python")])
def test_texts_that_end_a_program_end_no_answer_in_words(plain, answer):
    """HumanEval's are meant for a model that goes on with the program."""

    class Speaking:
        def writer(self):
            return self

        def prompt(self, asked, name):
            return Prompt(asked.text() if plain else asked.messages, row=name)

        def write(self, prompts, sampling, *, stop, **options):
            self.stop = stop
            return [Generation((), True, text=CHATTED) for _ in prompts]

    found = load("humaneval")
    row = {"prompt": "def f(x):\n", "entry_point": "f", "test": "pass", "canonical_solution": "    return x"}
    data = errand_of(found, row)
    subject = Speaking()
    own = found.model_copy(update={"scorer": Exact(), "reference": None})
    ((line,), _) = marked(subject, own, data, GREEDY, lambda done: None)
    assert line["answer"] == answer
    assert subject.stop == (found.stop_plain if plain else ())
    assert (found.version, found.stop, found.described()["stop_plain"][-1]) == (2, (), "\n#")


def errand_of(found: Task, row: dict) -> list[Row]:
    (one,) = asking(found, records(row), []).asked
    return [Row("a", "p", one, one.messages, False)]


def test_stops_cut_at_the_first():
    assert task(stop=["\nQ:", "END"]).cut("a END b\nQ: c") == "a "
    assert task().cut("a") == "a"


def test_a_changed_wording_is_seen():
    assert task().described()["wording"] != task(prompt="Q:  {q}").described()["wording"]
    assert task().described()["wording"] == task(name="other").described()["wording"]
