"""One interface: our own engine, a server by `transformers` on this machine, and vLLM as far as its absence allows."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from conftest import make_encoder, make_tokenizer
from tutelage.errors import MachineError, ModelError
from tutelage.generate.client import Endpoint
from tutelage.generate.engine import generate
from tutelage.generate.exchange import Patience
from tutelage.generate.generation import Prompt
from tutelage.generate.likelihood import likelihoods
from tutelage.generate.local import Local
from tutelage.generate.sampling import GREEDY, Sampling
from tutelage.generate.vllm import Vllm
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.models.tokenizer import load_tokenizer
from tutelage.types import Message

CHATS = [
    Prompt((Message("user", text),), row=text) for text in ("Say hello.", "What is two plus two?", "Hi", "Name a dog")
]


@pytest.fixture(scope="module")
def local(tiny_model) -> Local:
    location = locate(str(tiny_model("llama")))
    encoder = make_encoder(load_tokenizer(location))
    return Local(prove(load_model(location), max_length=64), encoder, stop_ids=[encoder.tokenizer.eos_id])


def test_our_engine_takes_messages_text_and_ids(local):
    tokenizer = local.encoder.tokenizer
    ids = local.encoder.prompt_ids(CHATS[0].content)
    mixed = [CHATS[0], Prompt("The quick brown", row="b"), Prompt(tuple(ids), row="c")]
    found = local.write(mixed, GREEDY, max_new_tokens=6)
    expected = generate(
        local.forward,
        [ids, tokenizer.encode_text("The quick brown"), ids],
        stop_ids=local.stop_ids,
        max_new_tokens=6,
        tokenizer=tokenizer,
    )
    assert [one.input_ids for one in found] == [one.input_ids for one in expected]
    assert [one.text for one in found] == [tokenizer.decode(one.input_ids) for one in found]


def test_rows_are_drawn_by_their_names(local):
    warm = Sampling(temperature=1.5, samples=3)
    forwards = local.write(CHATS, warm, max_new_tokens=5)
    backwards = local.write(CHATS[::-1], warm, max_new_tokens=5)
    texts = [one.text for one in forwards]
    assert texts == [backwards[(3 - row) * 3 + sample].text for row in range(4) for sample in range(3)]
    assert len(set(texts)) > 6


def test_likelihoods_by_our_engine(local):
    options = [[(7, 8), (9,)], [(10,)], [(11, 12, 13)], [(5,)]]
    found = local.likelihoods(CHATS, options)
    ids = [local.encoder.prompt_ids(prompt.content) for prompt in CHATS]
    assert found == likelihoods(local.forward, ids, options)


def test_messages_without_a_template_are_refused(tmp_path, local):
    encoder = make_encoder(make_tokenizer(tmp_path, template=None))
    with pytest.raises(ModelError) as refused:
        Local(local.forward, encoder, stop_ids=[]).write(CHATS[:1], GREEDY, max_new_tokens=2)
    assert refused.value.code == "template/missing"


@pytest.fixture(scope="module")
def served(tiny_model):
    """The address of `transformers serve` with the tiny model."""
    from transformers.utils.import_utils import is_serve_available

    pytest.importorskip("httpx")
    if not is_serve_available():
        pytest.skip("`transformers serve` needs packages that are absent (transformers[serving])")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", code, "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    process = subprocess.Popen(
        [*command, str(tiny_model("llama"))], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ.copy()
    )
    try:
        deadline = time.monotonic() + 90
        while process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        assert process.poll() is None, process.stderr.read().decode()[-2000:]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_a_real_server_writes_what_our_engine_writes(served, tiny_model, local):
    """The server renders and encodes by itself, so equal answers also mean equal prompts."""
    patience = Patience(each=60.0, altogether=120.0)
    chat = Endpoint(served, str(tiny_model("llama")), patience=patience, concurrency=2)
    theirs = chat.write(CHATS, GREEDY, max_new_tokens=8)
    ours = local.write(CHATS, GREEDY, max_new_tokens=8)
    assert [one.text for one in theirs] == [one.text for one in ours]
    assert [one.stopped for one in theirs] == [one.stopped for one in ours]
    prompts = [local.encoder.prompt_ids(prompt.content) for prompt in CHATS]
    assert chat.usage.prompt_tokens == sum(map(len, prompts))
    assert chat.usage.completion_tokens == sum(len(one.logprobs) for one in ours)
    text = Endpoint(served, str(tiny_model("llama")), chat=False, patience=patience)
    continued = [Prompt("The quick brown"), Prompt("Name three")]
    assert [one.text for one in text.write(continued, GREEDY, max_new_tokens=6)] == [
        one.text for one in local.write(continued, GREEDY, max_new_tokens=6)
    ]


def test_without_vllm_the_package_is_named(local):
    if importlib.util.find_spec("vllm") is not None:
        pytest.skip("vllm is installed")
    with pytest.raises(MachineError) as refused:
        Vllm("anywhere", local.encoder, stop_ids=[2])
    assert refused.value.code == "machine/missing-package"
    assert "vllm" in refused.value.problems[0].what


class Params:
    """The fields of `vllm.SamplingParams` that its documentation names; any other one is refused, as there."""

    KNOWN = frozenset(
        {"n", "temperature", "top_p", "top_k", "min_p", "seed", "max_tokens", "stop", "stop_token_ids", "ignore_eos"}
        | {"logprobs", "prompt_logprobs", "skip_special_tokens", "detokenize"}
    )

    def __init__(self, **fields):
        assert set(fields) <= self.KNOWN
        self.__dict__.update(fields)


class Model:
    """Answers in the shape of vLLM's outputs, its tokens those of our engine."""

    def __init__(self, **options):
        self.options = options
        self.asked = []

    def generate(self, prompts, params, use_tqdm):
        self.asked += list(zip(prompts, params, strict=True))
        return [self._output(prompt["prompt_token_ids"], one) for prompt, one in zip(prompts, params, strict=True)]

    def _output(self, ids, params):
        told = None
        if hasattr(params, "prompt_logprobs"):
            told = [None, *({id: SimpleNamespace(logprob=-id / 10)} for id in ids[1:])]
        eos = getattr(params, "stop_token_ids", [0])[0]
        written = [[ids[-1], 9, 8], [ids[-1], eos]]
        outputs = [
            SimpleNamespace(
                index=index,
                token_ids=tokens,
                logprobs=[{id: SimpleNamespace(logprob=-1.0 - id)} for id in tokens],
                finish_reason="stop" if tokens[-1] == eos else "length",
            )
            for index, tokens in list(enumerate(written))[: getattr(params, "n", 1)]
        ]
        return SimpleNamespace(outputs=outputs[::-1], prompt_logprobs=told)


