"""A chat template that writes the date: a run goes on with the tokens that it was begun with, on any day."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tinyruns
from tutelage import commands
from tutelage.data.encode import clock
from tutelage.errors import StoppedError
from tutelage.suspects.search import find

TEMPLATE = """{{ strftime_now('%d %b %Y %H:%M') }}
{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`on(3)`: it is the third of January."""

    def day(number: int) -> None:
        class Day(datetime.datetime):
            @classmethod
            def now(cls, zone: Any = None) -> Any:
                return datetime.datetime(2026, 1, number, 12, number)

        monkeypatch.setattr(clock, "datetime", Day)
        monkeypatch.setattr("tutelage.lineage.datetime", Day)

    return day


def test_a_run_goes_on_with_the_date_of_its_beginning(
    workdir: Path, tiny_model: Callable[..., Path], on: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tinyruns.prove_here(monkeypatch)
    template = workdir / "dated.jinja"
    template.write_text(TEMPLATE)
    rows = tinyruns.write_rows(workdir / "rows.jsonl", tinyruns.demonstrations(12))

    def recipe(name: str) -> dict[str, Any]:
        model, store = {"template": str(template)}, workdir / f"store-{clock.now().day}"  # Nothing is found encoded.
        return tinyruns.recipe(tiny_model("llama"), rows, workdir / name, model=model, data={"store": str(store)})

    def encoded(name: str) -> str:
        return str(json.loads((workdir / name / "run.json").read_text())["begun_with"]["data"]["encoded rows"])

    on(1)
    whole = commands.train(recipe("whole"))
    with pytest.raises(StoppedError):
        commands.train(recipe("run"), until=1)
    on(2)
    result = commands.train(recipe("run"), resume=True)
    assert result["heldout"]["tuned_nll"] == whole["heldout"]["tuned_nll"]
    samples = [json.loads(line) for line in (workdir / "run" / "samples.jsonl").read_text().splitlines()]
    assert {sample["prompt"].splitlines()[0] for sample in samples} == {"01 Jan 2026 12:01"}
    assert find(workdir / "run").trained > 0, "its rows are those that it was trained on"
    assert clock.now().day == 2, "it is the day that it is for everybody else"
    commands.train(recipe("other"))
    assert encoded("other") != encoded("run") == encoded("whole")
