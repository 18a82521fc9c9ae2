"use strict";
// What charts are drawn with: elements, numbers as text, round ticks, means, lines. Nothing here or in the scripts that
// follow asks the network, and every text is set as text.
window.tutelage = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const LEFT = 54, RIGHT = 24, TOP = 10, BOTTOM = 40;

  const set = (node, attributes) => {
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };
  const svg = (name, attributes = {}, words = null) => {
    const node = set(document.createElementNS(SVG, name), attributes);
    if (words !== null) node.textContent = words;
    return node;
  };
  const html = (name, attributes = {}, ...children) => {
    const node = set(document.createElement(name), attributes);
    node.append(...children);
    return node;
  };
  const brief = (value) => {
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size < 1e-3 || size >= 1e6) return value.toExponential(3).replace(/\.?0+e/, "e").replace("e+", "e").replace(/-/g, "−");
    return Number(value.toPrecision(4)).toLocaleString("en-US", { maximumFractionDigits: 6 }).replace("-", "−");
  };
  const whole_number = (value) => Math.round(value).toLocaleString("en-US");

  function ticks(low, high, most, least = 0, only_gap = false) {
    const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
    const gap = Math.max(least, [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough * 0.999));
    const found = [];
    if (only_gap) return gap;
    for (let i = Math.ceil(low / gap - 1e-9); i <= Math.floor(high / gap + 1e-9); i++) found.push(Number((i * gap).toPrecision(12)));
    return found;
  }

  function unpack(line) {
    const x = Array.isArray(line.x) ? line.x : line.y.map((_, i) => line.x.from + i * line.x.by);
    return { ...line, x, each: line.each || 1 };
  }

  // The mean over so many steps around each point; what was not measured counts for nothing.
  function smoothed(line, steps) {
    const reach = Math.floor(Math.max(1, Math.round(steps / line.each)) / 2);
    if (line.kind !== "line" || reach < 1) return null;
    const sums = [0], counts = [0];
    for (const value of line.y) {
      sums.push(sums.at(-1) + (value ?? 0));
      counts.push(counts.at(-1) + (value === null ? 0 : 1));
    }
    return line.y.map((value, i) => {
      const from = Math.max(0, i - reach), to = Math.min(line.y.length, i + reach + 1), count = counts[to] - counts[from];
      return value === null || !count ? null : (sums[to] - sums[from]) / count;
    });
  }

  // Lines and labels of both axes.
  function axes(spec, { x, y, low, high, least, most, log }, width, height) {
    const parts = [svg("text", { class: "unit", x: 2, y: height - 4 }, spec.unit + (log ? ", log scale" : ""))];
    let marks = ticks(least, most, spec.wide ? 6 : 4);
    if (log) {
      const powers = [];
      for (let p = Math.floor(least); p <= Math.ceil(most); p++) powers.push(...(most - least < 2 ? [1, 2, 5] : [1]).map((f) => f * 10 ** p));
      marks = powers.filter((value) => Math.log10(value) >= least && Math.log10(value) <= most);
      if (marks.length < 2) marks = ticks(10 ** least, 10 ** most, 4).filter((value) => value > 0);
    }
    for (const value of marks) {
      parts.push(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }));
      parts.push(svg("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, brief(value)));
    }
    for (const value of ticks(low, high, Math.max(3, Math.floor((width - LEFT) / 80)), 1)) {
      parts.push(svg("line", { class: "axis", x1: x(value), x2: x(value), y1: height - BOTTOM, y2: height - BOTTOM + 4 }));
      const text = svg("text", { class: "step", x: x(value), y: height - BOTTOM + 18, "text-anchor": "middle" }, whole_number(value));
      parts.push(text);
    }
    parts.push(svg("text", { class: "unit", x: width - RIGHT, y: height - 4, "text-anchor": "end" }, "step"));
    return parts;
  }

  // One line: its range, its single steps, their mean, its points with their errors.
  function trace(line, { x, y }, mean) {
    const name = line.kind + (line.run ? ` r${line.run}` : ""), parts = [];
    const path = (values) => {
      let pen = "M", d = "";
      values.forEach((value, i) => {
        if (value === null) pen = "M";
        else { d += `${pen}${x(line.x[i]).toFixed(1)},${y(value).toFixed(1)}`; pen = "L"; }
      });
      return d;
    };
    if (line.low && !line.run) {
      const there = line.x.map((place, i) => `${x(place).toFixed(1)},${y(line.high[i]).toFixed(1)}`);
      const back = line.x.map((place, i) => `${x(place).toFixed(1)},${y(line.low[i]).toFixed(1)}`).reverse();
      parts.push(svg("polygon", { class: "range", points: [...there, ...back].join(" ") }));
    }
    if (!mean || (!line.run && !line.low)) parts.push(svg("path", { class: mean ? "line faint" : name, d: path(line.y) }));
    if (mean) parts.push(svg("path", { class: name, d: path(mean) }));
    if (line.kind === "dots" || line.y.length === 1) {
      line.x.forEach((place, i) => {
        if (line.y[i] === null) return;
        const at = x(place), error = line.e?.[i];
        if (error) parts.push(svg("line", { class: `error ${name}`, x1: at, x2: at, y1: y(line.y[i] - error), y2: y(line.y[i] + error) }));
        parts.push(svg("circle", { class: name, cx: at, cy: y(line.y[i]), r: line.run ? 3 : 4 }));
      });
    }
    return parts;
  }

  return { LEFT, RIGHT, TOP, BOTTOM, set, svg, html, brief, whole_number, ticks, unpack, smoothed, axes, trace };
})();
