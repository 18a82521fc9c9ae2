"""From files to examples: the policies, the quarantine, the held-out rows, and a ledger that always balances."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_encoder, make_template_tokenizer, make_tokenizer
from tutelage.data.dataset import prepare
from tutelage.errors import DataError, ModelError
from tutelage.recipe import DataOptions


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    tokenizer = make_template_tokenizer(tmp_path_factory.mktemp("chatml"), "chatml")
    return lambda: make_encoder(tokenizer)


def options(*paths, **more) -> DataOptions:
    return DataOptions.model_validate({"train": [{"path": str(path)} for path in paths], "heldout": 0, **more})


def good(number: int, **more) -> dict[str, object]:
    return {"instruction": f"Ask {number}", "output": f"Yes {number}.", **more}


def turns(count: int) -> dict[str, object]:
    pair = [{"role": "user", "content": "Ask this"}, {"role": "assistant", "content": "Yes."}]
    return {"messages": pair * count}


KINDS = {
    "good": lambda n: json.dumps(good(n)),
    "again": lambda n: json.dumps(good(0)),
    "empty": lambda n: json.dumps(good(n, output=" ")),
    "malformed": lambda n: json.dumps(good(n, output=[1])),
    "broken": lambda n: '{"instruction": "x", "outp',
    "long": lambda n: json.dumps(good(n, output="word " * 100)),
    "untrained": lambda n: json.dumps(good(n, weight=0)),
}
REASONS = {
    **{"empty": "empty-answer", "malformed": "bad-row", "broken": "bad-json"},
    **{"long": "over-long", "untrained": "nothing-trained"},
}


@settings(deadline=None, max_examples=60)
@given(
    kinds=st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=25),
    share=st.sampled_from([0.0, 0.3]),
    over_long=st.sampled_from(["drop", "trim-context"]),
)
def test_every_row_of_any_mixture_is_accounted_for(encoder, tmp_path_factory, kinds, share, over_long):
    path = tmp_path_factory.mktemp("mixture") / "data.jsonl"
    path.write_text("".join(KINDS[kind](n) + "\n" for n, kind in enumerate(kinds, 1)), "utf-8")
    policy = {"on_bad_row": "quarantine", "max_quarantined": 1, "over_long": over_long}
    given = options(path, heldout=share, max_length=60, **policy)
    if not {"good", "again"} & set(kinds):
        with pytest.raises(DataError, match=r"data/no-rows|data/unknown-format"):
            prepare(given, encoder())
        return
    # More good rows, so that something is left to train on.
    path.write_text(path.read_text("utf-8") + "".join(json.dumps(good(n)) + "\n" for n in range(100, 130)), "utf-8")
    kinds = [*kinds, *["good"] * 30]
    ledger = prepare(given, encoder()).ledger
    written = ledger.as_json()
    assert written["rows"] == len(kinds) == ledger.trained + ledger.heldout + sum(written["dropped"].values())
    for kind, reason in REASONS.items():
        lines = [line for line, other in enumerate(kinds, 1) if other == kind]
        assert written["dropped"].get(reason, 0) == len(lines)
        assert [origin["line"] for origin in written["origins"].get(reason, [])] == lines
    assert ledger.trained + ledger.heldout == sum(kind in ("good", "again") for kind in kinds)


def test_bad_rows_stop_the_run_and_are_listed_ten_at_most(rows, encoder):
    path = rows([good(n) if n % 2 else good(n, output="") for n in range(1, 31)])
    with pytest.raises(DataError) as caught:
        prepare(options(path), encoder())
    assert caught.value.code == "data/empty-answer"
    assert len(caught.value.problems) == 11
    assert "5 more rows have a problem, 15 of 30 in all" in str(caught.value)


def test_quarantined_rows_are_kept_apart_up_to_the_limit(rows, encoder):
    path = rows([good(n) for n in range(98)] + [good(98, output=""), good(99, output=3)])
    data = prepare(options(path, on_bad_row="quarantine", max_quarantined=0.02), encoder())
    assert [problem.where for problem in data.quarantined] == [f"{path}:99", f"{path}:100"]
    assert data.ledger.dropped == {"empty-answer": 1, "bad-row": 1}
    with pytest.raises(DataError) as caught:
        prepare(options(path, on_bad_row="quarantine", max_quarantined=0.019), encoder())
    assert caught.value.code == "data/too-many-dropped"
    assert "data.max_quarantined" in str(caught.value)


@pytest.mark.parametrize("policy", ["error", "drop", "trim-context"])
def test_over_long_rows_follow_the_policy(policy, rows, encoder):
    path = rows([turns(1), turns(1), turns(9), turns(2)])
    given = options(path, max_length=100, over_long=policy)
    if policy == "error":
        with pytest.raises(DataError) as caught:
            prepare(given, encoder())
        assert caught.value.code == "data/over-long"
        assert f"{path}:3" in caught.value.problems[0].where
        return
    data = prepare(given, encoder())
    assert max(map(len, data.examples("train"))) <= 100
    assert data.ledger.dropped == ({"over-long": 1} if policy == "drop" else {})
    assert data.ledger.trained == (3 if policy == "drop" else 4)
    assert data.stop_ids == {encoder().template_stop_id: 4 if policy == "drop" else 13}


def test_a_heldout_file_takes_its_prompts_out_of_the_training_rows(rows, encoder):
    train = rows([good(n) for n in range(10)], "train.jsonl")
    heldout = rows([good(n, output="Other.") for n in (3, 7, 50)], "heldout.jsonl")
    data = prepare(options(train, heldout={"path": str(heldout)}), encoder())
    assert (data.ledger.rows, data.ledger.trained, data.ledger.heldout) == (13, 8, 3)
    assert data.ledger.dropped == {"prompt is also held out": 2}
    assert [o.line for o in data.ledger.origins["prompt is also held out"]] == [4, 8]
    assert len(data.examples("heldout")) == 3


def test_rows_that_are_added_do_not_move_the_others(rows, encoder):
    few = rows([good(n) for n in range(100)], "few.jsonl")
    more = rows([good(n) for n in range(200)], "more.jsonl")

    def sides(path):
        data = prepare(options(path, heldout=0.2), encoder())
        rows = list(data.rows())
        given = data.demonstrations(rows)
        return {one.messages[0].content: row.split for row, one in zip(rows, given, strict=True)}

    assert sides(few).items() <= sides(more).items()
    assert set(sides(few).values()) == {"train", "heldout"}


def test_a_share_too_small_for_the_rows_still_holds_one_prompt_out(rows, encoder):
    path = rows([good(n) for n in range(5)])
    assert prepare(options(path, heldout=0.0001), encoder()).ledger.heldout == 1
    assert prepare(options(path, heldout=0), encoder()).ledger.heldout == 0


def test_nothing_left_to_train_on_is_refused(rows, encoder):
    path = rows([good(n) for n in range(3)], "a.jsonl")
    with pytest.raises(DataError) as caught:
        prepare(options(path, heldout={"path": str(path)}), encoder())
    assert caught.value.code == "data/no-rows"
    assert "3 dropped (prompt is also held out)" in str(caught.value)


def test_weights_of_source_row_and_turn_multiply(rows, encoder):
    path = rows(
        [
            {
                "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0.5}],
                "weight": 3,
            }
        ]
    )
    given = DataOptions.model_validate({"train": [{"path": str(path), "weight": 2.0}], "heldout": 0})
    [example] = prepare(given, encoder()).examples("train")
    assert set(example.weights.tolist()) == {0.0, 3.0}


def test_a_prompt_and_completion_go_through_the_template_where_there_is_one(rows, encoder, tmp_path):
    path = rows([{"prompt": "Ask <|im_end|>", "completion": "Yes."}])
    [example] = prepare(options(path), encoder()).examples("train")
    text = encoder().tokenizer.decode(example.input_ids)
    assert text == "<|im_start|>user\nAsk <|im_end|><|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>"
    plain = make_encoder(make_tokenizer(tmp_path, template=None, eos="</s>"))
    [example] = prepare(options(path), plain).examples("train")
    assert plain.tokenizer.decode(example.input_ids) == "Ask <|im_end|>Yes.</s>"


def test_conversations_without_a_template_are_refused(rows, tmp_path):
    with pytest.raises(ModelError) as caught:
        prepare(options(rows([turns(1)])), make_encoder(make_tokenizer(tmp_path, template=None)))
    assert caught.value.code == "template/missing"


def test_describe_counts_tokens_and_names_the_sources(rows, encoder):
    path = rows([good(n) for n in range(50)])
    data = prepare(options(path, heldout=0.3), encoder())
    described = data.describe()
    lengths = [len(example) for example in data.examples("train")]
    assert described["tokens"]["train"] == sum(lengths)
    assert described["tokens"]["heldout"] == sum(map(len, data.examples("heldout")))
    assert described["tokens"]["quantiles"]["100"] == max(lengths)
    assert [(s["format"], s["rows"]) for s in described["sources"]] == [("alpaca", 50)]


def test_progress_is_told_of_every_row(rows, encoder):
    seen = []
    prepare(options(rows([good(n) for n in range(7)])), encoder(), lambda stage, count: seen.append((stage, count)))
    assert seen.count(("reading", 1)) == seen.count(("encoding", 1)) == 7


def test_what_is_measured_comes_from_all_over_the_held_out_rows(rows, encoder):
    """A limit takes whole rows by hash, not the first of the file, and rows that ask are chosen alike."""
    path = rows([{**good(n), "input": f"Box {n}"} for n in range(400)])
    renderings = {"heldout": ["plain", "terse"]}
    data = prepare(options(path, heldout=0.5, renderings=renderings), encoder())
    every = data.examples("heldout")
    some = data.examples("heldout", 41)
    assert len(every) == 2 * data.ledger.heldout
    assert len(some) == 40
    assert data.rendering_of(some) == ["plain", "terse"] * 20
    lines = [example.origin.line for example in some]
    assert lines == sorted(lines)
    assert max(lines) > 300
    assert len(data.examples("heldout", 1)) == 2
    asking = [row.origin.line for row in data.asking(20)]
    assert asking == lines[::2]
    plain = prepare(options(rows([{"text": f"Text {n}"} for n in range(40)], "t.jsonl"), heldout=0.5), encoder())
    assert plain.ledger.heldout
    assert plain.asking(5) == []
