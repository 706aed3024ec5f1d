// What a reader does with the page; what is seen goes to the element "probe" as JSON.
const found = {};
const one = (selector) => document.querySelector(selector);
const count = (selector) => document.querySelectorAll(selector).length;
const text = (selector) => one(selector).innerText;
function point(selector, type, x, y, more) {
  const box = one(selector).getBoundingClientRect();
  const place = { clientX: box.left + x * box.width, clientY: box.top + y * box.height };
  one(selector).dispatchEvent(new PointerEvent(type, { bubbles: true, ...place, ...more }));
}
function press(selector, key) {
  one(selector).dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
}
function choose(selector, value) {
  one(selector).value = value;
  one(selector).dispatchEvent(new Event("change", { bubbles: true }));
}
const chart = "#curves .chart > svg";
const table = () => [...document.querySelectorAll("#numbers tbody tr")].map((row) =>
  [...row.cells].map((cell) => cell.innerText));
function run() {
  found.wide = document.documentElement.scrollWidth - innerWidth;
  found.points = count(`${chart} .point`);
  const last = [...document.querySelectorAll(`${chart} .point`)].pop().getBoundingClientRect();
  const box = one(chart).getBoundingClientRect();
  point(chart, "pointermove", (last.left + last.width / 2 - box.left) / box.width,
    (last.top + last.height / 2 - box.top) / box.height);
  found.tip = text("#curves .tip");
  found.tip_beyond = one("#curves .tip").getBoundingClientRect().right - box.right;
  point(chart, "pointerleave", 0, 0);
  found.tip_gone = one("#curves .tip").hidden;
  press(chart, "ArrowRight");
  press(chart, "ArrowRight");
  press(chart, "ArrowDown");
  found.keyed = text("#curves .tip");
  choose("#curves-sequence", "1");
  choose("#curves-metric", "tof");
  found.axis = [...document.querySelectorAll(`${chart} text:not(.tick)`)].map((t) => t.textContent);
  choose("#curves-metric", "psnr_yuv");
  found.hollow = count(`${chart} .point[fill="var(--page)"]`);
  one("#curves .legend button").click();
  found.without_one = count(`${chart} .point`);
  found.pressed = one("#curves .legend button").getAttribute("aria-pressed");
  found.focused = document.activeElement === one("#curves .legend button");
  one("#curves .legend button").click();
  found.with_all = count(`${chart} .point`);
  found.frame_lines = count("#frames .chart .line");
  press("#frames .chart > svg", "ArrowRight");
  press("#frames .chart > svg", "ArrowRight");
  found.frame_tip = text("#frames .tip");
  choose("#frames-metric", "tof");
  point("#frames .chart > svg", "pointermove", 0.08, 0.5);
  found.first_frame_tip = text("#frames .tip");
  choose("#frames-rate", "0");
  found.rates = [...document.querySelectorAll("#frames .legend button")].map((b) => b.innerText);
  found.left = one("#viewer-left-image").naturalWidth;
  found.options = [...one("#viewer-right").options].map((option) => option.textContent);
  point("#viewer .pair", "pointerdown", 0.25, 0.5, { buttons: 1 });
  found.dragged = [one("#viewer-slider").value, one("#viewer .divider").style.left,
    one("#viewer-right-image").style.clipPath];
  point("#viewer .pair", "pointermove", 0.75, 0.5, { buttons: 0 });
  found.only_moved = one("#viewer-slider").value;
  one("#viewer-slider").value = "90";
  one("#viewer-slider").dispatchEvent(new Event("input"));
  found.slid = one("#viewer .divider").style.left;
  choose("#viewer-left", "2/45");
  choose("#viewer-frame", "6");
  found.caption = text("#viewer-left-caption");
  choose("#viewer-zoom", "4");
  found.zoomed = one("#viewer-left-image").getBoundingClientRect().width;
  found.rows = table();
  one("#numbers th:nth-child(4) button").click();
  found.sorted = table().map((row) => Number(row[3]));
  one("#numbers th:nth-child(4) button").click();
  found.reversed = table().map((row) => Number(row[3]));
  found.sort = one("#numbers th:nth-child(4)").getAttribute("aria-sort");
  choose("#numbers-kind", "sequence");
  found.sequences = table().map((row) => row[1]);
  found.fetched = performance.getEntriesByType("resource").map((entry) => entry.name)
    .filter((name) => !name.startsWith("data:"));
}
addEventListener("load", () => setTimeout(() => {
  try { run(); } catch (error) { found.error = String(error.stack); }
  const probe = document.createElement("pre");
  probe.id = "probe";
  probe.textContent = JSON.stringify(found);
  document.body.append(probe);
}, 300));
