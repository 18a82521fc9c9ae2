"""The report in a browser that a reader uses: charts that zoom, no scrolling sideways, no sound on the network."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tutelage.report.collect import collect
from tutelage.report.page import render, write

pytestmark = pytest.mark.browser

_UNIT = Path(__file__).parents[1] / "unit" / "report"
MADE_UP, ANSWER = (runpy.run_path(str(_UNIT / name)) for name in ("madeup.py", "madeupanswer.py"))
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'><!-- \u2028 \u202etxt.exe"
STEPS = "[data-chart=loss] svg.live text.step"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ANSWER["add_answer"](MADE_UP["make_run"](tmp_path_factory.mktemp("runs") / "orders"))


@pytest.fixture(scope="module")
def pages(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of every sort, by name."""
    folder = tmp_path_factory.mktemp("pages")
    make, answer = MADE_UP["make_run"], ANSWER["add_answer"]
    hostile = answer(make(folder / "</title><script>"[:7]), say=HOSTILE)
    long = answer(make(folder / "long", steps=10_000), 10_000)
    old, unfinished = make(folder / "old"), make(folder / "unfinished", finished=False)
    begun = folder / "begun"
    begun.mkdir()
    (begun / "recipe.yaml").write_text(MADE_UP["RECIPE"])
    written = {
        "whole": write(run),
        "hostile": write(hostile, [old]),
        "long": write(long),
        "old": write(old),
        "unfinished": write(unfinished),
        "begun": write(begun),
    }
    several = folder / "several.html"
    several.write_text(render(collect(run), [collect(old), collect(long)]), encoding="utf-8")
    return {**written, "several": several}


class Reader:
    """A page that was opened, and what it said and asked for."""

    def __init__(self, chromium: Any, **context: Any) -> None:
        self.context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def open(self, path: Path) -> Any:
        self.page.goto(path.as_uri())
        self.settle()
        return self.page

    def settle(self) -> None:
        """Until what was asked to be drawn is drawn."""
        script = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        if self.context.pages:
            self.page.evaluate(script)

    def steps(self) -> list[str]:
        self.settle()
        return self.page.locator(STEPS).all_text_contents()


@pytest.fixture
def reader(chromium: Any) -> Iterator[Reader]:
    one = Reader(chromium)
    yield one
    one.context.close()


NAMES = ("whole", "hostile", "long", "old", "unfinished", "begun", "several")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_says_nothing_asks_nothing_and_runs_nothing_foreign(
    reader: Reader, pages: dict[str, Path], name: str
) -> None:
    page = reader.open(pages[name])
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    reader.settle()
    assert reader.said == []
    assert reader.asked == [pages[name].as_uri()]
    assert page.evaluate("window.hacked") is None
    assert page.locator("script").count() == 2
    assert page.locator("h1").count() == 1
    drawn = 0 if name == "begun" else len(json.loads(page.locator("#chart-data").text_content())["charts"])
    assert page.locator("svg.live").count() == drawn


@pytest.mark.parametrize("name", NAMES)
def test_no_page_scrolls_sideways(chromium: Any, pages: dict[str, Path], name: str) -> None:
    one = Reader(chromium)
    for width in (360, 768, 1280):
        one.page.set_viewport_size({"width": width, "height": 800})
        page = one.open(pages[name])
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        one.settle()
        assert page.evaluate("document.documentElement.scrollWidth") == width
    one.context.close()


def test_hostile_text_is_shown_with_its_hidden_signs(reader: Reader, pages: dict[str, Path]) -> None:
    page = reader.open(pages["hostile"])
    text = page.locator("body").inner_text()
    assert HOSTILE[:40] in text
    assert "⟨U+2028⟩ ⟨U+202E⟩txt.exe" in text
    assert "\u202e" not in text


def drag(page: Any, start: float, end: float, chart: str = "loss") -> None:
    """The mouse drawn across a chart, from one share of its width to another."""
    place = page.locator(f"[data-chart={chart}] svg.live")
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    left, width, middle = box["x"] + 54, box["width"] - 78, box["y"] + box["height"] / 2
    page.mouse.move(left + start * width, middle)
    page.mouse.down()
    page.mouse.move(left + (start + end) / 2 * width, middle)
    page.mouse.move(left + end * width, middle)
    page.mouse.up()


def test_dragging_zooms_every_chart_and_a_double_click_goes_back(reader: Reader, pages: dict[str, Path]) -> None:
    page = reader.open(pages["whole"])
    before = reader.steps()
    assert before[0] == "0"
    assert before[-1] == "30"
    drag(page, 0.5, 0.8)
    zoomed = reader.steps()
    assert zoomed[0] in ("15", "16")
    assert zoomed[-1] in ("23", "24")
    rates = page.locator("[data-chart=rate] text.step").all_text_contents()
    assert int(rates[0]) >= 15
    assert int(rates[-1]) <= 24
    back = page.get_by_role("button", name="show the whole run")
    assert back.inner_text() == "Steps 15–24: show the whole run"
    page.locator("[data-chart=norm] svg.live").dblclick()
    assert reader.steps() == before
    assert not back.is_visible()


