"""Two sets of answers to the same rows, paired row by row: what the difference is, and whether it can be told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.errors import Problem, RecipeError
from tutelage.evaluate import journal
from tutelage.evaluate.compare import score_sentence
from tutelage.evaluate.pairing import paired
from tutelage.evaluate.statistics import holm, many_note
from tutelage.evaluate.summary import CONFIDENCE
from tutelage.evaluation.results import Results, Scored, labels, results
from tutelage.tasks.marking import Line

Table = dict[str, Any]


def compare(folders: Sequence[str | Path], *, confidence: float = CONFIDENCE) -> Table:
    """The first folder against each other one, task by task.

    Raises:
        RecipeError: usage/no-results; usage/not-paired, where the rows of a task are not the same.
    """
    names = labels(folders)
    base, *others = [results(folder, name) for folder, name in zip(folders, names, strict=True)]
    tasks: list[Table] = []
    losses: list[Table] = []
    notes = [note for one in (base, *others) for note in one.notes]
    for other in others:
        notes += _alone(base, other)
        shared = [task for task in base.tasks if task in other.tasks]
        tasks += [_task(base, other, task, confidence) for task in shared]
        if base.recorded is not None and other.recorded is not None:
            losses.append(journal.paired(base.recorded, other.recorded, confidence))
    if not tasks and not losses and not all(one.heldout for one in (base, *others)):
        found = "; ".join(f"{one.name}: {', '.join(one.tasks) or 'none'}" for one in (base, *others))
        what = "the folders have no task in common"
        fix = "evaluate each model on the same tasks: tutelage eval MODEL --task TASK"
        raise RecipeError(Problem("usage/not-paired", what, found=found, fix=fix))
    return {
        "base": base.name,
        "others": [other.name for other in others],
        "confidence": confidence,
        "tasks": tasks,
        "many": _together(tasks, confidence, several=len(others) > 1),
        "losses": losses,
        "heldout": [{"name": one.name, **_losses(one.heldout)} for one in (base, *others) if one.heldout],
        "notes": list(dict.fromkeys(notes)),
    }


def _task(base: Results, other: Results, task: str, confidence: float) -> Table:
    one, two = base.tasks[task], other.tasks[task]
    notes = _checked(base.name, one, other.name, two)
    found = paired(one.lines, two.lines, better=one.better, confidence=confidence)
    pairs, tally, difference = found.pairs, found.tally, found.difference
    lower = one.better == "lower"
    if found.clustered:
        kind = "clusters" if any(pair[0].get("cluster") is not None for pair in pairs) else "prompts"
        notes.append(f"{len(pairs):,} answers to {difference.n:,} {kind}; answers to one {kind[:-1]} count as one draw")
    formats = {"base": one.formats, "other": two.formats} if one.formats and two.formats else None
    notes += _wordings(formats, difference.difference)
    hinted = sum(bool(pair[0].get("hinted")) for pair in pairs)
    if hinted:
        notes.append(f"in {hinted:,} of {len(pairs):,} answers the prompt held the reference")
    sentence = score_sentence(task, difference, lower_is_better=lower, tally=tally)
    return {
        "task": task,
        "base": base.name,
        "other": other.name,
        "n": difference.n,
        "answers": len(pairs),
        "better": one.better,
        "base_score": difference.base,
        "score": difference.tuned,
        "difference": difference.difference,
        "interval": list(difference.interval),
        "test": found.test,
        "chance": difference.chance,
        "detectable": difference.detectable,
        "verdict": difference.verdict(lower_is_better=lower),
        "sentence": sentence.replace("the tuned model is", f"{other.name} is"),
        "won": [_pair(*pairs[place]) for place in tally.won],
        "lost": [_pair(*pairs[place]) for place in found.lost()],
        "tied": tally.tied,
        "health": {"base": one.health, "other": two.health},
        "formats": formats,
        "files": {"base": one.file, "other": two.file},
        "notes": notes,
    }


def _wordings(formats: Table | None, difference: float) -> list[str]:
    """What to say of a difference that is smaller than what the wording alone makes."""
    widest = max((each["spread"] for each in formats.values()), default=0.0) if formats else 0.0
    if not formats or widest <= abs(difference):
        return []
    return [
        f"the wording of the prompt alone changes the score by up to {100 * widest:.1f} points, which is more than the "
        "difference"
    ]


def _checked(name: str, one: Scored, other_name: str, two: Scored) -> list[str]:
    """Remarks on a pair that can be compared.

    Raises:
        RecipeError: usage/not-paired.
    """
    differ = [
        key for key in dict.fromkeys([*one.settings, *two.settings]) if one.settings.get(key) != two.settings.get(key)
    ]
    if differ:
        told = "\n".join(f"{key}: {one.settings.get(key)} and {two.settings.get(key)}" for key in differ)
        raise _not_paired(one.task, "is not the same task in both", told, "evaluate both with the same task")
    both = one.lines.keys() & two.lines.keys()
    reworded = [key for key in both if one.lines[key]["prompt"] != two.lines[key]["prompt"]]
    if not both or reworded or len(both) < max(len(one.lines), len(two.lines)):
        told = (
            f"{name} has {len(one.lines):,} answers, {other_name} has {len(two.lines):,}; "
            f"{len(both) - len(reworded):,} are to the same rows in the same words"
            + (f", {len(reworded):,} to the same rows in other words" if reworded else "")
        )
        late = [each for each, scored in ((name, one), (other_name, two)) if not scored.finished]
        fix = "evaluate both on the same rows: the same task, --data and --limit"
        if late:
            fix = f"{' and '.join(late)} did not come to an end: repeat its `tutelage eval`, which goes on"
        raise _not_paired(one.task, "was not asked of the same rows", told, fix)
    notes = _broken_off(name, one, other_name, two)
    changed = [key for key in one.sampling if one.sampling[key] != two.sampling.get(key)]
    if not changed:
        return notes
    told = ", ".join(f"{key} {one.sampling[key]} and {two.sampling.get(key)}" for key in changed)
    return [*notes, f"sampled differently: {told}"]


def _broken_off(name: str, one: Scored, other_name: str, two: Scored) -> list[str]:
    """What to say where both have the same rows, and not all that were to be asked."""
    late = [each for each, scored in ((name, one), (other_name, two)) if not scored.finished]
    if not late:
        return []
    rows, asked = len({key[0] for key in one.lines}), max(one.asked or 0, two.asked or 0)
    return [
        f"{' and '.join(late)} did not come to an end: {rows:,} of {asked:,} rows are compared, those that were asked "
        "first and no sample of all"
    ]


def _not_paired(task: str, what: str, found: str, fix: str) -> RecipeError:
    why = "a difference between other rows is not a difference between models"
    return RecipeError(Problem("usage/not-paired", f"`{task}` {what}", found=found, why=why, fix=fix))


def _alone(base: Results, other: Results) -> list[str]:
    """Tasks that only one of two has."""
    notes = []
    for one, two in ((base, other), (other, base)):
        missing = [task for task in one.tasks if task not in two.tasks]
        if missing:
            notes.append(f"not compared, because {two.name} does not have them: {', '.join(missing)}")
    return notes


def _together(tasks: Sequence[Table], confidence: float, *, several: bool) -> str:
    """What to say of many tasks at once; each task is given what its verdict is among all of them."""
    names = [f"{table['task']} of {table['other']}" if several else table["task"] for table in tasks]
    chances = {name: table["chance"] for name, table in zip(names, tasks, strict=True)}
    for name, chance in holm(chances).items():
        table = tasks[names.index(name)]
        table["chance_together"] = chance
        table["verdict_together"] = table["verdict"] if chance <= 1 - confidence else "no difference"
    return many_note(chances, confidence)


def _pair(one: Line, two: Line) -> Table:
    """A row on which the two differ."""
    shared = {key: one[key] for key in ("row", "sample", "origin", "asked", "reference")}
    return {**shared, "base": _side(one), "other": _side(two)}


def _side(line: Line) -> Table:
    return {key: line.get(key) for key in ("answer", "score", "found", "why", "stopped")}


def _losses(heldout: Table | None) -> Table:
    keys = ("base_nll", "tuned_nll", "examples", "tokens", "verdict")
    return {key: (heldout or {}).get(key) for key in keys}
