"""Names to models: what is found, what is refused, and that nothing in a model folder is ever run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tutelage.cache import cache_folder
from tutelage.errors import RecipeError, TutelageError
from tutelage.models import gguf
from tutelage.models.gguf import convert_gguf
from tutelage.models.load import load_model, remark_on_weights
from tutelage.models.location import Location, locate, position_limit
from tutelage.models.tokenizer import chat_tokenizer, load_tokenizer
from tutelage.recipe import ModelOptions


def refused(code: str, call, *arguments) -> str:
    """The text of the error with this code that the call raises."""
    with pytest.raises(TutelageError) as caught:
        call(*arguments)
    assert caught.value.code == code
    return str(caught.value)


@pytest.fixture
def model(tiny_model, tmp_path) -> Path:
    """A copy of a model folder that may be spoiled."""
    return shutil.copytree(tiny_model("llama"), tmp_path / "model")


@pytest.mark.parametrize("path", ["./none", "/none/at/all", "none", "a/b/c", "a/model.gguf", "~/none"])
def test_what_is_not_there_is_missing(path):
    assert f"model.path = {path}" in refused("model/missing", locate, path)


def test_names_become_locations(model):
    assert locate(str(model)) == Location(str(model))
    gguf = model / "weights.gguf"
    gguf.write_bytes(b"GGUF")
    assert locate(str(gguf)) == Location(str(model), gguf_file="weights.gguf")
    assert locate(str(model)).arguments() == {"trust_remote_code": False, "local_files_only": True}
    with pytest.raises(RecipeError):
        locate(str(model), "v1")


def test_a_hub_id_that_the_hub_does_not_give():
    said = refused("model/missing", locate, "no-such-owner/no-such-model")
    assert "no-such-owner/no-such-model" in said


def test_tied_tensors_that_differ_are_refused(model):
    """Otherwise transformers unties them, and two are trained where the model's makers meant one."""
    weights = load_file(model / "model.safetensors")
    embedding = "model.embed_tokens.weight"
    save_file({**weights, "lm_head.weight": weights[embedding].clone()}, model / "model.safetensors")
    loaded = load_model(Location(str(model)))
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
    save_file({**weights, "lm_head.weight": weights[embedding] + 0.1}, model / "model.safetensors")
    assert f"lm_head.weight and {embedding}" in refused("model/bad-weights", load_model, Location(str(model)))


def test_a_folder_without_a_model(tmp_path):
    assert "no config.json" in refused("model/missing", locate, str(tmp_path))


def test_a_folder_with_pickled_weights_alone(model):
    (model / "model.safetensors").unlink()
    torch.save({}, model / "pytorch_model.bin")
    said = refused("model/no-weights", locate, str(model))
    assert "pytorch_model.bin" in said
    assert "can run code" in said


@pytest.mark.parametrize("known", [True, False])
def test_code_in_a_model_folder_is_never_run(model, tmp_path, known):
    """Where transformers knows the architecture its own code is used; otherwise the folder is refused."""
    ran = tmp_path / "ran"
    (model / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass C: ...\nclass M: ...\n")
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M", "AutoTokenizer": ["own.M", None]}
    config["model_type"] = "llama" if known else "own"
    (model / "config.json").write_text(json.dumps(config))
    if known:
        location = locate(str(model))
        assert type(load_model(location)).__module__.startswith("transformers.")
        load_tokenizer(location)
    else:
        assert "own.M" in refused("security/remote-code", locate, str(model))
    assert not ran.exists()


def test_a_broken_config(model):
    (model / "config.json").write_text("{")
    assert "config.json" in refused("model/unreadable", locate, str(model))


def test_torn_weights(model):
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "weights" in refused("model/bad-weights", locate, str(model))


def test_a_missing_tokenizer(model):
    for path in model.glob("*token*"):
        path.unlink()
    refused("model/unreadable", load_tokenizer, locate(str(model)))


def test_weights_are_float32_whatever_was_saved(model):
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).save_pretrained(model)
    loaded = load_model(locate(str(model)))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert not loaded.training
    assert loaded.config.use_cache is False


@pytest.mark.parametrize(
    ("config", "limit"),
    [({"n_positions": 8}, 8), ({"text_config": {"max_position_embeddings": 64}}, 64), ({}, None)],
)
def test_the_position_limit(tmp_path, config, limit):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert position_limit(Location(str(tmp_path))) == limit
    assert position_limit(Location("owner/name")) is None


def test_templates_are_the_tokenizers_own_a_named_one_or_none(tiny_model):
    tokenizer = load_tokenizer(locate(str(tiny_model("llama"))))
    own = chat_tokenizer(tokenizer, ModelOptions(path="x"))[1]
    assert own.source == tokenizer.chat_template
    assert chat_tokenizer(tokenizer, ModelOptions(path="x", template="none"))[1] is None
    assert chat_tokenizer(tokenizer, ModelOptions(path="x", template="alpaca"))[1].name == "alpaca"
    refused("template/missing", chat_tokenizer, tokenizer, ModelOptions(path="x", template="none.jinja"))