def test_the_keyboard_reads_and_zooms(reader: Reader, pages: dict[str, Path]) -> None:
    page = reader.open(pages["whole"])
    chart = page.locator("[data-chart=loss] svg.live")
    chart.focus()
    page.keyboard.press("End")
    spoken = page.locator("#curves [role=status]")
    assert spoken.text_content() == "step 30, training loss 1.842, held-out loss 1.9 ± 0.04"
    page.keyboard.press("ArrowLeft")
    assert (spoken.text_content() or "").startswith("step 29, training loss 1.9")
    for _ in range(3):
        page.keyboard.press("+")
    steps = [int(step) for step in reader.steps()]
    assert steps[0] > 20
    page.keyboard.press("Shift+ArrowLeft")
    assert int(reader.steps()[0]) < steps[0]
    page.keyboard.press("Escape")
    assert reader.steps()[0] == "0"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.key") != "chart loss"


def test_pointing_reads_the_same_step_in_every_chart(reader: Reader, pages: dict[str, Path]) -> None:
    page = reader.open(pages["whole"])
    chart = page.locator("[data-chart=rate] svg.live")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + 54 + (box["width"] - 78) * 0.5, box["y"] + 60)
    told = page.locator(".readout").all_text_contents()
    assert told[0].startswith("step 15 · training loss ")
    assert [one.split(" · ")[0] for one in told if "rate" in one or "norm" in one or "speed" in one] == ["step 15"] * 3


def test_a_quantity_and_a_run_can_be_hidden(reader: Reader, pages: dict[str, Path]) -> None:
    page = reader.open(pages["several"])
    lines = page.locator("[data-chart=loss] svg.live path")
    every = lines.count()
    quantity = page.get_by_role("button", name="held-out loss")
    quantity.click()
    reader.settle()
    assert lines.count() == every - 3
    assert quantity.get_attribute("aria-pressed") == "false"
    quantity.click()
    page.get_by_role("button", name="old").click()
    reader.settle()
    assert page.locator("[data-chart=loss] svg.live path.r1").count() == 0
    assert page.locator("[data-chart=loss] svg.live path.r2").count() == 2


def test_smoothing_and_the_log_scale_change_what_is_drawn(reader: Reader, pages: dict[str, Path]) -> None:
    page = reader.open(pages["old"])
    line = page.locator("[data-chart=loss] svg.live path.line:not(.faint)")
    raw = line.get_attribute("d")
    page.get_by_label("Smoothing").select_option("5")
    reader.settle()
    assert line.get_attribute("d") != raw
    assert page.locator("[data-chart=loss] svg.live path.faint").get_attribute("d") == raw
    page.get_by_role("button", name="Log scale").click()
    reader.settle()
    assert "nats per token, log scale" in page.locator("[data-chart=loss] text.unit").all_text_contents()
    assert page.locator("[data-chart=loss] svg.live path.faint").get_attribute("d") != raw


def test_without_a_script_the_page_is_whole(chromium: Any, pages: dict[str, Path]) -> None:
    one = Reader(chromium, java_script_enabled=False)
    one.page.goto(pages["whole"].as_uri())
    page = one.page
    assert page.locator("svg[role=img]").count() > 7
    assert page.locator("button, select").count() == 0
    assert page.locator("[data-chart=loss] polyline").count() == 3
    text = page.locator("main").inner_text()
    for told in ("Answers before and after", "Where it helped", "Gain against drift", "Plan against measured"):
        assert told in text
    one.context.close()


def test_dark_and_light_follow_the_reader_then_the_button(chromium: Any, pages: dict[str, Path]) -> None:
    one = Reader(chromium, color_scheme="dark")
    page = one.open(pages["whole"])
    shade = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(shade)
    page.get_by_role("button", name="Light").click()
    light = page.evaluate(shade)
    assert (dark, light) == ("rgb(19, 22, 26)", "rgb(250, 250, 248)")
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(shade) == dark
    one.context.close()


