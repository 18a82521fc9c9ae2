"""Protections taken away, one each; a test of faults that stays green with one of these is worth nothing.

Each takes `patch(object, name, new)`: `setattr` in a child, monkeypatch's in a test. As the hook of a child: `be`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Patch = Callable[[Any, str, Any], None]


def files_are_not_synced(patch: Patch) -> None:
    """A checkpoint's files and the journals stay in memory for as long as the system likes."""
    from tutelage import files

    patch(files, "sync", lambda path: None)


def folders_are_not_synced(patch: Patch) -> None:
    """So do names."""
    from tutelage import files

    patch(files, "sync_folder", lambda folder: None)


def the_manifest_comes_after_the_name(patch: Patch) -> None:
    """A checkpoint gets its name before it is sealed."""
    from tutelage import checkpoints, files
    from tutelage.checkpoints.manifest import Checkpoint, seal

    def commit(self: Any, part: Path, *, step: int, run: str, facts: dict[str, Any]) -> Checkpoint:
        path = self.folder / f"step-{step:08}"
        os.rename(part, path)
        sealed = seal(path, step=step, run=run, facts=facts)
        files.sync_folder(self.folder)
        return sealed

    patch(checkpoints.Checkpoints, "commit", commit)


def nothing_is_verified(patch: Patch) -> None:
    """A manifest is enough."""
    from tutelage import checkpoints

    patch(checkpoints, "verify", lambda checkpoint: None)


def hashes_are_not_compared(patch: Patch) -> None:
    """Sizes are enough."""
    from tutelage import files

    patch(files, "sha256", lambda path: "0" * 64)


def the_manifest_is_believed(patch: Patch) -> None:
    """Whatever it says."""
    from tutelage.checkpoints import manifest

    patch(manifest, "_digest", lambda whole: whole.get("sha256", "0" * 64))
    read = manifest.json.loads

    class Lenient:
        dumps = staticmethod(manifest.json.dumps)

        @staticmethod
        def loads(data: Any) -> Any:
            whole = read(data)
            if isinstance(whole, dict):
                whole["sha256"] = "0" * 64
            return whole

    patch(manifest, "json", Lenient)


def only_the_newest_are_kept(patch: Patch) -> None:
    """Neither the best nor the last sound one."""
    from tutelage.checkpoints import Checkpoints

    def retain(self: Checkpoints, keep: int) -> None:
        for one in self.all()[max(1, keep) :]:
            self._remove(one.folder)

    patch(Checkpoints, "retain", retain)


def one_too_few_is_kept(patch: Patch) -> None:
    """Retention counts wrongly."""
    from tutelage.checkpoints import Checkpoints

    retain = Checkpoints.retain
    patch(Checkpoints, "retain", lambda self, keep: retain(self, keep - 1))


def what_is_removed_keeps_its_name(patch: Patch) -> None:
    """A removal cut short leaves half a checkpoint."""
    import shutil

    from tutelage.checkpoints import Checkpoints

    patch(Checkpoints, "_remove", lambda self, path: shutil.rmtree(path))


def anybody_gets_the_lock(patch: Patch) -> None:
    """Two processes write into one run."""
    from tutelage import runs

    class Open:
        def __init__(self, path: Any) -> None: ...

        def acquire(self, **waiting: float) -> None: ...

        def release(self) -> None: ...

    patch(runs, "FileLock", Open)


def anything_is_finite(patch: Patch) -> None:
    """What is not a number is saved."""
    from tutelage.train import state

    patch(state, "_is_finite", lambda tensor: True)


def journals_are_not_cut_back(patch: Patch) -> None:
    """Steps that are made again are written down again."""
    from tutelage.runs import Run

    patch(Run, "cut_back", lambda self, step: None)


def the_guard_forgets(patch: Patch) -> None:
    """Its losses are not restored."""
    from tutelage.train.guard import Guard

    patch(Guard, "load_state", lambda self, state: None)


def the_step_is_not_restored(patch: Patch) -> None:
    """Weights go on and the count begins again."""
    from tutelage.learning import Learning

    patch(Learning, "_stand_at", lambda self, position: self.guard.load_state(position.guard))


def the_data_begin_again(patch: Patch) -> None:
    """The first rows come after the last step."""
    from tutelage import assemble

    examples = assemble.global_examples

    def again(prepared: Any, *, after: int = 0) -> Any:
        return ((step + after, rows) for step, rows in itertools.takewhile(_before(after), examples(prepared)))

    def _before(after: int) -> Callable[[Any], bool]:
        return lambda one: bool(one[0] + after <= 60)

    patch(assemble, "global_examples", again)


def the_weights_are_not_restored(patch: Patch) -> None:
    """The optimizer goes on from the base model."""
    from tutelage.train import joint  # It has the name for its own; the module may have been loaded long before.

    restore = joint.restore

    def other(checkpoint: Any, parameters: Any, optimizer: Any) -> Any:
        kept = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        position = restore(checkpoint, parameters, optimizer)
        for name, parameter in parameters.items():
            parameter.data.copy_(kept[name])
        return position

    patch(joint, "restore", other)


def the_optimizer_is_not_restored(patch: Patch) -> None:
    """Its averages begin at zero."""
    from tutelage.train.optimizer import FusedAdamW

    patch(FusedAdamW, "load_state", lambda self, known: None)


def dropout_is_drawn_by_the_process(patch: Patch) -> None:
    """By how many draws the process made, and not by the step."""
    from tutelage.train import loop

    derive, made = loop.derive, itertools.count(1)
    patch(loop, "derive", lambda seed, *what: derive(seed, what[0], next(made)))


def the_plan_is_made_again(patch: Patch) -> None:
    """With what fits into memory now."""
    from tutelage.experiment import Experiment

    plan = Experiment.plan

    def anew(self: Experiment, *rest: Any) -> Any:
        made = plan(self, *rest)
        if self.lineage.resumed:
            self.token_budget += 33
        return made

    patch(Experiment, "plan", anew)


def leftovers_stay(patch: Patch) -> None:
    """Of saves that were broken off."""
    from tutelage.checkpoints import Checkpoints

    patch(Checkpoints, "sweep", lambda self: None)


def be(name: str) -> None:
    """Become a mutant."""
    globals()[name](setattr)
