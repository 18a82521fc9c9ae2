"""What each option means to a run that is continued: part of what the run is, open to change, or of no matter.

identity   decides the weights or what they are compared with: a run goes on with the same value or not at all
extend     may change: the run then goes on differently from there, and says so in `run.json`
content    names something whose content is compared instead, wherever it lies now
free       changes nothing that the run computes, or only how sums are rounded
"""

from __future__ import annotations

from typing import Literal

Meaning = Literal["identity", "extend", "content", "free"]

_ROWS = ("format", "split", "subset", "streaming", "fields", "where", "join", "join.on", "limit", "completion_after")

_IDENTITY = (
    "model.template",
    "model.trust_remote_code",
    *(f"model.adapter.{name}" for name in ("kind", "rank", "alpha", "dropout")),
    *(f"data.train.N.{name}" for name in (*_ROWS, "name", "weight", "share", "cap")),
    "data.heldout",
    *(f"data.heldout.{name}" for name in _ROWS),
    *(
        f"data.clean.{name}"
        for name in (
            *("mojibake", "line_endings", "control_characters", "zero_width", "bidi_controls", "tag_characters"),
            *("unicode_nfc", "replacement_character", "placeholders", "template_variables", "secrets", "personal_data"),
            *("empty_turns", "same_role_turns", "role_order", "refusals", "prompt_copied", "truncated_answers"),
            *("repetition_loops", "other_script"),
        )
    ),
    *(f"data.duplicates.{name}" for name in ("exact", "prompt", "near", "threshold", "words")),
    *(f"data.decontaminate.{name}" for name in ("words", "threshold")),
    *(f"data.mixture.{name}" for name in ("by", "temperature", "epoch_examples")),
    *(f"data.renderings.{name}" for name in ("train", "heldout")),
    *(f"data.{name}" for name in ("max_length", "over_long", "thinking_weight", "on_bad_row")),
    *(f"train.{name}" for name in ("global_batch_size", "learning_rate", "schedule.kind", "schedule.warmup")),
    *(f"train.{name}" for name in ("weight_decay", "betas", "eps", "max_grad_norm", "seed")),
    *(f"precision.{name}" for name in ("weights", "compute", "optimizer", "master")),
    *(f"evaluate.{name}" for name in ("examples", "samples", "max_new_tokens", "score", "score_rows")),
    *(f"evaluate.{name}" for name in ("tasks", "task_rows", "drift", "knowledge", "canaries")),
)
_EXTEND = (
    "train.epochs",
    "train.steps",
    "guard.non_finite",
    "guard.spikes",
    "guard.limit",
    "evaluate.patience",
    "evaluate.margin",
    "evaluate.points",
)
_CONTENT = (
    *("model.path", "model.revision", "data.train", "data.train.N.path", "data.train.N.join.path"),
    *("data.heldout.path", "data.heldout.join.path", "data.decontaminate.against", "data.adjust", "evaluate.general"),
)
_FREE = (
    *(
        "model.device",
        "track.to",
        "track.project",
        "train.token_budget",
        "train.checkpointing",
        "train.compile",
        "train.parallel",
    ),
    *("data.max_quarantined", "data.store", "data.store_limit"),
    *("checkpoint.every", "checkpoint.keep", "checkpoint.wait"),
    *(
        "evaluate.confidence",
        "export.merged",
        "export.step",
        "budget.memory",
        "budget.time",
        "output",
    ),
)

MEANINGS: dict[str, Meaning] = {
    **dict.fromkeys(_IDENTITY, "identity"),
    **dict.fromkeys(_EXTEND, "extend"),
    **dict.fromkeys(_CONTENT, "content"),
    **dict.fromkeys(_FREE, "free"),
}
"""Of every option by its general name; a test compares the names with those that are declared."""
