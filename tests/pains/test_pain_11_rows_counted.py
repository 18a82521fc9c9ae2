"""Every row read is trained, held out, or dropped for a named reason, and the run folder says which."""

from __future__ import annotations

import json

import pytest

from conftest import make_encoder, make_model, make_template_tokenizer
from tutelage import commands
from tutelage.data.dataset import prepare
from tutelage.errors import DataError
from tutelage.recipe import DataOptions

EMPTY, LONG, MALFORMED = (11, 500, 1000), (21, 22, 23, 24, 900), (31, 700)
DUPLICATE = 41


def row(number: int) -> object:
    if number in EMPTY:
        return {"instruction": f"Ask {number}", "output": "  "}
    if number in LONG:
        return {"instruction": f"Ask {number}", "output": "word " * 200}
    if number in MALFORMED:
        return {"instruction": number, "output": "b"}
    return {"instruction": f"Ask {1 if number == DUPLICATE else number}", "output": f"Yes {number}."}


@pytest.fixture
def thousand(rows):
    return rows([row(number) for number in range(1, 1001)])


FLAGS = {"max_length": 100, "on_bad_row": "quarantine", "over_long": "drop"}


def options(path, **flags) -> DataOptions:
    return DataOptions.model_validate({"train": [{"path": str(path)}], **flags})


def test_every_row_of_a_thousand_is_accounted_for_in_the_run_folder(thousand, tmp_path, one_thread):
    recipe = {
        "model": {"path": str(make_model(tmp_path / "model")), "device": "cpu"},
        "data": {"train": [{"path": str(thousand)}], **FLAGS},
        "train": {"steps": 1, "global_batch_size": 2},
        "evaluate": {"points": 0, "samples": 0},
        "output": str(tmp_path / "run"),
    }
    result = commands.train(recipe)
    written = json.loads((tmp_path / "run" / "data.json").read_text("utf-8"))["ledger"]
    assert written["rows"] == 1000
    assert written["dropped"] == {"empty-answer": 3, "bad-row": 2, "over-long": 5}
    assert written["trained"] + written["heldout"] + sum(written["dropped"].values()) == 1000
    assert written["duplicates"] == 1
    places = {reason: [origin["line"] for origin in origins] for reason, origins in written["origins"].items()}
    assert places == {
        "empty-answer": list(EMPTY),
        "bad-row": list(MALFORMED),
        "over-long": list(LONG),
        "duplicate prompt": [DUPLICATE],
    }
    assert result["ledger"] == {key: written[key] for key in ("rows", "trained", "heldout", "dropped")}
    quarantined = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(int(problem["where"].rpartition(":")[2]) for problem in quarantined) == sorted(EMPTY + MALFORMED)
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "over-long" in page


def test_without_a_flag_bad_rows_stop_the_run_and_are_all_reported(thousand, tmp_path):
    encoder = make_encoder(make_template_tokenizer(tmp_path, "chatml"))
    with pytest.raises(DataError) as caught:
        prepare(options(thousand, max_length=100), encoder)
    for line in EMPTY + MALFORMED:
        assert f"{thousand}:{line}\n" in str(caught.value)


def test_more_than_one_percent_set_aside_is_refused_unless_the_recipe_says_so(rows, tmp_path):
    encoder = make_encoder(make_template_tokenizer(tmp_path, "chatml"))
    good = [{"instruction": f"Ask {n}", "output": "b"} for n in range(980)]
    path = rows([*good, *[{"instruction": f"Ask {n}", "output": ""} for n in range(20)]])
    with pytest.raises(DataError) as caught:
        prepare(options(path, on_bad_row="quarantine"), encoder)
    assert caught.value.code == "data/too-many-dropped"
    assert "20 of 1,000" in str(caught.value)
    data = prepare(options(path, on_bad_row="quarantine", max_quarantined=0.02), encoder)
    assert data.ledger.dropped == {"empty-answer": 20}


def test_the_last_partial_batch_is_trained_not_dropped(rows, tmp_path):
    from tutelage.data.plan import Permutation, global_batches

    encoder = make_encoder(make_template_tokenizer(tmp_path, "chatml"))
    path = rows([{"instruction": f"Ask {n}", "output": "b"} for n in range(10)])
    examples = prepare(options(path, heldout=0), encoder).examples("train")
    batches = list(global_batches(lambda epoch: Permutation(len(examples), seed=0, epoch=epoch), size=4, epochs=1))
    assert [len(batch.examples) for batch in batches] == [4, 4, 2]
    assert sorted(index for batch in batches for index in batch.examples) == list(range(10))
