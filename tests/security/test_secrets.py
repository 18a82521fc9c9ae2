"""Secrets of the environment and of the command line appear in nothing that is written or printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tinyruns
from tutelage import config
from tutelage.errors import SecurityError

HEX = "0123456789abcdef0123456789abcdef01234567"

SECRETS = {
    "hub token": ("model.revision", "hf_QmVhciBpbiBtaW5kIHRoaXMgaXMgbm90"),
    "key of a tracker": ("tracker.wandb_key", HEX),
    "key under a plain name": ("tracker.key", HEX),
    "key of a service": ("model.template", "sk-proj-Zm9yIHRlc3RzIG9ubHkgbm90IHJlYWw"),
    "key of a cloud": ("data.train.0.path", "s3://AKIAIOSFODNN7EXAMPLE/rows.jsonl"),
    "token of a forge": ("output", "runs/ghp_abcdefghijklmnopqrstuvwxyz0123456789"),
    "password in an address": ("data.train.0.path", "https://reader:correct-horse@example.org/rows.jsonl"),
    "password without a name": ("data.train.0.path", "https://:correct-horse@example.org/rows.jsonl"),
    "signature in an address": (
        "data.train.0.path",
        "https://example.org/rows.jsonl?X-Amz-Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924",
    ),
    "a private key": ("model.template", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE\n"),
    "a web token": ("output", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"),
    "a password by its name": ("db_password", "Tr0ub4dor&3-and-more-of-it"),
}

HARMLESS = {
    "a commit": ("model.revision", HEX),
    "an option about tokens": ("use_cls_token", "true"),
    "a count of tokens": ("num_memory_tokens", "12"),
    "a special token": ("pad_token", "<|reserved_special_token_0|>"),
    "a named token": ("eos_token", "<|end_of_sentence|>"),
    "a path": ("data.train.0.path", "/data/token_key/sk-learn/hf_rows/secret/x.jsonl"),
    "a bucket": ("data.train.0.path", "s3://bucket/key=5/part-00000-of-00010.parquet"),
    "a user": ("data.train.0.path", "https://reader@example.org/rows.jsonl"),
    "a long name": ("output", "runs/ask-questions-and-task-after-task-for-a-long-while"),
    "a library": ("output", "runs/sk-learning-rate-of-three-thousand"),
    "a cleaning rule": ("data.clean.secrets", "drop"),
    "a column": ("data.train.0.where.key", "some_column_name_that_is_long"),
}


def recipe(option: str, value: str) -> dict[str, object]:
    """A recipe with the option in it."""
    values: dict[str, object] = {
        "model": {"path": "model"},
        "data": {"train": [{"path": "rows.jsonl"}], "heldout": 0.1, "max_length": 64},
        "train": {"global_batch_size": 4},
        "output": "run",
    }
    place: object = values
    *sections, last = option.split(".")
    for section in sections:
        place = place[int(section)] if isinstance(place, list) else place.setdefault(section, {})  # type: ignore
    place[last] = value  # type: ignore[index]
    return values


def refusal(call, *arguments) -> str:
    with pytest.raises(SecurityError) as caught:
        call(*arguments)
    assert {problem.code for problem in caught.value.problems} == {"security/secret"}
    assert caught.value.exit_code == 7
    return str(caught.value)


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_refused_by_its_options_name(tmp_path, name):
    option, value = SECRETS[name]
    secret = max(re.split(r"[\s/]", value), key=len)
    file = tinyruns.write_recipe(tmp_path / "recipe.yaml", recipe(option, value))
    plain = tinyruns.write_recipe(tmp_path / "plain.yaml", recipe("output", "run"))
    for said in (
        refusal(config.load, file),
        refusal(config.resolve, recipe(option, value)),
        refusal(config.load, plain, [f"{option}={value}"]),
        refusal(config.load, plain, [f"{option}='{value}'", "nonsense"]),
    ):
        assert option in said
        assert secret not in said
        assert value not in said


@pytest.mark.parametrize("name", HARMLESS)
def test_what_only_sounds_like_one_is_none(name):
    option, value = HARMLESS[name]
    for values, overrides in ((recipe(option, value), []), (recipe("output", "run"), [f"{option}={value}"])):
        try:
            config.resolve(values, overrides)
        except SecurityError as error:
            pytest.fail(str(error))
        except Exception:
            pass  # Not every one of these options exists.


def test_a_secret_for_a_key_is_not_shown_either():
    said = refusal(config.resolve, {**recipe("output", "run"), "hf_QmVhciBpbiBtaW5kIHRoaXMgaXMgbm90": 1})
    assert "QmVh" not in said
    said = refusal(config.resolve, recipe("output", "run"), ["hf_QmVhciBpbiBtaW5kIHRoaXMgaXMgbm90=1"])
    assert "QmVh" not in said


@pytest.mark.parametrize(
    "line",
    [
        "api_key: [tiger-lily-and-more",
        "path: 'hf_QmVhciBpbiBtaW5kIHRoaXMgaXMgbm90",
        "{password: !x tiger-lily-and-more",
    ],
)
def test_a_line_that_cannot_be_read_is_shown_without_it(tmp_path, line):
    (tmp_path / "recipe.yaml").write_text(f"output: run\n{line}\n")
    outcome = tinyruns.tutelage("check", tmp_path / "recipe.yaml")
    assert outcome.code in (2, 7)
    assert "QmVh" not in outcome.err
    assert "tiger" not in outcome.err


CANARIES = {
    "WANDB_API_KEY": "c0ffee01" * 5,
    "HF_TOKEN": "hf_CanaryCanaryCanaryCanaryCanary02",
    "HUGGING_FACE_HUB_TOKEN": "hf_CanaryCanaryCanaryCanaryCanary03",
    "AWS_ACCESS_KEY_ID": "AKIACANARYCANARY0004",
    "AWS_SECRET_ACCESS_KEY": "canary05/canary05+canary05canary05canary",
    "AWS_SESSION_TOKEN": "canary06canary06canary06canary06",
    "OPENAI_API_KEY": "sk-canary07canary07canary07canary07",
    "ANTHROPIC_API_KEY": "sk-ant-canary08canary08canary08",
    "GITHUB_TOKEN": "ghp_canary09canary09canary09canary09cana",
    "MLFLOW_TRACKING_PASSWORD": "canary10-canary10",
    "HTTPS_PROXY": "http://user:canary11canary11@127.0.0.1:9",
}
NETRC = "canary12canary12"

CRASH = """
from tutelage.cli import main
from tutelage.objectives import nll