CONTRAST = """() => {
  const channel = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const colour = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const found = colour(getComputedStyle(node).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const low = new Map();
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || node.closest("script, style, .unseen") || !node.getClientRects().length) continue;
    const style = getComputedStyle(node), front = colour(node.namespaceURI.endsWith("svg") ? style.fill : style.color);
    if (!front.length || style.backgroundColor.startsWith("color")) continue;
    const [a, b] = [light(front), light(behind(node))].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    const name = `${node.tagName}.${node.getAttribute("class")} ${ratio.toFixed(2)}`;
    if (ratio < 4.5) low.set(name, node.textContent.slice(0, 30));
  }
  return [...low];
}"""
UNNAMED = """() => {
  const named = (node) => (node.getAttribute("aria-label") || node.textContent || node.labels?.[0]?.textContent || "");
  const wrong = [], note = (node) => wrong.push(node.outerHTML.slice(0, 80));
  for (const node of document.querySelectorAll("button, a, select, summary, [role=region], [role=application]"))
    if (!named(node).trim()) note(node);
  for (const node of document.querySelectorAll("svg"))
    if (!node.getAttribute("aria-label") && !node.closest("[aria-hidden], [role=application]")) note(node);
  for (const node of document.querySelectorAll("th:not([scope])")) note(node);
  for (const node of document.querySelectorAll("table"))
    if (!node.caption && !node.closest("[aria-label]")) note(node);
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  wrong.push(...ids.filter((id, i) => ids.indexOf(id) !== i));
  for (const node of document.querySelectorAll("a[href^='#']"))
    if (!document.getElementById(node.getAttribute("href").slice(1))) note(node);
  return wrong;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["whole", "several", "unfinished"])
def test_everything_can_be_read_and_has_a_name(chromium: Any, pages: dict[str, Path], name: str, scheme: str) -> None:
    one = Reader(chromium, color_scheme=scheme)
    page = one.open(pages[name])
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    one.settle()
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate(UNNAMED) == []
    for landmark in ("header", "nav", "main", "footer"):
        assert page.locator(landmark).count() == 1
    one.context.close()


def test_the_first_key_leads_past_the_head_and_the_focus_is_seen(reader: Reader, pages: dict[str, Path]) -> None:
    page = reader.open(pages["whole"])
    page.keyboard.press("Tab")
    skip = page.locator(".skip")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert skip.bounding_box()["y"] >= 0
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"


def test_a_growing_run_keeps_what_the_reader_has_done(reader: Reader, tmp_path: Path) -> None:
    make, lines = MADE_UP["make_run"], MADE_UP["write_lines"]
    folder = make(tmp_path / "live", steps=60, finished=False)
    every = list(MADE_UP["metrics"](60))
    lines(folder / "metrics.jsonl", every[:30])
    file = tmp_path / "live.html"
    file.write_text(render(collect(folder), live=True), encoding="utf-8")
    page = reader.open(file)
    assert "Training: step 30 of 60." in page.locator("#top").inner_text()
    page.locator("summary", has_text="The whole recipe").click()
    page.locator("summary", has_text="more prompts").click()
    page.get_by_role("button", name="training loss").click()
    drag(page, 0.4, 0.8)
    zoomed = reader.steps()
    page.locator("[data-chart=rate] svg.live").focus()
    at = page.evaluate("scrollY")
    page.evaluate("document.addEventListener('tutelage:refreshed', () => { window.times = (window.times || 0) + 1; })")
    lines(folder / "metrics.jsonl", every)
    text = render(collect(folder), live=True)
    assert page.evaluate("(text) => tutelage.refresh(text)", text) is True
    assert page.evaluate("(text) => tutelage.refresh(text)", text) is False
    assert page.evaluate("tutelage.refresh('<p>not a page</p>')") is False
    assert page.evaluate("window.times") == 1
    assert "Training: step 60 of 60." in page.locator("#top").inner_text()
    assert reader.steps() == zoomed
    assert page.evaluate("scrollY") == at
    assert page.evaluate("document.activeElement.dataset.key") == "chart rate"
    opened = page.evaluate("[...document.querySelectorAll('details[open]')].map((one) => one.dataset.key)")
    assert opened == ["samples", "recipe"]
    assert page.get_by_role("button", name="training loss").get_attribute("aria-pressed") == "false"
    page.keyboard.press("Escape")
    assert reader.steps()[-1] == "60"
    assert page.get_by_role("button", name="Dark").count() == 1
    assert page.locator(".toolbar").count() == 1
    assert reader.said == []


def test_a_page_that_comes_by_event_runs_nothing(reader: Reader, run: Path, pages: dict[str, Path]) -> None:
    page = reader.open(pages["whole"])
    foreign = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
    text = render(collect(run), live=True).replace("<h1>", f"{foreign}<h1>other ", 1)
    page.evaluate("(detail) => document.dispatchEvent(new CustomEvent('tutelage:refresh', { detail }))", text)
    reader.settle()
    assert page.locator("h1").inner_text() == "other orders"
    assert page.evaluate("window.hacked") is None


def test_on_paper_there_are_no_controls(reader: Reader, pages: dict[str, Path]) -> None:
    page = reader.open(pages["whole"])
    page.emulate_media(media="print")
    assert not any(button.is_visible() for button in page.locator("button, select, nav").all())
    assert page.locator("[data-chart=loss] svg.live").is_visible()
