"""The same task in other wordings: what is varied, what is not, and what the names of the rows have to do with it."""

from __future__ import annotations

import pytest

from tutelage.errors import RecipeError
from tutelage.tasks import Task, load
from tutelage.tasks.errand import errand, worded
from tutelage.tasks.formats import formats

ROWS = [{"q": f"What is {n} and {n}?", "a": str(2 * n), "doc": n % 3} for n in range(9)]


def task(**options) -> Task:
    given = {"name": "t", "prompt": "{q}", "reference": "a", "scorer": {"kind": "number"}}
    return Task.model_validate({**given, **options})


def prompts(task, count):
    return [one.turns[-1].content for one in formats(task, count)]


def test_the_first_wording_is_the_tasks_own_and_all_differ():
    for own in (task(), load("gsm8k"), load("multiple-choice")):
        made = formats(own, 12)
        assert made[0] == own
        assert len({one.turns for one in made}) == 12
        assert formats(own, 12) == made
        assert formats(own, 5) == made[:5]
        hashes = {one.described()["wording"] for one in made}
        assert len(hashes) == 12


def test_what_stands_in_the_row_is_never_changed():
    for words in prompts(load("multiple-choice"), 40):
        assert words.count("{question}") == words.count("{choices:lettered}") == 1
        assert words.index("{question}") < words.index("{choices:lettered}")


def test_what_is_varied():
    made = prompts(load("gsm8k"), 60)
    assert any(words.startswith("QUESTION") for words in made)
    assert any(words.startswith("question") for words in made)
    assert any("Answer the question above." in words for words in made)
    assert any(words.startswith("Answer the following question.") for words in made)
    assert any("Question - {question}" in words for words in made)
    assert any("Question:\n{question}" in words for words in made)
    # An answer goes on from its label: nothing comes after it, and no space.
    assert all(words.endswith(("nswer:", "NSWER:", "swer -", "SWER -", "swer ::", "SWER ::")) for words in made)
    assert any(words.startswith("Question: {q}\n") for words in prompts(task(), 60))  # Labels where there are none.


def test_a_stop_text_that_is_a_label_changes_with_it():
    for one in formats(load("gsm8k"), 40):
        label = one.turns[-1].content.removeprefix("Answer the following question.\n\n").split("{question}")[0]
        assert one.stop[0] == "\n" + label.rstrip()
        assert label.startswith(one.stop[1].strip())


def test_wordings_of_the_task_come_first_and_leave_the_rest_alone():
    own = task(formats=["Sum: {q}", "{q} Tell me."], stop=["Question:"])
    assert prompts(own, 3) == ["{q}", "Sum: {q}", "{q} Tell me."]
    assert formats(own, 4)[3].turns[-1].content not in ("{q}", "Sum: {q}", "{q} Tell me.")
    talk = task(prompt=None, messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{q}"}])
    made = formats(talk, 3)
    assert [one.turns[0] for one in made] == [talk.turns[0]] * 3
    assert [one.prompt for one in made] == [None] * 3


def test_a_wording_that_is_the_task_is_not_varied():
    with pytest.raises(RecipeError, match="a part of what is asked") as refused:
        formats(load("ifeval"), 2)
    assert refused.value.code == "recipe/conflict"
    assert formats(load("ifeval"), 1) == [load("ifeval")]
    with pytest.raises(RecipeError, match=r"has \d+ wordings"):
        formats(task(), 1000)


def test_rows_keep_their_names_in_every_wording(rows):
    own = errand(task(shots=2, rows=7, data=str(rows(ROWS))))
    made = worded(own, 4)
    assert [one.stem for one in made] == ["t", "t.format-2", "t.format-3", "t.format-4"]
    for one in made:
        assert [row.name for row in one.rows] == [row.name for row in own.rows]
        assert [row.asked.reference for row in one.rows] == [row.asked.reference for row in own.rows]
        assert [row.name for row in one.chosen(3)] == [row.name for row in own.chosen(3)]
        for row in one.rows:  # The shots are asked in the same words as the row itself.
            asked = [message.content for message in row.asked.messages if message.role == "user"]
            frames = {words.split("What is")[0] for words in asked}
            assert len(asked) == 3
            assert len(frames) == 1
    assert len({row.prompt for one in made for row in one.rows}) == 28


def test_a_cluster_is_what_stands_in_the_row(rows):
    made = errand(task(cluster="doc", data=str(rows(ROWS))))
    assert [row.asked.cluster for row in made.rows] == [str(n % 3) for n in range(9)]
    assert made.task.described()["cluster"] == "doc"
    assert "cluster" not in task().described()
