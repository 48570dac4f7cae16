// The sweep: a metric along one axis, a line for each value of another, the rest as at the chosen point.
// Ticks at 1, 2 or 5 times a power of ten.
function ticks(low, high, about) {
  const raw = (high - low) / about, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= raw);
  const list = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-9); ++i) list.push(i * step);
  return list;
}
function log_ticks(low, high) {
  const list = [];
  for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10)
    list.push(...[1, 2, 5].map(m => m * power).filter(v => v >= low && v <= high));
  return list.length > 7 ? list.filter(v => String(v).startsWith("1") || v < 1) : list;
}
const tick_text = v => String(+v.toPrecision(6));

function x_scale(axis, left, right) {
  const v = axis.values, n = v.length, pad = Math.min(40, (right - left) / 8);
  if (n === 1) return () => (left + right) / 2;
  const ordinal = i => left + pad + (right - left - 2 * pad) * i / (n - 1);
  if (!numbers(axis)) return ordinal;
  const least = Math.min(...v), most = Math.max(...v), scale = most / least >= 8 ? Math.log : x => x;
  return i => left + pad + (right - left - 2 * pad) * (scale(v[i]) - scale(least)) / (scale(most) - scale(least));
}

function draw_curves() {
  const box = $("curves"), metric = metrics[state.metric], axis = state.along;
  box.replaceChildren();
  const {svg, width} = drawing(box, 330);
  svg.setAttribute("aria-label", `${metric.name} along ${axis.key}`);
  const lines = state.lines ? along(state.lines, state.point).map(p => along(axis, p.index)) : [along(axis, state.point)];
  const names = state.lines ? state.lines.values.map(v => title(state.lines, v)) : [];
  const label = names.length ? Math.min(230, 34 + 6.6 * Math.max(...names.map(n => n.length))) : 20;
  const left = 62, right = width - label, top = 26, bottom = 286;
  const x = x_scale(axis, left, right);
  const found = lines.flat().filter(planned);
  const low = Math.min(...found.map(metric.low)), high = Math.max(...found.map(metric.high));
  const log = low > 0 && high / low > 20, range = high - low || high;
  const least = log ? low / 1.2 : low < 0.5 * high ? 0 : Math.max(0, low - 0.08 * range);
  const most = log ? high * 1.2 : high + 0.05 * range;
  const scale = log ? Math.log : v => v;
  const y = v => bottom - (bottom - top) * (scale(v) - scale(least)) / (scale(most) - scale(least));

  make(svg, "text", {x: left, y: 14, class: "strong"}, `${metric.name}, ${metric.unit}${log ? ", logarithmic" : ""}`);
  if (found.length)
    for (const v of log ? log_ticks(least, most) : ticks(least, most, 5)) {
      make(svg, "line", {x1: left, x2: right, y1: y(v), y2: y(v), class: "grid"});
      make(svg, "text", {x: left - 8, y: y(v) + 4, "text-anchor": "end", class: "y-tick", "data-value": v}, tick_text(v));
    }
  make(svg, "line", {x1: left, x2: right, y1: bottom, y2: bottom, class: "axis"});
  let last = -Infinity;
  axis.values.forEach((v, i) => {
    const half = 3.4 * String(v).length + 6;
    if (x(i) - half < last) return;
    last = x(i) + half;
    make(svg, "text", {x: x(i), y: bottom + 18, "text-anchor": "middle"}, v);
  });
  make(svg, "text", {x: (left + right) / 2, y: bottom + 38, "text-anchor": "middle"}, axis.key);

  const mine = lines.findIndex(line => line.includes(points[state.point]));
  const all_bands = lines.length <= 3;
  const ordered = numbers(axis);  // between two clusters there is nothing to draw a line through
  const crowded = axis.values.some((_, i) => i > 0 && Math.abs(x(i) - x(i - 1)) < 9);
  const layers = ["bands", "paths", "dots", "rings", "hits"].map(() => make(svg, "g"));
  const crosses = {};
  const ends = [];
  lines.forEach((line, k) => {
    const own = colour(k, lines.length);
    const x_of = i => x(i) + (ordered ? 0 : 12 * (k - (lines.length - 1) / 2));
    for (let i = 0; i < line.length;) {  // runs of neighbours that have a plan
      if (!planned(line[i])) { ++i; continue; }
      let end = i;
      while (end < line.length && planned(line[end]) && (ordered || end === i)) ++end;
      const run = line.slice(i, end).map((p, j) => [x_of(i + j), y(metric.of(p)), y(metric.low(p)), y(metric.high(p))]);
      i = end;
      const path = run.map(r => `${r[0].toFixed(1)},${r[1].toFixed(1)}`).join(" ");
      if (all_bands || k === mine || !ordered) {
        const hull = [...run.map(r => [r[0], r[3]]), ...run.map(r => [r[0], r[2]]).reverse()];
        if (run.length > 1)
          make(layers[0], "polygon", {points: hull.map(h => `${h[0].toFixed(1)},${h[1].toFixed(1)}`).join(" "), class: "band", fill: own});
        else
          make(layers[0], "line", {x1: run[0][0], x2: run[0][0], y1: run[0][2], y2: run[0][3], class: "whisker", stroke: own});
      }
      if (run.length > 1) make(layers[1], "polyline", {points: path, class: "curve", stroke: own, "stroke-opacity": k === mine ? 1 : 0.75});
    }
    line.forEach((p, i) => {
      const tip = planned(p)
        ? `${words(p)}\n${figure(metric.of(p))} ${metric.unit} (${figure(metric.low(p))} to ${figure(metric.high(p))})\n${p.layout} | ${p.algorithm}`
        : `${words(p)}\n${p.status}${p.reason ? ": " + p.reason : ""}`;
      let cy = 0;
      if (planned(p)) {
        cy = y(metric.of(p));
        make(layers[2], "circle", {cx: x_of(i), cy, r: crowded ? 2 : 4, class: crowded ? "" : "dot", fill: own});
      } else {  // on the axis, several above each other
        cy = bottom - 8 - 13 * (crosses[i] = (crosses[i] ?? -1) + 1);
        const d = `M${x_of(i) - 4},${cy - 4} l8,8 m0,-8 l-8,8`;
        make(layers[2], "path", {d, class: "cross"});
      }
      if (p.index === state.point) make(layers[3], "circle", {cx: x_of(i), cy, r: 7.5, class: "ring"});
      make(layers[4], "circle", {cx: x_of(i), cy, r: 11, class: "hit", "data-point": p.index, "data-tip": tip});
    });
    const final = line.findLastIndex(planned);
    if (names.length && final >= 0) ends.push({y: y(metric.of(line[final])), name: names[k], own, mine: k === mine});
  });
  ends.sort((a, b) => a.y - b.y);
  if (ends.length <= 22) {
    for (let i = 1; i < ends.length; ++i) ends[i].y = Math.max(ends[i].y, ends[i - 1].y + 13.5);
    const over = ends.length ? Math.max(0, ends[ends.length - 1].y - bottom) : 0;
    for (let i = ends.length; i-- > 0;) {
      const limit = i + 1 < ends.length ? ends[i + 1].y - 13.5 : ends[i].y - over;
      ends[i].y = Math.min(ends[i].y, limit);
      make(svg, "line", {x1: right + 6, x2: right + 15, y1: ends[i].y, y2: ends[i].y, class: "swatch", stroke: ends[i].own});
      make(svg, "text", {x: right + 20, y: ends[i].y + 4, class: ends[i].mine ? "strong" : ""}, ends[i].name);
    }
  }
  const notes = [];
  if (state.metric !== "memory") notes.push(`${ordered ? "Bands" : "Bars"}: nine in ten are expected inside${all_bands || !ordered ? "" : "; drawn for the line of the chosen point"}.`);
  const others = varied.filter(a => a !== axis && a !== state.lines);
  const at = place(state.point);
  if (others.length) notes.push("At " + others.map(a => title(a, a.values[at[axes.indexOf(a)]])).join(", ") + ", as the chosen point.");
  if (lines.flat().some(p => !planned(p))) notes.push("A cross is a point without a plan; the table says why.");
  $("curves-note").textContent = notes.join(" ");
}
