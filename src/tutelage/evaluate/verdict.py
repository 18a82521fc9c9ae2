"""Whether the model is better now: one word and one sentence, made of everything that was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from tutelage.evaluate.statistics import holm

Word = Literal["better", "worse", "no difference", "mixed", "memorising", "not measured"]

CARE = 0.05
"""Share of the answers with something wrong, from which on it is said."""
_WRONG = {
    "hit_limit": "do not stop by themselves",
    "empty": "are empty",
    "loops": "end in a loop",
    "broken_fence": "leave a block of code open",
    "invalid_json": "are not valid JSON where they should be",
}


def verdict(result: Mapping[str, Any], *, confidence: float) -> dict[str, Any]:
    """The word, the sentence, and remarks that whoever acts on it should know; `result` is that of a run so far.

    Tasks and held-out loss each say better, worse or neither; several of them count as one question, so that the more
    is asked the more it takes to answer (Holm 1979). A run that learned its rows by heart is told so, whatever the step
    that is exported is worth; only one that never was better and is worse now is worse before anything else.
    """
    said = dict(_said(result, confidence))
    remarks = list(_remarks(result))
    memorising = result.get("memorising") or {}
    word = _word(set(said.values()))
    sentences = list(_sentences(result, said))
    if memorising.get("verdict"):
        word = "worse" if word == "worse" and not memorising.get("learned") else "memorising"
        sentences.insert(0, str(memorising["sentence"]))
    best = result.get("best") or {}
    if best and result.get("exported_step") != best["last_step"]:
        sentences.append(str(best["sentence"]))
    return {
        "word": word,
        "sentence": " ".join(sentences) or "Nothing was held out, so nothing was measured.",
        "remarks": remarks,
    }


def _said(result: Mapping[str, Any], confidence: float) -> Iterator[tuple[str, str]]:
    """What each measurement says among all of them."""
    measured = dict(result.get("tasks") or {})
    if result.get("heldout"):
        measured["held-out loss"] = result["heldout"]
    chances = {name: one["chance"] for name, one in measured.items() if one.get("chance") is not None}
    together = holm(chances)
    for name, one in measured.items():
        lost = together.get(name, 0.0) > 1 - confidence
        yield name, "no difference" if lost else one["verdict"]


def _word(said: set[str]) -> Word:
    if not said:
        return "not measured"
    if {"better", "worse"} <= said:
        return "mixed"
    return "better" if "better" in said else "worse" if "worse" in said else "no difference"


def _sentences(result: Mapping[str, Any], said: Mapping[str, str]) -> Iterator[str]:
    if result.get("heldout"):
        yield str(result["heldout"]["sentence"])
    for name, one in (result.get("tasks") or {}).items():
        if one.get("sentence"):
            yield str(one["sentence"])
        if said[name] != one["verdict"]:
            yield f"Of {len(said)} measurements together, {name} cannot be told from noise any more."


def _remarks(result: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a model whatever its scores."""
    tuned = (result.get("health") or {}).get("tuned") or {}
    base = (result.get("health") or {}).get("base") or {}
    for name, words in _WRONG.items():
        share = tuned.get(name)
        if share is not None and share >= CARE:
            before = f"; {base[name]:.0%} of the base model's" if base.get(name) is not None else ""
            yield f"{share:.0%} of the tuned model's answers {words} (n = {tuned['n']:,}{before})."
    drift = result.get("drift") or {}
    if drift.get("verdict") == "worse":
        yield str(drift["sentence"])
    knowledge = result.get("knowledge") or {}
    if knowledge.get("warns"):
        yield str(knowledge["sentence"])
