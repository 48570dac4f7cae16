// What is shown of the chosen point, and of its neighbours along the axis: figures, timeline by lane, link load, memory.
const parts = [["moe_ms", "MoE layers"], ["attention_ms", "attention and dense"], ["bubble_ms", "pipeline bubble"],
               ["gradients_ms", "gradients, not hidden"], ["other_ms", "other"]];

function tile(what, value, unit, more, text) {
  const e = make($("tiles"), "div", {class: text ? "tile text" : "tile"});
  make(e, "div", {class: "what"}, what);
  const f = make(e, "div", {class: "figure"}, value);
  if (unit) f.append(" "), make(f, "small", {}, unit);
  make(e, "div", {class: "more"}, more);
}

function draw_point() {
  const p = points[state.point];
  $("tiles").replaceChildren(), $("parts").replaceChildren();
  $("point-name").textContent = (points.length > 1 ? `Point ${p.index}: ` : "") + words(p);
  $("previous").disabled = p.index === 0, $("next").disabled = p.index + 1 === points.length;
  if (!planned(p)) {
    make($("parts"), "p", {class: "reason"}, p.reason ? `${p.status}: ${p.reason}` : p.status);
    return;
  }
  const layer_us = p.forward.time_us + (p.backward ? p.backward.time_us : 0);
  const busiest = p.loads.find(l => l.link === p.bottleneck);
  tile(metrics.step_ms.name, figure(p.step_ms), "ms", `${figure(p.low_ms)} to ${figure(p.high_ms)} ms expected`);
  tile("model TFLOP/s a GPU", figure(p.model_TFLOPps_per_gpu), "TFLOP/s", `${p.gpus} GPUs`);
  tile("GPU-seconds a million tokens", figure(1e6 * p.gpu_seconds_per_token), "GPU-s",
       `${figure(1e6 * p.gpu_seconds_per_token_low)} to ${figure(1e6 * p.gpu_seconds_per_token_high)}`);
  tile("memory of a GPU", GiB_text(p.memory_GiB), "GiB", `of ${GiB_text(p.memory_limit_GiB)} GiB, on stage ${p.memory_stage}`);
  tile("layout", p.layout, "", p.algorithm, true);
  tile("busiest link", p.bottleneck ?? "none", "",
       busiest ? `${busiest.link_class}, busy ${figure(busiest.busy_us)} of ${figure(layer_us)} us of a layer` : "no link is used", true);
  stack($("parts"), parts.map(([key, name]) => [name, p.time[key]]), "ms");
  if (p.note) make($("parts"), "div", {class: "note"}, p.note);
  if (!p.warnings.length) return;
  const assumed = make($("parts"), "details", {class: "note"});
  make(assumed, "summary", {}, `${p.warnings.length} unknown or assumed`);
  for (const warning of p.warnings) make(assumed, "div", {}, warning);
}

function stack(parent, list, unit) {
  const bar = make(parent, "div", {class: "stack"}), legend = make(parent, "div", {class: "legend"});
  list.forEach(([name, value], i) => {
    make(bar, "div", {style: `flex: ${value} 0 0; background: ${colour(i, 8)}`, "data-tip": `${name}: ${figure(value)} ${unit}`});
    legend_entry(legend, name, figure(value), unit, i);
  });
}
function legend_entry(legend, name, value, unit, i) {
  const entry = make(legend, "span");
  make(entry, "i", {style: `background: ${colour(i, 8)}`});
  entry.append(name.replaceAll("_", " ") + " "), make(entry, "b", {}, value), entry.append(" " + unit);
}

const lanes = [["compute", 0], ["copy", 2], ["intra_node", 1], ["inter_node", 4]];

