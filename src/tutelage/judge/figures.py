"""What the judgements add up to: who won, and how far the judge is to be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.evaluate.compare import Difference, paired_means, wilson
from tutelage.evaluate.statistics import holm, many_note, mcnemar, paired_proportions
from tutelage.evaluate.summary import CONFIDENCE
from tutelage.judge.judgements import ORDERS, Judgement, Order
from tutelage.judge.labels import Labels, agreement
from tutelage.judge.pairs import Pair
from tutelage.judge.verdict import speaks_to_the_judge

Table = dict[str, Any]
Known = Mapping[tuple[str, Order], Judgement]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A pair with both judgements."""

    pair: Pair
    verdict: str | None
    """`A`, `B` or `tie`; None where a judgement is missing or cannot be read."""
    how: str
    """`identical`, `agreed`, `order` where the orders disagree, `unparsable` or `unasked`."""
    both: tuple[Judgement, ...]
    speaks: tuple[str, ...]
    """Whose answer speaks to the judge."""

    @property
    def place(self) -> int | None:
        """1 where the first place is chosen more often than the second, -1 less often, None where none was chosen."""
        said = [one.said for one in self.both]
        if None in said or len(said) < 2 or said == ["tie", "tie"]:
            return None
        return (said.count("1") > said.count("2")) - (said.count("1") < said.count("2"))


def outcome(pair: Pair, known: Known) -> Outcome:
    """A win counts where both orders agree, and is a tie otherwise."""
    sides = {"A": pair.a, "B": pair.b}
    speaks = tuple(side for side, text in sides.items() if speaks_to_the_judge(text))
    both = tuple(known[pair.name, order] for order in ORDERS if (pair.name, order) in known)
    if pair.identical:
        return Outcome(pair, "tie", "identical", (), speaks)
    if len(both) < len(ORDERS):
        return Outcome(pair, None, "unasked", both, speaks)
    verdicts = [one.verdict for one in both]
    if None in verdicts:
        return Outcome(pair, None, "unparsable", both, speaks)
    agreed = verdicts[0] == verdicts[1]
    return Outcome(pair, verdicts[0] if agreed else "tie", "agreed" if agreed else "order", both, speaks)


def figures(
    pairs: Sequence[Pair],
    known: Known,
    judge: str,
    names: tuple[str, str],
    labels: Labels | None = None,
    confidence: float = CONFIDENCE,
) -> Table:
    """Each task's verdict, and the judge's own figures over all tasks."""
    outcomes = [outcome(pair, known) for pair in pairs]
    tasks = [
        _task(task, [one for one in outcomes if one.pair.task == task], judge, names, confidence)
        for task in dict.fromkeys(pair.task for pair in pairs)
    ]
    chances = {table["task"]: table["chance"] for table in tasks if table["chance"] is not None}
    for name, chance in holm(chances).items():
        table = next(table for table in tasks if table["task"] == name)
        table["chance_together"] = chance
        table["verdict_together"] = table["verdict"] if chance <= 1 - confidence else "no difference"
    told = {
        "agreement": _agreement(outcomes, confidence),
        "position": _position(outcomes, confidence),
        "length": _length(outcomes, confidence),
        "unparsable": _unparsable(outcomes),
        "injections": _injections(outcomes),
    }
    people, notes = (None, []) if labels is None else _people(outcomes, labels, confidence)
    return {
        "confidence": confidence,
        "tasks": tasks,
        "many": many_note(chances, confidence),
        "bias": told,
        "labels": people,
        "notes": [*_notes(told), *notes],
    }


