"""Tasks of lm-eval asked by lm-eval itself, and kept in the form of `tutelage eval`, so that two models are paired.

    folder ── HFLM ──┐
    task ────────────┴─ simple_evaluate ──> samples ──> FOLDER/lm-eval-TASK-METRIC.jsonl and .json, one of each metric

The prompts, the answers and the scores are lm-eval's. What is added here is that a row goes by what it holds, so that
its score can be set against the one that another model gets for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tutelage.errors import MachineError, Problem, RecipeError
from tutelage.evaluate.summary import summed
from tutelage.evaluation.answers import Answers
from tutelage.evaluation.logged import digest, lines
from tutelage.evaluation.subject import Saved
from tutelage.evaluation.taskfile import TaskFile, asked_for
from tutelage.generate.sampling import GREEDY
from tutelage.runs import Run
from tutelage.screen import SILENT, Screen
from tutelage.tasks.marking import Line

AT_ONCE = 8
"""Rows that lm-eval gives to the model together."""
Summary = dict[str, Any]


def run_harness(
    subject: Saved,
    tasks: Sequence[str],
    folder: str | Path,
    *,
    limit: int | None = None,
    shots: int | None = None,
    screen: Screen = SILENT,
) -> list[Summary]:
    """Ask a model the tasks, and write the results of each metric.

    Raises:
        MachineError: machine/missing-package. SecurityError: security/remote-code.
        RecipeError: recipe/missing-file, recipe/bad-value, recipe/conflict, usage/output-exists.
        ModelError: what cannot be loaded.
    """
    _refuse_absent()
    run = Run(folder, say=screen.say)
    if run.holds_a_run():
        what, fix = "the folder holds a run, and results go into one of their own", "name another one with --out"
        raise RecipeError(Problem("usage/output-exists", what, str(folder), fix=fix))
    asked = [asked_for(task, trusted=subject.trusted) for task in tasks]
    made: list[Summary] = []
    with run.locked():
        run.claim()
        for one in asked:
            _refuse_taken(run, one)
        managers = [_manager(one) for one in asked]
        with screen.stage("loading the model", None):
            model = _model(subject)
        for one, manager in zip(asked, managers, strict=True):
            with screen.stage(f"lm-eval: {one.name}", None):
                found = _evaluated(model, one, manager, subject, limit, shots)
            for task in sorted(found["samples"]):
                made += _kept(run, subject, one, task, found, {"limit": limit, "shots": shots}, screen)
    return made


def _refuse_taken(run: Run, asked: TaskFile) -> None:
    """Results of another time are neither mixed nor overwritten."""
    for path in sorted(run.folder.glob("lm-eval-*.json")):
        found = run.read_json(path.name)
        task = found.get("settings", {}).get("task", {}) if isinstance(found, dict) else {}
        if task.get("asked") == asked.name:
            what, fix = f"the folder holds results of `{asked.name}`", "name another folder with --out, or remove them"
            raise RecipeError(Problem("usage/output-exists", what, str(path), fix=fix))


def _manager(asked: TaskFile) -> Any:
    """What knows lm-eval's tasks, after making sure that this one can be loaded, with its rows.

    Raises:
        RecipeError: recipe/missing-file, recipe/bad-value.
    """
    from lm_eval.tasks import TaskManager

    folder = str(Path(asked.file).parent.resolve()) if asked.file else None
    manager = TaskManager(include_path=folder, include_defaults=not asked.file)
    if asked.name not in manager.task_index:
        import difflib

        near = difflib.get_close_matches(asked.name, list(manager.task_index), n=3)
        fix = f"did you mean {' or '.join(near)}?" if near else "name a task of lm-eval, or a .yaml file of your own"
        raise RecipeError(Problem("recipe/missing-file", f"lm-eval has no task `{asked.name}`", asked.file, fix=fix))
    try:
        manager.load([asked.name])
    except Exception as error:  # Whatever a data set, a template or a metric raises.
        what = f"lm-eval cannot load the task `{asked.name}`"
        told = f"{type(error).__name__}: {str(error)[:500]}"
        fix = "mend the task, or bring its rows: without a network, data sets of the hub must be in its cache"
        raise RecipeError(Problem("recipe/bad-value", what, asked.file, told, fix=fix)) from error
    return manager


def _model(subject: Saved) -> Any:
    """The folder as lm-eval loads it; an adapter on its base, with the tokenizer that was saved beside the adapter."""
    from lm_eval.models.huggingface import HFLM

    from tutelage.models.load import choose_device
    from tutelage.models.tokenizer import load_tokenizer

    place = subject.location
    if place.gguf_file:
        what, fix = "lm-eval is given model folders, and this is a .gguf file", "name the folder it was made from"
        raise RecipeError(Problem("recipe/conflict", what, subject.model, fix=fix))
    return HFLM(
        pretrained=place.path if place.base is None else place.base.path,
        peft=None if place.base is None else place.path,
        tokenizer=load_tokenizer(place),
        device=str(choose_device(subject.device)),
        batch_size=subject.in_flight,
        trust_remote_code=subject.trusted,
    )


def _evaluated(
    model: Any, asked: TaskFile, manager: Any, subject: Saved, limit: int | None, shots: int | None
) -> dict[str, Any]:
    from lm_eval import simple_evaluate

    found = simple_evaluate(
        model,
        tasks=[asked.name],
        task_manager=manager,
        num_fewshot=shots,
        limit=limit,
        log_samples=True,
        bootstrap_iters=0,  # The intervals are ours.
        apply_chat_template=_has_template(model) and not subject.plain,
        confirm_run_unsafe_code=False,
    )
    assert found is not None, "bug: lm-eval gave no results to the first process"
    return dict(found)


def _has_template(model: Any) -> bool:
    return getattr(model.tokenizer, "chat_template", None) is not None


def _kept(
    run: Run,
    subject: Saved,
    asked: TaskFile,
    task: str,
    found: Mapping[str, Any],
    given: Mapping[str, Any],
    screen: Screen,
) -> Iterator[Summary]:
    """Write each metric of a task that scores rows from 0 to 1."""
    config = found["configs"][task]
    samples = found["samples"][task]
    for name in dict.fromkeys(one["filter"] for one in samples):
        own = [one for one in samples if one["filter"] == name]
        for metric in own[0]["metrics"]:
            scores = [one.get(metric) for one in own]
            if not all(isinstance(score, bool | int | float) and 0 <= score <= 1 for score in scores):
                screen.say(f"note    {task}: {metric} is not a score of each row from 0 to 1, and is left out")
                continue
            title = f"lm-eval {task} {metric}" + ("" if name == "none" else f" ({name})")
            settings = {
                "task": {
                    "name": title,
                    "asked": asked.name,
                    "harness": found["lm_eval_version"],
                    "version": found["versions"].get(task),
                    "config": digest(config),
                    "shots": found["n-shot"].get(task),
                    "limit": given["limit"],
                    "metric": metric,
                    "filter": name,
                },
                "model": subject.settings(),
                "sampling": asdict(GREEDY),
            }
            higher = (found["higher_is_better"].get(task) or {}).get(metric, True)
            summary = {"version": found["versions"].get(task), "better": "higher" if higher else "lower"}
            yield _written(run, subject, asked, [*lines(task, metric, own)], settings, {**summary, "metric": metric})


def _written(
    run: Run,
    subject: Saved,
    asked: TaskFile,
    rows: Sequence[Line],
    settings: Mapping[str, Any],
    more: Mapping[str, Any],
) -> Summary:
    title = settings["task"]["name"]
    answers = Answers(run, re.sub(r"[^\w-]+", "-", title).strip("-"))
    run.write_lines(answers.file, rows)
    found = summed(rows)
    summary = {
        "kind": "evaluation",
        "status": "done",
        "task": title,
        **more,
        **found,
        "data": asked.file or f"lm-eval {settings['task']['harness']}",
        "data_sha256": asked.sha256 or None,
        "name": subject.name,
        "sampling": settings["sampling"],
        "settings": dict(settings),
        "answers_file": answers.where,
    }
    answers.write_summary(summary)
    return summary


def _refuse_absent() -> None:
    try:
        import lm_eval  # noqa: F401
    except ImportError as error:
        what, fix = "running lm-eval's tasks needs the package `lm_eval`", 'pip install "tutelage[lm-eval]"'
        raise MachineError(Problem("machine/missing-package", what, found="it is not installed", fix=fix)) from error
