"""The environment of a run is written as it was."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from tutelage import environment
from tutelage.models import kernels
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate


def test_the_environment_is_what_runs(tiny_model, tmp_path):
    store = SimpleNamespace(folder=tmp_path, bytes_on_disk=lambda: 1234)
    location = locate(str(tiny_model("llama")))
    forward = prove(load_model(location), max_length=64)
    found = environment.describe(location, store, forward)
    assert found["model"] == location.describe()
    assert found["store"] == {"folder": str(tmp_path), "bytes": 1234}
    assert found["torch"] == torch.__version__
    assert found["device"] == "cpu"
    assert found["threads"] == torch.get_num_threads()
    assert found["kernels"] == (["gate", "norm", "rotary"] if kernels.library() else [])
    assert found["attention"][0] == "merged flash attention"
