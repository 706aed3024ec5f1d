// What the page's charts are drawn with. Codecs, metrics and their names come from the
// JSON in the page, and names are only ever set as text.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const hidden = new Set();
const redraws = [];

const get = (id) => document.getElementById(id);
const number = (value, digits = 5) => (value === null ? "" : String(Number(value.toPrecision(digits))));
const label = (metric) => {
  const { name, unit, higher } = data.metrics[metric];
  return name + (unit ? ` (${unit})` : "") + (higher ? "" : ", lower is better");
};

function html(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function shape(parent, tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

function fill(select, options, keep = select.value) {
  select.replaceChildren(...options.map(([value, text]) => html("option", { value, textContent: text })));
  if (options.some(([value]) => String(value) === keep)) select.value = keep;
}

// Options of sequences, grouped by set; the value is "set index/sequence index".
function fillSequences(select, has) {
  const sets = Object.entries(data.sets);
  select.replaceChildren(...sets.flatMap(([set, sequences], i) => {
    const group = html("optgroup", { label: set });
    sequences.forEach((name, j) => {
      if (has(set, name)) group.append(html("option", { value: `${i}/${j}`, textContent: name }));
    });
    return group.children.length ? [group] : [];
  }));
}

function chosenSequence(select) {
  const [i, j] = select.value.split("/").map(Number);
  const [set, sequences] = Object.entries(data.sets)[i];
  return [set, sequences[j]];
}

// ---- drawing

const PATHS = {
  o: (r) => `M${-r} 0A${r} ${r} 0 1 0 ${r} 0A${r} ${r} 0 1 0 ${-r} 0Z`,
  s: (r) => `M${-r} ${-r}H${r}V${r}H${-r}Z`,
  "^": (r) => `M0 ${-1.2 * r}L${1.2 * r} ${r}H${-1.2 * r}Z`,
  v: (r) => `M0 ${1.2 * r}L${1.2 * r} ${-r}H${-1.2 * r}Z`,
  D: (r) => `M0 ${-1.3 * r}L${1.3 * r} 0L0 ${1.3 * r}L${-1.3 * r} 0Z`,
  P: (r) => `M${-r / 3} ${-r}H${r / 3}V${-r / 3}H${r}V${r / 3}H${r / 3}V${r}H${-r / 3}V${r / 3}H${-r}V${-r / 3}H${-r / 3}Z`,
  X: (r) => `M${-r} ${-r}L0 ${-r / 2}L${r} ${-r}L${r / 2} 0L${r} ${r}L0 ${r / 2}L${-r} ${r}L${-r / 2} 0Z`,
};

function drawMarker(parent, codec, x, y, radius, hollow = false) {
  const { marker } = data.codecs[codec];
  const colour = `var(--codec-${codec})`;
  return shape(parent, "path", {
    class: "point", d: PATHS[marker](radius), transform: `translate(${x} ${y})`,
    fill: hollow ? "var(--page)" : colour, stroke: colour, "stroke-width": 1.5,
  });
}

function drawLine(parent, codec, points) {
  shape(parent, "polyline", {
    class: "line", points: points.map((p) => p.map((v) => v.toFixed(1)).join()).join(" "),
    stroke: `var(--codec-${codec})`,
    "stroke-dasharray": data.codecs[codec].dashes.map((d) => 2 * d).join(" "),
  });
}

function makeScale(values, from, to, log = false, zero = false) {
  const f = log ? Math.log10 : (v) => v;
  let low = Math.min(...values);
  let high = Math.max(...values);
  if (zero) low = 0;
  if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - 1, high + 1];
  const pad = 0.04 * (f(high) - f(low));
  const [a, b] = [f(low) - (zero ? 0 : pad), f(high) + pad];
  const at = (v) => from + ((f(v) - a) / (b - a)) * (to - from);
  let ticks = [];
  if (log) {
    for (let e = Math.floor(a); e <= b; e += 1) for (const m of [1, 2, 5]) ticks.push(m * 10 ** e);
    ticks = ticks.filter((v) => f(v) >= a && f(v) <= b);
  } else {
    const spacing = from < to ? 75 : 45;
    const rough = (b - a) / Math.max(2, Math.abs(to - from) / spacing);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((m) => m * power >= rough);
    for (let k = Math.ceil(a / step); k * step <= b; k += 1) ticks.push(k * step);
  }
  return { at, ticks, from, to };
}

function drawAxes(svg, x, y, xLabel, yLabel) {
  const bottom = y.from;
  for (const tick of y.ticks) {
    shape(svg, "line", { class: "grid", x1: x.from, x2: x.to, y1: y.at(tick), y2: y.at(tick) });
    shape(svg, "text", { class: "tick", x: x.from - 8, y: y.at(tick) + 4, "text-anchor": "end" }, number(tick));
  }
  for (const tick of x.ticks) {
    shape(svg, "line", { class: "grid", x1: x.at(tick), x2: x.at(tick), y1: bottom, y2: y.to });
    if (xLabel) shape(svg, "text", { class: "tick", x: x.at(tick), y: bottom + 18, "text-anchor": "middle" }, number(tick));
  }
  shape(svg, "path", { class: "axis", fill: "none", d: `M${x.from} ${y.to}V${bottom}H${x.to}` });
  if (xLabel) shape(svg, "text", { x: (x.from + x.to) / 2, y: bottom + 40, "text-anchor": "middle" }, xLabel);
  shape(svg, "text", { transform: `translate(14 ${(y.from + y.to) / 2}) rotate(-90)`, "text-anchor": "middle" }, yLabel);
}

function startChart(section, height) {
  const chart = section.querySelector(".chart");
  const svg = chart.querySelector("svg");
  const width = Math.max(320, chart.clientWidth);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  return { svg, width };
}

function showTip(section, x, y, ...content) {
  const chart = section.querySelector(".chart");
  const tip = chart.querySelector(".tip");
  tip.replaceChildren(...content);
  tip.hidden = false;
  const left = x + 16 + tip.offsetWidth > chart.clientWidth ? x - 16 - tip.offsetWidth : x + 16;
  tip.style.left = `${Math.max(0, left)}px`;
  tip.style.top = `${Math.max(0, y - tip.offsetHeight / 2)}px`;
}

function tipTable(rows) {
  return html("table", {}, ...rows.map(([name, ...values]) =>
    html("tr", {}, html("th", { textContent: name }), ...values.map((v) => html("td", { className: "number", textContent: v })))));
}

function drawLegend(section, codecs, text = (codec) => data.codecs[codec].name) {
  section.querySelector(".legend").replaceChildren(...codecs.map((codec) => {
    const button = html("button", { type: "button" });
    button.setAttribute("aria-pressed", String(!hidden.has(codec)));
    const sample = shape(button, "svg", { viewBox: "0 0 34 14", "aria-hidden": "true" });
    drawLine(sample, codec, [[1, 7], [33, 7]]);
    drawMarker(sample, codec, 17, 7, 4);
    button.append(text(codec));
    button.addEventListener("click", () => {
      if (!hidden.delete(codec)) hidden.add(codec);
      redraws.forEach((redraw) => redraw());
      section.querySelectorAll(".legend button")[codecs.indexOf(codec)].focus();
    });
    return button;
  }));
}

// Pointer and arrow keys both choose one of the things drawn by calling `choose`.
function listen(section, nearest, step, choose) {
  const svg = section.querySelector(".chart > svg");
  const clear = () => choose(null);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    choose(nearest(event.clientX - box.left, event.clientY - box.top));
  });
  svg.addEventListener("pointerleave", clear);
  svg.addEventListener("blur", clear);
  svg.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Escape") clear();
    if (!(event.key in moves)) return;
    event.preventDefault();
    choose(step(...moves[event.key]));
  });
}
