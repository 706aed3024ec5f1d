// The page's sections: curves, frames, pictures, numbers. Follows charts.js.

// ---- rate and quality

function setUpCurves() {
  const section = get("curves");
  const [set, sequence, metric, log] = ["set", "sequence", "metric", "log"].map((n) => get(`curves-${n}`));
  let points = [];
  let chosen = null;

  const own = (name) => data.curves.filter((c) => c.set === set.value && c.sequence === name);
  function changeSet() {
    const names = data.sets[set.value];
    const options = names.map((name, i) => [String(i), name]);
    if (own(null).length) options.unshift(["mean", `mean of ${names.length}`]);
    fill(sequence, options);
    changeSequence();
  }
  const shown = () => own(sequence.value === "mean" ? null : data.sets[set.value][Number(sequence.value)]);
  function changeSequence() {
    const bpp = shown().flatMap((curve) => curve.bpp);
    log.checked = Math.max(...bpp) > data.log_range * Math.min(...bpp);
    redraw();
  }

  function redraw() {
    const { svg, width } = startChart(section, 430);
    const curves = shown().filter((c) => c.quality[metric.value]);
    drawLegend(section, curves.map((c) => c.codec));
    const visible = curves.filter((c) => !hidden.has(c.codec));
    points = [];
    choose(null);
    if (!visible.length) return;
    const x = makeScale(visible.flatMap((c) => c.bpp), 68, width - 12, log.checked);
    const y = makeScale(visible.flatMap((c) => c.quality[metric.value]), 380, 10);
    drawAxes(svg, x, y, "rate (bits per pixel)", label(metric.value));
    for (const curve of visible) {
      const leftOut = curve.left_out[metric.value] || [];
      const places = curve.bpp.map((bpp, i) => [x.at(bpp), y.at(curve.quality[metric.value][i])]);
      drawLine(svg, curve.codec, places.filter((_, i) => !leftOut.includes(i)));
      places.forEach(([px, py], i) => {
        drawMarker(svg, curve.codec, px, py, 5, leftOut.includes(i));
        points.push({ curve, i, x: px, y: py });
      });
    }
  }

  function choose(point) {
    chosen = point;
    section.querySelector(".ring")?.remove();
    if (!point) {
      section.querySelector(".tip").hidden = true;
      return;
    }
    const { curve, i, x, y } = point;
    shape(section.querySelector(".chart > svg"), "circle", { class: "ring", cx: x, cy: y, r: 9 });
    const rows = [["rate", number(curve.rates[i])], ["bits per pixel", number(curve.bpp[i])]];
    if (curve.kbps) rows.push(["kbit/s", number(curve.kbps[i])]);
    for (const [name, values] of Object.entries(curve.quality)) rows.push([label(name), number(values[i])]);
    showTip(section, x, y, html("strong", { textContent: data.codecs[curve.codec].name }), tipTable(rows));
  }

  const distance = (p, x, y) => Math.hypot(p.x - x, p.y - y);
  const nearest = (x, y) => points.reduce((best, p) => (best && distance(best, x, y) <= distance(p, x, y) ? best : p), null);
  function step(along, across) {
    if (!chosen || !points.length) return points[0] || null;
    if (along) return points[(points.indexOf(chosen) + along + points.length) % points.length];
    const codecs = [...new Set(points.map((p) => p.curve))];
    const next = codecs[(codecs.indexOf(chosen.curve) + across + codecs.length) % codecs.length];
    return points.filter((p) => p.curve === next)[Math.min(chosen.i, next.bpp.length - 1)];
  }

  fill(set, Object.keys(data.sets).map((name) => [name, name]));
  fill(metric, Object.keys(data.metrics).map((name) => [name, label(name)]), data.headline);
  set.addEventListener("change", changeSet);
  sequence.addEventListener("change", changeSequence);
  for (const control of [metric, log]) control.addEventListener("change", redraw);
  listen(section, (x, y) => nearest(x, y), step, choose);
  redraws.push(redraw);
  changeSet();
}

// ---- frame by frame

