// Plots over time. Each has a legend in words with the totals, which is its text
// alternative: what can be seen can be read.

import { h, setText } from "./dom.js";

const probe = h("span", { class: "hidden" });

// colour resolves a custom property to what a canvas understands.
function colour(name) {
  if (!probe.isConnected) document.body.append(probe);
  probe.style.color = "var(" + name + ")";
  return getComputedStyle(probe).color;
}

// withGaps puts an empty step where the mirror did not run, so that no line crosses it.
function withGaps(times, columns, step) {
  const out = [[], ...columns.map(() => [])];
  times.forEach((t, i) => {
    if (i && t - times[i - 1] > step * 1.5) {
      out[0].push(times[i - 1] + step);
      columns.forEach((_, c) => out[c + 1].push(null));
    }
    out[0].push(t);
    columns.forEach((column, c) => out[c + 1].push(column[i]));
  });
  return out;
}

const stackUp = (columns) => {
  const sum = (columns[0] || []).map(() => 0);
  return columns.map((column) => column.map((v, i) => (sum[i] += v)));
};

// binary are the distances that ticks of bytes may have.
const binary = Array.from({ length: 52 }, (_, i) => 2 ** i);

// plot makes a figure. series: [{label, colour, total(column) → text, value(v) → text}],
// stacked from the first up if stacked. y writes values of the axis; inBytes says what they
// are. rates draws each value divided by the seconds of its step.
export function plot({ title, series, stacked, y, inBytes, rates, height = 200, step = false }) {
  const space = h("div", { class: "plot", role: "img", "aria-label": title, style: { "block-size": height + "px" } });
  const values = series.map(() => h("span", { class: "legend-value", text: "–" }));
  const legend = h("ul", { class: "legend" }, series.map((s, i) => h("li", {},
    h("span", { class: "swatch" + (s.line ? " line" : ""), style: { "background-color": "var(" + s.colour + ")" }, "aria-hidden": "true" }), h("span", { text: s.label }), values[i])));
  const at = h("span", { class: "plot-at soft", text: "\u00a0" });
  const element = h("figure", { class: "figure" }, space, h("figcaption", {}, legend, at));
  let chart = null;
  let shown = null;

  function options(width) {
    const order = stacked ? [...series.keys()].reverse() : [...series.keys()];
    const soft = colour("--soft");
    const grid = { stroke: colour("--grid"), width: 1 };
    const font = "11px " + getComputedStyle(document.body).fontFamily;
    return {
      width, height, padding: [8, 8, 0, 0], legend: { show: false }, cursor: { y: false, points: { show: !stacked }, drag: { x: false, y: false } },
      scales: { x: { time: true, range: () => [shown.from, shown.to] }, y: { range: (_, min, max) => [0, max > 0 ? max * 1.12 : 1] } },
      axes: [
        { stroke: soft, grid: { show: false }, ticks: { ...grid, size: 4 }, font, gap: 4, size: 28, space: 70,
          values: (_, ticks) => ticks.map((t) => axisTime(t, shown.to - shown.from)) },
        { stroke: soft, grid, ticks: { show: false }, font, gap: 6, size: inBytes ? 74 : 48, space: 30, incrs: inBytes ? binary : undefined, values: (_, ticks) => ticks.map((v) => y(v)) },
      ],
      series: [{}, ...order.map((i) => {
        const s = series[i];
        const c = colour(s.colour);
        return { stroke: c, width: stacked ? 0 : 1.75, fill: stacked ? c : s.line ? undefined : colour(s.colour + "-fill"), points: { show: false },
          paths: step ? uPlot.paths.stepped({ align: 1 }) : undefined };
      })],
      hooks: { setCursor: [(u) => point(u.cursor.idx)] },
    };
  }

  // point shows the values under the cursor, else the totals.
  function point(index) {
    const t = index === null || index === undefined ? undefined : shown.data[0][index];
    const original = t === undefined ? -1 : shown.times.indexOf(t);
    series.forEach((s, i) => setText(values[i], original < 0 ? s.total(shown.columns[i]) : s.value(rates ? shown.columns[i][original] / shown.step : shown.columns[i][original])));
    setText(at, original < 0 ? "\u00a0" : new Date(t * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" }));
  }

  function draw() {
    if (!shown || !space.clientWidth) return;
    if (chart) chart.destroy();
    chart = new uPlot(options(space.clientWidth), shown.data, space);
  }

  const observer = new ResizeObserver(() => {
    if (!shown || !space.clientWidth) return;
    if (chart) chart.setSize({ width: space.clientWidth, height });
    else draw();
  });
  observer.observe(space);
  const redraw = () => draw();
  document.addEventListener("theme", redraw);

  return {
    element,
    // show takes times (Unix seconds), columns in the order of series, and the range of time.
    show(times, columns, stepSeconds, from, to) {
      let drawn = rates ? columns.map((c) => c.map((v) => v / stepSeconds)) : columns;
      if (stacked) drawn = stackUp(drawn).reverse();
      const last = times.length - 1;
      if (rates && last > 0 && to - times[last] < stepSeconds) {
        drawn = drawn.map((c) => [...c.slice(0, -1), null]); // a step that has just begun would look like a fall
      }
      shown = { times, columns, from, to, step: stepSeconds, data: withGaps(times, drawn, stepSeconds) };
      point(null);
      space.setAttribute("aria-label", title + ": " + series.map((s, i) => s.label + " " + s.total(columns[i])).join(", "));
      if (chart) chart.setData(shown.data);
      else draw();
    },
    end() {
      observer.disconnect();
      document.removeEventListener("theme", redraw);
      if (chart) chart.destroy();
    },
  };
}

function axisTime(t, span) {
  const date = new Date(t * 1000);
  if (span > 36 * 3600) return date.toLocaleDateString("en-GB", { weekday: "short", day: "numeric" });
  return date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}

export const sum = (column) => column.reduce((a, b) => a + b, 0);
export const lastOf = (column) => (column.length ? column[column.length - 1] : 0);

export const spans = { hour: "1 hour", day: "24 hours", week: "8 days" };
export const spanSeconds = { hour: 3600, day: 86400, week: 8 * 86400 };
