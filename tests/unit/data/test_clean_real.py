"""The oddities that were counted in real data sets, found again; counts only, no row is copied."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tutelage.data.clean import RULES, Cleaner
from tutelage.data.formats import detect, expand, parse, sample
from tutelage.data.sources import read
from tutelage.recipe import CleanOptions, Format, Join, Source
from tutelage.types import Conversation, Demonstration, Record


def rows(path: Path, format: Format | None = None) -> list[Demonstration]:
    records = [record for record in read(Source(path=str(path))) if isinstance(record, Record)]
    named = format or detect(sample(records), source=str(path))
    return [parse(record, named) for record in chain.from_iterable(expand(record, named) for record in records)]


def count(rows: list[Demonstration], **options: Any) -> Counter[tuple[str, str]]:
    """How many rows each rule finds, by what it does."""
    clean = Cleaner(CleanOptions(**options))
    return Counter(chain.from_iterable({(f.rule, f.action) for f in clean(row).findings} for row in rows))


@pytest.fixture(scope="module")
def alpaca(shared_data: Path) -> list[Demonstration]:
    return rows(shared_data / "sft" / "alpaca_cleaned_51924.jsonl.gz")


def test_alpaca(alpaca: list[Demonstration]) -> None:
    counts = count(alpaca, **dict.fromkeys(CleanOptions.model_fields, "keep"))
    assert counts["control_characters", "kept"] == 2
    assert counts["line_endings", "kept"] == 7
    # Seven with a mark of direction, which is a rule of its own.
    assert (counts["zero_width", "kept"], counts["bidi_controls", "kept"]) == (6, 1)
    # 92 rows hold the bare words; what is left out here speaks of no input in a sentence, without brackets.
    assert counts["placeholders", "kept"] == 91
    # 147 with any mention of "language model", "as an AI" or "I cannot"; these are the ones that decline.
    assert counts["refusals", "kept"] == 51
    # The 56 that equal their input, and 3 that begin with the whole prompt.
    assert counts["prompt_copied", "kept"] == 59
    same = [row for row in alpaca if isinstance(row, Conversation) and row.instruction and _copies_input(row)]
    assert len(same) == 56
    for rule in ("mojibake", "secrets", "same_role_turns", "role_order", "empty_turns", "other_script"):
        assert counts[rule, "kept"] == 0


def _copies_input(row: Conversation) -> bool:
    assert row.instruction
    return row.messages[-1].content.strip() == row.instruction.input.strip()


def test_alpaca_cleaned_by_default(alpaca: list[Demonstration]) -> None:
    clean = Cleaner(CleanOptions())
    done = [clean(row) for row in alpaca]
    assert sum(one.row is None for one in done) == 33  # answers that are nothing but a placeholder
    changed = sum(one.row is not None and one.row is not row for one, row in zip(done, alpaca, strict=True))
    assert changed == 41  # 7 + 2 + 6 as above, and 26 inputs
    assert all(one.findings for one, row in zip(done, alpaca, strict=True) if one.row is not row)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("sft/llamafactory_alpaca_en_demo.jsonl.gz", {"refusals": 29}),
        ("sft/dolly_6400_no_context.jsonl.gz", {"refusals": 4, "truncated_answers": 750}),
        ("sft/llamafactory_c4_demo_text.jsonl.gz", {"replacement_character": 4, "zero_width": 3}),
        ("sft/llamafactory_identity.jsonl", {"template_variables": 85}),
        # 46 rows with {{name}}, and 4 with {{author}} alone.
        ("chat/llamafactory_v1_sft_demo.jsonl.gz", {"template_variables": 50}),
        # All 283 say that they are a language model; 24 of them to decline.
        ("chat/fastchat_dummy_conversation.jsonl.gz", {"refusals": 24}),
        ("tools/llamafactory_glaive_toolcall_en_demo.jsonl.gz", {"refusals": 42}),
        ("preference/llamafactory_dpo_en_demo.jsonl.gz", {"mojibake": 1, "control_characters": 2, "zero_width": 1}),
    ],
)
def test_other_sets(shared_data: Path, path: str, wanted: dict[str, int]) -> None:
    format: Format | None = "preference" if path.startswith("preference") else None
    counts = count(rows(shared_data / path, format), **dict.fromkeys(CleanOptions.model_fields, "keep"))
    assert {rule: counts[rule, "kept"] for rule in wanted} == wanted


def test_natural_instructions(shared_data: Path) -> None:
    folder = shared_data / "sft"
    join = Join(path=str(folder / "natural_instructions_v1_tasks.jsonl.gz"), on="task")
    source = Source(path=str(folder / "natural_instructions_v1_instances.jsonl.gz"), join=join)
    records = [record for record in read(source) if isinstance(record, Record)]
    parts = chain.from_iterable(expand(record, "natural-instructions") for record in records)
    assert count([parse(part, "natural-instructions") for part in parts])["mojibake", "kept"] == 6


def test_all_repairs_of_real_rows_end(shared_data: Path) -> None:
    repairs = {rule.name: "repair" for rule in RULES if "repair" in rule.actions and rule.name != "mojibake"}
    clean = Cleaner(CleanOptions(**repairs))
    for path in ("chat/oasst_en_100_tree.jsonl.gz", "tools/llamafactory_glaive_toolcall_zh_demo.jsonl.gz"):
        for row in rows(shared_data / path):
            once = clean(row).row
            assert once is not None
            assert clean(once).row is once
