"""What leaves the machine holds no secret, and loses nothing that is none."""

from __future__ import annotations

import pytest

from tutelage.track.secrecy import shareable, text_without_secrets

KEY = "hf_" + "aB3dE5gH7jK9mN1pQ3sT5vW7"


def test_what_looks_secret_is_replaced():
    recipe = {
        "model": {"path": f"https://user:{KEY}@host/model", "revision": "0123456789abcdef" * 2 + "01234567"},
        "data": {"train": [{"path": "https://somebody@host/rows.jsonl"}, {"path": f"rows.jsonl?token={KEY}"}]},
        "wandb": {"api_key": "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c"},
        KEY: 1,
    }
    shared = shareable(recipe)
    assert KEY not in str(shared)
    assert "somebody" not in str(shared)
    assert "0f1e2d3c4b" not in str(shared)
    assert shared["model"]["revision"] == recipe["model"]["revision"]


@pytest.mark.parametrize("value", [True, 16, None, "cls", 0.5])
def test_what_is_not_secret_stays(value):
    recipe = {
        "use_cls_token": value,
        "num_memory_tokens": value,
        "evaluate": {"max_new_tokens": value},
        "list": [value],
    }
    assert shareable(recipe) == recipe


def test_values_of_the_environment(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "canary-0123")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "canary-4567")
    monkeypatch.setenv("PLAIN", "canary-89ab")
    said = text_without_secrets("key canary-0123, password canary-4567, http://me:pw-cd@host/ canary-89ab")
    assert said == "key (not shown), password (not shown), http://(not shown)@host/ canary-89ab"
