"""A small copy of the model, measured: what one layer costs, and from it what all of them cost.

The copy has the model's own layers with random weights, three of them, and is run with three and with one: the
difference is two layers, and what is left is the embedding and the head. Seconds are taken by the clock, memory by
counting every tensor that the pass makes. No weights are read.

    seconds = with one layer + (layers - 1) * (with three - with one) / 2
    bytes   = the peak with three layers + (layers - 3) * what a layer keeps for the backward pass
"""

from __future__ import annotations

import copy
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tutelage.data.batch import MicroBatch
from tutelage.models.adapters import adapt, base_of, trainable
from tutelage.models.checkpointing import Kind, checkpoint
from tutelage.models.dropout import make_stateless
from tutelage.models.foreign import code_allowed
from tutelage.models.forward import Forward, prove
from tutelage.models.load import quiet_transformers
from tutelage.models.location import Location
from tutelage.models.precision import Precision, computing
from tutelage.recipe import Full, Lora
from tutelage.train.optimizer import FusedAdamW

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

LAYERS = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one pass of the whole model, forward, and backward where it trains."""

    seconds: float
    bytes: int
    """The most that the pass holds at once, beside weights, gradients and the optimizer's state."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of the whole model, in numbers."""

    layers: int
    trained: int
    frozen: int
    cached: int
    """Keys and values that one token of an answer in flight keeps."""
    passing: int
    """Numbers that come and go for each token of a prompt, about."""


@dataclass(frozen=True, slots=True)
class _Pass:
    """Of a pass with few layers: seconds, and bytes."""

    seconds: float
    peak: int
    kept: int
    """Between the forward and the backward pass."""
    left: int
    """After both."""


class Probe:
    """A copy of three layers; each method runs it and gives the cost for all layers of the model."""

    def __init__(
        self, location: Location, adapter: Lora | Full, precision: Precision, *, device: str, max_length: int
    ) -> None:
        config = config_of(location)
        self.sizes = sizes_of(config, adapter)
        self.precision = precision
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = _built(_with_layers(config, LAYERS), precision.weights).to(device).eval()
        self.forward = prove(model, max_length=max_length)
        self.forward.model = adapt(model, adapter, seed=0, base=location.path)
        self.forward.draw, _ = make_stateless(self.forward.model)
        self._layers = _find_layers(base_of(self.forward.model).get_decoder(), LAYERS)

    def checkpoint(self, kind: Kind) -> None:
        """Keep activations from now on as `train.checkpointing` says, which may keep less than before, never more."""
        checkpoint(self.forward.model, kind)

    def train(self, batch: MicroBatch) -> Cost:
        """Forward and backward of a micro-batch, gradients of an earlier one in place."""
        with self.with_gradients():
            return self._cost(lambda: self.forward.nll(batch)[0])

    def kept(self, batch: MicroBatch) -> int:
        """Bytes that all layers keep of a micro-batch for the backward pass."""
        layers = (1, 1, LAYERS)  # The first time makes buffers that are used again.
        with self.with_gradients():
            _, one, all = (self._measured(lambda: self.forward.nll(batch)[0], n).kept for n in layers)
        return (all - one) // (LAYERS - 1) * self.sizes.layers

    @contextmanager
    def with_gradients(self) -> Iterator[None]:
        """Inside, the copy trains and every trained parameter has a gradient, of zeros."""
        model = self.forward.model.train()
        for parameter in trainable(model).values():
            parameter.grad = torch.zeros_like(parameter, dtype=parameter.grad_dtype)
        try:
            yield
        finally:
            model.zero_grad(set_to_none=True)

    @torch.no_grad()
    def call(self, run: Callable[[Forward], Any]) -> Cost:
        """Anything that the model is run with when it is not trained."""
        self.forward.model.eval()
        return self._cost(lambda: run(self.forward))

    def _cost(self, run: Callable[[], Any]) -> Cost:
        first = self._measured(run, 1)  # Slower, and what it leaves behind are buffers that are used again.
        one, all = (self._measured(run, layers) for layers in (1, LAYERS))
        # The first of its kind also pays for memory that the process did not have before.
        single, several = (
            min(before.seconds, self._measured(run, layers).seconds) for before, layers in ((one, 1), (all, LAYERS))
        )
        seconds, kept = (several - single) / (LAYERS - 1), (all.kept - one.kept) / (LAYERS - 1)
        layers = self.sizes.layers
        return Cost(
            single + (layers - 1) * max(0.0, seconds),
            int(all.peak + first.left + one.left + (layers - LAYERS) * kept),
        )

    def _measured(self, run: Callable[[], Any], layers: int) -> _Pass:
        device = self.forward.device
        count = _LiveOnGpu(device) if device.type == "cuda" else _Live()
        with self._shortened(layers), computing(self.precision, device), count:
            started = time.perf_counter()
            loss = run()
            between = count.now
            if isinstance(loss, torch.Tensor) and loss.requires_grad:
                loss.backward()
            del loss
            count.wait()
            seconds, left = time.perf_counter() - started, count.now
        return _Pass(seconds, count.peak, between - left, left)

    @contextmanager
    def _shortened(self, layers: int) -> Iterator[None]:
        parent, name, every = self._layers
        config = base_of(self.forward.model).config.get_text_config()
        setattr(parent, name, nn.ModuleList(list(every)[:layers]))
        config.num_hidden_layers = layers
        try:
            yield
        finally:
            setattr(parent, name, every)
            config.num_hidden_layers = LAYERS


