"""R60, the run that is broken: 60 steps of a model of a million parameters, two epochs, dropout, several micro-batches.

full    gpt2's shape, which has dropout between its layers (llama's has none but on attention weights, which is off)
lora    llama's shape, with dropout in front of the adapter
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tinyruns

STEPS, EVERY, KEEP, EPOCHS, BATCH, ROWS = 60, 5, 2, 2, 4, 118
"""29 full batches and a ragged one of two rows make an epoch."""
VARIANTS = ("full", "lora")
PARAMETERS = 1_000_000


def rows(count: int, first: int = 0) -> list[dict[str, str]]:
    """Demonstrations whose lengths differ."""
    colours = tinyruns.COLOURS
    return [
        {
            "instruction": f"{n}" + " and the box" * (n % 3) + "?",
            "input": "",
            "output": " and ".join(colours[(n + k) % len(colours)] for k in range(1 + n % 2)),
        }
        for n in range(first, first + count)
    ]


def make(folder: str) -> None:
    """Both models, the rows and the held-out rows."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from conftest import make_tokenizer
    from tutelage.models.load import quiet_transformers

    quiet_transformers()
    root = Path(folder)
    tinyruns.write_rows(root / "rows.jsonl", rows(ROWS))
    tinyruns.write_rows(root / "heldout.jsonl", rows(10, first=1000))
    for variant in VARIANTS:
        tokenizer = make_tokenizer(root / variant)
        common = {"vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
        if variant == "lora":
            config = AutoConfig.for_model(
                "llama",
                hidden_size=128,
                intermediate_size=448,
                num_hidden_layers=4,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=256,
                tie_word_embeddings=True,
                **common,
            )
        else:
            config = AutoConfig.for_model(
                "gpt2",
                n_embd=128,
                n_inner=640,
                n_layer=4,
                n_head=4,
                n_positions=256,
                attn_pdrop=0,
                resid_pdrop=0.1,
                embd_pdrop=0.1,
                **common,
            )
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        count = sum(parameter.numel() for parameter in model.parameters())
        assert abs(count / PARAMETERS - 1) < 0.2, count
        model.generation_config.eos_token_id = model.config.eos_token_id = tokenizer.eos_token_id
        model.save_pretrained(root / variant)


def recipe(root: Path, variant: str, output: Path, **sections: Any) -> dict[str, Any]:
    """R60 of a variant; `sections` are merged into it."""
    adapter = {"kind": "lora", "rank": 8, "dropout": 0.1} if variant == "lora" else {"kind": "full"}
    whole = tinyruns.recipe(
        root / variant,
        root / "rows.jsonl",
        output,
        model={"adapter": adapter},
        data={"heldout": {"path": str(root / "heldout.jsonl")}},
        train={
            "epochs": EPOCHS,
            "global_batch_size": BATCH,
            "learning_rate": 1e-2 if variant == "lora" else 1e-3,
            "token_budget": 64,
        },
        evaluate={"points": 4, "samples": 2, "max_new_tokens": 4},
        checkpoint={"every": EVERY, "keep": KEEP},
    )
    del whole["train"]["steps"]
    return tinyruns._merged(whole, sections)
