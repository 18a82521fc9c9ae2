"""Every row of the real files: detected, taken apart, read, and each that is refused is one known to be odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tutelage.data.formats import detect, expand, parse, parse_preference, sample
from tutelage.data.formats.trees import ranked_pairs
from tutelage.data.sources import read
from tutelage.errors import DataError
from tutelage.recipe import Format, Source
from tutelage.types import Completion, Conversation, Demonstration, Record

DETECTED: list[tuple[str, Format, int]] = [
    ("sft/alpaca_cleaned_51924.jsonl.gz", "alpaca", 51924),
    ("sft/llamafactory_alpaca_en_demo.jsonl.gz", "alpaca", 999),
    ("sft/dolly_6400_no_context.jsonl.gz", "dolly", 6400),
    ("sft/llamafactory_c4_demo_text.jsonl.gz", "text", 300),
    ("sft/llamafactory_identity.jsonl", "alpaca", 91),
    ("sft/mlx_wikisql_train.jsonl.gz", "text", 1000),
    ("sft/mlx_wikisql_valid.jsonl", "text", 100),
    ("sft/mlx_wikisql_test.jsonl", "text", 100),
    ("sft/rasbt_instruction_data.jsonl.gz", "alpaca", 1100),
    ("sft/self_instruct_seed_tasks.jsonl", "self-instruct", 175),
    ("chat/fastchat_dummy_conversation.jsonl.gz", "sharegpt", 500),
    ("chat/llamafactory_v1_sft_demo.jsonl.gz", "messages", 500),
    ("chat/oasst_en_100_tree.jsonl.gz", "oasst", 100),
    ("tools/llamafactory_glaive_toolcall_en_demo.jsonl.gz", "sharegpt", 300),
    ("tools/llamafactory_glaive_toolcall_zh_demo.jsonl.gz", "sharegpt", 300),
]


def records(path: Path, **fields: str) -> list[Record]:
    rows = list(read(Source(path=str(path), fields=fields)))
    assert all(isinstance(row, Record) for row in rows)
    return rows  # type: ignore[return-value]


def parsed(rows: list[Record], format: Format, **options: Any) -> tuple[list[Demonstration], Counter[str]]:
    good: list[Demonstration] = []
    refused: Counter[str] = Counter()
    for row in rows:
        try:
            good += [parse(part, format, **options) for part in expand(row, format)]
        except DataError as error:
            refused[error.code] += 1
    return good, refused


@pytest.mark.parametrize(("name", "format", "count"), DETECTED)
def test_every_row_is_read(name: str, format: Format, count: int, shared_data: Path) -> None:
    rows = records(shared_data / name)
    marker = "\nA:" if "wikisql" in name else None
    assert detect(sample(rows), source=name) == format
    good, refused = parsed(rows, format, completion_after=marker)
    assert (len(good), refused) == (count, {})
    conversations = [row for row in good if isinstance(row, Conversation)]
    if marker:
        assert all(isinstance(row, Completion) and row.prompt.endswith("\nA:") for row in good)
    if format in ("alpaca", "dolly", "self-instruct"):
        assert all(row.instruction is not None for row in conversations)
    if "v1_sft" in name:
        weights = {message.role: message.weight for row in conversations for message in row.messages}
        assert weights == {"user": 0.0, "assistant": 1.0}


@pytest.mark.parametrize(("language", "calls", "answers", "bare"), [("en", 211, 211, 109), ("zh", 216, 218, 100)])
def test_tool_calls(language: str, calls: int, answers: int, bare: int, shared_data: Path) -> None:
    """Every call names a declared tool, or its row would be refused."""
    good, _ = parsed(records(shared_data / f"tools/llamafactory_glaive_toolcall_{language}_demo.jsonl.gz"), "sharegpt")
    rows = [row for row in good if isinstance(row, Conversation)]
    messages = [message for row in rows for message in row.messages]
    assert sum(len(message.tool_calls) for message in messages) == calls
    assert sum(message.role == "tool" for message in messages) == answers
    assert sum(not row.tools for row in rows) == bare
    assert all(tool["type"] == "function" and "name" in tool["function"] for row in rows for tool in row.tools)


def test_trees(shared_data: Path) -> None:
    rows = records(shared_data / "chat/oasst_en_100_tree.jsonl.gz")
    nodes = [node for row in rows for node in walk(row.fields["prompt"])]
    assert len(nodes) == 1167
    assert sum(len(node["replies"]) > 1 for node in nodes) == 260
    ranked = [[reply for reply in node["replies"] if reply.get("rank") is not None] for node in nodes]
    pairs = [pair for row in rows for pair in ranked_pairs(row)]
    assert sum(pair.weight for pair in pairs) == pytest.approx(sum(len(replies) > 1 for replies in ranked)) == 212
    assert len(pairs) == sum(len(replies) * (len(replies) - 1) // 2 for replies in ranked) == 754
    for row in rows:
        conversation = parse(row, "oasst")
        assert isinstance(conversation, Conversation)
        answered = [message.role for message in conversation.messages]
        assert answered == ["user", "assistant"] * (len(answered) // 2)
        first = min(row.fields["prompt"]["replies"], key=lambda reply: reply.get("rank", 99))
        assert conversation.messages[1].content == first["text"]


def walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for reply in node["replies"]:
        yield from walk(reply)


@pytest.mark.parametrize(
    ("name", "count", "refused"),
    [
        ("llamafactory_dpo_en_demo", 300, {}),
        ("rasbt_preference", 1094, {"data/bad-row": 6}),
        ("llamafactory_kto_en_demo", 150, {"data/not-chosen": 150}),
        ("taskmaster4_reward_00", 401, {"data/not-chosen": 99}),
    ],
)
def test_preferences(name: str, count: int, refused: dict[str, int], shared_data: Path) -> None:
    rows = records(shared_data / f"preference/{name}.jsonl.gz")
    with pytest.raises(DataError, match="the rows hold preferences"):
        detect(sample(rows), source=name)
    good, left = parsed(rows, "preference")
    assert (len(good), left) == (count, refused)
    for row in good:
        assert isinstance(row, Conversation)
        assert [message.trained for message in row.messages] == [0] * (len(row.messages) - 1) + [1]
    if "chosen" not in rows[0].fields:
        return
    for row, record in zip(good, [record for record in rows if is_pair(record)], strict=True):
        assert isinstance(row, Conversation)
        assert row.messages[-1] == parse_preference(record).chosen[-1]


def is_pair(record: Record) -> bool:
    return bool(record.fields["chosen"] != record.fields["rejected"])


def test_natural_instructions(shared_data: Path) -> None:
    """With the definitions that `join` brings; the answers after the first are references."""
    tasks = records(shared_data / "sft/natural_instructions_v1_tasks.jsonl.gz")
    definitions = {task.fields["task"]: task.fields["Definition"] for task in tasks}
    instances = records(shared_data / "sft/natural_instructions_v1_instances.jsonl.gz")
    rows = [Record(r.origin, {**r.fields, "Definition": definitions[r.fields["task"]]}) for r in instances]
    assert detect(sample(rows), source="joined") == "natural-instructions"
    good, refused = parsed(rows, "natural-instructions")
    assert (len(good), refused) == (13657, {})
    assert len(definitions) == 39
    for row, record in zip(good, rows, strict=True):
        assert isinstance(row, Conversation)
        assert [row.messages[-1].content, *row.references] == [said for said in record.fields["output"] if said.strip()]
    with pytest.raises(DataError, match=r"natural-instructions: Definition, input, output"):
        detect(sample(instances), source="instances")


def test_seed_tasks_with_several_instances(shared_data: Path) -> None:
    good, refused = parsed(records(shared_data / "eval/self_instruct_user_oriented.jsonl"), "self-instruct")
    assert (len(good), refused) == (252, {})


def test_functions_of_the_standard_library(shared_data: Path) -> None:
    rows = records(shared_data / "sft/python_stdlib_functions.jsonl.gz", content="code")
    with pytest.raises(DataError, match="only if named"):
        detect(sample(rows), source="functions")
    good, refused = parsed(rows, "code-functions")
    assert (len(good), refused) == (1247, {})
    for row, record in zip(good, rows, strict=True):
        assert isinstance(row, Completion)
        assert row.prompt + row.completion == record.fields["content"]


def test_questions_with_answers_under_other_names(shared_data: Path) -> None:
    rows = records(shared_data / "sft/gsm8k_train.jsonl.gz", prompt="question", completion="answer")
    assert detect(sample(rows), source="gsm8k") == "prompt-completion"
    good, refused = parsed(rows, "prompt-completion")
    assert (len(good), refused) == (7473, {})
