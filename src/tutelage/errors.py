"""Every error a user can meet, in one shape: code, what, where, found, why, fix.

    TutelageError                 exit code
    ├── RecipeError                   2     the recipe or the command line
    ├── DataError                     3     the rows
    ├── ModelError                    4     the model, its template, or what was saved
    ├── MachineError                  5     disk, memory, permissions, missing packages
    ├── DivergedError                 6     the numbers of the run
    ├── SecurityError                 7     what could run code, leave its folder, or give a secret away
    ├── WorkerError                   8     another process of the run
    ├── StoppedError                 75     stopped on request; `--resume` goes on
    └── CheckFailed                   1     a check that found problems

An error carries one or more problems of one kind; the text is made from them here and nowhere else.
Each code is declared once, in `CODES`, with the sentence that `tutelage explain CODE` prints.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

CODES: dict[str, str] = {
    # recipe (exit 2)
    "recipe/missing-file": "The recipe file named on the command line does not exist or cannot be read.",
    "recipe/bad-yaml": "The recipe is not valid YAML; the line and column show where reading stopped.",
    "recipe/unknown-option": "A key is not an option of its section. Nothing is ignored: remove it or spell it "
    "as `tutelage options` does.",
    "recipe/bad-value": "A value has the wrong type or is outside its range.",
    "recipe/missing-option": "An option without a default was not given.",
    "recipe/conflict": "Two options contradict each other.",
    "recipe/bad-override": "An override on the command line is not of the form section.option=value.",
    "recipe/run-exists": "The output folder already holds a run. A run is never overwritten; `--resume` continues it.",
    "recipe/changed": "The run in the output folder was begun with other values of options that decide its weights.",
    "usage/unknown-code": "`tutelage explain` was asked for a code that does not exist.",
    "usage/not-a-run": "The folder named is neither a run nor a saved model.",
    "usage/output-exists": "The file that would be written exists. Nothing is ever overwritten.",
    "usage/other-settings": "The folder holds results that were made with other settings, by another model, or from "
    "other rows. They are never mixed.",
    "usage/no-results": "The folder named holds no results of `tutelage eval`, and no run with answers to compare.",
    "usage/no-record": "The run holds no record of what each of its rows cost, so nothing can be said of single rows.",
    "usage/not-paired": "The results were not made from the same rows, asked in the same words and scored in the same "
    "way, so they cannot be compared row by row.",
    # data (exit 3)
    "data/missing-file": "A data file named in the recipe does not exist.",
    "data/empty-file": "A data file holds no rows.",
    "data/unknown-type": "The file's ending is not one that Tutelage reads.",
    "data/unreadable": "The file could not be read as what its ending says it is.",
    "data/too-large": "A line, a row or a file is larger than what is held in memory as one piece (256 MiB), "
    "or a row has more text than is encoded at once (4 million characters).",
    "data/nothing-selected": "`where` matches no row, or names a column that no row has.",
    "data/bad-json": "A line is not valid JSON, or not a JSON object.",
    "data/bad-encoding": "A line is not valid UTF-8.",
    "data/unknown-format": "The columns match no known format.",
    "data/mixed-formats": "Rows of one file match different formats.",
    "data/bad-row": "A row does not have the fields that its format needs, or a field has the wrong type.",
    "data/empty-answer": "A row has no answer, so nothing would be trained.",
    "data/not-chosen": "A row's answer was judged bad, so it is left out. It is counted, and is not an error.",
    "data/no-function": "A file of code holds no function that can be cut into a prompt and a body, so it is left "
    "out. It is counted, and is not an error.",
    "data/nothing-trained": "A row has no token with a positive weight, so nothing would be trained.",
    "data/not-encoded": "The tokenizer gives up on a text, as where the pattern that it cuts by needs too many tries.",
    "data/over-long": "Rows are longer than `data.max_length`. Answers are never cut, so a policy must be chosen.",
    "data/too-many-dropped": "More rows were set aside than `data.max_quarantined` allows.",
    "data/no-rows": "After reading and splitting, no row is left to train on or to hold out.",
    "data/changed": "The rows are not those that the run in the output folder was begun with.",
    "data/unbalanced": "Rows read are not equal to rows trained, held out and dropped. This is a bug in Tutelage.",
    # model (exit 4)
    "model/missing": "The model was not found as a folder, a .gguf file, a package, or on the hub.",
    "model/no-weights": "The folder holds no weights that Tutelage reads (safetensors or GGUF).",
    "model/unreadable": "The model's files could not be loaded.",
    "model/unknown-architecture": "`config.json` names an architecture that transformers has no code for.",
    "model/impossible-size": "`config.json` names sizes that no model has, that contradict each other, or that the "
    "weights do not have.",
    "model/bad-weights": "A safetensors file is not one, its index does not fit it, weights are not finite, or two "
    "that are tied differ.",
    "model/other-base": "The adapter was made for a model of other shapes.",
    "model/too-short": "`data.max_length` is longer than the positions the model was built for.",
    "model/tokens-outside": "Rows hold tokens that the model has no embedding for.",
    "model/changed": "The model, tokenizer or template is not the one that the run in the output folder was begun "
    "with.",
    "model/no-gradient": "A trainable tensor received no gradient in the first step.",
    "template/missing": "The tokenizer has no chat template, and the recipe names none.",
    "template/ambiguous": "The tokenizer has several chat templates, and the recipe does not say which is meant.",
    "template/missing-tokens": "A named template needs control tokens that the vocabulary does not hold.",
    "template/broken": "The chat template failed while rendering a conversation.",
    "template/limit": "The chat template asks for more time, memory or depth than any chat template needs.",
    "template/no-stop-token": "The template writes no stop token after an answer, so the model could never "
    "learn to stop.",
    "template/not-the-tokenizers": "The rendering does not equal the tokenizer's own for the same conversation.",
    "save/not-reproduced": "The saved model, loaded by a fresh process, does not reproduce the recorded logits.",
    "save/untrained": "The saved adapter is all zeros or equals its start: nothing was learned or kept.",
    "checkpoint/none": "The run has no checkpoint that verifies.",
    "checkpoint/not-kept": "The step that `export.step` names was made, and its checkpoint is not there any more.",
    "checkpoint/other-parameters": "The checkpoint holds other parameters than those that are trained.",
    "checkpoint/unreadable": "What the checkpoint's files hold is not what a run can go on from.",
    # machine (exit 5)
    "machine/run-in-use": "Another process is working in the run folder.",
    "machine/read-only": "The output folder cannot be written.",
    "machine/folder-gone": "The run folder was removed, renamed or replaced while the run wrote into it.",
    "machine/no-access": "A data file or folder exists, and this user may not read it.",
    "machine/disk-full": "The disk is full, or too full for what the run will write.",
    "machine/missing-package": "An optional package is needed for this and is not installed.",
    "machine/no-sandbox": "Code that a model wrote is run only where nothing can get out, and this system lacks a "
    "layer of that.",
    "machine/no-key": "The environment variable that should hold the key to an endpoint is not set.",
    "machine/endpoint-failed": "An endpoint could not be reached, or did not answer however often it was asked.",
    "machine/endpoint-refused": "An endpoint refused a request, and would refuse it again.",
    "machine/endpoint-answer": "What an endpoint answered is not what its protocol says.",
    "machine/port-taken": "Another process listens on the port that was asked for, or this user may not.",
    "machine/no-device": "The device asked for is not present.",
    "machine/out-of-memory": "Memory ran out, or would: the plan or the rehearsal found it before the first step.",
    "machine/out-of-time": "The run would take longer than `budget.time` allows.",
    # diverged (exit 6)
    "train/diverged": "Steps had a loss or gradient that is not finite, or a loss that jumps, more often than "
    "`guard.limit` allows; or what was trained gives logits that are not finite.",
    # other processes of the run (exit 8)
    "worker/lost": "A process of the run died, failed, or cannot be reached. The others stopped.",
    "worker/hung": "A process of the run is there and makes no progress. All were stopped, and their stacks written.",
    # stopped (exit 75)
    "run/stopped": "The run was asked to stop, by a signal. It can be continued with `--resume`.",
    # check (exit 1)
    "check/not-whole": "A checkpoint, a journal or the model of a run is not as it was written.",
    # security (exit 7)
    "security/remote-code": "A model's files ask to run code of their own. That happens only where the recipe says "
    "`model.trust_remote_code: true`.",
    "security/path-escape": "A name or a link inside a folder leads out of it.",
    "security/pickle": "A file of weights holds more than tensors, so opening it could run code.",
    "security/no-isolation": "Pickled weights are opened only in a process that reaches no network, and this system "
    "allows none.",
    "security/secret": "A recipe or an override holds what looks like a password, a key or a token. It is not read, "
    "kept or shown.",
    "security/key-in-clear": "A key would be sent over a network without encryption.",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and what to do about it."""

    code: str
    what: str
    where: str = ""
    found: str = ""
    why: str = ""
    fix: str = ""

    def __post_init__(self) -> None:
        assert self.code in CODES, f"bug: error code {self.code!r} is not declared in CODES"

    def __str__(self) -> str:
        lines = [f"error[{self.code}]: {self.what}"]
        for label in ("where", "found", "why", "fix"):
            text = getattr(self, label)
            if text:
                lines.append(f"  {label:<6}{text}".replace("\n", "\n        "))
        return "\n".join(lines)


