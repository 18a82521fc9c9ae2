"""A template that would run for ever or fill the memory is stopped, and an honest one is not slowed."""

from __future__ import annotations

import time
import tracemalloc

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from conftest import TEMPLATES, make_encoder, make_template_tokenizer, template_source
from tutelage.data.encode import sandbox
from tutelage.data.encode.template import ChatTemplate
from tutelage.errors import ModelError
from tutelage.types import Conversation, Message, Origin

LONG = "{% set b = 'aaaaaaaaaa' * 20000 %}"
GROW = "{%% set n = namespace(s=%s) %%}{%% for i in range(60) %%}{%% set n.s = %s %%}{%% endfor %%}{{ n.s }}"
HOSTILE = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a loop in a loop that calls itself": "{% for a in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
    "a long product": "{{ 'a' * 10**9 }}",
    "a product that is not written": "{{ ('a' * 300000000) | length }}",
    "a product of lists": "{{ ([1] * 10**9) | length }}",
    "a wide number": "{{ '%0300000000d' % 1 }}",
    "a number as wide as another": "{{ '%*d' % (300000000, 1) }}",
    "doubling": GROW % ("'a'", "n.s + n.s"),
    "doubling by ~": GROW % ("'a'", "n.s ~ n.s"),
    "doubling without a loop": "{% set x = 'abcdefgh' %}" + "{% set x = x + x %}" * 60 + "{{ x }}",
    "doubling in with": "{% with x = 'aa' %}" + "{% with x = x + x %}" * 40 + "{{ x }}" + "{% endwith %}" * 41,
    "doubling in set blocks": "{% set x %}ab{% endset %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 50 + "{{ x }}",
    "doubling lists": GROW % ("[1]", "n.s + n.s"),
    "lists in lists": GROW % ("[1]", "[n.s, n.s]"),
    "objects in objects": GROW % ("1", "dict(a=n.s, b=n.s)"),
    "namespaces in namespaces": GROW % ("1", "namespace(a=n.s, b=n.s)"),
    "squares": GROW % ("99999", "n.s * n.s"),
    "powers": "{{ 99999 ** 99999 ** 9 }}",
    "gathering": "{% set n = namespace(s='') %}{% for a in range(99999) %}{% set n.s = n.s + '"
    + "y" * 50000
    + "' %}{% endfor %}",
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "branching recursion": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "recursion that doubles": "{% macro f(x, n) %}{% if n %}{{ f([x, x], n-1) }}{% else %}{{ x }}{% endif %}"
    "{% endmacro %}{{ f(1, 60) }}",
    "center": "{{ 'x' | center(10**9) }}",
    "ljust": "{{ 'x'.ljust(1000000000) }}",
    "replace": LONG + "{{ b.replace('a', b) }}",
    "replace as a filter": LONG + "{{ b | replace('a', b) }}",
    "join": LONG + "{{ b.join(b) }}",
    "join as a filter": LONG + "{{ range(99999) | map('string') | join(b) }}",
    "tabs": "{% set b = '\t' * 200000 %}{{ b.expandtabs(99999) }}",
    "translate": LONG + "{{ b.translate({97: b}) }}",
    "format": "{{ '{:1000000000}'.format(1) }}",
    "format by a number": "{{ '{:{}}'.format(1, 1000000000) }}",
    "format as a filter": "{{ '%01000000000d' | format(1) }}",
    "lipsum": "{{ lipsum(n=99999, max=99999) }}",
    "indent": "{{ 'x\n' | indent(10**8, true) }}",
    "indented JSON": "{{ messages | tojson(indent=100000000) }}",
    "slices": "{{ [1] | slice(10**8) | list }}",
    "sums of lists": "{{ range(50000) | batch(1) | sum(start=[]) | length }}",
    "long output": LONG + "{% for a in range(99999) %}{{ b }}{% endfor %}",
    "long output of a macro": LONG + "{% macro f(b) %}{% for a in range(99999) %}{{ b ~ a }}{% endfor %}{% endmacro %}"
    "{{ f(b) | length }}",
    "long output of a block": LONG + "{% set c %}{% for a in range(99999) %}{{ b ~ a }}{% endfor %}{% endset %}",
    "much output of a macro": LONG + "{% macro f(b) %}" + "{{ b + '1' }}" * 2000 + "{% endmacro %}{{ f(b) | length }}",
    "markup": "{% set b = '<!--' * 50000 %}{{ b | striptags }}",
    "a long sum": LONG + "{{ " + "~".join(["b"] * 3000) + " }}",
    "a long chain": LONG + "{% if b" + "|upper|lower" * 4000 + " %}{% endif %}",
    "deep brackets": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "deep loops": "{% for a in b %}" * 60 + "{% endfor %}" * 60,
    "deep conditions": "{% if a %}" * 3000 + "{% endif %}" * 3000,
    "many parts": "{{ range(99999) | list | length }}" * 3000,
    "a megabyte": "x" * 1_000_000,
    "zero bytes": "a\0b",
}


def stopped(name: str) -> str:
    """The code with which a hostile template is stopped."""
    with pytest.raises(ModelError) as caught:
        ChatTemplate(HOSTILE[name], {}, name=name).render([{"role": "user", "content": "x"}], generation_prompt=True)
    return caught.value.code


@pytest.mark.parametrize("name", list(HOSTILE))
def test_waste_is_stopped_in_time(name, monkeypatch):
    assert sandbox.SECONDS == 2
    monkeypatch.setattr(sandbox, "SECONDS", 0.2)
    start = time.process_time()
    assert stopped(name) == "template/limit"
    assert time.process_time() - start < 1.8  # A tenth of it is given; the rest is for a slow machine.


