// With #self-test in the address: clicks through the page as a reader would and writes down what the panels then show,
// for a test to hold against the JSON. It reads the document only, none of the values of the other files.
function self_test() {
  const text = (selector, from = document) => [...from.querySelectorAll(selector)].map(e => e.textContent);
  const number = (e, name) => parseFloat(e.getAttribute(name));
  const click = e => e.dispatchEvent(new MouseEvent("click", {bubbles: true}));
  const shown = () => ({
    name: $("point-name").textContent,
    tiles: text("#tiles .figure"), more: text("#tiles .more"), parts: text("#parts .legend b"), reason: text("#parts .reason"),
    chosen_rows: [...document.querySelectorAll("#rows tr.chosen")].map(r => r.dataset.point),
    passes: [...document.querySelectorAll("#passes svg")].map(svg => [...svg.querySelectorAll(".step")].map(
      r => ({name: r.dataset.name, lane: r.dataset.lane, x: number(r, "x"), width: number(r, "width")}))),
    heat: [...document.querySelectorAll("#heat .cell.chosen")].map(c => ({link_class: c.dataset.class, busy: parseFloat(c.style.getPropertyValue("--busy")), own: text(".own", c.parentNode)})),
    memory: [...document.querySelectorAll("#bars g")].filter(g => g.querySelector(".strong")).flatMap(
      g => [...g.querySelectorAll(".bucket")].map(r => ({name: r.dataset.name, width: number(r, "width")}))),
    buckets: text("#buckets b"),
  });
  const report = {question: $("question").textContent, rows: [], points: [], curves: {}, by_curve: [], by_heat: []};
  report.changes = text("#changes li");
  for (const row of document.querySelectorAll("#rows tbody tr")) report.rows.push(text("td", row));
  for (let i = 0; i < report.rows.length; ++i) {
    click(document.querySelector(`#rows tr[data-point="${i}"] td`));
    report.points.push(shown());
  }
  for (const option of [...$("metric").options].map(o => o.value)) {
    $("metric").value = option, $("metric").dispatchEvent(new Event("change"));
    report.curves[option] = {
      ticks: [...document.querySelectorAll("#curves .y-tick")].map(t => ({value: number(t, "data-value"), y: number(t, "y") - 4})),
      marks: [...document.querySelectorAll("#curves .hit")].map(c => ({point: +c.dataset.point, y: number(c, "cy")})),
      logarithmic: document.querySelector("#curves .strong").textContent.endsWith("logarithmic"),
      bands: document.querySelectorAll("#curves .band, #curves .whisker").length,
    };
  }
  for (const [list, selector] of [[report.by_curve, "#curves .hit"], [report.by_heat, "#heat .cell"]]) {
    const targets = [...document.querySelectorAll(selector)].map(c => +c.dataset.point);
    for (const point of [...new Set(targets)]) {
      const target = document.querySelector(`${selector}[data-point="${point}"]`);
      if (target) click(target), list.push({clicked: point, chosen: shown().chosen_rows, tiles: shown().tiles});
    }
  }
  const background = () => getComputedStyle(document.body).backgroundColor;
  report.themes = [background()];
  click($("theme")), report.themes.push(background()), click($("theme"));
  make(document.body, "pre", {id: "self-test"}, JSON.stringify(report));
}
if (location.hash === "#self-test") self_test();
