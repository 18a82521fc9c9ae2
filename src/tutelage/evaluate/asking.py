"""Tasks asked of a model in this process, before and after training, and what the answers say of the two.

recipe ── chosen ──> errands ── examine(base) ──┐
                            └── examine(tuned) ─┴─ compared ──> the `tasks` of result.json
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.errors import Problem, RecipeError
from tutelage.evaluate.compare import score_sentence
from tutelage.evaluate.pairing import keyed, paired
from tutelage.evaluate.summary import CONFIDENCE, summed
from tutelage.files import strict
from tutelage.generate.sampling import GREEDY
from tutelage.scoring.choice import Likelihood
from tutelage.screen import SILENT, Advance, Screen
from tutelage.tasks.errand import Errand, errands
from tutelage.tasks.marking import Line, marked

if TYPE_CHECKING:
    from tutelage.data.encode import Encoder
    from tutelage.models.forward import Forward

PORTION = 256
"""Rows asked at once; between portions the screen is told."""


@dataclass(frozen=True, slots=True)
class Examined:
    """One task as one model answered it."""

    task: str
    metric: str
    better: str
    """`higher` or `lower`."""
    settings: dict[str, Any]
    """What of the task can change a score."""
    lines: list[Line]
    """One of each row, as `tutelage eval` writes them."""

    def as_json(self) -> dict[str, Any]:
        """Everything, for `Examined(**...)`."""
        return asdict(self)

    def journal(self, step: int, model: str) -> list[dict[str, Any]]:
        """Its lines in the run's `tasks.jsonl`, by which runs are compared."""
        return [{"step": step, "model": model, "task": self.task, **line} for line in self.lines]


def chosen(tasks: Sequence[str], base_dir: str | Path | None = None) -> list[Errand]:
    """The tasks of a recipe with their rows: each a name, a .yaml file, or either with `=FILE` for its rows.

    Files that are not found from here are looked for in `base_dir`.

    Raises:
        RecipeError, DataError: what is wrong with a task or its rows, before any model is loaded.
        MachineError: what a scorer needs and is not there.
    """

    def found(path: str) -> str:
        below = Path(base_dir or ".") / path
        return str(below) if not Path(path).exists() and below.exists() else path

    names, places = [], []
    for text in tasks:
        name, sign, path = ("", "", "") if Path(text).exists() else text.partition("=")
        names.append(found(name if sign else text))
        places.append(found(path) if sign else None)
    asked = zip(names, places, strict=True)
    made = [one for name, place in asked for one in errands([name], [] if place is None else [place])]
    for errand in made:
        if errand.rows and not isinstance(errand.task.scorer, Likelihood):
            errand.task.scorer.mark("", errand.rows[0].asked.reference)  # A scorer that cannot work says so here.
    stems = [errand.stem for errand in made]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        what, fix = "two tasks go by one name", "name each task once, and give files of your own another `name`"
        raise RecipeError(Problem("recipe/conflict", what, "evaluate.tasks", ", ".join(twice), fix=fix))
    return made


def examine(
    forward: Forward,
    encoder: Encoder,
    stop_ids: Collection[int],
    tasks: Sequence[Errand],
    rows: int,
    *,
    name: str = "",
    screen: Screen = SILENT,
    beat: Callable[[], None] = lambda: None,
) -> list[Examined]:
    """The model's greedy answers to at most so many rows of each task, scored; the rows are the same for any model.

    Raises:
        DataError: a prompt that the model has no positions for.
    """
    from tutelage.tasks.resident import Resident

    model = Resident(forward, encoder, stop_ids=stop_ids)
    made = []
    for errand in tasks:
        asked = errand.chosen(rows)
        lines: list[Line] = []
        title = f"{name}: {errand.task.name}" if name else errand.task.name
        with screen.stage(title, len(asked)) as advance:

            def progress(answers: int, advance: Advance = advance) -> None:
                advance(answers)
                beat()

            for place in range(0, len(asked), PORTION):
                # What is in this process never leaves an answer out, so there are no problems to tell.
                lines += marked(model, errand.task, asked[place : place + PORTION], GREEDY, progress)[0]
        task = errand.task
        settings: dict[str, Any] = strict(task.described())
        made.append(Examined(task.name, task.scorer.kind, task.better, settings, lines))
    return made


def compared(
    base: Sequence[Examined], tuned: Sequence[Examined], confidence: float = CONFIDENCE
) -> dict[str, dict[str, Any]]:
    """The `tasks` entries of `result.json`, by task."""
    after = {one.task: one for one in tuned}
    return {one.task: _compared(one, after[one.task], confidence) for one in base if one.lines}


def _compared(base: Examined, tuned: Examined, confidence: float) -> dict[str, Any]:
    found = paired(keyed(base.lines), keyed(tuned.lines), better=base.better, confidence=confidence)
    sums = [summed(one.lines, confidence) for one in (base, tuned)]
    lower, difference = base.better == "lower", found.difference
    return {
        "metric": base.metric,
        "better": base.better,
        "base": difference.base,
        "tuned": difference.tuned,
        "difference": difference.difference,
        "interval": list(difference.interval),
        "base_interval": sums[0]["interval"],
        "tuned_interval": sums[1]["interval"],
        "n": difference.n,
        "confidence": confidence,
        "verdict": difference.verdict(lower_is_better=lower),
        "chance": difference.chance,
        "detectable": difference.detectable,
        "test": found.test,
        "won": [base.lines[place]["row"] for place in found.tally.won],
        "lost": [base.lines[place]["row"] for place in found.lost()],
        "tied": found.tally.tied,
        "fields": _fields(sums[0]["parts"], sums[1]["parts"]),
        "sentence": score_sentence(base.task, difference, lower_is_better=lower, tally=found.tally),
        "health": {"base": sums[0]["health"], "tuned": sums[1]["health"]},
        "settings": base.settings,
    }


def _fields(base: Mapping[str, float], tuned: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Means of parts, such as the fields of an object, by name."""
    found: dict[str, dict[str, float]] = {}
    for side, parts in (("base", base), ("tuned", tuned)):
        for name, value in parts.items():
            found.setdefault(name, {})[side] = value
    return found
