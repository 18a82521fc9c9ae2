"""The page is one harmless file: everything escaped, nothing loaded, small, and complete."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from madeup import HOSTILE, RECIPE, SENTENCE, make_run, result, write_json, write_lines

from tutelage.errors import MachineError, RecipeError
from tutelage.report import page
from tutelage.report.page import write
from tutelage.report.text import visible

TAGS = """
    html head meta title style body header main footer nav section article div p h1 h2 h3 h4 a ul li dl dt dd span
    small strong b em mark code pre figure figcaption table caption thead tbody tr th td details summary wbr
    svg line circle polyline polygon rect text progress
"""
DATA = re.compile('<script type="application/json" id="chart-data">(.*?)</script>', re.DOTALL)
VOID = {"meta", "wbr", "line", "circle", "polyline", "polygon"}


class Outline(HTMLParser):
    """Tags in order, attributes, text; raises when a tag is closed that is not open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes something else"
        if tag in {"th", "td", "li", "p", "div", "small"}:
            self.text.append(" ")

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def words(self) -> str:
        return " ".join("".join(self.text).split())


def outline(folder: Path) -> Outline:
    return Outline(without_scripts(write(folder).read_text(encoding="utf-8")))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "orders")


def without_scripts(html: str) -> str:
    """The page of a run without its two scripts: data that begin nothing, and the program, which is always the same."""
    data = DATA.findall(html)
    assert len(data) == 1
    assert data[0].isascii()
    assert not set("<>&") & set(data[0])
    json.loads(data[0])
    own = f"<script>{page._script()}</script>"
    assert html.count(own) == 1
    return DATA.sub("", html).replace(own, "")


def check_harmless(html: str) -> Outline:
    """No unseen character; only known tags, all closed; no handler, no address outside the page, no other script."""
    assert visible(html) == html
    seen = Outline(without_scripts(html) if DATA.search(html) else html)
    assert set(seen.tags) <= set(TAGS.split())
    assert seen.open == []
    for name, value in seen.attributes:
        assert not name.startswith("on")
        assert name not in {"src", "srcset", "action", "background", "xlink:href"}
        assert name != "href" or re.fullmatch("#[a-z]+", value)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    return seen


def test_the_page_of_a_run(run: Path) -> None:
    path = write(run)
    assert path == run / "report.html"
    html = path.read_text(encoding="utf-8")
    words = check_harmless(html).words()
    assert SENTENCE in words
    assert "0.120 → 0.840" in words
    assert "difference +0.720 95 % interval +0.610 to +0.820" in words
    assert "1,000 rows in = 940 trained + 50 held out + 7 over-long + 3 empty answer." in words
    assert "train.learning_rate 2e-4 command line" in words
    assert "No finite loss at step 7." in words
    assert (
        words.index(SENTENCE)
        < words.index("Answers before")
        < words.index("Curves Point")
        < words.index("Recipe, machine")
    )


