// Plots over time. Each has a legend in words with the totals, which is its text
// alternative: what can be seen can be read.

import { get } from "./api.js";
import { fill, h, setText } from "./dom.js";
import { eventWord } from "./parts.js";
import { fullTime, micros, timeOfDay } from "./format.js";

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

// marks are what happened to the mirror itself, in the plots of all views: [{time, text, tone}].
let marks = [];

export async function loadMarks() {
  try {
    const { events } = await get("/events", { kind: "started,config_reloaded,config_refused", limit: 300 });
    marks = events.map((e) => ({ time: Date.parse(e.at) / 1000, tone: eventWord(e.kind)[0], text: eventWord(e.kind)[1] + (e.detail ? ": " + e.detail : "") }));
    document.dispatchEvent(new Event("marks"));
  } catch {
    // The plots do without.
  }
}

// few is with how many steps each of them is drawn as a point, since a line would hardly be seen.
const few = 40;

// plot makes a figure. series: [{label, colour, total(column) → text, value(v) → text}],
// stacked from the first up if stacked. y writes values of the axis; inBytes says what they
// are. rates draws each value divided by the seconds of its step; log is for what differs by
// orders of magnitude. limits() returns lines to draw: [{value, text}].
export function plot({ title, series, stacked, y, inBytes, rates, log, limits = () => [], height = 200, step = false }) {
  const space = h("div", { class: "plot", role: "img", "aria-label": title, style: { "block-size": height + "px" } });
  const values = series.map(() => h("span", { class: "legend-value", text: "–" }));
  const legend = h("ul", { class: "legend" }, series.map((s, i) => h("li", {},
    h("span", { class: "swatch" + (s.line ? " line" : ""), style: { "background-color": "var(" + s.colour + ")" }, "aria-hidden": "true" }), h("span", { text: s.label }), values[i])));
  const tip = h("div", { class: "plot-tip", hidden: true, "aria-hidden": "true" });
  const begins = h("span", { class: "soft", hidden: true });
  const element = h("figure", { class: "figure" }, space, h("figcaption", {}, legend, begins));
  let chart = null;
  let shown = null;

  function options(width) {
    const order = stacked ? [...series.keys()].reverse() : [...series.keys()];
    const soft = colour("--soft");
    const grid = { stroke: colour("--grid"), width: 1 };
    const font = "11px " + getComputedStyle(document.body).fontFamily;
    return {
      width, height, padding: [8, 8, 0, 0], legend: { show: false }, cursor: { y: false, points: { show: !stacked }, drag: { x: false, y: false }, sync: { key: "time" } },
      scales: { x: { time: true, range: () => [shown.from, shown.to] }, y: log
        ? { distr: 3, range: (_, min, max) => (min > 0 ? [10 ** Math.floor(Math.log10(min)), 10 ** Math.ceil(Math.log10(max * 1.01))] : [100, 1e6]) }
        : { range: (_, min, max) => [0, Math.max(max, ...limits().map((l) => (l.value < max * 3 ? l.value : 0)), 0) * 1.12 || 1] } },
      axes: [
        { stroke: soft, grid: { show: false }, ticks: { ...grid, size: 4 }, font, gap: 4, size: 28, space: 70,
          values: (_, ticks) => ticks.map((t) => axisTime(t, shown.to - shown.from)) },
        { stroke: soft, grid, ticks: { show: false }, font, gap: 6, size: inBytes ? 74 : 48, space: 30, incrs: inBytes ? binary : undefined, values: (_, ticks) => ticks.map((v) => (v === null ? "" : y(v))) },
      ],
      series: [{}, ...order.map((i) => {
        const s = series[i];
        const c = colour(s.colour);
        return { stroke: c, width: stacked ? 0 : 1.75, fill: stacked ? c : s.line ? undefined : colour(s.colour + "-fill"), points: { show: !stacked && shown.few, size: 5 },
          paths: step ? uPlot.paths.stepped({ align: 1 }) : undefined };
      })],
      hooks: { setCursor: [point], draw: [lines] },
    };
  }

  // point shows the values at the cursor, which is where it is in all plots.
  function point(u) {
    const t = u.cursor.left >= 0 && u.cursor.idx !== null ? shown.data[0][u.cursor.idx] : undefined;
    const original = t === undefined ? -1 : shown.times.indexOf(t);
    tip.hidden = original < 0;
    if (original < 0) return;
    const near = marks.filter((m) => Math.abs(u.valToPos(m.time, "x") - u.cursor.left) < 5).slice(0, 3);
    fill(tip, h("p", { class: "soft", text: timeOfDay(t * 1000) }),
      series.map((s, i) => {
        const v = shown.columns[i][original];
        return h("p", {}, h("span", { class: "swatch", style: { "background-color": "var(" + s.colour + ")" } }), h("span", { text: s.label }), h("span", { class: "legend-value", text: v === null ? "–" : s.value(rates ? v / shown.step : v) }));
      }), near.map((m) => h("p", { class: "strong", text: m.text })));
    const left = u.bbox.left / devicePixelRatio + u.cursor.left;
    const beside = left > space.clientWidth / 2 ? left - 12 - tip.offsetWidth : left + 12;
    tip.style.setProperty("inset-inline-start", Math.min(Math.max(beside, 0), Math.max(space.clientWidth - tip.offsetWidth, 0)) + "px");
  }

  // lines draws what bounds the values, and when the mirror was started or configured.
  function lines(u) {
    const c = u.ctx;
    const { left, top, width: w, height: hh } = u.bbox;
    c.save();
    c.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
    c.lineWidth = devicePixelRatio;
    c.textAlign = "left";
    c.textBaseline = "bottom";
    c.font = 11 * devicePixelRatio + "px " + getComputedStyle(document.body).fontFamily;
    for (const m of marks) {
      if (m.time < shown.from || m.time > shown.to) continue;
      c.strokeStyle = colour(m.tone === "bad" ? "--error" : "--soft");
      const x = Math.round(u.valToPos(m.time, "x", true));
      c.beginPath();
      c.moveTo(x, top);
      c.lineTo(x, top + hh);
      c.stroke();
    }
    c.strokeStyle = c.fillStyle = colour("--error");
    for (const l of limits()) {
      const at = Math.round(u.valToPos(l.value, "y", true));
      if (!(at >= top)) continue;
      c.beginPath();
      c.moveTo(left, at);
      c.lineTo(left + w, at);
      c.stroke();
      c.fillText(l.text, left + 6 * devicePixelRatio, at - 4 * devicePixelRatio);
    }
    c.restore();
  }

  function draw() {
    if (!shown || !space.clientWidth) return;
    if (chart) chart.destroy();
    chart = new uPlot(options(space.clientWidth), shown.data, space);
    space.append(tip);
  }

  // A finger has no hover: it is shown what it touches.
  space.addEventListener("touchstart", touch, { passive: true });
  space.addEventListener("touchmove", touch, { passive: true });
  function touch(e) {
    if (!chart) return;
    const at = space.getBoundingClientRect();
    chart.setCursor({ left: e.touches[0].clientX - at.left - chart.bbox.left / devicePixelRatio, top: 10 });
  }

  const observer = new ResizeObserver(() => {
    if (!shown || !space.clientWidth) return;
    if (chart) chart.setSize({ width: space.clientWidth, height });
    else draw();
  });
  observer.observe(space);
  const redraw = () => draw();
  document.addEventListener("theme", redraw);
  document.addEventListener("marks", redraw);

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
      // A history that is short beside what is asked for is drawn where it is.
      const late = times.length > 0 && times[0] - from > (to - from) * 0.4;
      if (late) from = times[0] - Math.max((to - times[0]) * 0.03, stepSeconds);
      begins.hidden = !late;
      if (late) setText(begins, "The history begins " + fullTime(new Date(times[0] * 1000).toISOString()));
      const pointsBefore = shown && shown.few;
      shown = { times, columns, from, to, step: stepSeconds, data: withGaps(times, drawn, stepSeconds), few: Math.max(...columns.map((c) => c.filter((v) => v !== null).length)) <= few };
      series.forEach((s, i) => setText(values[i], s.total(columns[i])));
      space.setAttribute("aria-label", title + ": " + series.map((s, i) => s.label + " " + s.total(columns[i])).join(", "));
      if (chart && pointsBefore !== shown.few) draw();
      else if (chart) chart.setData(shown.data);
      else draw();
    },
    end() {
      observer.disconnect();
      document.removeEventListener("theme", redraw);
      document.removeEventListener("marks", redraw);
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
// measured makes of what was not measured a gap.
export const measured = (column) => column.map((v) => v || null);
export const worst = (column) => column.reduce((a, b) => Math.max(a, b || 0), 0);
// tookSeries is a line of a plot of durations in microseconds, whose total is the worst.
export const tookSeries = (label, colour) => ({ label, colour, line: true, total: (c) => (worst(c) ? "up to " + micros(worst(c)) : "–"), value: micros });
export const lastOf = (column) => (column.length ? column[column.length - 1] : 0);

export const spans = { hour: "1 hour", day: "24 hours", week: "8 days" };
export const spanSeconds = { hour: 3600, day: 86400, week: 8 * 86400 };