class TutelageError(Exception):
    """Base of every error that is the user's to mend; `str()` is the text for the screen."""

    exit_code = 1

    def __init__(self, problem: Problem, *more: Problem) -> None:
        self.problems = (problem, *more)
        super().__init__("\n".join(str(p) for p in self.problems))

    @staticmethod
    def of(problems: Iterable[Problem]) -> TutelageError:
        """One error, of the class that the first problem's code belongs to."""
        first, *more = problems
        return CLASSES[first.code.partition("/")[0]](first, *more)

    @property
    def code(self) -> str:
        """The code of the first problem."""
        return self.problems[0].code


class CheckFailed(TutelageError):
    """A check found problems."""

    exit_code = 1


class RecipeError(TutelageError):
    """The recipe or the command line is wrong."""

    exit_code = 2


class DataError(TutelageError):
    """The rows are wrong."""

    exit_code = 3


class ModelError(TutelageError):
    """The model, its template, or what was saved is wrong."""

    exit_code = 4


class MachineError(TutelageError):
    """The disk, the memory, a permission or a package is missing."""

    exit_code = 5


class DivergedError(TutelageError):
    """The numbers of the run are no longer finite."""

    exit_code = 6


class SecurityError(TutelageError):
    """Something could run code, lead out of its folder, or give a secret away."""

    exit_code = 7


class WorkerError(TutelageError):
    """Another process of the run is lost or hangs."""

    exit_code = 8


class StoppedError(TutelageError):
    """The run was asked to stop and can be continued."""

    exit_code = 75


CLASSES: dict[str, type[TutelageError]] = {
    "recipe": RecipeError,
    "usage": RecipeError,
    "data": DataError,
    "model": ModelError,
    "template": ModelError,
    "save": ModelError,
    "checkpoint": ModelError,
    "machine": MachineError,
    "train": DivergedError,
    "run": StoppedError,
    "worker": WorkerError,
    "check": CheckFailed,
    "security": SecurityError,
}
"""The class that each first part of a code belongs to."""