def _task(name: str, outcomes: Sequence[Outcome], judge: str, names: tuple[str, str], confidence: float) -> Table:
    counted = [one for one in outcomes if one.verdict is not None]
    won = [one for one in counted if one.verdict == "B"]
    lost = [one for one in counted if one.verdict == "A"]
    ties = {how: sum(one.verdict == "tie" and one.how == how for one in counted) for how in _TIES}
    table: Table = {
        "task": name,
        "base": names[0],
        "other": names[1],
        "pairs": len(outcomes),
        "judged": len(counted),
        "wins": len(won),
        "losses": len(lost),
        "ties": sum(ties.values()),
        "ties_by": ties,
        "unparsable": sum(one.how == "unparsable" for one in outcomes),
        "unasked": sum(one.how == "unasked" for one in outcomes),
        "won": [_row(one) for one in won],
        "lost": [_row(one) for one in lost],
    }
    if not counted:
        nothing = f"{name}: nothing was judged: of {len(outcomes):,} pairs, none has two judgements that can be read."
        return table | dict.fromkeys(_FIGURES) | {"verdict": "not measured", "sentence": nothing, "n": 0}
    draws = [one.pair.draw for one in counted]
    clustered = len(set(draws)) < len(draws)
    base = np.array([one.verdict == "A" for one in counted], dtype=float)
    other = np.array([one.verdict == "B" for one in counted], dtype=float)
    found = paired_means(base, other, confidence=confidence, clusters=draws if clustered else None)
    low, high = found.interval
    return table | {
        "n": found.n,
        "won_share": found.tuned,
        "lost_share": found.base,
        "difference": found.difference,
        "interval": [low, high],
        "win_rate": 0.5 + found.difference / 2,
        "win_rate_interval": [0.5 + low / 2, 0.5 + high / 2],
        "test": "Student's t" if clustered else "McNemar",
        "chance": found.chance,
        "detectable": found.detectable,
        "verdict": found.verdict(lower_is_better=False),
        "sentence": sentence(name, found, table, judge, names[1]),
    }


_TIES = ("agreed", "order", "identical")
_FIGURES = (
    *("won_share", "lost_share", "difference", "interval", "win_rate", "win_rate_interval"),
    *("test", "chance", "detectable"),
)


def sentence(task: str, found: Difference, table: Table, judge: str, other: str) -> str:
    """The verdict in words."""
    low, high = (100 * end for end in found.interval)
    numbers = (
        f"wins {100 * found.tuned:.1f} % of the pairs and loses {100 * found.base:.1f} % "
        f"({100 * found.difference:+.1f} points, {found.confidence:.0%} interval {low:+.1f} to {high:+.1f}; "
        f"n = {found.n:,}; {table['wins']:,} won, {table['losses']:,} lost, {table['ties']:,} tied)"
    )
    verdict = found.verdict(lower_is_better=False)
    if not found.enough:
        return f"{task}, judged by {judge}: too few pairs to tell a difference from noise: {other} {numbers}."
    if verdict == "no difference":
        least = f" So many pairs show a difference of {100 * found.detectable:.1f} points." if found.detectable else ""
        return f"{task}, judged by {judge}: no difference that can be told from noise: {other} {numbers}.{least}"
    return f"{task}, judged by {judge}: {other} is {verdict}: it {numbers}."


def _row(one: Outcome) -> Table:
    pair = one.pair
    return {
        "row": pair.row,
        "sample": pair.sample,
        "origin": dict(pair.origin),
        "request": pair.request,
        "base": pair.a,
        "other": pair.b,
        "reasons": [judgement.reason for judgement in one.both],
        "speaks": list(one.speaks),
    }


def _agreement(outcomes: Sequence[Outcome], confidence: float) -> Table:
    """How often the judge says the same whichever answer comes first."""
    read = [one for one in outcomes if one.how in ("agreed", "order")]
    same = sum(one.how == "agreed" for one in read)
    return _share(same, len(read), confidence)


def _position(outcomes: Sequence[Outcome], confidence: float) -> Table:
    """The share of choices that fall on the first place; each pair counts once, and half is no preference.

    A judge that says the same in both orders chooses each place once, so that only pairs that it contradicts itself
    on lean to a place; McNemar's test and its interval are those of first against second among all.
    """
    places = [one.place for one in outcomes if one.place is not None]
    first, second, n = places.count(1), places.count(-1), len(places)
    if not n:
        return {"share": None, "interval": None, "n": 0, "first": 0, "second": 0, "chance": None}
    low, high = paired_proportions(first, second, n, confidence)
    share = 0.5 + (first - second) / (2 * n)
    interval = [0.5 + low / 2, 0.5 + high / 2]
    return {
        "share": share,
        "interval": interval,
        "n": n,
        "first": first,
        "second": second,
        "chance": mcnemar(first, second),
    }