function setUpFrames() {
  const section = get("frames");
  const [sequence, rate, metric] = ["sequence", "rate", "metric"].map((n) => get(`frames-${n}`));
  if (!data.frames.length) {
    section.hidden = true;
    return;
  }
  let x = null;
  let shown = [];
  let chosen = null;
  let count = 0;

  const own = () => {
    const [set, name] = chosenSequence(sequence);
    return data.frames.filter((entry) => entry.set === set && entry.sequence === name);
  };
  function changeSequence() {
    const near = own().filter((entry) => entry.codec === own()[0].codec);
    const options = near.map((entry, i) =>
      [String(i), `near ${number(entry.bpp, 4)} bpp (${data.codecs[entry.codec].name}, ${number(entry.rate)})`]);
    fill(rate, [["closest", "closest of all codecs"], ...options]);
    const names = [...new Set(own().flatMap((entry) => Object.keys(entry.series)))].filter((n) => n !== "bits");
    fill(metric, names.map((name) => [name, label(name)]), metric.value || data.headline);
    redraw();
  }
  function atRate() {
    const entries = own();
    if (rate.value === "closest") return entries.filter((entry) => entry.closest);
    const target = entries.filter((entry) => entry.codec === entries[0].codec)[Number(rate.value)].bpp;
    const away = (entry) => Math.abs(Math.log(entry.bpp / target));
    return [...new Set(entries.map((entry) => entry.codec))].map((codec) =>
      entries.filter((entry) => entry.codec === codec).reduce((a, b) => (away(b) < away(a) ? b : a)));
  }
  // Temporal metrics have no value for frame 0.
  const value = (entry, name, frame) => {
    const series = entry.series[name] || [];
    return series[frame - (entry.series.bits.length - series.length)];
  };

  function redraw() {
    const { svg, width } = startChart(section, 520);
    const entries = atRate();
    const text = (codec) => {
      const entry = entries.find((e) => e.codec === codec);
      return `${data.codecs[codec].name}: rate ${number(entry.rate)}, ${number(entry.bpp, 4)} bpp`;
    };
    drawLegend(section, entries.map((entry) => entry.codec), text);
    const bpp = entries.map((entry) => entry.bpp);
    const apart = 100 * (Math.max(...bpp) / Math.min(...bpp) - 1);
    get("frames-rates").textContent = `The rates are up to ${apart.toFixed(0)} % apart.`;
    shown = entries.filter((entry) => !hidden.has(entry.codec));
    choose(null);
    if (!shown.length) return;
    count = Math.max(...shown.map((entry) => entry.series.bits.length));
    x = makeScale([0, count - 1], 68, width - 12);
    x.ticks = x.ticks.filter(Number.isInteger);
    const all = shown.flatMap((entry) => entry.series.bits).sort((a, b) => a - b);
    const log = all[0] > 0 && all[all.length - 1] > data.log_ratio * all[all.length >> 1];
    drawPanel(svg, "bits", "bits per frame (kbit)", 230, 10, (v) => v / 1000, "", log);
    if (metric.value) drawPanel(svg, metric.value, label(metric.value), 470, 260, (v) => v, "frame", false);
  }
  function drawPanel(svg, name, text, bottom, top, convert, xLabel, log) {
    const series = shown.map((entry) => {
      const frames = [...Array(count).keys()].filter((frame) => value(entry, name, frame) !== undefined);
      return [entry.codec, frames.map((frame) => [frame, convert(value(entry, name, frame))])];
    }).filter(([, values]) => values.length);
    if (!series.length) return;
    const values = series.flatMap(([, pairs]) => pairs.map(([, v]) => v));
    const y = makeScale(values, bottom, top, log, name === "bits" && !log);
    drawAxes(svg, x, y, xLabel, text);
    for (const [codec, pairs] of series) drawLine(svg, codec, pairs.map(([frame, v]) => [x.at(frame), y.at(v)]));
  }

  function choose(frame) {
    chosen = frame;
    section.querySelector(".cursor")?.remove();
    if (frame === null) {
      section.querySelector(".tip").hidden = true;
      return;
    }
    const place = x.at(frame);
    shape(section.querySelector(".chart > svg"), "line", { class: "cursor", x1: place, x2: place, y1: 10, y2: 470 });
    const rows = shown.map((entry) => {
      const quality = metric.value && value(entry, metric.value, frame);
      const bits = value(entry, "bits", frame);
      return [data.codecs[entry.codec].name, bits === undefined ? "" : `${number(bits / 1000)} kbit`, quality === undefined ? "" : number(quality)];
    });
    if (metric.value) rows.unshift(["", "", data.metrics[metric.value].name]);
    showTip(section, place, 120, html("strong", { textContent: `frame ${frame}` }), tipTable(rows));
  }
  const clamp = (frame) => Math.min(count - 1, Math.max(0, frame));
  const nearest = (px) => (shown.length ? clamp(Math.round(((px - x.at(0)) / (x.at(1) - x.at(0))))) : null);

  const present = new Set(data.frames.map((entry) => `${entry.set}/${entry.sequence}`));
  fillSequences(sequence, (set, name) => present.has(`${set}/${name}`));
  sequence.addEventListener("change", changeSequence);
  for (const control of [rate, metric]) control.addEventListener("change", redraw);
  listen(section, nearest, (along) => (shown.length ? clamp(chosen === null ? 0 : chosen + along) : null), choose);
  redraws.push(redraw);
  get("frames-note").textContent = data.frames_note;
  changeSequence();
}
// ---- side by side

