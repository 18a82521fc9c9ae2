"""Near-duplicates: exact Jaccard decides, nothing is missed, and neither order nor saving changes the groups."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.data.repeats import dedup, similarity
from tutelage.data.repeats.dedup import NearDuplicates, conflicts
from tutelage.data.repeats.similarity import Sets, components
from tutelage.data.repeats.words import jaccard, shingles, words
from tutelage.data.split import normal

TEXT = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h"]), max_size=9).map(" ".join)
THRESHOLD = st.sampled_from([0.1, 0.3, 0.5, 2 / 3, 0.7, 0.8, 0.9, 1.0])


def groups(texts, threshold=0.8, size=3):
    search = NearDuplicates(threshold=threshold, words=size)
    for text in texts:
        search.add(text)
    return search.groups().tolist()


def groups_by_comparing_all(texts, threshold, size):
    """The same by the definition: every pair, then every chain."""
    labels = list(range(len(texts)))
    split = [words(text) for text in texts]
    runs = [shingles(text, size) for text in split]
    for one in range(len(texts)):
        for other in range(one):
            if split[one] == split[other] or jaccard(runs[one], runs[other]) >= threshold:
                low, high = sorted((labels[one], labels[other]))
                labels = [low if label == high else label for label in labels]
    return labels


@given(st.text())
def test_words_are_those_of_the_normal_form(text):
    if text.isascii():
        assert words(text) == normal(text).split()
    else:
        assert "".join(words(text)) == "".join(normal(text).split())


def test_scripts_without_spaces_are_cut_into_characters():
    assert words("Ｈello, 你好吗? สวย") == ["hello", "你", "好", "吗", *"สวย"]
    assert words("Straße naïve_x 3.5") == ["strasse", "naïve_x", "3", "5"]
    assert words("+ -") == ["+", "-"]


@settings(max_examples=300)
@given(st.lists(TEXT, max_size=14), THRESHOLD, st.integers(1, 4))
def test_groups_are_those_of_comparing_all_pairs(texts, threshold, size):
    assert groups(texts, threshold, size) == groups_by_comparing_all(texts, threshold, size)


@settings(max_examples=100)
@given(st.integers(8, 60), st.data(), THRESHOLD)
def test_edited_words_group_exactly_when_their_similarity_reaches_the_threshold(count, data, threshold):
    original = [f"w{index}" for index in range(count)]
    edited = [
        f"x{index}" if index in data.draw(st.just(chosen)) else word
        for chosen in [data.draw(st.sets(st.integers(0, count - 1), max_size=6))]
        for index, word in enumerate(original)
    ]
    similar = jaccard(shingles(original, 3), shingles(edited, 3)) >= threshold
    unlike = " ".join(f"z{index}" for index in range(count))
    expected = [0, 1, 0 if similar else 2]
    assert groups([" ".join(original), unlike, " ".join(edited)], threshold) == expected


@given(st.lists(TEXT, min_size=1, max_size=14), st.randoms(use_true_random=False), THRESHOLD)
def test_another_order_changes_only_the_labels(texts, random, threshold):
    order = list(range(len(texts)))
    random.shuffle(order)
    first, second = groups(texts, threshold), groups([texts[place] for place in order], threshold)
    together = {frozenset(np.flatnonzero(np.array(first) == label).tolist()) for label in first}
    again = {frozenset(order[place] for place in np.flatnonzero(np.array(second) == label)) for label in second}
    assert together == again


@given(st.lists(TEXT, max_size=20), st.integers(0, 20), st.integers(0, 20))
def test_saved_and_continued_equals_one_go(texts, one, other):
    one, other = sorted((min(one, len(texts)), min(other, len(texts))))
    search = NearDuplicates(threshold=0.5, words=2)
    states = []
    for begin, end in ((0, one), (one, other)):  # each part is saved by itself, as a store does
        for text in texts[begin:end]:
            search.add(text)
        states.append(search.state(begin))
    continued = NearDuplicates(threshold=0.5, words=2)
    for state in states:
        continued.restore(state)
    assert len(continued) == other
    for text in texts[other:]:
        continued.add(text)
    assert continued.groups().tolist() == groups(texts, 0.5, 2)
    assert len(continued) == len(texts)


def test_asking_for_the_groups_early_changes_nothing():
    texts = [f"the {n // 2} quick brown foxes jump over {n // 2} lazy dogs" for n in range(20)]
    search = NearDuplicates(threshold=0.8, words=3)
    for place, text in enumerate(texts):
        search.add(text)
        assert search.groups().tolist() == groups(texts[: place + 1])


def test_no_rows_and_rows_without_words():
    assert groups([]) == []
    assert groups(["", " ", "?!", "?!", "a"]) == [0, 0, 2, 2, 4]


def test_prompts_shorter_than_a_run_are_the_same_only_when_all_their_words_are():
    assert groups(["Thank you!", "thank  you", "thank me", "you thank"]) == [0, 0, 2, 3]


def test_what_is_similar_only_by_a_chain_is_one_group():
    texts = [" ".join(f"w{index}" for index in range(start, start + 20)) for start in (0, 1, 2, 3)]
    runs = [shingles(words(text), 3) for text in texts]
    assert jaccard(runs[0], runs[1]) >= 0.8 > jaccard(runs[0], runs[3])
    assert groups(texts) == [0, 0, 0, 0]
    assert groups([texts[0], texts[3]]) == [0, 1]


def test_small_portions_give_the_same_groups(monkeypatch):
    random = np.random.default_rng(0)
    texts = [" ".join(map(str, random.integers(0, 4, random.integers(0, 12)))) for _ in range(300)]
    expected = groups_by_comparing_all(texts, 0.6, 2)
    assert len(set(expected)) < 250
    for name, value in (("_AT_ONCE", 7), ("_OWNERS", 5), ("_MARKED", 3)):
        monkeypatch.setattr(similarity, name, value)
    monkeypatch.setattr(dedup, "_ROWS_AT_ONCE", 11)
    monkeypatch.setattr(dedup, "_WORDS_REMEMBERED", 2)
    assert groups(texts, 0.6, 2) == expected


@pytest.fixture
def looked_at(monkeypatch):
    """Numbers of pairs that the search looks at, and of those that it compares by all of their elements."""
    counts = {"pairs": 0, "compared": 0}
    join, share = similarity._join_similar, similarity._shared

    def joined(labels, sets, pairs, threshold):
        counts["pairs"] += len(pairs[0])
        join(labels, sets, pairs, threshold)

    def shared(sets, one, other):
        counts["compared"] += len(one)
        return share(sets, one, other)

    monkeypatch.setattr(similarity, "_join_similar", joined)
    monkeypatch.setattr(similarity, "_shared", shared)
    return counts


def test_a_large_group_is_not_compared_pair_by_pair(looked_at):
    frame = [f"t{index}" for index in range(60)]
    texts = [" ".join([*frame[:30], f"slot{number}", *frame[30:]]) for number in range(2000)]
    assert set(groups(texts)) == {0}
    assert looked_at["pairs"] < 10 * len(texts)
    assert looked_at["compared"] < 10 * len(texts)


def test_many_prompts_that_share_an_element_without_being_similar_are_not_compared_pair_by_pair(looked_at, monkeypatch):
    frame = [f"t{index}" for index in range(20)]
    texts = [" ".join([*frame, *(f"w{number}-{index}" for index in range(20))]) for number in range(300)]
    assert groups(texts) == list(range(300))
    assert looked_at["compared"] < 300
    looked_at.update(pairs=0)
    monkeypatch.setattr(similarity, "PARTNERS", 4)
    random = np.random.default_rng(0)
    texts = [" ".join(map(str, random.integers(0, 3, 12))) for _ in range(2000)]
    assert len(set(groups(texts, 0.7, 2))) < 2000
    assert looked_at["pairs"] < 2000 * 4 * 5  # at most five elements of each are asked for


def test_components_of_sets_of_very_different_sizes():
    random = np.random.default_rng(1)
    drawn = [np.unique(random.integers(0, 30, size)).astype(np.uint32) for size in random.integers(0, 40, 200)]
    sets = Sets.of(np.array([len(one) for one in drawn]), np.concatenate(drawn))
    labels = list(range(200))
    held = [set(one.tolist()) for one in drawn]
    for one in range(200):
        for other in range(one):
            both = held[one] | held[other]
            if both and len(held[one] & held[other]) / len(both) >= 0.75:
                low, high = sorted((labels[one], labels[other]))
                labels = [low if label == high else label for label in labels]
    assert components(sets, 0.75).tolist() == labels


def test_the_hashes_do_not_depend_on_the_process():
    code = (
        "from tutelage.data.repeats.dedup import NearDuplicates as N\n"
        "n = N(threshold=.8, words=3)\n"
        "n.add('one two three four naïve'); n.add('你好吗朋友')\n"
        "print({k: v.tolist() for k, v in n.state().items()})"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(dedup.__file__).parents[3])}
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**env, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    assert "[645716771, 656872725, 2904552773, 464899321" in printed.pop()  # a state on disk must stay readable


def test_conflicts_are_prompts_with_different_answers():
    prompts = np.array([7, 7, 8, 9, 9, 9, 5, 5], dtype=np.uint64)
    answers = np.array([1, 2, 1, 3, 3, 3, 1, 4], dtype=np.uint64)
    found = conflicts(prompts, answers)
    assert (found.prompts, found.rows, found.examples) == (2, 4, ((0, 1), (6, 7)))
    assert conflicts(prompts, answers, examples=1).examples == ((0, 1),)
    assert conflicts(prompts[:0], answers[:0]).prompts == 0


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=30))
def test_conflicts_are_counted_as_the_definition_says(rows):
    prompts, answers = (np.array([row[side] for row in rows], dtype=np.uint64) for side in (0, 1))
    different = {prompt: {a for p, a in rows if p == prompt} for prompt, _ in rows}
    several = {prompt for prompt, found in different.items() if len(found) > 1}
    found = conflicts(prompts, answers)
    assert found.prompts == len(several)
    assert found.rows == sum(prompt in several for prompt, _ in rows)
    assert {rows[example[0]][0] for example in found.examples} == several
    assert all(len(example) == len(different[rows[example[0]][0]]) for example in found.examples)


@pytest.mark.parametrize(
    ("file", "prompt", "near"),
    [
        ("sft/alpaca_cleaned_51924.jsonl.gz", lambda row: f"{row['instruction']}\n\n{row['input']}", 17),
        ("sft/rasbt_instruction_data.jsonl.gz", lambda row: f"{row['instruction']}\n\n{row['input']}", 13),
        ("sft/mlx_wikisql_train.jsonl.gz", lambda row: row["text"].rpartition("\nA:")[0], 35),
        ("sft/gsm8k_train.jsonl.gz", lambda row: row["question"], 2),
    ],
)
def test_real_data(shared_data, file, prompt, near):
    """Rows in a group with a prompt that is not theirs, as counted when the data was collected."""
    with gzip.open(shared_data / file, "rt") as lines:
        texts = [prompt(json.loads(line)) for line in lines]
    found = groups(texts)
    inside: dict[int, set[str]] = {}
    for label, text in zip(found, texts, strict=True):
        inside.setdefault(label, set()).add(normal(text))
    assert sum(len(inside[label]) > 1 for label in found) == near