def fail(*arguments, **options):
    raise RuntimeError("broken")

nll.nll = fail
main()
"""
"""The command with a fault in the middle of training."""


def everywhere(folder: Path, *outcomes: tinyruns.Outcome) -> bytes:
    """Each byte that was written below the folder or printed, and the name of each file."""
    parts = [content for content in tinyruns.tree(folder).values()]
    parts += [str(path).encode() for path in folder.rglob("*")]
    parts += [(outcome.out + outcome.err).encode() for outcome in outcomes]
    return b"\n".join(parts)


def test_no_secret_of_the_environment_is_in_any_output(tmp_path, tiny_model):
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    (home / ".netrc").write_text(f"machine huggingface.co login me password {NETRC}\n")
    environment = {**CANARIES, "HOME": str(home), "TUTELAGE_CACHE": str(work / "cache")}
    rows = tinyruns.write_rows(work / "rows.jsonl", tinyruns.demonstrations(12))
    values = tinyruns.recipe(tiny_model("llama"), rows, work / "run", train={"steps": 2}, evaluate={"points": 0})
    good = tinyruns.write_recipe(work / "recipe.yaml", values)
    bad = tinyruns.write_recipe(work / "bad.yaml", {**values, "output": str(work / "crashed")})

    trained = tinyruns.process("train", good, folder=work, **environment)
    assert trained.code == 0, trained.err
    done = subprocess.run(
        [sys.executable, "-c", CRASH, "train", str(bad)],
        cwd=work,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    crashed = tinyruns.Outcome(done.returncode, done.stdout, done.stderr)
    assert "broken" in crashed.err
    override = f"tracker.api_key={CANARIES['WANDB_API_KEY']}"
    refused = tinyruns.process("check", good, override, folder=work, **environment)
    assert refused.code == 7
    hub = ("model.path=owner/private", f"output={work / 'other'}")
    asked = tinyruns.process("check", good, *hub, folder=work, **environment, HF_HUB_OFFLINE="0")
    assert asked.code == 4, asked.err
    report = tinyruns.process("report", work / "run", folder=work, **environment)
    assert report.code == 0, report.err

    written = everywhere(work, trained, crashed, refused, asked, report)
    assert {name for name, secret in {**CANARIES, "netrc": NETRC}.items() if secret.encode() in written} == set()
    assert json.loads((work / "run" / "result.json").read_text())["status"] == "done"
    assert (work / "crashed").is_dir()