@pytest.fixture
def vllm(monkeypatch, local) -> Vllm:
    """Our side of vLLM, with its documented shapes on the other."""
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=Model, SamplingParams=Params))
    return Vllm("folder", local.encoder, stop_ids=[2], max_model_len=128)


def test_what_vllm_is_asked_and_how_its_answers_are_read(vllm, local):
    warm = Sampling(temperature=0.8, top_p=0.9, samples=2, seed=5)
    found = vllm.write([Prompt((5, 6), row="a"), Prompt((5, 7), row="b")], warm, max_new_tokens=4)
    assert vllm._model.options == {"model": "folder", "enable_prefix_caching": True, "seed": 0, "max_model_len": 128}
    assert [one.input_ids for one in found] == [(6, 9, 8), (6,), (7, 9, 8), (7,)]
    assert [one.stopped for one in found] == [False, True, False, True]
    assert found[1].logprobs == (-7.0, -3.0)  # The stop token's is the last one.
    assert [one.text for one in found] == [local.encoder.tokenizer.decode(one.input_ids) for one in found]
    (first, a), (_, b) = vllm._model.asked
    assert first == {"prompt_token_ids": [5, 6]}
    assert (a.n, a.temperature, a.top_p, a.top_k, a.max_tokens, a.stop_token_ids) == (2, 0.8, 0.9, -1, 4, [2])
    assert a.seed != b.seed


def test_likelihoods_by_vllm(vllm):
    found = vllm.likelihoods([Prompt((5, 6)), Prompt((7,))], [[(10, 20), (30,)], [(40,)]])
    assert [[one.logprobs for one in row] for row in found] == [[(-1.0, -2.0), (-3.0,)], [(-4.0,)]]