function draw_timeline() {
  const box = $("passes"), p = points[state.point];
  box.replaceChildren();
  if (!planned(p)) { make(box, "p", {class: "note"}, "no plan"); return; }
  const passes = [["forward", p.forward], ["backward", p.backward]].filter(([, pass]) => pass);
  const longest_us = Math.max(...passes.map(([, pass]) => pass.time_us));
  for (const [name, pass] of passes) {
    make(box, "p", {class: "note pass"}, `${name}: ${figure(pass.time_us)} us; no execution can beat ${figure(pass.bound_us)} us (${pass.bound_by})`);
    // A lane has as many rows as steps of it overlap.
    const rows = [];
    for (const [lane, c] of lanes) {
      const own = [];
      for (const step of pass.steps.filter(s => s.lane === lane)) {
        let row = own.find(r => r.end <= step.begin_us + 1e-6);
        if (!row) own.push(row = {lane: own.length ? "" : lane, c, steps: []});
        row.steps.push(step), row.end = step.end_us;
      }
      rows.push(...own);
    }
    const height = 24 * rows.length + 26, left = 84;
    const {svg, width} = drawing(box, height);
    svg.setAttribute("aria-label", `${name} by lane`);
    const x = us => left + (width - left - 12) * us / longest_us;
    for (const t of ticks(0, longest_us, 8)) {
      make(svg, "line", {x1: x(t), x2: x(t), y1: 2, y2: height - 20, class: "grid"});
      make(svg, "text", {x: x(t), y: height - 6, "text-anchor": t === 0 ? "start" : "middle"}, tick_text(t) + (t === 0 ? " us" : ""));
    }
    rows.forEach((row, i) => {
      make(svg, "text", {x: left - 10, y: 24 * i + 19, "text-anchor": "end"}, row.lane.replace("_", " "));
      for (const s of row.steps) {
        const w = Math.max(1, x(s.end_us) - x(s.begin_us) - 0.75);
        make(svg, "rect", {
          x: x(s.begin_us), y: 24 * i + 4, width: w, height: 20, rx: 2, fill: colour(row.c, 8), class: "step", "data-name": s.name,
          "data-lane": s.lane, "data-tip": `${s.name} (${s.lane.replace("_", " ")})\n${figure(s.begin_us)} to ${figure(s.end_us)} us, waits for ${s.waits_for}\n${bytes(s.bytes)}`});
        const text = s.name.length * 6.1 + 8 < w ? s.name : "";
        if (text) make(svg, "text", {x: x(s.begin_us) + 4, y: 24 * i + 18, class: "step-name"}, text);
      }
    });
    make(svg, "line", {x1: x(pass.bound_us), x2: x(pass.bound_us), y1: 0, y2: height - 18, class: "bound",
                       "data-tip": `no execution can beat ${figure(pass.bound_us)} us: ${pass.bound_by}`});
  }
}

const most_neighbours = 12;
// At most `most` neighbours of the chosen point.
function near(list, most) {
  const at = list.findIndex(p => p.index === state.point);
  const from = Math.max(0, Math.min(at - Math.floor(most / 2), list.length - most));
  return list.slice(from, from + most);
}
const value_of = p => state.along.values[place(p.index)[axes.indexOf(state.along)]];

function draw_loads() {
  const box = $("heat"), line = near(along(state.along, state.point), most_neighbours), chosen = points[state.point];
  box.replaceChildren();
  $("loads-note").textContent = `Share of a layer's time that the busiest link of each class is busy, along ${state.along.key}; figures are the chosen point's.`;
  const classes = [...new Set(line.filter(planned).flatMap(p => p.loads.map(l => l.link_class)))];
  if (!classes.length) { make(box, "p", {class: "note"}, line.some(planned) ? "no link is used" : "no plan"); return; }
  const table = make(box, "table"), head = make(make(table, "thead"), "tr");
  make(head, "th", {class: "left"}, "");
  for (const p of line) make(head, "th", {style: "text-align: center", class: p === chosen ? "chosen" : ""}, value_of(p));
  for (const text of ["GB/s", "bytes", "busy us"]) make(head, "th", {}, text);
  const body = make(table, "tbody");
  for (const klass of classes) {
    const row = make(body, "tr"), first = make(row, "td", {class: "left"}, klass);
    const own = planned(chosen) ? chosen.loads.find(l => l.link_class === klass) : null;
    make(first, "small", {class: "own"}, own ? own.link : "");
    for (const p of line) {
      const load = planned(p) ? p.loads.find(l => l.link_class === klass) : null;
      const layer_us = planned(p) ? p.forward.time_us + (p.backward ? p.backward.time_us : 0) : 1;
      const busy = load ? load.busy_us / layer_us : 0;
      make(row, "td", {
        class: `cell${load ? "" : " none"}${busy > 0.5 ? " hot" : ""}${p === chosen ? " chosen" : ""}`, style: `--busy: ${Math.min(1, busy).toFixed(4)}`,
        "data-point": p.index, "data-class": klass,
        "data-tip": `${words(p)}\n` + (load ? `${load.link}: ${bytes(load.bytes)} at ${figure(load.GBps_per_direction)} GB/s, busy ${figure(load.busy_us)} us` : planned(p) ? "not used" : p.status)},
        load ? (100 * busy).toFixed(0) + (line.length > 7 ? "" : "%") : planned(p) ? "" : "\u00d7");
    }
    for (const text of own ? [figure(own.GBps_per_direction), bytes(own.bytes), figure(own.busy_us)] : ["", "", ""]) make(row, "td", {class: "own"}, text);
  }
}

