"""What a sweep found, as `sweep.json` holds it: a row for each setting, and the sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.sweep.grid import Setting
from tutelage.sweep.halving import Rung
from tutelage.sweep.standing import Gap, Mark, gap, mark, told
from tutelage.sweep.trial import Trial

Row = dict[str, Any]


@dataclass(slots=True)
class Entry:
    """A setting with its runs, and what was measured of it at each place that it came to."""

    setting: Setting
    trials: list[Trial]
    marks: list[Mark]

    @property
    def failed(self) -> Trial | None:
        """The first of its runs that cannot be compared."""
        return next((trial for trial in self.trials if trial.failed), None)

    def measure(self, rung: Rung) -> None:
        """Take in what was measured at one more place; a loss that is not finite is a failure."""
        found = []
        for trial in self.trials:
            losses = None if trial.failed else trial.losses(rung.step(trial.steps, trial.warmup))
            if losses is None:
                trial.error = trial.error or "the run is done and left no held-out loss"
            elif not math.isfinite(losses.nll):
                trial.error = "its held-out loss is not finite"
            else:
                found.append(losses)
        if self.failed is None:
            self.marks.append(mark(found))


def tabulate(entries: Sequence[Entry], rungs: Sequence[Rung], confidence: float) -> tuple[list[Row], list[str]]:
    """The rows, the winner first and the failed ones last, and the sentences on them."""
    alive = [entry for entry in entries if entry.marks and entry.failed is None]
    if not alive:
        return [_row(entry, rungs) for entry in entries], ["Every run failed, so nothing can be said."]
    best = max(len(entry.marks) for entry in alive)
    winner = min((entry for entry in alive if len(entry.marks) == best), key=lambda entry: entry.marks[-1].nll)
    gaps: dict[str, Gap] = {}
    for entry in alive:
        if entry is not winner:
            place = len(entry.marks) - 1
            at_place = [one.marks[place].variance for one in alive if len(one.marks) > place]
            variances = [variance for variance in at_place if variance is not None]
            found = gap(winner.marks[place], entry.marks[place], confidence=confidence, variances=variances)
            if found is not None:
                gaps[entry.setting.name] = found
    together = told(gaps, confidence)
    order = sorted(entries, key=lambda entry: _rank(entry, winner))
    rows = [_row(entry, rungs, winner, gaps, together, confidence) for entry in order]
    return rows, sentences(rows, winner, rungs, confidence)


def _rank(entry: Entry, winner: Entry) -> tuple[bool, bool, int, float]:
    loss = entry.marks[-1].nll if entry.marks else math.inf
    return entry.failed is not None, entry is not winner, -len(entry.marks), loss


def _row(
    entry: Entry,
    rungs: Sequence[Rung],
    winner: Entry | None = None,
    gaps: dict[str, Gap] | None = None,
    together: dict[str, float] | None = None,
    confidence: float = 0.95,
) -> Row:
    first, failed, name = entry.trials[0], entry.failed, entry.setting.name
    last = entry.marks[-1] if entry.marks else None
    step = rungs[len(entry.marks) - 1].step(first.steps, first.warmup) if last else None
    row: Row = {
        "name": name,
        "setting": entry.setting.label,
        "varied": entry.setting.varied,
        "status": "failed" if failed else "done" if len(entry.marks) == len(rungs) else "left behind",
        "best": entry is winner,
        "step": step,
        "steps": first.steps,
        "nll": None if last is None else last.nll,
        "seeds": [] if last is None else list(last.seeds),
        "variance_over_seeds": None if last is None else last.variance,
        "against_best": None,
        "error": failed.error if failed else "",
        "folders": [str(trial.folder) for trial in entry.trials],
    }
    found = (gaps or {}).get(name)
    if found is not None and winner is not None and together is not None:
        lead = winner.trials[0]
        row["against_best"] = {
            "best_nll": found.rows.base,
            "best_step": rungs[len(entry.marks) - 1].step(lead.steps, lead.warmup),
            "nll": found.rows.tuned,
            "difference": found.rows.difference,
            "interval": list(found.rows.interval),
            "confidence": confidence,
            "rows": found.rows.n,
            "chance": found.chance,
            "chance_by_seeds": found.by_seeds,
            "chance_together": together[name],
            "told": together[name] < 1 - confidence,
            "rows_needed": found.needed,
        }
    return row


def sentences(rows: Sequence[Row], winner: Entry, rungs: Sequence[Rung], confidence: float) -> list[str]:
    """Which is best, what it cannot be told from and how many rows would tell, and what to think of."""
    best = rows[0]
    n = len(set(winner.marks[-1].places))
    measured = f"held-out loss {best['nll']:.4f} nats per token within {best['step']:,} steps"
    others = [row for row in rows[1:] if row["against_best"]]
    close = [row for row in others if not row["against_best"]["told"]]
    if len(rows) == 1 and best["variance_over_seeds"] is not None:
        apart = f"{best['variance_over_seeds'] ** 0.5:.4f} apart (standard deviation over {len(best['seeds'])} seeds)"
        return [f"{best['setting']}: {measured}, {apart}.", *_against_base(winner, confidence)]
    text = f"{best['setting']} is best: {measured}"
    if close:
        text += f"; it cannot be told from {_listed([row['setting'] for row in close])} with {n:,} held-out rows"
        nearest = min(close, key=lambda row: abs(row["against_best"]["difference"]))
        needed = nearest["against_best"]["rows_needed"]
        if needed is None:
            text += f" (from {nearest['setting']} no number of rows that anyone holds out would tell it)"
        elif needed > n:
            text += f" (about {needed:,} rows would tell it from {nearest['setting']})"
        elif (by_seeds := nearest["against_best"]["chance_by_seeds"]) is not None and by_seeds > 1 - confidence:
            text += f" ({nearest['setting']}: another seed alone moves the loss as far; more seeds would tell)"
    elif others:
        text += f", by a difference that {n:,} held-out rows can tell from noise for each of the others"
    found = [f"{text}."]
    found += _against_base(winner, confidence)
    found += _at_the_edge(best, [row for row in rows if row["status"] != "failed"])
    failed = [row["setting"] for row in rows if row["status"] == "failed"]
    if failed:
        found.append(f"Failed: {_listed(failed)}.")
    if len(rungs) > 1:
        found.append("Those left behind are compared with what the best one was as far into its own run.")
    return found


def _against_base(winner: Entry, confidence: float) -> list[str]:
    base = winner.trials[0].base()
    found = None if base is None else gap(mark([base]), winner.marks[-1], confidence=confidence)
    if found is None or found.rows.verdict(lower_is_better=True) == "better":
        return []
    verdict = found.rows.verdict(lower_is_better=True)
    said = "worse than" if verdict == "worse" else "no better, as far as can be told, than"
    return [f"Even the best one is {said} the model before training ({found.rows.base:.4f} nats per token)."]


def _at_the_edge(best: Row, rows: Sequence[Row]) -> list[str]:
    """An option whose smallest or largest value won may be better still beyond it."""
    found = []
    for option, value in best["varied"].items():
        values = sorted({number for row in rows if (number := _number(row["varied"][option])) is not None})
        mine = _number(value)
        if mine is None or len(values) < 2 or len({row["varied"][option] for row in rows}) != len(values):
            continue
        untold = [row for row in rows if row["against_best"] and not row["against_best"]["told"]]
        if mine in (values[0], values[-1]) and all(row["varied"][option] == value for row in untold):
            which, beyond = ("smallest", "smaller") if mine == values[0] else ("largest", "larger")
            found.append(f"{value} is the {which} {option} that was tried: {beyond} ones may be better still.")
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
