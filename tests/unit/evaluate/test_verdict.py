"""One word and one sentence from everything that was measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tutelage.evaluate.verdict import verdict


def one(word: str, chance: float, sentence: str = "") -> dict[str, Any]:
    return {"verdict": word, "chance": chance, "sentence": sentence or f"It is {word}."}


def said(**result: Any) -> dict[str, Any]:
    return verdict({"tasks": {}, **result}, confidence=0.95)


@pytest.mark.parametrize(
    ("heldout", "task", "word"),
    [
        ("better", "better", "better"),
        ("better", "no difference", "better"),
        ("no difference", "no difference", "no difference"),
        ("no difference", "worse", "worse"),
        ("better", "worse", "mixed"),
    ],
)
def test_the_word_is_what_all_say_together(heldout: str, task: str, word: str) -> None:
    chance = {"no difference": 0.6}
    found = said(
        heldout=one(heldout, chance.get(heldout, 1e-6)),
        tasks={"sums": one(task, chance.get(task, 1e-6), "Sums moved.")},
    )
    assert found["word"] == word
    assert found["sentence"].startswith(f"It is {heldout}. Sums moved.")


def test_of_many_tasks_one_that_moved_by_chance_makes_no_verdict() -> None:
    tasks = {f"task {n}": one("no difference", 0.5) for n in range(4)} | {"lucky": one("better", 0.03)}
    found = said(heldout=one("no difference", 0.4), tasks=tasks)
    assert found["word"] == "no difference"
    assert "Of 6 measurements together, lucky cannot be told from noise any more." in found["sentence"]
    assert said(tasks={"lucky": one("better", 0.03)})["word"] == "better", "alone it does"


def test_a_model_that_learned_and_then_learned_by_heart_memorises() -> None:
    told = {"verdict": True, "learned": True, "sentence": "It memorises since step 20."}
    best = {"step": 20, "last_step": 90, "exported": True, "sentence": "Step 20 of 90 is exported."}
    found = said(heldout=one("better", 1e-9), memorising=told, best=best, exported_step=20)
    assert found["word"] == "memorising"
    assert found["sentence"] == "It memorises since step 20. It is better. Step 20 of 90 is exported."
    for measured, word in (("no difference", "memorising"), ("worse", "worse")):
        never = said(heldout=one(measured, 1e-9), memorising={**told, "learned": False})
        assert never["word"] == word
        assert never["sentence"].startswith("It memorises since step 20.")
    assert said(heldout=one("better", 1e-9), memorising={**told, "verdict": False})["word"] == "better"


def test_a_step_that_was_the_last_needs_no_word() -> None:
    best = {"step": 90, "last_step": 90, "exported": True, "sentence": "Step 90 of 90 is exported."}
    assert said(heldout=one("better", 1e-9), best=best, exported_step=90)["sentence"] == "It is better."


def test_nothing_measured_is_said() -> None:
    assert said(heldout=None)["word"] == "not measured"
    assert said(heldout=None)["sentence"]


def test_a_loss_that_is_no_number_is_worse() -> None:
    from tutelage.evaluate.heldout import HeldoutLoss
    from tutelage.evaluate.outcome import heldout_verdict

    base = HeldoutLoss(np.full(20, 2.0), np.ones(20), 20)
    tuned = HeldoutLoss(np.array([np.inf, *np.full(19, 1.0)]), np.ones(20), 20)
    found = said(heldout=heldout_verdict(base, tuned, confidence=0.95))
    assert found["word"] == "worse"
    assert found["sentence"].startswith("The held-out loss of the tuned model is no number (2.000 before")
    assert said(heldout=heldout_verdict(tuned, base, confidence=0.95))["word"] == "better"


def test_remarks_tell_what_is_wrong_whatever_the_score() -> None:
    health = {
        "base": {"n": 40, "hit_limit": 0.5, "loops": 0.0},
        "tuned": {"n": 40, "hit_limit": 0.05, "loops": 0.04, "empty": None},
    }
    found = said(
        heldout=one("better", 1e-9),
        health=health,
        drift={"verdict": "worse", "sentence": "General text became harder."},
        knowledge={"warns": True, "sentence": "The base model does not know these facts."},
    )
    assert found["word"] == "better"
    assert found["remarks"] == [
        "5% of the tuned model's answers do not stop by themselves (n = 40; 50% of the base model's).",
        "General text became harder.",
        "The base model does not know these facts.",
    ]
    calm = said(
        heldout=one("better", 1e-9),
        drift={"verdict": "no difference", "sentence": "-"},
        knowledge={"warns": False, "sentence": "-"},
    )
    assert calm["remarks"] == []