function draw_memory() {
  const box = $("bars"), line = near(along(state.along, state.point), most_neighbours), chosen = points[state.point];
  box.replaceChildren(), $("buckets").replaceChildren();
  const found = line.filter(planned);
  $("memory-note").textContent = found.length ? `The worst pipeline stage, along ${state.along.key}; the line is the limit.` : "no plan";
  if (!found.length) return;
  const names = [...new Set(found.flatMap(p => Object.keys(p.memory_by_bucket_GiB)))];
  const most = 1.02 * Math.max(...found.map(p => Math.max(p.memory_GiB, p.memory_limit_GiB)));
  const label = Math.min(180, 16 + 6.8 * Math.max(...line.map(p => String(value_of(p)).length)));
  const {svg, width} = drawing(box, 24 * line.length + 22);
  svg.setAttribute("aria-label", "memory by bucket");
  const x = GiB => label + (width - label - 64) * GiB / most;
  for (const t of ticks(0, most, 5)) {
    make(svg, "line", {x1: x(t), x2: x(t), y1: 0, y2: 24 * line.length, class: "grid"});
    make(svg, "text", {x: x(t), y: 24 * line.length + 15, "text-anchor": "middle"}, tick_text(t));
  }
  line.forEach((p, i) => {
    const g = make(svg, "g", {"data-point": p.index}), own = p === chosen;
    make(g, "rect", {x: 0, y: 24 * i, width, height: 24, fill: "transparent"});
    make(g, "text", {x: label - 8, y: 24 * i + 16, "text-anchor": "end", class: own ? "strong" : ""}, value_of(p));
    if (!planned(p)) { make(g, "text", {x: label + 6, y: 24 * i + 16}, p.status); return; }
    let sum = 0;
    for (const [name, GiB] of Object.entries(p.memory_by_bucket_GiB)) {
      make(g, "rect", {x: x(sum), y: 24 * i + 5, width: Math.max(0, x(sum + GiB) - x(sum)), height: 15, fill: colour(names.indexOf(name) % 8, 8),
                       "fill-opacity": own ? 1 : 0.55, class: "bucket", "data-name": name, "data-tip": `${name.replaceAll("_", " ")}: ${GiB_text(GiB)} GiB`});
      sum += GiB;
    }
    make(g, "line", {x1: x(p.memory_limit_GiB), x2: x(p.memory_limit_GiB), y1: 24 * i + 2, y2: 24 * i + 23, stroke: "var(--bad)", "stroke-width": 2});
    make(g, "text", {x: width - 58, y: 24 * i + 16, class: own ? "strong" : ""}, GiB_text(p.memory_GiB));
  });
  if (planned(chosen)) names.forEach((name, i) => {
    const GiB = chosen.memory_by_bucket_GiB[name] ?? 0;
    if (GiB >= 0.005) legend_entry($("buckets"), name, GiB_text(GiB), "GiB", i % 8);
  });
}
