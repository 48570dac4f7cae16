// The table of all points, and what clicks and keys do.
const page_rows = 500;
const columns = [
  {name: "#", of: p => p.index, text: p => p.index},
  ...varied.map(a => ({name: a.key, of: p => p.settings[a.key], text: p => p.settings[a.key], left: !numbers(a)})),
  {name: "step ms", of: p => p.step_ms, text: p => figure(p.step_ms)},
  {name: "from", of: p => p.low_ms, text: p => figure(p.low_ms)},
  {name: "to", of: p => p.high_ms, text: p => figure(p.high_ms)},
  {name: "TFLOP/s a GPU", of: p => p.model_TFLOPps_per_gpu, text: p => figure(p.model_TFLOPps_per_gpu)},
  {name: "GPU-s a Mtoken", of: p => p.gpu_seconds_per_token, text: p => figure(1e6 * p.gpu_seconds_per_token)},
  {name: "GiB", of: p => p.memory_GiB, text: p => GiB_text(p.memory_GiB)},
  {name: "busiest link", of: p => p.bottleneck, text: p => p.bottleneck ?? "none", left: true},
  {name: "plan", of: p => p.layout, text: p => `${p.layout} | ${p.algorithm}`, left: true, plan: true},
];
const own_columns = 1 + varied.length;
let sorted = points;

function sort_rows() {
  sorted = [...points];
  if (state.sort === null) return;
  const of = columns[state.sort].of, up = state.down ? -1 : 1;
  const key = p => of(p) ?? null;  // points without a plan stay at the end
  sorted.sort((a, b) => {
    const u = key(a), v = key(b);
    if (u === null || v === null) return (u === null) - (v === null) || a.index - b.index;
    return (u < v ? -up : u > v ? up : 0) || a.index - b.index;
  });
}

function draw_table() {
  const [head, body] = [$("rows").tHead, $("rows").tBodies[0]];
  head.replaceChildren(), body.replaceChildren();
  const row = make(head, "tr");
  columns.forEach((c, i) => make(row, "th", {class: c.left ? "left" : "", "data-sort": i, "aria-sort": state.sort === i ? (state.down ? "descending" : "ascending") : "none"},
    c.name + (state.sort === i ? (state.down ? " \u2193" : " \u2191") : "")));
  const shown = sorted.slice(state.from, state.from + page_rows);
  for (const p of shown) {
    const tr = make(body, "tr", {"data-point": p.index, tabindex: 0, class: p.index === state.point ? "chosen" : ""});
    columns.forEach((c, i) => {
      if (i < own_columns || planned(p)) make(tr, "td", {class: `${c.left ? "left" : ""}${c.plan ? " plan" : ""}`}, c.text(p));
    });
    if (planned(p)) continue;
    const why = make(tr, "td", {colspan: columns.length - own_columns, class: "why"});
    make(why, "b", {}, p.status), why.append(p.reason ? ": " + p.reason : "");
  }
  const count = points.filter(planned).length;
  $("rows-note").textContent = `${points.length}, ${count} with a plan` + (data.points_computed < points.length ? `; interrupted, ${points.length - data.points_computed} not computed` : "") +
    (shown.length < points.length ? `; rows ${state.from + 1} to ${state.from + shown.length}` : "");
  $("rows-back").hidden = $("rows-on").hidden = points.length <= page_rows;
  $("rows-back").disabled = state.from === 0, $("rows-on").disabled = state.from + page_rows >= points.length;
}

function draw() {
  draw_curves(), draw_point(), draw_timeline(), draw_loads(), draw_memory();
  for (const tr of $("rows").tBodies[0].rows) tr.className = tr.dataset.point === String(state.point) ? "chosen" : "";
}
function choose(index) {
  state.point = Math.max(0, Math.min(points.length - 1, index));
  draw();
}
function fill(select, list, chosen) {
  select.replaceChildren();
  for (const [value, text] of list) make(select, "option", {value}, text);
  select.value = chosen;
}
function fill_selects() {
  fill($("metric"), Object.entries(metrics).map(([key, m]) => [key, m.name]), state.metric);
  fill($("along"), (varied.length ? varied : axes.slice(0, 1)).map(a => [a.key, a.key]), state.along.key);
  fill($("lines"), [["", "nothing"], ...varied.filter(a => a !== state.along).map(a => [a.key, a.key])], state.lines ? state.lines.key : "");
  $("along-label").hidden = varied.length < 2, $("lines-label").hidden = varied.length < 2;
}
const axis_of = key => axes.find(a => a.key === key) || null;

$("metric").onchange = e => (state.metric = e.target.value, draw());
$("along").onchange = e => {
  const before = state.along;
  state.along = axis_of(e.target.value);
  if (state.lines === state.along) state.lines = before;
  fill_selects(), draw();
};
$("lines").onchange = e => (state.lines = axis_of(e.target.value), draw());
$("previous").onclick = () => choose(state.point - 1);
$("next").onclick = () => choose(state.point + 1);
$("rows-back").onclick = () => (state.from = Math.max(0, state.from - page_rows), draw_table());
$("rows-on").onclick = () => (state.from += page_rows, draw_table());
document.addEventListener("click", e => {
  const header = e.target.closest("[data-sort]");
  if (header) {
    const column = +header.dataset.sort;
    state.down = state.sort === column && !state.down, state.sort = column, state.from = 0;
    sort_rows(), draw_table();
  }
  const target = e.target.closest("[data-point]");
  if (target) choose(+target.dataset.point);
});
$("rows").addEventListener("keydown", e => {
  const row = e.target.closest("tr[data-point]");
  const other = e.key === "ArrowDown" ? row?.nextElementSibling : e.key === "ArrowUp" ? row?.previousElementSibling : e.key === "Enter" ? row : null;
  if (!other) return;
  e.preventDefault(), other.focus(), choose(+other.dataset.point);
});
document.addEventListener("pointermove", e => {
  const target = e.target.closest?.("[data-tip]"), tip = $("tip");
  tip.hidden = !target;
  if (!target) return;
  tip.textContent = target.dataset.tip;
  tip.style.left = Math.max(4, Math.min(e.clientX + 14, innerWidth - tip.offsetWidth - 8)) + "px";
  tip.style.top = Math.max(4, e.clientY + 18 + tip.offsetHeight > innerHeight ? e.clientY - tip.offsetHeight - 10 : e.clientY + 18) + "px";
});

function set_theme(theme) {
  document.documentElement.style.colorScheme = theme;
  $("theme").textContent = theme === "dark" ? "Light" : "Dark";
}
const dark = () => $("theme").textContent === "Light";
$("theme").onclick = () => set_theme(dark() ? "light" : "dark");
const asked = new URLSearchParams(location.search).get("theme");
set_theme(asked || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));

document.title = `what if: ${data.model}`;
$("question").textContent = data.question;
$("edits").textContent = [data.degrade.length ? "degraded where edited: " + data.degrade.join(", ") : "", data.remove.length ? "removed where edited: " + data.remove.join(", ") : ""].filter(t => t).join("; ");
// Where the plan becomes another; a click chooses the point where it has.
for (const c of data.changes.slice(0, page_rows)) make($("changes"), "li", {"data-point": c.to_point}, c.text);
if (data.changes.length > page_rows) make($("changes"), "li", {}, `and ${data.changes.length - page_rows} more`);
const linked = /^#point=(\d+)$/.exec(location.hash);
if (linked) state.point = Math.min(points.length - 1, +linked[1]);
$("sweep").hidden = points.length === 1;
fill_selects(), draw_table(), draw();
addEventListener("resize", draw);
