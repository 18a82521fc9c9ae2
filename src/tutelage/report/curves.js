// The charts of the page, drawn again so that they can be zoomed, compared and read step by step. Without this script
// the drawings that came with the page stay.
Object.assign(window.tutelage, (() => {
  const { LEFT, RIGHT, TOP, BOTTOM, set, svg, html, brief, whole_number } = window.tutelage;
  const { ticks, unpack, smoothed, axes, trace } = window.tutelage;
  const WINDOWS = [5, 11, 25, 51, 101, 251, 501, 1001];
  const state = { low: null, high: null, log: false, smooth: null, mean: 0, hidden: new Set(), cursor: null, dragging: false };
  const later = { redraw: 0, after: null };
  let data = null, charts = [], whole = [0, 1], voice = null;

  const zoomed = () => state.low !== null;
  const view = () => (zoomed() ? [state.low, state.high] : whole);
  const hidden = (line) => state.hidden.has(`run ${line.run}`) || state.hidden.has(line.label);

  function zoom(low, high) {
    const least = Math.min(1, whole[1] - whole[0]), span = Math.max(high - low, least);
    low = Math.max(whole[0], Math.min(low, whole[1] - span));
    high = Math.min(whole[1], low + span);
    [state.low, state.high] = low <= whole[0] && high >= whole[1] ? [null, null] : [low, high];
    redraw();
  }
  function reset() {
    [state.low, state.high] = [null, null];
    redraw();
  }
  function now() {
    const back = document.querySelector("[data-key=reset]");
    if (back) {
      back.hidden = !zoomed();
      if (zoomed()) back.textContent = `Steps ${view().map(whole_number).join("–")}: show the whole run`;
    }
    charts.forEach((chart) => chart.draw());
  }
  function redraw() {
    later.redraw ||= requestAnimationFrame(() => {
      later.redraw = 0;
      now();
    });
  }

  class Chart {
    constructor(figure, key, spec) {
      Object.assign(this, { figure, key, spec, lines: spec.series.map(unpack) });
      this.plot = figure.querySelector(".plot");
      const still = this.plot.querySelector("svg");
      if (!still || !this.lines.length) return;
      const keys = "Left and right arrows read the values, plus and minus zoom, Escape shows the whole run.";
      this.svg = svg("svg", {
        class: "live", tabindex: "0", role: "application", "data-key": `chart ${key}`,
        "aria-label": `${still.getAttribute("aria-label")}. ${keys}`,
      });
      ["tabindex", "role", "aria-label"].forEach((name) => this.plot.removeAttribute(name));
      this.plot.classList.remove("scroll");
      this.plot.replaceChildren(this.svg);
      this.readout = html("p", { class: "readout", "aria-hidden": "true" });
      figure.querySelector("figcaption").after(this.legend(), this.readout);
      this.listen();
    }

    // A button for each quantity, where there are several: it hides the line and shows it again.
    legend() {
      const labels = [...new Set(this.lines.map((line) => line.label))];
      const buttons = labels.length < 2 ? [] : labels.map((label) => {
        const kind = this.lines.find((line) => line.label === label).kind;
        return toggle(label, label, kind);
      });
      return html("div", { class: "legend-buttons" }, ...buttons);
    }

    scales(width, height) {
      const [low, high] = view();
      const x = (value) => LEFT + ((value - low) / (high - low)) * (width - LEFT - RIGHT);
      const back = (pixel) => low + ((pixel - LEFT) / (width - LEFT - RIGHT)) * (high - low);
      const log = state.log && this.spec.log;
      let least = Infinity, most = -Infinity;
      const meet = (value) => {
        if (value === null || value === undefined || (log && value <= 0)) return;
        [least, most] = [Math.min(least, value), Math.max(most, value)];
      };
      for (const line of this.lines.filter((one) => !hidden(one))) {
        line.x.forEach((place, i) => {
          if (place < low || place > high || line.y[i] === null) return;
          [line.y[i], line.low?.[i], line.high?.[i]].forEach(meet);
          if (line.e?.[i]) [line.y[i] - line.e[i], line.y[i] + line.e[i]].forEach(meet);
        });
      }
      if (least > most) [least, most] = log ? [0.1, 1] : [0, 1];
      if (this.spec.zero && !log) [least, most] = [Math.min(0, least), Math.max(0, most)];
      const room = Math.abs(most) * 0.1 || 1;
      if (log) [least, most] = [Math.log10(least) - 0.05, Math.log10(most) + 0.05];
      else if (most === least) [least, most] = [least - room, most + room];
      else {
        const gap = ticks(least, most, this.spec.wide ? 6 : 4, 0, true);
        [least, most] = [Math.floor(least / gap + 1e-9) * gap, Math.ceil(most / gap - 1e-9) * gap];
      }
      const y = (value) => {
        const at = log ? Math.log10(Math.max(value, 1e-300)) : value;
        return height - BOTTOM - ((at - least) / (most - least)) * (height - TOP - BOTTOM);
      };
      return { x, y, back, low, high, least, most, log };
    }

    draw() {
      if (!this.svg) return;
      const width = Math.max(240, this.plot.clientWidth), height = this.spec.wide ? (width < 560 ? 260 : 340) : 210;
      set(this.svg, { viewBox: `0 0 ${width} ${height}`, width, height });
      const scales = this.scales(width, height), inner = svg("svg", {
        x: LEFT - 6, y: TOP - 6, width: width - LEFT - RIGHT + 12, height: height - TOP - BOTTOM + 12,
        viewBox: `${LEFT - 6} ${TOP - 6} ${width - LEFT - RIGHT + 12} ${height - TOP - BOTTOM + 12}`,
      });
      Object.assign(this, { scales_: scales, width, height });
      this.svg.replaceChildren(...axes(this.spec, scales, width, height), inner);
      for (const [step, word] of this.spec.marks) {
        const at = scales.x(step), left = at > width / 2;
        if (step < scales.low || step > scales.high) continue;
        inner.append(svg("line", { class: "mark", x1: at, x2: at, y1: TOP, y2: height - BOTTOM }));
        if (this.spec.wide) inner.append(svg("text", { class: "mark", x: at + (left ? -6 : 6), y: TOP + 12, "text-anchor": left ? "end" : "start" }, word));
      }
      for (const line of [...this.lines].sort((a, b) => b.run - a.run)) if (!hidden(line)) inner.append(...trace(line, scales, smoothed(line, state.mean)));
      this.over = svg("g");
      inner.append(this.over);
      this.point();
    }

    // The values next to the cursor, in words, and a dot at each.
    point(speak = false) {
      if (!this.svg || !this.over) return;
      this.over.replaceChildren();
      this.readout.textContent = " ";
      if (state.cursor === null) return;
      const { x, y, low, high } = this.scales_, shown = this.lines.filter((line) => !hidden(line));
      const nearest = (line) => {
        let best = -1;
        line.x.forEach((place, i) => {
          if (line.y[i] === null || place < low || place > high) return;
          if (best < 0 || Math.abs(place - state.cursor) < Math.abs(line.x[best] - state.cursor)) best = i;
        });
        return best;
      };
      const found = shown.map((line) => [line, nearest(line)]).filter(([, i]) => i >= 0);
      if (!found.length) return;
      const distance = ([line, i]) => Math.abs(line.x[i] - state.cursor);
      const [near, at] = found.reduce((a, b) => (distance(b) < distance(a) ? b : a));
      const step = near.x[at], words = [`step ${whole_number(step)}`];
      this.over.append(svg("line", { class: "cursor", x1: x(step), x2: x(step), y1: TOP, y2: this.height - BOTTOM }));
      for (const [line, i] of found) {
        const many = this.lines.some((one) => one.label !== line.label) || data.runs.length < 2;
        const run = data.runs.length > 1 ? ` ${data.runs[line.run]}` : "";
        if (Math.abs(line.x[i] - step) > Math.max(line.each, 0.5)) continue;
        const error = line.e?.[i] ? ` ± ${brief(line.e[i])}` : "";
        const means = line.each > 1 ? `, mean of ${line.each} steps` : "";
        words.push(`${many ? line.label : ""}${run} ${brief(line.y[i])}${error}${means}`.trim());
        this.over.append(svg("circle", { class: "at", cx: x(line.x[i]), cy: y(line.y[i]), r: 4 }));
      }
      this.readout.textContent = words.join(" · ");
      if (speak) voice.textContent = words.join(", ");
    }

    listen() {
      const place = (event) => {
        const box = this.svg.getBoundingClientRect();
        const pixel = ((event.clientX - box.left) / box.width) * this.width;
        return [pixel, Math.min(view()[1], Math.max(view()[0], this.scales_.back(pixel)))];
      };
      let from = null;
      const select = (to) => {
        const [a, b] = [this.scales_.x(from), this.scales_.x(to)];
        this.over.append(svg("rect", { class: "selection", x: Math.min(a, b), y: TOP, width: Math.abs(a - b), height: this.height - TOP - BOTTOM }));
      };
      this.svg.addEventListener("pointerdown", (event) => {
        if (event.button) return;
        from = place(event)[1];
        state.dragging = true;
        try { this.svg.setPointerCapture(event.pointerId); } catch { /* A pointer that is gone already needs none. */ }
      });
      this.svg.addEventListener("pointermove", (event) => {
        state.cursor = place(event)[1];
        charts.forEach((chart) => chart.point());
        if (from !== null) select(state.cursor);
      });
      const end = (event) => {
        if (from === null) return;
        const start = from, to = place(event)[1];
        from = null;
        state.dragging = false;
        const far = Math.abs(this.scales_.x(start) - this.scales_.x(to)) > 6 && event.type === "pointerup";
        if (far) zoom(Math.min(start, to), Math.max(start, to));
        else charts.forEach((chart) => chart.point());
        later.after?.();
      };
      ["pointerup", "pointercancel"].forEach((name) => this.svg.addEventListener(name, end));
      this.svg.addEventListener("pointerleave", () => {
        if (from !== null || document.activeElement === this.svg) return;
        state.cursor = null;
        charts.forEach((chart) => chart.point());
      });
      this.svg.addEventListener("dblclick", reset);
      this.svg.addEventListener("keydown", (event) => this.press(event));
    }

    press(event) {
      const [low, high] = view(), span = high - low, steps = [...new Set(this.lines.filter((line) => !hidden(line)).flatMap((line) => line.x))];
      const inside = steps.filter((step) => step >= low && step <= high).sort((a, b) => a - b);
      const cursor = state.cursor ?? (event.key === "ArrowLeft" ? high + 1 : low - 1);
      const around = (factor) => {
        const middle = state.cursor === null ? (low + high) / 2 : state.cursor;
        zoom(middle - (middle - low) * factor, middle + (high - middle) * factor);
      };
      const go = (step) => {
        if (step === undefined) return;
        state.cursor = step;
        charts.forEach((chart) => chart.point(chart === this));
      };
      const keys = {
        ArrowLeft: () => (event.shiftKey ? zoom(low - span / 4, high - span / 4) : go(inside.filter((step) => step < cursor - 1e-9).at(-1))),
        ArrowRight: () => (event.shiftKey ? zoom(low + span / 4, high + span / 4) : go(inside.find((step) => step > cursor + 1e-9))),
        Home: () => go(inside[0]),
        End: () => go(inside.at(-1)),
        "+": () => around(0.5),
        "=": () => around(0.5),
        "-": () => around(2),
        Escape: reset,
        0: reset,
      };
      if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key)) return;
      event.preventDefault();
      keys[event.key]();
    }
  }

  function toggle(name, words, kind, run = 0) {
    const swatch = set(svg("svg", { viewBox: "0 0 26 10", "aria-hidden": "true" }), {});
    swatch.append(svg("line", { class: kind + (run ? ` r${run}` : ""), x1: 1, x2: 25, y1: 5, y2: 5 }));
    if (kind === "dots") swatch.append(svg("circle", { class: kind, cx: 13, cy: 5, r: 4 }));
    const button = html("button", { type: "button", "data-key": `show ${name}`, "aria-pressed": String(!state.hidden.has(name)) }, swatch, words);
    button.addEventListener("click", () => {
      if (!state.hidden.delete(name)) state.hidden.add(name);
      button.setAttribute("aria-pressed", String(!state.hidden.has(name)));
      redraw();
    });
    return button;
  }

  function toolbar(longest) {
    const fitting = WINDOWS.filter((steps) => steps <= longest / 3);
    const fit = longest > 60 ? fitting.filter((steps) => steps <= longest / 20).at(-1) ?? 0 : 0;
    state.mean = fitting.includes(state.smooth) || state.smooth === 0 ? state.smooth : fit;
    const choose = html("select", { "data-key": "smooth" }, html("option", { value: "0" }, "off"));
    fitting.forEach((steps) => choose.append(html("option", { value: String(steps) }, `mean of ${steps} steps`)));
    choose.value = String(state.mean);
    choose.addEventListener("change", () => {
      state.smooth = state.mean = Number(choose.value);
      redraw();
    });
    const log = html("button", { type: "button", "data-key": "log", "aria-pressed": String(state.log) }, "Log scale");
    log.addEventListener("click", () => {
      state.log = !state.log;
      log.setAttribute("aria-pressed", String(state.log));
      redraw();
    });
    const back = html("button", { type: "button", "data-key": "reset", hidden: "" }, "Show the whole run");
    back.addEventListener("click", reset);
    voice = html("p", { class: "unseen", role: "status" });
    const hint = html("span", { class: "hint" }, "Drag across a chart to zoom; double-click or Escape goes back.");
    return html("div", { class: "toolbar" }, ...(fitting.length ? [html("label", {}, "Smoothing ", choose)] : []), log, back, hint, voice);
  }

  // Builds the charts from the data in the page; what was zoomed, hidden and chosen stays.
  function draw() {
    const text = document.getElementById("chart-data"), place = document.querySelector("[data-charts]");
    if (!text || !place) return;
    data = JSON.parse(text.textContent);
    const lines = Object.values(data.charts).flatMap((chart) => chart.series).map(unpack), steps = lines.flatMap((line) => line.x);
    const reduce = (best) => steps.reduce((a, b) => best(a, b), steps[0] ?? 0);
    whole = [reduce(Math.min), reduce(Math.max)];
    if (whole[0] === whole[1]) whole = [whole[0] - 1, whole[1] + 1];
    if (zoomed() && (state.low >= whole[1] || state.high <= whole[0])) [state.low, state.high] = [null, null];
    document.querySelectorAll(".runs > li").forEach((item, run) => {
      item.replaceChildren(toggle(`run ${run}`, data.runs[run], "line", run));
    });
    const lead = document.querySelector("#curves .toolbar");
    lead?.remove();
    if (steps.length) place.before(toolbar(Math.max(0, ...lines.map((line) => line.y.length * line.each))));
    charts = [...place.querySelectorAll("[data-chart]")].map((figure) => new Chart(figure, figure.dataset.chart, data.charts[figure.dataset.chart]));
    now();
  }

  addEventListener("resize", redraw);
  return { draw, view, dragging: () => state.dragging, afterwards: (call) => { later.after = call; } };
})());