def test_chatml_needs_its_tokens(tiny_model):
    tokenizer = load_tokenizer(locate(str(tiny_model("llama"))))
    lacking = type(tokenizer)(tokenizer_object=_without(tokenizer, "<|im_end|>"), eos_token="</s>")
    said = refused("template/missing-tokens", chat_tokenizer, lacking, ModelOptions(path="x", template="chatml"))
    assert "<|im_end|> is not in the vocabulary" in said


def _without(tokenizer, token: str):
    from tokenizers import Tokenizer

    return Tokenizer.from_str(tokenizer.backend_tokenizer.to_str().replace(token, "<|other|>"))


def write_gguf(folder: Path, model: Path) -> Path:
    """The llama in the folder `model` as a GGUF file with its tokenizer."""
    from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map
    from safetensors.numpy import load_file

    config = json.loads((model / "config.json").read_text())
    spec = json.loads((model / "tokenizer.json").read_text())["model"]
    file = folder / "tiny.gguf"
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config["vocab_size"])
    words = sorted(spec["vocab"], key=spec["vocab"].get)
    words += [f"<pad{n}>" for n in range(config["vocab_size"] - len(words))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([3 if word.startswith("<") else 1 for word in words])
    writer.add_token_merges([" ".join(pair) for pair in spec["merges"]])
    writer.add_eos_token_id(2)
    writer.add_bos_token_id(1)
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, tensor in load_file(model / "model.safetensors").items():
        heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
        for part, count in heads.items():
            if part in name:  # GGUF's llama keeps the halves of each rotary pair side by side.
                rows, width = tensor.shape
                tensor = tensor.reshape(count, 2, rows // count // 2, width).swapaxes(1, 2).reshape(rows, width)
        writer.add_tensor(names.get_name(name, (".weight",)), np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture(scope="module")
def gguf_file(tiny_model, tmp_path_factory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf"), tiny_model("llama"))


def test_a_gguf_file_is_the_same_model(gguf_file, tiny_model, capfd):
    ids = torch.arange(5, 30)[None]
    with torch.no_grad():
        right = load_model(locate(str(tiny_model("llama"))))(input_ids=ids).logits
        found = load_model(locate(str(gguf_file)))(input_ids=ids).logits
    assert torch.allclose(found, right, atol=1e-5)
    assert capfd.readouterr().err == ""


def test_a_gguf_file_becomes_a_folder_once_and_whole(gguf_file, tiny_model, tmp_path):
    folder = tmp_path / "cache" / "tiny"
    convert_gguf(gguf_file, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    ids = torch.arange(5, 30)[None]
    with torch.no_grad():
        right = load_model(locate(str(tiny_model("llama"))))(input_ids=ids).logits
        assert torch.allclose(load_model(locate(str(folder)))(input_ids=ids).logits, right, atol=1e-5)
    before = (folder / "model.safetensors").stat()
    convert_gguf(gguf_file, folder)  # As a second process does that began before the first was done.
    assert (folder / "model.safetensors").stat() == before
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_a_conversion_that_fails_leaves_nothing(gguf_file, tmp_path, monkeypatch):
    class Fails:
        def save_pretrained(self, folder: Path) -> None:
            (folder / "half").write_text("x")
            raise OSError("No space left on device")

    monkeypatch.setattr(gguf, "load_model", lambda location: Fails())
    with pytest.raises(OSError, match="No space"):
        convert_gguf(gguf_file, tmp_path / "cache" / "tiny")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_broken_gguf_file(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + b"\0" * 20)
    refused("model/unreadable", load_model, locate(str(tmp_path / "a.gguf")))
    (tmp_path / "b.gguf").write_bytes(b"not gguf")
    refused("model/unreadable", load_tokenizer, locate(str(tmp_path / "b.gguf")))


def test_weights_that_are_one_number_over_and_over_are_said(model):
    assert remark_on_weights(load_model(Location(str(model)))) == []  # Its norms are all one, which is as it should be.
    weights = load_file(model / "model.safetensors")
    constant = "model.layers.0.mlp.up_proj.weight"
    weights[constant] = torch.zeros_like(weights[constant])
    almost = weights["model.layers.1.mlp.up_proj.weight"]
    almost[:] = 1.0
    almost[-1, -1] = 2.0
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    (said,) = remark_on_weights(load_model(Location(str(model))))
    assert said.endswith(f"leaves them: {constant} (0)")


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TUTELAGE_CACHE", raising=False)
    assert cache_folder() == tmp_path / "tutelage"
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
