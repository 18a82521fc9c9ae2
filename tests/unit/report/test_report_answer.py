"""The answer and its reasons on the page: each part where the run has it, nothing where it has not; all harmless."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from madeup import HOSTILE, make_run, write_json
from madeupanswer import add_answer
from test_report_page import DATA, check_harmless

from tutelage.report.collect import collect
from tutelage.report.page import policy, render, write

PARTS = ("verdict", "tasks", "health", "drift", "memorising", "knowledge", "best", "frontier")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return add_answer(make_run(tmp_path / "orders"))


def words(folder: Path, *others: Path, live: bool = False) -> str:
    return check_harmless(render(collect(folder), [collect(one) for one in others], live)).words()


def charts(html: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DATA.findall(html)[0])
    return found


def change(folder: Path, **parts: Any) -> Path:
    result = json.loads((folder / "result.json").read_text())
    write_json(folder / "result.json", {**result, **parts})
    return folder


def frontier_of(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "result.json").read_text())["frontier"]
    return found


def test_the_reasons_are_told_in_order(run: Path) -> None:
    told = words(run)
    order = [
        "▲ Better The tuned model is better: held-out loss 2.312 → 1.902 nats per token (−0.410; 50 examples",
        "26% of the tuned model's answers do not stop by themselves",
        "Answers before and after",
        "Before the base model Sure! Here is the order:",
        "✗ incorrect ⚠ ran into the limit",
        "Measured before and after",
        "50 examples, 4,000 tokens; 0.612 → 0.503 bits per byte",
        "gsm8k same number n = 200",
        "▼ worse",
        "ran into the limit 78 % 26 % ▲ better",
        "By source shop/orders.jsonl 40 3,200 2.400 1.900 −0.500",
        "gsm8k: lost on 1 row",
        "24 exported 1.880 3.158 0.0572",
        "3 1.650 1.840 +0.190",
        "loss after a few examples, nats per token 2.9",
        "shop/orders.jsonl:8 Meissen, 1744",
        "shop/orders.jsonl:4 Two blue mugs, please. Row 0. One tea towel.",
        "mislabelled its loss stays high at each pass 6.20 → 5.90 → 5.80",
        "4 more in suspects.jsonl",
        "Where every row went",
    ]
    places = [told.find(one) for one in order]
    assert -1 not in places, [one for one, place in zip(order, places, strict=True) if place < 0]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("word", "kind", "sign"),
    [("memorising", "care", "⚠"), ("mixed", "same", "≠"), ("worse", "worse", "▼"), ("not measured", "open", "–")],
)
def test_the_verdict_of_the_whole_comes_before_that_of_the_loss(run: Path, word: str, kind: str, sign: str) -> None:
    change(run, verdict={"word": word, "sentence": "So it is (−0.1). And this is why."})
    html = render(collect(run))
    assert f'class="verdict {kind}"' in html
    assert '<p class="more-said">And this is why.</p>' in html
    assert f"{sign} {word.capitalize()} So it is (−0.1). And this is why." in check_harmless(html).words()


def test_remarks_of_the_verdict_are_told(run: Path) -> None:
    change(run, verdict={"word": "better", "sentence": "Better.", "remarks": ["7% of the answers are empty."]})
    top = words(run).split("Answers before and after")[0]
    assert "7% of the answers are empty." in top


def test_a_failed_run_says_why(run: Path) -> None:
    write_json(run / "result.json", {"status": "failed", "steps": 12, "error": "the disk is full"})
    assert "✗ The run failed: the disk is full" in words(run)


@pytest.mark.parametrize("missing", [*PARTS, "all of them", "none, but each empty"])
def test_any_part_may_be_absent_or_empty(run: Path, missing: str) -> None:
    result = json.loads((run / "result.json").read_text())
    if missing in PARTS:
        result[missing] = None
    else:
        result |= dict.fromkeys(PARTS, None if missing == "all of them" else {})
        result["heldout"] = None if missing == "all of them" else {}
    write_json(run / "result.json", result)
    assert "Where every row went" in words(run)


@pytest.mark.parametrize("odd", [[], 7, "text", {"verdict": 3, "base": 1, "tuned": []}, [1, None, {"step": "x"}]])
def test_no_odd_shape_stops_the_page(run: Path, odd: Any) -> None:
    change(run, **dict.fromkeys(PARTS, odd))
    assert "Where every row went" in words(run)
    change(run, heldout={"breakdown": odd, "interval": odd, "per_byte": odd, "renderings": odd}, tasks={"t": odd})
    assert "Where every row went" in words(run)


def test_hostile_text_in_every_part_is_text(tmp_path: Path) -> None:
    run = add_answer(make_run(tmp_path / "orders"), say=HOSTILE)
    other = make_run(tmp_path / "<script><!-- \u202e")
    html = render(collect(run), [collect(other)])
    told = check_harmless(html).words()
    assert told.count("<script>alert('row')</script>") > 40
    assert "⟨U+202E⟩txt.exe" in told
    assert charts(html)["runs"] == ["orders", "<script><!-- ⟨U+202E⟩"]


@given(
    hostile=st.text(st.characters(), max_size=60) | st.sampled_from(["</script><script>", "<!--", "\u2028", "\u202e"])
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_in_any_part_is_harmless(run: Path, hostile: str) -> None:
    write_json(run / "result.json", json.loads((run / "result.json").read_text()))
    check_harmless(write(add_answer(run, say=hostile)).read_text(encoding="utf-8"))


def test_breakdowns_share_one_scale_and_only_real_ones_are_shown(run: Path) -> None:
    html = render(collect(run))
    assert "By part of the answer" not in html
    table = html[html.index('<table class="parts">') :].split("</table>")[0]
    assert table.count("<svg") == 14
    assert table.count('class="drawn same"') == 1
    spans = [line.split('"')[1:] for line in table.split('class="span" ')[1:]]
    assert len({tuple(span[:6:2]) for span in spans}) == 14


def test_the_exported_step_is_marked_wherever_steps_are_drawn(run: Path) -> None:
    html = render(collect(run))
    assert charts(html)["charts"]["loss"]["marks"] == [[24, "best and exported: step 24"]]
    assert html.count('class="ring"') == 1
    assert "step 24, exported" in html
    best = json.loads((run / "result.json").read_text())["best"]
    change(run, best={**best, "exported": False}, exported_step=30)
    assert charts(render(collect(run)))["charts"]["loss"]["marks"] == [[24, "best: step 24"], [30, "exported: step 30"]]


def test_steps_that_were_kept_are_marked_with_how_to_export_them(run: Path) -> None:
    html = render(collect(run))
    steps = [one["step"] for one in frontier_of(run) if one["kept"]]
    exported = json.loads((run / "result.json").read_text())["exported_step"]
    for step in steps:
        mark = "exported" if step == exported else "kept"
        assert f'<th scope="row">{step:,} <small>{mark}</small></th>' in html
    assert html.count("<small>kept</small>") == len(set(steps) - {exported}) > 0
    assert "--resume export.step=STEP" in html
    bare = [{key: value for key, value in one.items() if key != "kept"} for one in frontier_of(run)]
    assert "export.step=STEP" not in render(collect(change(run, frontier=bare)))


def test_names_of_points_do_not_lie_over_each_other(run: Path) -> None:
    """Points that lie close are named once: the exported one before the base model, and later ones before earlier."""
    near = [
        {"step": step, "nll": 2 + 0.001 * (9 - step), "general_nll": 3.0, "kl": 0.03 + 0.0001 * step, "kept": False}
        for step in range(10)
    ]
    far = {"step": 20, "nll": 1.0, "general_nll": 3.0, "kl": 0.05, "kept": False}
    html = render(collect(change(run, frontier=[*near, far], exported_step=5)))
    drawing = html[html.index('aria-label="Gain against drift. ') :]
    drawing = drawing[: drawing.index("</svg>")]
    named = re.findall(r">(base|step [0-9]+(?:, exported)?)</text>", drawing)
    assert named == ["step 5, exported", "step 20"]
    assert drawing.count('class="dots"') == 11


def test_standard_errors_are_drawn_and_given(run: Path) -> None:
    html = render(collect(run))
    (heldout,) = [line for line in charts(html)["charts"]["loss"]["series"] if line["label"] == "held-out loss"]
    assert heldout["e"] == [0.04] * 6
    assert html.count('class="error dots"') == 6


def test_the_script_is_given_the_measured_numbers(run: Path) -> None:
    shown = charts(render(collect(run)))["charts"]
    assert list(shown) == ["loss", "general", "kl", "stop", "rate", "norm", "speed"]
    training = shown["loss"]["series"][0]
    assert training["x"] == {"from": 1, "by": 1}
    assert training["y"][6] is None
    assert len(training["y"]) == 30
    assert shown["kl"]["series"][0]["y"][-1] == 0.08
    assert "general" not in charts(render(collect(make_run(run.parent / "old"))))["charts"]


def test_runs_beside_this_one(run: Path, tmp_path: Path) -> None:
    other = add_answer(make_run(tmp_path / "slower", steps=40), 40)
    (other / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace("0.0002", "0.0001"))
    write_json(other / "heldout.json", {"rows": ["others"]})
    html = render(collect(run), [collect(other)])
    told = check_harmless(html).words()
    assert "slower other held-out rows: not comparable 40 2.312 1.902 −0.410 +0.090 ▲ better" in told
    assert "train.learning_rate 2e-4 1e-4" in told
    assert charts(html)["runs"] == ["orders", "slower"]
    assert {line["run"] for line in charts(html)["charts"]["loss"]["series"]} == {0, 1}
    assert 'class="line r1"' in html
    assert write(run, [other]).read_text(encoding="utf-8") == html


def test_runs_of_one_name_are_told_apart_and_no_more_are_drawn_than_can_be(run: Path) -> None:
    html = render(collect(run), [collect(run)] * 9)
    assert charts(html)["runs"] == [f"orders ({n})" for n in range(1, 9)]
    assert "2 more runs are not drawn" in check_harmless(html).words()


def test_plan_against_measured(run: Path) -> None:
    told = words(run)
    assert "peak memory 2.70 GiB 2.42 GiB 2.54 GiB 1.05" in told
    assert "time of a step 5.5 s 4.0 s 4.1 s 1.0" in told
    write_json(run / "plan.json", {"predicted": {"peak_memory_bytes": 1_000_000_000}})
    assert "peak memory 954 MiB – 2.54 GiB ⚠ 2.73" in words(run)


def test_a_live_run_tells_how_far_it_is(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", finished=False)
    report = collect(run)
    html = render(report, live=True)
    told = check_harmless(html).words()
    assert "● Training: step 30 of 30." in told
    assert '<progress max="30" value="30" aria-label="Steps made">' in html
    assert 'data-live="training"' in html
    assert "connect-src 'self'" in html
    assert "connect-src" not in render(report)
    write_json(run / "result.json", {"status": "stopped", "steps": 12})
    assert 'data-live="training"' in render(collect(run), live=True), "it was resumed"
    write_json(run / "result.json", {"status": "stopped", "steps": 30})
    assert 'data-live="ended"' in render(collect(run), live=True)


def test_a_finished_run_has_its_verdict_live_too(run: Path) -> None:
    assert "▲ Better The tuned model is better" in words(run, live=True)


def test_further_scripts_are_named_in_the_policy(run: Path) -> None:
    html = render(collect(run), live=True, scripts=["const x = 1;"])
    assert "<script>const x = 1;</script>" in html
    assert policy(live=True, scripts=["const x = 1;"]) in html
    assert policy(scripts=["const x = 1;"]).count("'sha256-") == 2


def test_ten_thousand_steps_and_others_stay_small(tmp_path: Path) -> None:
    run = add_answer(make_run(tmp_path / "long", steps=10_000), 10_000)
    html = render(collect(run), [collect(run)] * 3)
    assert len(html.encode()) < 1_500_000
    (training,) = [
        line
        for line in charts(html)["charts"]["loss"]["series"]
        if (line["label"], line["run"]) == ("training loss", 0)
    ]
    assert len(training["y"]) == len(training["low"]) == 2000
    assert training["each"] == 5
    assert min(training["low"]) < min(training["y"])
