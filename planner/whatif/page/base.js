// What all panels share: the JSON in #whatif, points and axes, figures as text, and the one state, the chosen point and
// what the curves show. Every panel is a function of it; nothing is computed but what a scale needs.
"use strict";
const $ = id => document.getElementById(id);
const data = JSON.parse($("whatif").textContent);
const {points, axes} = data;
const varied = axes.filter(a => a.values.length > 1);
const planned = p => p.status === "planned";

// Four significant digits, never an exponent.
function figure(v) {
  if (v === 0) return "0";
  return v.toFixed(Math.min(6, Math.max(0, 3 - Math.floor(Math.log10(Math.abs(v))))));
}
const GiB_text = v => v.toFixed(v >= 0.95 ? 1 : 2);
function bytes(v) {
  const unit = [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]].find(u => v >= u[0]);
  return unit ? figure(v / unit[0]) + " " + unit[1] : figure(v) + " B";
}
function make(parent, name, attributes = {}, text) {
  const svg = parent.namespaceURI === "http://www.w3.org/2000/svg" || name === "svg";
  const e = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  if (text !== undefined) e.textContent = text;
  return parent.appendChild(e);
}
const drawing = (parent, height) => {
  const width = Math.max(300, parent.clientWidth);
  const svg = make(parent, "svg", {viewBox: `0 0 ${width} ${height}`, height, role: "img"});
  return {svg, width};
};
const colour = (i, of) => of <= 8 ? `var(--c${i})`
  : `color-mix(in oklab, var(--ramp-to) ${Math.round(100 * i / (of - 1))}%, var(--ramp-from))`;
const title = (axis, value) => axis.key === "cluster" || axis.key === "edits" ? `${value}` : `${axis.key} ${value}`;

// A point's place on each axis; the last varies fastest.
function place(index) {
  const at = [];
  for (let i = axes.length; i-- > 0;) at[i] = index % axes[i].values.length, index = Math.floor(index / axes[i].values.length);
  return at;
}
const index_of = at => at.reduce((sum, v, i) => sum * axes[i].values.length + v, 0);
// The points that differ from `index` along one axis only, in its order.
function along(axis, index) {
  const at = place(index), a = axes.indexOf(axis);
  return axis.values.map((_, i) => points[index_of(at.map((v, k) => k === a ? i : v))]);
}
const words = point => {
  const at = place(point.index);
  return (varied.length ? varied : axes).map(a => title(a, a.values[at[axes.indexOf(a)]])).join(", ");
};

const metrics = {
  step_ms: {name: "step time", unit: "ms", of: p => p.step_ms, low: p => p.low_ms, high: p => p.high_ms},
  tflops: {name: "model TFLOP/s a GPU", unit: "TFLOP/s", of: p => p.model_TFLOPps_per_gpu,
           low: p => p.model_TFLOPps_per_gpu * p.step_ms / p.high_ms, high: p => p.model_TFLOPps_per_gpu * p.step_ms / p.low_ms},
  gpu_seconds: {name: "GPU-seconds a million tokens", unit: "GPU-s", of: p => 1e6 * p.gpu_seconds_per_token,
                low: p => 1e6 * p.gpu_seconds_per_token_low, high: p => 1e6 * p.gpu_seconds_per_token_high},
  memory: {name: "memory of a GPU", unit: "GiB", of: p => p.memory_GiB, low: p => p.memory_GiB, high: p => p.memory_GiB},
};
if (data.phase !== "train") metrics.step_ms.name = "time of a pass";

const numbers = a => a.values.every(v => typeof v === "number");
const longest = list => list.reduce((best, a) => !best || a.values.length > best.values.length ? a : best, null);
// Steps that do different work are compared by the token.
const same_work = !varied.some(a => ["phase", "sequence", "global_batch"].includes(a.key));
const state = {metric: same_work ? "step_ms" : "gpu_seconds", point: Math.max(0, points.findIndex(planned)), sort: null, down: false, from: 0};
state.along = longest(varied.filter(numbers)) || varied[0] || axes[0];
state.lines = varied.find(a => a !== state.along) || null;