class _Live(TorchDispatchMode):
    """Counts the bytes of every tensor that comes into being inside, until it is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def wait(self) -> None:
        """Nothing is under way on a CPU when a call returns."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_key(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and _key(tensor) not in given:
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self.now += size
        self.peak = max(self.peak, self.now)

        def gone(_: Any) -> None:
            self.now -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, gone)


def _key(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


class _LiveOnGpu:
    """The same by the device's own account."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.before = self.peak = 0

    @property
    def now(self) -> int:
        return torch.cuda.memory_allocated(self.device) - self.before

    def wait(self) -> None:
        """Until all that was asked of the device is done."""
        torch.cuda.synchronize(self.device)

    def __enter__(self) -> None:
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self.before = torch.cuda.memory_allocated(self.device)

    def __exit__(self, *exception: object) -> None:
        self.peak = torch.cuda.max_memory_allocated(self.device) - self.before


def empty_step(optimizer: FusedAdamW) -> None:
    """An update with rate and gradients of zero: the work of a step, and every weight as it was, bit for bit."""
    for slot in optimizer.slots:
        if slot.parameter.grad is not None:
            slot.parameter.grad.zero_()
    norm = optimizer.norm()
    optimizer.step(0.0, norm=norm, clip=1.0, sound=norm.isfinite())


def config_of(location: Location) -> PreTrainedConfig:
    """The model's settings, as its files have them."""
    quiet_transformers()
    from transformers import AutoConfig

    with code_allowed(location.trusted):
        return AutoConfig.from_pretrained(location.path, **location.arguments())


def sizes_of(config: PreTrainedConfig, adapter: Lora | Full) -> Sizes:
    """Counted on a model without memory, so that any size can be asked about on any machine."""
    with torch.device("meta"):
        model = adapt(_built(copy.deepcopy(config)), adapter, seed=0, base="")
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    trained = sum(p.numel() for p in trainable(model).values())
    return Sizes(
        layers=text.num_hidden_layers,
        trained=trained,
        frozen=sum(p.numel() for p in model.parameters()) - trained,
        cached=2 * text.num_hidden_layers * heads * width,
        passing=4 * text.hidden_size + 3 * (getattr(text, "intermediate_size", None) or 4 * text.hidden_size),
    )


def _built(config: PreTrainedConfig, format: str = "float32") -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    config.use_cache = False
    own = type(config).__module__.startswith("transformers_modules")  # Loaded from a folder that the recipe trusts.
    with code_allowed(own):
        return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, format), trust_remote_code=own)


def _with_layers(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    config = copy.deepcopy(config)
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    if kinds:
        text.layer_types = [kinds[i % len(kinds)] for i in range(layers)]
    text.num_hidden_layers = layers
    return config


def _find_layers(decoder: nn.Module, layers: int) -> tuple[nn.Module, str, nn.ModuleList]:
    """(module that holds the list, its name, the list)."""
    for parent in decoder.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == layers:
                return parent, name, child
    raise AssertionError("bug: the decoder has no list of its layers")
