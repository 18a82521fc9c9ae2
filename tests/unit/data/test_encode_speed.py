"""What makes encoding fast changes nothing: skeletons, and encoding while the next rows are rendered."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_encoder, make_template_tokenizer, template_source
from templates.published import FACTS, published_tokenizer
from tutelage.data import formats
from tutelage.data.dataset import prepare
from tutelage.data.encode import Encoder
from tutelage.data.encode.render import Renderer
from tutelage.data.encode.skeleton import Unsteady
from tutelage.models.location import locate
from tutelage.models.tokenizer import load_tokenizer
from tutelage.recipe import DataOptions
from tutelage.types import Conversation, Message, Origin, Record

HONEST = [name for name, facts in FACTS.items() if not facts.refused]
WITHOUT_SKELETON = {"deepseek_r1", "smollm3"}
"""The first writes a finished turn otherwise than its generation prompt begins one, the second writes the date."""
TEXTS = [
    "a",
    "Hi there",
    " x ",
    "",
    "\n",
    "<|im_end|>",
    "</think>",
    "<think>\nx\n</think>\n\ny",
    "é 😀",
    "</s>",
    "### X:",
]
TALKS = st.lists(st.sampled_from(TEXTS) | st.text(max_size=8), min_size=1, max_size=5)


def talk(contents: list[str], *, system: bool = False, weight: float = 1.0) -> Conversation:
    roles = (["system"] if system else []) + ["user", "assistant"] * 3
    messages = [Message(role, text) for role, text in zip(roles, contents, strict=False)]
    if messages[-1].role != "assistant":
        messages.append(Message("assistant", "z"))
    return Conversation(Origin("made", 1), tuple(messages), weight)


def slow(renderer: Renderer, row: Conversation) -> object:
    try:
        return renderer._rendered(row)
    except Exception as error:
        return str(error)


def quick(renderer: Renderer, row: Conversation) -> object:
    try:
        return renderer.turns(row)
    except Exception as error:
        return str(error)


@pytest.fixture(scope="module")
def renderers(tmp_path_factory):
    made = {}

    def make(name: str) -> Renderer:
        if name not in made:
            made[name] = make_encoder(published_tokenizer(tmp_path_factory.mktemp(name), name))._renderer
        return made[name]

    return make


@settings(deadline=None, max_examples=300)
@given(name=st.sampled_from(HONEST), contents=TALKS, system=st.booleans(), weight=st.sampled_from([1.0, 0.5]))
def test_a_skeleton_gives_the_turns_that_the_template_gives(name, contents, system, weight, renderers):
    renderer, row = renderers(name), talk(contents, system=system, weight=weight)
    for _ in range(2):
        assert quick(renderer, row) == slow(renderer, row)


@pytest.mark.parametrize("name", HONEST)
def test_which_templates_have_skeletons(name, renderers):
    renderer = renderers(name)
    renderer.turns(talk(["Hi", "Hello"]))
    shape = (("user", False), ("assistant", True))
    assert (renderer._skeletons.get(shape) is None) == (name in WITHOUT_SKELETON)


@pytest.mark.parametrize(
    ("test", "contents"),
    [
        ("'x' in m.content", ["xx", "y"]),
        ("m.content.startswith('x')", ["xx", "y"]),
        ("m.content | length > 3", ["abcd", "a"]),
        ("m.content == 'x'", ["x", "y"]),
        ("m.content", ["", "y"]),
        ("m.content.split('x') | length > 1", ["axb", "y"]),
        ("m.content | upper == 'X'", ["x", "y"]),
        ("('<' + m.content) | length > 3", ["abcd", "a"]),
        ("m.content[0] == 'x'", ["x", "y"]),
        ("m.content is in ['x']", ["x", "y"]),
        ("m.content < 'm'", ["a", "z"]),
        ("m.content.isdigit()", ["1", "z"]),
        ("m.content | int > 3", ["5", "1"]),
        ("(m | tojson)[30] == 'x'", ["x" * 30, "y" * 30]),
        ("m.content is string and m.content.count('x')", ["x", "y"]),
        ("(m.content ~ '!') | length > 3", ["abcd", "a"]),
        ("('%s' % m.content) | length > 3", ["abcd", "a"]),
        ("([m.content] | join) | length > 3", ["abcd", "a"]),
        ("(m.content | safe) | length > 3", ["abcd", "a"]),
        ("'{}'.format(m.content) == 'x'", ["x", "y"]),
        ("messages[0].content == messages[-1].content", ["a", "b"]),
    ],
)
def test_a_template_that_looks_at_contents_is_not_taken_for_one_that_does_not(test, contents, tmp_path):
    source = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role }}{% if " + test + " %}{{ '!' }}{% endif %}"
        "{{ '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    renderer = make_encoder(make_template_tokenizer(tmp_path, "chatml", template=source))._renderer
    for _ in range(3):
        for content in contents:
            row = talk([content, "so"])
            assert quick(renderer, row) == slow(renderer, row)


@pytest.mark.parametrize(
    "source",
    [
        "{% set x %}{{ m.content }}{% endset %}{% if x | length > 3 %}!{% endif %}",
        "{% macro f(t) %}{{ t }}{% endmacro %}{% if f(m.content) | length > 3 %}!{% endif %}",
        "{% filter upper %}{{ m.content }}{% endfilter %}",
        "{% set x = m.content ~ '' %}{{ x[:3] }}",
        "{% set ns = namespace(x='') %}{% set ns.x = ns.x + m.content %}{{ ns.x | length }}",
    ],
)
def test_text_that_jinja_joins_by_itself_is_not_lost_sight_of(source, tmp_path):
    source = "{% for m in messages %}" + source + "{{ m.content + '<|im_end|>' }}{% endfor %}"
    renderer = make_encoder(make_template_tokenizer(tmp_path, "chatml", template=source))._renderer
    for content in ["abcd", "a", "zz"]:
        row = talk([content, "so"])
        assert renderer._filled(row) is None or renderer._filled(row) == slow(renderer, row)


def test_a_skeleton_that_turns_out_wrong_is_given_up_and_so_is_what_it_rendered(tmp_path):
    renderer = make_encoder(make_template_tokenizer(tmp_path, "chatml"))._renderer
    row = talk(["Hi", "Hello"])
    right = renderer.turns(row)
    for _ in range(3):
        assert renderer.turns(row) == right
    [made] = renderer._skeletons.values()
    made._uses = 127
    made.turns = [(index, prompt, prompt) for index, prompt, _ in made.turns]
    with pytest.raises(Unsteady):
        renderer.turns(row)
    assert renderer.turns(row) == right


def test_a_store_holds_nothing_that_a_wrong_skeleton_rendered(rows, tmp_path, monkeypatch):
    """A fault that only the 128th row shows: all rows before it are encoded again."""
    values = [{"instruction": f"Ask {n}", "output": f"Yes {n}."} for n in range(200)]
    values[127]["output"] = "odd"
    path, tokenizer = rows(values), make_template_tokenizer(tmp_path, "chatml")
    given = {"train": [{"path": str(path)}], "heldout": 0}
    right = prepare(DataOptions.model_validate({**given, "store": str(tmp_path / "right")}), make_encoder(tokenizer))
    encoder = make_encoder(tokenizer)
    original = encoder._renderer._rendered

    def otherwise(row):
        turns = original(row)
        if row.messages[-1].content == "odd" and encoder._renderer._steady:
            turns[0].completion = "other" + turns[0].completion
        return turns

    monkeypatch.setattr(encoder._renderer, "_rendered", otherwise)
    data = prepare(DataOptions.model_validate({**given, "store": str(tmp_path / "store")}), encoder)
    assert not encoder._renderer._steady
    assert [e.input_ids.tolist() for e in data.examples("train")] == [
        e.input_ids.tolist() for e in right.examples("train")
    ]
    assert data.stop_ids == right.stop_ids


def rendered_alone(encoder: Encoder) -> Encoder:
    """The encoder without what makes it fast."""
    encoder._renderer._steady = False
    return encoder


def same(first, second) -> bool:
    def plain(result):
        if not isinstance(result, list):
            return result
        return [(e.input_ids.tolist(), e.weights.tolist(), e.origin, e.prompt_length) for e in result]

    return plain(first) == plain(second)


@pytest.mark.parametrize("name", ["alpaca", "llama3", "qwen25_tools", "gemma", "gpt_oss"])
def test_rows_in_batches_are_the_rows_one_by_one(name, tmp_path):
    tokenizer = published_tokenizer(tmp_path, name)
    rows = [talk([f"Hi {n}", "b " * (n % 7), "c", f"d{n}"][: 2 + 2 * (n % 2)], system=False) for n in range(100)]
    alone = rendered_alone(make_encoder(tokenizer))
    expected = [result for row in rows for result in alone.encode([row], max_length=60)]
    for batch in (7, 50, 100, 512):
        encoder = make_encoder(tokenizer)
        found = list(encoder.encode(rows, max_length=60, batch=batch))
        assert all(same(one, other) for one, other in zip(found, expected, strict=True))
        assert encoder.stop_ids == alone.stop_ids
        assert encoder.notices == alone.notices


def test_an_encoder_that_is_left_early_and_an_error_in_the_rows_are_passed_on(tmp_path):
    encoder = make_encoder(make_template_tokenizer(tmp_path, "chatml"))

    def rows():
        yield from [talk(["a", "b"])] * 10
        raise OSError("gone")

    results = encoder.encode(rows(), max_length=60, batch=2)
    assert len(next(results)) == 1
    results.close()
    with pytest.raises(OSError, match="gone"):
        list(encoder.encode(rows(), max_length=60, batch=2))


@pytest.mark.model
@pytest.mark.parametrize("template", [None, "alpaca"])
def test_real_rows_are_encoded_as_without_skeletons(template, shared_data, real_model):
    tokenizer = load_tokenizer(locate(real_model))
    if template is not None:
        tokenizer.chat_template = template_source(template)
    rows = [
        *read(shared_data / "sft" / "alpaca_cleaned_51924.jsonl.gz", "alpaca", 2000),
        *read(shared_data / "chat" / "fastchat_dummy_conversation.jsonl.gz", "sharegpt", 200),
    ]
    quick, alone = make_encoder(tokenizer), rendered_alone(make_encoder(tokenizer))
    found, expected = (list(encoder.encode(rows, max_length=4096)) for encoder in (quick, alone))
    assert all(same(one, other) for one, other in zip(found, expected, strict=True))
    assert quick._renderer._skeletons
    assert quick.stop_ids == alone.stop_ids
    assert quick.notices == alone.notices


def read(path: Path, format: str, limit: int) -> list[Conversation]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        records = [Record(Origin(path.name, n), json.loads(line)) for n, line in enumerate(lines, 1) if n <= limit]
    return [formats.parse(record, format) for record in records]
