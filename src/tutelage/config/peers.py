"""How other tools spell our options.

A key that is refused is looked up here first: who comes from another tool is answered with our option, or told
why there is none.
"""

from __future__ import annotations

_ELSEWHERE: tuple[tuple[str, str, str], ...] = (
    # how other tools spell it | our option, or "" where there is none | what to know
    ("num_train_epochs num_epochs", "train.epochs", ""),
    ("max_steps", "train.steps", ""),
    (
        "per_device_train_batch_size micro_batch_size batch_size gradient_accumulation_steps",
        "train.global_batch_size",
        "`train.global_batch_size` counts examples per optimizer step; `train.token_budget` decides how many tokens "
        "are computed at once",
    ),
    ("lr", "train.learning_rate", ""),
    ("lr_scheduler_type lr_scheduler", "train.schedule.kind", ""),
    ("warmup_ratio", "train.schedule.warmup", "a share of the run, below 1"),
    ("warmup_steps", "train.schedule.warmup", "a whole number of steps"),
    ("max_grad_norm", "train.max_grad_norm", ""),
    ("cutoff_len max_seq_length max_seq_len sequence_len seq_length block_size", "data.max_length", "in tokens"),
    ("dataset datasets dataset_name train_file", "data.train", "a list: `train: [{path: rows.jsonl}]`"),
    ("val_size val_set_size test_split_size", "data.heldout", "a share of the rows, below 1"),
    ("model_name_or_path base_model", "model.path", ""),
    ("chat_template template", "model.template", "the tokenizer's own when not given"),
    ("finetuning_type", "model.adapter.kind", ""),
    ("lora_r lora_rank r", "model.adapter.rank", ""),
    ("lora_alpha", "model.adapter.alpha", ""),
    ("lora_dropout", "model.adapter.dropout", ""),
    ("output_dir", "output", ""),
    ("load_in_4bit", "", "not offered yet"),
    ("bf16 fp16", "", "not offered yet: float32 on CPU"),
    (
        "gradient_checkpointing",
        "",
        "not offered yet; `train.token_budget` decides how many tokens are computed at once",
    ),
    ("packing", "", "always on: no padding, no cross-talk"),
    (
        "train_on_inputs assistant_only_loss completion_only_loss",
        "",
        "answers only is what Tutelage does; use message weights for anything else",
    ),
)

PEERS = {name: (option, note) for names, option, note in _ELSEWHERE for name in names.split()}
"""Another tool's spelling -> our option (or "") and a note."""