@pytest.mark.parametrize("name", list(HOSTILE))
def test_waste_is_stopped_before_it_fills_the_memory(name, monkeypatch):
    monkeypatch.setattr(sandbox, "SECONDS", 0.2)
    tracemalloc.start()
    try:
        assert stopped(name) == "template/limit"
        assert tracemalloc.get_traced_memory()[1] < 256 * 2**20
    finally:
        tracemalloc.stop()


def test_what_transformers_would_compute_before_it_renders_is_computed_within_the_limits():
    # Jinja folds constants when it compiles, and transformers compiles without limits.
    for waste in ("'a' * 10**9", "'a' | center(10**9)", "'%0300000000d' % 1"):
        with pytest.raises(ModelError) as caught:
            ChatTemplate("{% if false %}{{ " + waste + " }}{% endif %}", {}, name="made")
        assert caught.value.code == "template/limit"


def test_a_process_that_is_held_up_is_not_taken_for_a_template_that_wastes_time(monkeypatch):
    made = ChatTemplate(template_source("chatml"), {}, name="made")
    clock = iter(range(0, 10**6, 60))  # A minute passes between any two looks at the clock.
    monkeypatch.setattr(sandbox, "monotonic", lambda: next(clock))
    assert made.render([{"role": "user", "content": "x"}] * 50, generation_prompt=True).count("<|im_end|>") == 50


def test_the_plain_sandbox_would_not_have_stopped_it():
    template = ImmutableSandboxedEnvironment().from_string(HOSTILE["a product that is not written"])
    assert template.render() == "300000000"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("{{ messages }}".encode("utf-16"), "template/broken"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "template/broken"),
        (b"x" * 1_000_000, "template/limit"),
        (("é" * 400_000).encode(), "template/limit"),
        (b"a\0b", "template/limit"),
        (b"{% for %}", "template/broken"),
    ],
)
def test_a_file_that_is_no_template_is_refused(data, code, tmp_path):
    path = tmp_path / "bad.jinja"
    path.write_bytes(data)
    with pytest.raises(ModelError) as caught:
        ChatTemplate.named(str(path), {})
    assert caught.value.code == code
    assert caught.value.problems[0].where.startswith("bad.jinja")


def test_a_syntax_error_names_its_line():
    with pytest.raises(ModelError) as caught:
        ChatTemplate("{{ 1 }}\n{% if %}{% endif %}", {}, name="made")
    assert caught.value.problems[0].where == "made, line 2"


def test_a_long_conversation_may_be_written_several_times():
    source = "{% set all = messages[0].content + messages[1].content %}{{ all }}{{ all | replace('a', 'b') }}"
    messages = [{"role": "user", "content": "a" * 1_000_000}, {"role": "assistant", "content": "b" * 1_000_000}]
    text = ChatTemplate(source, {}, name="made").render(messages, generation_prompt=False)
    assert len(text) == 4_000_000


def test_a_template_that_goes_past_its_limits_for_every_row_stops_the_run(tmp_path):
    source = "{% if messages[0].content == 'bad' %}{{ messages[0].content * 10**9 }}{% endif %}" + template_source(
        "chatml"
    )
    encoder = make_encoder(make_template_tokenizer(tmp_path, "chatml", template=source))
    row = Conversation(Origin("made", 1), (Message("user", "bad"), Message("assistant", "b")))
    good = Conversation(Origin("made", 2), (Message("user", "a"), Message("assistant", "b")))
    results = list(encoder.encode([row, good, row], max_length=100))
    assert [getattr(result, "code", None) for result in results] == ["template/limit", None, "template/limit"]
    with pytest.raises(ModelError) as caught:
        list(encoder.encode([good, row, row], max_length=100))
    assert caught.value.code == "template/limit"


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_the_limits_change_no_rendering(name):
    special = {"eos_token": "</s>", "bos_token": "<s>"}
    messages = [{"role": role, "content": f"{role} é "} for role in ("user", "assistant") * 20]
    limited = ChatTemplate(template_source(name), special, name=name)
    environment = limited._environment
    plain = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", *_generation(environment)]
    )
    plain.globals["raise_exception"] = environment.globals["raise_exception"]
    plain.filters["tojson"] = environment.filters["tojson"]
    for flag in (True, False):
        expected = plain.from_string(limited.source).render(messages=messages, add_generation_prompt=flag, **special)
        assert limited.render(messages, generation_prompt=flag) == expected


def _generation(environment: jinja2.Environment) -> list[type[jinja2.ext.Extension]]:
    return [type(e) for e in environment.extensions.values() if type(e).__name__ == "_Generation"]


def test_the_clock_and_chance_are_known():
    assert ChatTemplate("{{ strftime_now('%Y') }}", {}, name="made").uses_clock
    assert not ChatTemplate("{{ messages }}", {}, name="made").uses_clock
    assert ChatTemplate("{{ [1, 2] | random }}", {}, name="made").uses_chance
    assert ChatTemplate("{{ lipsum(1) }}", {}, name="made").uses_chance
    assert not ChatTemplate("{{ strftime_now('%Y') }}", {}, name="made").uses_chance


def test_a_template_that_writes_the_date_says_so_for_each_row(tmp_path):
    source = "{{ strftime_now('%Y-%m-%d') }}" + template_source("chatml")
    encoder = make_encoder(make_template_tokenizer(tmp_path, "chatml", template=source))
    row = Conversation(Origin("made", 1), (Message("user", "a"), Message("assistant", "b")))
    list(encoder.encode([row, row], max_length=100))
    [(notice, count)] = encoder.notices.items()
    assert count == 2
    assert "date" in notice
    assert time.strftime("%Y-") in notice
