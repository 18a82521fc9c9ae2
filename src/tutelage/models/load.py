"""A location to a model in memory.

Weights are read from safetensors or GGUF and nothing else, into one number format; code in a model folder is never
run.
"""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.errors import MachineError, ModelError, Problem
from tutelage.models.foreign import code_allowed
from tutelage.models.location import Location
from tutelage.models.weights import tensors_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_model(location: Location, *, device: str = "cpu", dtype: str = "float32") -> PreTrainedModel:
    """The model in that format, whatever it is stored in, in evaluation mode, on the device.

    Raises:
        ModelError: model/missing; model/unreadable, also where the files lack a tensor of the model;
            model/impossible-size; model/bad-weights, where weights are not finite or two that are tied differ.
    """
    quiet_transformers()
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    base = location.base or location
    if base.gguf_file is not None:
        _quiet_gguf()
    try:
        with code_allowed(location.trusted):
            if base.gguf_file is None:
                _refuse_promises(base)
            model, found = AutoModelForCausalLM.from_pretrained(
                base.path,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                output_loading_info=True,
                **base.arguments(),
            )
            _refuse_untied(base, model)
            if location.base is not None:
                model.load_adapter(location.path)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise unreadable(location, "weights", error) from error
    _refuse_holes(location, sorted(found["missing_keys"]))
    _refuse_infinite(location, model)
    if base.gguf_file is not None:
        _forget_quantisation(model)
    model.config.use_cache = False
    return model.to(device).eval()


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
    # The conversion of a .gguf file draws a bar of its own, which only this setting keeps away.
    os.environ.setdefault("TQDM_DISABLE", "1")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # What peft asks of transformers is no concern of whoever runs this.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)


def _refuse_holes(location: Location, missing: list[str]) -> None:
    """`transformers` would fill missing tensors with random numbers and go on."""
    if missing:
        raise ModelError(
            Problem(
                "model/unreadable",
                f"the weights lack {len(missing):,} of the model's tensors",
                where=location.path,
                found=_some(missing),
                fix="fetch or save the model again; a model without a language head cannot be trained to write",
            )
        )


def _refuse_promises(location: Location) -> None:
    """A model larger than its files would be allocated first and found to lack tensors after."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(location.path, **location.arguments())
    if getattr(config, "quantization_config", None) is not None:
        return  # Packed numbers cannot be counted.
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=location.trusted)
    promised = sum(parameter.numel() for parameter in model.parameters())
    there = sum(tensor.numbers for tensor in tensors_of(Path(location.path)).values())
    if promised > 2 * there:  # What is nearer is loaded, and the tensors that lack are named.
        raise ModelError(
            Problem(
                "model/impossible-size",
                "config.json describes a larger model than the weights are",
                where=str(Path(location.path) / "config.json"),
                found=f"{promised:,} parameters; the files have {there:,} numbers",
                fix="fetch or save the model again; a model without a language head cannot be trained to write",
            )
        )


def _refuse_untied(location: Location, model: PreTrainedModel) -> None:
    """Where files hold both of two tied tensors, with different values, `transformers` unties them and goes on."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = model.config.tie_word_embeddings and model._tied_weights_keys and head is not None
    if tied and head.weight is not embedding.weight:
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        raise ModelError(
            Problem(
                "model/bad-weights",
                "config.json says that two tensors are one, and the files hold them with different values",
                where=location.path,
                found=f"{names[id(head.weight)]} and {names[id(embedding.weight)]}",
                fix="fetch or save the model again; if both are meant, tie_word_embeddings=false in its config.json",
            )
        )


def _refuse_infinite(location: Location, model: PreTrainedModel) -> None:
    """One weight that is not a number makes every answer none; the sum of a tensor shows it at the cost of reading."""
    import torch

    bad = []
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.is_floating_point() and not math.isfinite(parameter.sum(dtype=torch.float32).item()):
                count = int((~torch.isfinite(parameter)).sum())
                bad += [f"{name} ({count:,} of {parameter.numel():,} numbers)"] if count else []
    if bad:
        raise ModelError(
            Problem(
                "model/bad-weights",
                f"{len(bad):,} {'tensors have' if len(bad) > 1 else 'tensor has'} numbers that are not finite",
                where=location.path,
                found=_some(bad),
                fix="use the checkpoint before it, or fetch the model again",
            )
        )


def remark_on_weights(model: PreTrainedModel) -> list[str]:
    """That tensors of more than one dimension hold one number over and over, as after a copy that failed."""
    import torch

    constant = []
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            some = parameter.flatten()[:1000]  # So that a tensor of many numbers is seldom read.
            several = parameter.dim() > 1 and parameter.numel() > 1
            if several and all(torch.all(numbers == some[0]) for numbers in (some, parameter)):
                constant.append(f"{name} ({some[0].item():g})")
    said = "weights that are one number over and over, as no training leaves them"
    return [f"{said}: {_some(constant)}"] if constant else []


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def unreadable(location: Location, what: str, error: Exception) -> ModelError:
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


def _quiet_gguf() -> None:
    """The reader of GGUF files draws a bar of its own, which `quiet_transformers` does not reach."""
    from transformers import modeling_gguf_pytorch_utils as reader

    reader.tqdm = lambda rows, **options: rows


def _forget_quantisation(model: PreTrainedModel) -> None:
    """The weights are numbers like any other now; the settings that say otherwise would stop them from being saved."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model, "quantization_method"):
        del model.quantization_method
