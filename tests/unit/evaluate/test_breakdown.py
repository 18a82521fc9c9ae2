"""Held-out loss in parts: what examples are made of, the loss of each piece, and the groups that they fall into."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from conftest import make_encoder
from tutelage.data.dataset import prepare
from tutelage.data.encode import Encoder
from tutelage.evaluate.anatomy import Anatomy, anatomy
from tutelage.evaluate.breakdown import breakdown, per_byte, stop_probability
from tutelage.evaluate.heldout import HeldoutLoss, heldout_loss
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.recipe import DataOptions

TALK = [
    {
        "messages": [
            {"role": "user", "content": f"Name colour {n}."},
            {"role": "assistant", "content": "red " * (n % 7 + 1)},
            {"role": "user", "content": "And another one?"},
            {"role": "assistant", "content": "blue" + " and green" * (n % 3)},
        ]
    }
    for n in range(16)
]
THOUGHT = [
    {
        "messages": [
            {"role": "user", "content": f"Think of number {n}."},
            {"role": "assistant", "content": f"<think>It is {n}, I am sure.</think>It is {n}."},
        ]
    }
    for n in range(16)
]


@pytest.fixture
def encoder(tiny_model):
    from transformers import AutoTokenizer

    return make_encoder(AutoTokenizer.from_pretrained(tiny_model("llama")))


@pytest.fixture
def made(rows, tmp_path, encoder):
    """`made([TALK, THOUGHT])` is (the data set, its held-out examples, what they are made of)."""

    def make(sources, **options):
        train = tuple({"path": str(rows(values, f"{n}.jsonl"))} for n, values in enumerate(sources))
        given = {"train": train, "heldout": 0.6, "max_length": 128, "store": str(tmp_path / "store"), **options}
        chosen = DataOptions.model_validate(given)
        weighted = Encoder(encoder.tokenizer, encoder.template, thinking_weight=chosen.thinking_weight)
        dataset = prepare(chosen, weighted)
        heldout = dataset.examples("heldout")
        assert len(heldout) > 6
        return dataset, heldout, anatomy(dataset, heldout, encoder.tokenizer)

    return make


@pytest.fixture
def forward(tiny_model):
    return prove(load_model(locate(str(tiny_model("llama")))), max_length=128)


def text_of(encoder, heldout, piece):
    return encoder.tokenizer.decode(heldout[piece.example].input_ids[piece.first : piece.last])


def test_an_example_is_cut_at_its_turns(made, encoder):
    _, heldout, found = made([TALK])
    assert len(found.rows) == len(heldout)
    assert len(found.pieces) == 2 * len(heldout)
    for piece in found.pieces:
        text = text_of(encoder, heldout, piece)
        assert text.startswith("red" if piece.turn == 1 else "blue")
        assert text.endswith("<|im_end|>")
        assert (piece.stops, piece.thinking) == (True, False)
        assert piece.bytes == len(text.removesuffix("<|im_end|>").encode())
        assert piece.tokens == piece.last - piece.first == piece.weight
    assert found.by_example(found.column("tokens")).tolist() == heldout.supervised.tolist()
    assert len(set(found.sources)) == 1


def test_thinking_is_told_from_the_answer(made, encoder):
    _, heldout, found = made([THOUGHT])
    thoughts = [piece for piece in found.pieces if piece.thinking]
    assert len(thoughts) == len(heldout) == len(found.pieces) / 2
    for piece in found.pieces:
        text = text_of(encoder, heldout, piece)
        assert text.startswith("<think>") == text.endswith("</think>") == piece.thinking
        assert piece.stops != piece.thinking


def test_thinking_that_is_not_trained_has_no_piece(made, encoder):
    _, _, found = made([THOUGHT], thinking_weight=0.0)
    assert not any(piece.thinking for piece in found.pieces)
    _, heldout, found = made([THOUGHT], thinking_weight=0.5)
    thoughts = [piece for piece in found.pieces if piece.thinking]
    assert len(thoughts) == len(heldout)
    assert all(piece.weight == piece.tokens / 2 for piece in thoughts)


def test_a_row_has_one_name_in_every_run(made, rows, tmp_path):
    _, _, found = made([TALK, THOUGHT])
    _, _, turned = made([THOUGHT[::-1], TALK[3:]], heldout=0.9, thinking_weight=0.5, max_length=100)
    assert len(set(found.rows)) == len(found.rows)
    lines = {name: origin.line for name, origin in zip(found.rows, found.origins, strict=True)}
    shared = set(found.rows) & set(turned.rows)
    assert len(shared) >= len(found.rows) - 3
    for name, origin in zip(turned.rows, turned.origins, strict=True):
        if name in shared:
            assert lines[name] == (origin.line + 3 if origin.file.endswith("1.jsonl") else 17 - origin.line)


@pytest.mark.parametrize("budget", [1, 100, 10_000])
def test_the_loss_of_each_piece_is_what_plain_transformers_says(made, forward, tiny_model, budget):
    _, heldout, found = made([TALK, THOUGHT], thinking_weight=0.5)
    plain = load_model(locate(str(tiny_model("llama"))))
    loss = heldout_loss(forward, heldout, token_budget=budget, anatomy=found)
    whole = heldout_loss(forward, heldout, token_budget=300)
    assert loss.sums == pytest.approx(whole.sums, rel=1e-5)
    assert found.by_example(loss.pieces.sums) == pytest.approx(loss.sums, rel=1e-9)
    for number, piece in enumerate(found.pieces):
        example = heldout[piece.example]
        ids = torch.from_numpy(example.input_ids.astype(np.int64))[None]
        with torch.no_grad():
            each = cross_entropy(plain(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
        own = each[piece.first - 1 : piece.last - 1]
        assert loss.pieces.plain[number] == pytest.approx(float(own.sum()), rel=1e-5)
        assert loss.pieces.ends[number] == pytest.approx(float(own[-1]), rel=1e-5)
    expected = np.mean([math.exp(-end) for end, p in zip(loss.pieces.ends, found.pieces, strict=True) if p.stops])
    assert stop_probability(loss, found) == pytest.approx(expected)
    again = HeldoutLoss.restored(loss.as_json())
    assert again.pieces.plain.tolist() == loss.pieces.plain.tolist()
    assert again.nll == loss.nll


def losses(found, sums):
    """A measurement with these losses of the pieces."""
    from tutelage.evaluate.heldout import PieceLoss

    sums = np.asarray(sums, dtype=float)
    pieces = PieceLoss(sums, sums, np.zeros(len(sums)))
    return HeldoutLoss(found.by_example(sums), found.by_example(found.column("weight")), 1, pieces)


def test_groups_show_where_the_difference_is(made):
    _, _, found = made([TALK, THOUGHT])
    tokens = found.column("tokens")
    wide = np.array([1.0 + 0.01 * (number % 5) for number in range(len(tokens))])
    base = losses(found, 2 * tokens)
    # Better in the second turn alone, worse in thinking alone, and the same elsewhere.
    change = np.array([-1.0 if p.turn == 2 else 1.0 if p.thinking else 0.0 for p in found.pieces])
    told = breakdown(base, losses(found, 2 * tokens + change * tokens * wide), found, 0.95)
    assert list(told) == ["source", "turn", "length", "part", "left_out"]
    by = {kind: {group["name"]: group for group in told[kind]} for kind in ("source", "turn", "length", "part")}
    assert [by["turn"][name]["verdict"] for name in ("1", "2")] == ["worse", "better"]
    assert by["turn"]["2"]["difference"] == pytest.approx(-1.02, abs=0.02)
    assert by["part"]["thinking"]["verdict"] == "worse"
    assert by["part"]["answer"]["verdict"] == "better"
    assert by["turn"]["2"]["base_nll"] == 2.0
    for kind, groups in by.items():
        assert kind in told["left_out"] or sum(group["tokens"] for group in groups.values()) == tokens.sum()
        assert all(group["interval"][0] <= group["difference"] <= group["interval"][1] for group in groups.values())
    assert by["turn"]["2"]["n"] == sum(p.turn == 2 for p in found.pieces)
    # Rows are the draws: both turns of a talk are in the group of their source, and count once.
    assert sum(group["n"] for group in by["source"].values()) == len(set(found.rows))


def test_lengths_are_tenths_of_the_answers(made):
    _, _, found = made([TALK])
    told = breakdown(*[losses(found, found.column("tokens"))] * 2, found, 0.95)
    sizes = sorted(int(piece.tokens) for piece in found.pieces)
    first, last = told["length"][0]["name"], told["length"][-1]["name"]
    assert first.split()[0] == str(sizes[0])
    assert last.split()[-2] == str(sizes[-1])
    assert "source" not in told  # One group alone says what the whole says.
    assert "part" not in told


def test_rows_that_name_their_task_are_told_apart_by_it(made):
    kinds = ("colours", "numbers", None)
    _, _, found = made([[{**row, "task": kinds[n % 3]} for n, row in enumerate(TALK)]])
    told = breakdown(*[losses(found, found.column("tokens"))] * 2, found, 0.95)
    assert {group["name"] for group in told["task"]} == {"colours", "numbers", "(none named)"}
    places = [origin.line - 1 for origin in found.origins]
    for group in told["task"]:
        mine = [n for n in places if (kinds[n % 3] or "(none named)") == group["name"]]
        assert group["n"] == len(mine)


def test_of_very_many_tasks_the_rarest_are_one(made, monkeypatch):
    monkeypatch.setattr("tutelage.evaluate.breakdown.MOST", 3)
    _, _, found = made([[{**row, "task": f"task {max(0, n - 6) // 2}"} for n, row in enumerate(TALK)]])
    names = [group["name"] for group in breakdown(*[losses(found, found.column("tokens"))] * 2, found, 0.95)["task"]]
    assert len(names) == 3
    assert names[-1] == f"{len(set(found.tasks)) - 2} others"


def test_tasks_beyond_a_limit_are_stored_as_one(made, monkeypatch):
    monkeypatch.setattr("tutelage.data.store.building.TASKS", 3)
    dataset, _, _ = made([[{**row, "task": f"task {n}"} for n, row in enumerate(TALK)]])
    assert dataset.store.facts["tasks"] == ["", "task 0", "task 1", "other tasks"]
    assert np.bincount(dataset.store.rows["task"]).tolist() == [0, 1, 1, 14]


def test_a_group_of_one_row_is_counted_and_not_shown(made):
    _, _, found = made([TALK, THOUGHT])
    alone = [number for number, source in enumerate(found.sources) if source == found.sources[-1]][:1]
    kept = [number for number, source in enumerate(found.sources) if source == found.sources[0]] + alone
    pieces = tuple(piece._replace(example=kept.index(piece.example)) for piece in found.pieces if piece.example in kept)
    names = ("rows", "origins", "sources", "tasks", "renderings")
    few = Anatomy(*(tuple(getattr(found, name)[number] for number in kept) for name in names), pieces)
    told = breakdown(*[losses(few, few.column("tokens"))] * 2, few, 0.95)
    assert told["left_out"]["source"] == 1
    assert [group["name"] for group in told["source"]] == [found.sources[0]]


def test_bytes_do_not_depend_on_weights(made):
    _, _, found = made([THOUGHT], thinking_weight=0.5)
    size = found.column("bytes").sum()
    base, tuned = losses(found, found.column("tokens")), losses(found, 3 * found.column("tokens"))
    told = per_byte(base, tuned, found)
    once = found.column("tokens").sum() / size
    assert told["nats"] == {"base": pytest.approx(once), "tuned": pytest.approx(3 * once)}
    assert told["base"] == pytest.approx(told["nats"]["base"] / math.log(2))
    assert told["unit"] == "bits per byte"


def test_a_measurement_without_pieces_has_no_parts(made, forward):
    _, heldout, found = made([TALK])
    loss = heldout_loss(forward, heldout, token_budget=200)
    assert loss.pieces is None
    assert breakdown(loss, loss, found, 0.95) == {}
    assert per_byte(loss, loss, found) is None
    assert stop_probability(loss, found) is None


class Rank:
    """One of several processes; what they add up is added up afterwards."""

    device = "cpu"
    pulse = SimpleNamespace(beat=lambda: None)

    def __init__(self, rank, world):
        self.rank, self.world = rank, world

    def sum(self, tensor):
        return tensor


def test_several_processes_share_the_pieces(made, forward):
    _, heldout, found = made([TALK, THOUGHT])
    alone = heldout_loss(forward, heldout, token_budget=100, anatomy=found)
    shares = [heldout_loss(forward, heldout, token_budget=100, anatomy=found, ranks=Rank(rank, 3)) for rank in range(3)]
    assert all(0 < np.count_nonzero(share.pieces.sums) < len(found.pieces) for share in shares)
    assert sum(share.sums for share in shares) == pytest.approx(alone.sums, rel=1e-12)
    for name in ("sums", "plain", "ends"):
        whole = sum(getattr(share.pieces, name) for share in shares)
        assert whole == pytest.approx(getattr(alone.pieces, name), rel=1e-12)
