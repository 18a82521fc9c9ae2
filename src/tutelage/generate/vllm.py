"""A model in vLLM, in this process, as a writer of answers; for a GPU that vLLM runs on.

vLLM draws from numbers of its own, so sampled answers are other ones than those of our engine, and repeat where the
same version of vLLM runs them on the same machine.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tutelage.data.encode import Encoder
from tutelage.errors import MachineError, Problem
from tutelage.generate.continuation import Continuation
from tutelage.generate.generation import Generation, Likelihood, Progress, Prompt
from tutelage.generate.local import names, prompt_ids
from tutelage.generate.sampling import Sampling
from tutelage.generate.stops import Stops
from tutelage.seeds import derive

TOGETHER = 1024
"""Prompts handed over at once; vLLM itself decides how many are in flight."""


class Vllm:
    """Answers by vLLM."""

    def __init__(self, folder: str | Path, encoder: Encoder, *, stop_ids: Collection[int], **options: Any) -> None:
        """Load a model folder; `options` are vLLM's own, such as `max_model_len` or `gpu_memory_utilization`.

        Raises:
            MachineError: machine/missing-package.
        """
        try:
            import vllm
        except ImportError as error:
            problem = Problem(
                "machine/missing-package",
                "generating with vLLM needs the package `vllm`",
                found="it is not installed",
                fix="pip install vllm, on a machine with a GPU that it runs on; or use the engine that is built in",
            )
            raise MachineError(problem) from error
        self.encoder, self.stop_ids = encoder, frozenset(stop_ids)
        self._params = vllm.SamplingParams
        # A prompt that several answers go on from, or that several prompts begin with, is computed once.
        self._model = vllm.LLM(**{"model": str(folder), "enable_prefix_caching": True, "seed": 0} | options)

    def write(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        progress: Progress = lambda answers: None,
    ) -> list[Generation]:
        """`sampling.samples` answers to each prompt: all of the first, then all of the second."""
        stops = Stops.of(self.stop_ids, stop, Continuation(self.encoder.tokenizer))
        settings = [self._settings(sampling, row, max_new_tokens, stop) for row in names(prompts)]
        found = []
        for output in self._run([prompt_ids(prompt, self.encoder) for prompt in prompts], settings):
            one = sorted(output.outputs, key=lambda written: written.index)
            found += [_generation(written, stops) for written in one]
            progress(len(one))
        return found

    def likelihoods(
        self,
        prompts: Sequence[Prompt],
        continuations: Sequence[Sequence[tuple[int, ...]]],
        *,
        progress: Progress = lambda prompts: None,
    ) -> list[list[Likelihood]]:
        """How likely each continuation of each prompt is; `progress` is told of each continuation."""
        started = [prompt_ids(prompt, self.encoder) for prompt in prompts]
        pairs = [(row, option) for row, options in enumerate(continuations) for option in options]
        settings = [self._params(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)] * len(pairs)
        found: list[list[Likelihood]] = [[] for _ in prompts]
        asked = [[*started[row], *option] for row, option in pairs]
        for (row, option), output in zip(pairs, self._run(asked, settings), strict=True):
            told = output.prompt_logprobs[-len(option) :]
            logprobs = tuple(float(each[id].logprob) for id, each in zip(option, told, strict=True))
            found[row].append(Likelihood(logprobs))
            progress(1)
        return found

    def _settings(self, sampling: Sampling, row: object, max_new_tokens: int, stop: Sequence[str]) -> Any:
        return self._params(
            n=sampling.samples,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or -1,
            min_p=sampling.min_p,
            seed=derive(sampling.seed, f"vllm/{row}") & 0x7FFFFFFF,
            max_tokens=max_new_tokens,
            stop=list(stop) or None,
            stop_token_ids=sorted(self.stop_ids),
            # Ours are the stop tokens of the run; the tokenizer's own may not be among them.
            ignore_eos=True,
            logprobs=0,
            skip_special_tokens=False,
        )

    def _run(self, prompts: Sequence[list[int]], settings: Sequence[Any]) -> Any:
        """What vLLM puts out, in order."""
        for start in range(0, len(prompts), TOGETHER):
            part = slice(start, start + TOGETHER)
            asked = [{"prompt_token_ids": ids} for ids in prompts[part]]
            yield from self._model.generate(asked, list(settings[part]), use_tqdm=False)


def _generation(written: Any, stops: Stops) -> Generation:
    ids = list(written.token_ids)
    logprobs = tuple(float(each[id].logprob) for id, each in zip(ids, written.logprobs or (), strict=True))
    stopped = written.finish_reason == "stop"
    if ids and ids[-1] in stops.ids:
        return Generation(tuple(ids[:-1]), stopped, logprobs, text=_text(ids[:-1], stops))
    text = stops.text_before(ids)
    return Generation(tuple(ids), stopped, logprobs, text=_text(ids, stops) if text is None else text)


def _text(ids: Sequence[int], stops: Stops) -> str:
    assert stops.tokenizer is not None
    return stops.tokenizer.decode(ids)