function setUpViewer() {
  const section = get("viewer");
  const [sequence, frame, left, right, zoom, slider] =
    ["sequence", "frame", "left", "right", "zoom", "slider"].map((n) => get(`viewer-${n}`));
  get("viewer-note").textContent = data.pictures_note;
  if (!data.pictures.length) {
    for (const part of section.querySelectorAll(".controls, .stage, .captions, input")) part.hidden = true;
    return;
  }
  const pair = section.querySelector(".pair");
  const stem = (picture) => (picture.codec === null ? "source" : `${picture.codec}/${picture.rate}`);
  const name = (picture) => (picture.codec === null
    ? "source"
    : `${data.codecs[picture.codec].name}, rate ${number(picture.rate)}, ${number(picture.bpp, 4)} bpp`);
  const own = () => {
    const [set, wanted] = chosenSequence(sequence);
    return data.pictures.filter((picture) => picture.set === set && picture.sequence === wanted);
  };
  const atFrame = () => own().filter((picture) => picture.frame === frame.value);

  function changeSequence() {
    const frames = [...new Set(own().map((picture) => picture.frame))].sort((a, b) => a - b);
    fill(frame, frames.map((f) => [f, f]));
    changeFrame();
  }
  function changeFrame() {
    const options = atFrame().map((picture) => [stem(picture), name(picture)]);
    const last = options[options.length - 1][0];
    const closest = atFrame().filter((picture) => picture.closest && picture.codec !== null);
    fill(left, options, left.value || "source");
    fill(right, options, right.value || (closest.length ? stem(closest[closest.length - 1]) : last));
    show();
  }
  function show() {
    for (const [side, select] of [["left", left], ["right", right]]) {
      const picture = atFrame().find((p) => stem(p) === select.value);
      const image = get(`viewer-${side}-image`);
      image.src = picture.image;
      image.alt = name(picture);
      get(`viewer-${side}-caption`).textContent = name(picture);
      const fixed = zoom.value !== "fit";
      image.style.width = fixed ? `${picture.width * Number(zoom.value)}px` : "";
    }
    pair.classList.toggle("fit", zoom.value === "fit");
    pair.classList.toggle("enlarged", Number(zoom.value) > 1);
    slide();
  }
  function slide() {
    get("viewer-right-image").style.clipPath = `inset(0 0 0 ${slider.value}%)`;
    section.querySelector(".divider").style.left = `${slider.value}%`;
  }
  function drag(event) {
    if (event.type === "pointermove" && !event.buttons) return;
    const box = pair.getBoundingClientRect();
    slider.value = String((100 * (event.clientX - box.left)) / box.width);
    slide();
  }

  const present = new Set(data.pictures.map((picture) => `${picture.set}/${picture.sequence}`));
  fillSequences(sequence, (set, wanted) => present.has(`${set}/${wanted}`));
  sequence.addEventListener("change", changeSequence);
  frame.addEventListener("change", changeFrame);
  for (const control of [left, right, zoom]) control.addEventListener("change", show);
  slider.addEventListener("input", slide);
  for (const type of ["pointerdown", "pointermove"]) pair.addEventListener(type, drag);
  changeSequence();
}