def _length(outcomes: Sequence[Outcome], confidence: float) -> Table:
    """How often the longer answer won, where one did; counted in characters."""
    decided = [one for one in outcomes if one.verdict in ("A", "B") and len(one.pair.a) != len(one.pair.b)]
    longer = sum((one.verdict == "A") == (len(one.pair.a) > len(one.pair.b)) for one in decided)
    return _share(longer, len(decided), confidence)


def _share(count: int, n: int, confidence: float) -> Table:
    if not n:
        return {"share": None, "interval": None, "n": 0, "count": 0}
    return {"share": count / n, "interval": list(wilson(count, n, confidence)), "n": n, "count": count}


def _unparsable(outcomes: Sequence[Outcome]) -> Table:
    asked = [judgement for one in outcomes for judgement in one.both]
    why: dict[str, int] = {}
    for judgement in asked:
        if judgement.verdict is None:
            why[judgement.why] = why.get(judgement.why, 0) + 1
    return {
        "count": sum(why.values()),
        "of": len(asked),
        "retried": sum(judgement.tries > 1 for judgement in asked),
        "why": why,
    }


def _injections(outcomes: Sequence[Outcome]) -> Table:
    """Answers that speak to the judge, and what became of them."""
    table: Table = {"answers": 0, "won": 0, "lost": 0, "rows": []}
    for one in outcomes:
        for side in one.speaks:
            table["answers"] += 1
            table["won"] += one.verdict == side
            table["lost"] += one.verdict in ("A", "B") and one.verdict != side
            table["rows"].append({"task": one.pair.task, "row": one.pair.row, "side": side, "verdict": one.verdict})
    return table


def _people(outcomes: Sequence[Outcome], labels: Labels, confidence: float) -> tuple[Table, list[str]]:
    """The judge against people, on the pairs that both have looked at."""
    both = [
        (one.verdict, labels.of[one.pair.row])
        for one in outcomes
        if one.verdict is not None and one.how != "identical" and one.pair.row in labels.of
    ]
    found = agreement([ours for ours, _ in both], [theirs for _, theirs in both], confidence)
    strangers = set(labels.of) - {one.pair.row for one in outcomes}
    notes = [f"{len(strangers):,} of {len(labels.of):,} labels are of rows that were not judged"] if strangers else []
    return {**found, "file": labels.file, "sha256": labels.sha256}, notes


def _notes(told: Mapping[str, Table]) -> list[str]:
    """What makes the verdicts doubtful."""
    notes = []
    position, length, unparsable, injections = (
        told[name] for name in ("position", "length", "unparsable", "injections")
    )
    if position["interval"] and not position["interval"][0] <= 0.5 <= position["interval"][1]:
        place = "first" if position["share"] > 0.5 else "second"
        times = position["first"] + position["second"]
        notes.append(
            f"the judge prefers the {place} place: what it says of {times:,} of {position['n']:,} pairs leans with the "
            "order; where the orders disagree, nobody has won"
        )
    if length["interval"] and not length["interval"][0] <= 0.5 <= length["interval"][1]:
        kind = "longer" if length["share"] > 0.5 else "shorter"
        wins = length["count"] if kind == "longer" else length["n"] - length["count"]
        notes.append(f"the {kind} answer won {wins:,} of {length['n']:,} times; whether it was better is not known")
    if unparsable["count"]:
        why = "; ".join(f"{reason}: {count:,}" for reason, count in unparsable["why"].items())
        notes.append(
            f"{unparsable['count']:,} of {unparsable['of']:,} judgements cannot be read ({why}); their pairs are not "
            "counted"
        )
    if injections["answers"]:
        one = injections["answers"] == 1
        notes.append(
            f"{injections['answers']:,} {'answer seems' if one else 'answers seem'} to speak to the judge; "
            f"{injections['won']:,} won and {injections['lost']:,} lost: look at {'it' if one else 'them'}"
        )
    return notes