def test_the_page_forbids_itself_any_request(run: Path) -> None:
    html = write(run).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(page._script().encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in html
    assert html.index("Content-Security-Policy") < html.index("<style>")


def test_hostile_text_is_shown_and_does_nothing(run: Path) -> None:
    html = write(run).read_text(encoding="utf-8")
    words = check_harmless(html).words()
    assert "<script>alert('row')</script></textarea></style><img src=x onerror=alert(1)>" in words
    assert '⟨U+202E⟩txt.exe⟨U+202C⟩ ⟨U+0000⟩⟨U+001B⟩[31m ⟨U+D800⟩ &amp; "quoted"' in words
    assert "{{ 7 * 7 }} {% raw %}" in words
    assert "shop/<b>returns</b>.jsonl:4" in words


@given(
    hostile=st.text(st.characters(), max_size=80)
    | st.sampled_from([HOSTILE, "]]>", "-->", "<!--", "\\", "&lt;", "' \""])
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_anywhere_is_harmless(run: Path, hostile: str) -> None:
    origin = {"file": hostile, "line": hostile}
    answer = {"origin": origin, "answer": hostile, "reference": "a " + hostile, "model": "tuned", "step": 3}
    write_lines(run / "samples.jsonl", [{**answer, "messages": [{"role": hostile, "content": hostile}]}])
    write_lines(run / "rows.jsonl", [{"origin": origin, "split": hostile, "tokens": [[hostile, 1.0], [hostile, 0]]}])
    finished = result(30)
    finished["heldout"]["sentence"] = hostile
    finished["tasks"] = {hostile: {"metric": hostile, "fields": {hostile: {"base": None}}, "n": hostile}}
    write_json(run / "result.json", finished)
    write_json(run / "environment.json", {hostile: hostile, "tutelage": hostile})
    write_json(run / "origins.json", {hostile: hostile})
    write_json(
        run / "data.json",
        {
            "ledger": {"rows": 1, "dropped": {hostile: 1}, "notices": [hostile], "origins": {hostile: [origin]}},
            "sources": [{"path": hostile, "format": hostile, "sha256": hostile}],
            "template": {"name": hostile, "sha256": hostile},
            "stop_tokens": [{"id": hostile, "text": hostile}],
        },
    )
    check_harmless(write(run).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("verdict", "kind", "sign"), [("better", "better", "▲"), ("worse", "worse", "▼"), ("no difference", "same", "≈")]
)
def test_the_verdict_is_told_by_sign_as_well_as_colour(run: Path, verdict: str, kind: str, sign: str) -> None:
    finished = result(30)
    finished["heldout"] |= {"verdict": verdict, "sentence": "What came of it."}
    write_json(run / "result.json", finished)
    seen = outline(run)
    assert ("class", f"verdict {kind}") in seen.attributes
    assert f"{sign} {verdict.capitalize()} What came of it." in seen.words()


def test_a_run_in_progress_says_so(tmp_path: Path) -> None:
    words = outline(make_run(tmp_path / "run", finished=False)).words()
    assert "This run has not finished: step 30 of 30." in words
    assert "Not generated yet." in words


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    words = check_harmless(write(tmp_path).read_text(encoding="utf-8")).words()
    assert "This run has not finished: step 0." in words
    assert "Loss: nothing measured yet." in words


def test_a_result_without_a_verdict_says_its_status(run: Path) -> None:
    write_json(run / "result.json", {"status": "stopped", "steps": 12, "tasks": {}})
    assert "This run has no verdict. Its status is: stopped." in outline(run).words()


def test_numbers_that_are_missing_or_not_finite_are_dashes(run: Path) -> None:
    finished = result(30)
    finished["heldout"] |= {"tuned_nll": float("nan"), "difference": None, "interval": None}
    finished["seconds"] = float("inf")
    write_json(run / "result.json", finished)
    words = outline(run).words()
    assert "2.312 → –" in words
    assert "nan" not in words.split()


def test_counts_that_do_not_add_up_are_pointed_out(run: Path) -> None:
    assert "do not add up" not in outline(run).words()
    write_json(run / "data.json", {"ledger": {"rows": 10, "trained": 5, "heldout": 1, "dropped": {"x": 1}}})
    assert "The counts do not add up: 3 rows are not accounted for." in outline(run).words()


def test_what_is_left_out_is_counted(run: Path) -> None:
    words = outline(run).words()
    assert "51,008 more characters" in words
    assert "14,000 more characters" in words
    assert "1,260 more tokens, not trained" in words


def test_tokens_carry_their_weight(run: Path) -> None:
    html = write(run).read_text(encoding="utf-8")
    assert '<b title="weight 1">·mug</b>' in html
    assert '<b title="weight 0.5" style="--w:0.5">alert</b>' in html
    assert '<span title="weight 0">assistant</span>' in html
    assert '<b title="weight 1">∅</b>' in html


def test_the_worst_run_stays_small(run: Path) -> None:
    nasty = '"\u202e' * 5000
    origin = {"file": nasty, "line": 1}
    sample = {"answer": "a" + nasty.replace('"', '" '), "reference": nasty.replace('"', '" '), "step": 0}
    write_lines(
        run / "samples.jsonl",
        (
            {
                **sample,
                "origin": {"file": "f", "line": i},
                "model": model,
                "messages": [{"role": nasty, "content": nasty}] * 5,
            }
            for i in range(15)
            for model in ("base", "tuned")
        ),
    )
    write_lines(run / "rows.jsonl", ({"origin": origin, "tokens": [['"', 0.37]] * 5000} for _ in range(20)))
    write_json(run / "data.json", {"ledger": {"rows": 1, "dropped": {"long": 1}, "origins": {"long": [origin] * 5000}}})
    assert write(run).stat().st_size < 2_000_000


def test_a_hundred_thousand_steps_stay_small(tmp_path: Path) -> None:
    assert write(make_run(tmp_path / "long", steps=100_000)).stat().st_size < 600_000


def test_headings_come_in_order_and_once(run: Path) -> None:
    levels = [int(tag[1]) for tag in outline(run).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_chart_is_named_for_those_who_cannot_see_it(run: Path) -> None:
    html = write(run).read_text(encoding="utf-8")
    assert html.count("<svg") == len(re.findall('role="img" aria-label="[^"]+', html))
    assert html.count("<th ") == html.count("<th scope=")


def test_writing_again_gives_the_same_bytes_and_leaves_nothing_else(run: Path) -> None:
    before = {path.name for path in run.iterdir()}
    first = write(run).read_bytes()
    assert write(run).read_bytes() == first
    assert {path.name for path in run.iterdir()} == before | {"report.html"}


def test_a_failed_write_keeps_the_old_page(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write(run).read_bytes()
    before = {path.name for path in run.iterdir()}

    def refuse(source: object, target: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(MachineError) as refused:
        write(run)
    assert refused.value.code == "machine/read-only"
    monkeypatch.undo()
    assert (run / "report.html").read_bytes() == first
    assert {path.name for path in run.iterdir()} == before


def test_a_full_disk_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(MachineError) as refused:
        write(run)
    assert refused.value.code == "machine/disk-full"
    assert not [path for path in run.iterdir() if path.name.startswith(".report")]


def test_a_folder_that_is_not_a_run_gets_no_page(tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        write(tmp_path)
    assert os.listdir(tmp_path) == []