// ---- all numbers

function setUpNumbers() {
  const [metric, kind] = [get("numbers-metric"), get("numbers-kind")];
  const table = document.querySelector("#numbers table");
  const signed = (value, text) => (value > 0 ? `+${text}` : text);
  const percent = (value) => signed(value, value.toFixed(2));
  const delta = (value) => signed(value, String(Number(value.toPrecision(3))));
  const part = (name, i) => (row) => row[name][i];
  const ends = (name, show) => (row) => (row[name][1] === null || row[name][2] === null ? "" : `${show(row[name][1])} to ${show(row[name][2])}`);
  const columns = [
    { title: "set", read: (row) => row.set || "all sets" },
    { title: "over", read: (row) => row.sequence || data.kinds[row.kind], wide: true },
    { title: "codec", read: (row) => data.codecs[row.codec].name },
    { title: "BD-rate (%)", read: part("rate", 0), show: percent },
    { title: "error bar", read: ends("rate", percent), narrow: true },
    { title: "overlap (%)", read: part("rate", 3), show: (value) => value.toFixed(0) },
    { title: "BD-quality", read: part("quality", 0), show: delta },
    { title: "error bar", read: ends("quality", delta), narrow: true },
    { title: "caveats", read: (row) => row.flags.join("; "), wide: true },
  ];
  let [sorted, ascending] = [null, true];

  function order(a, b) {
    const { read, show } = columns[sorted];
    const [u, v] = [a, b].map(read);
    // What has no number comes last either way.
    if (u === null || v === null) return (u === null) - (v === null);
    const sign = ascending ? 1 : -1;
    return sign * (show ? u - v : String(u).localeCompare(String(v), undefined, { numeric: true }));
  }
  function redraw() {
    const wanted = (row) => kind.value === "all" || (row.kind === "sequence") === (kind.value === "sequence");
    const rows = data.rows.filter((row) => row.metric === metric.value && wanted(row));
    if (sorted !== null) rows.sort(order);
    const style = ({ show, wide, narrow }) => (show ? "number" : wide ? "words" : narrow ? "narrow" : "");
    table.tHead.replaceChildren(html("tr", {}, ...columns.map((column, i) => {
      const button = html("button", { type: "button", textContent: column.title });
      const cell = html("th", { className: style(column) }, button);
      if (i === sorted) cell.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      button.addEventListener("click", () => {
        [sorted, ascending] = [i, sorted === i ? !ascending : true];
        redraw();
        table.tHead.querySelectorAll("button")[i].focus();
      });
      return cell;
    })));
    table.tBodies[0].replaceChildren(...rows.map((row) => html("tr", {}, ...columns.map((column) => {
      const value = column.read(row);
      const text = value === null ? "none" : (column.show || String)(value);
      return html("td", { className: style(column), textContent: text });
    }))));
  }
  fill(metric, Object.keys(data.metrics).map((name) => [name, label(name)]), data.headline);
  fill(kind, [["all", "all"], ["means", "sets"], ["sequence", "sequences"]]);
  for (const control of [metric, kind]) control.addEventListener("change", redraw);
  redraw();
}

setUpCurves();
setUpFrames();
setUpViewer();
setUpNumbers();

let drawnWidth = window.innerWidth;
window.addEventListener("resize", () => {
  // On a phone the height changes while one scrolls.
  if (window.innerWidth === drawnWidth) return;
  drawnWidth = window.innerWidth;
  redraws.forEach((redraw) => redraw());
});
