import * as actions from "../actions.js";
import { get } from "../api.js";
import { fill, h, keyed, setText } from "../dom.js";
import * as f from "../format.js";
import { live } from "../live.js";
import * as p from "../parts.js";
import { setup } from "../setup.js";
import { lastOf, loadMarks, measured, plot, spans, spanSeconds, sum, tookSeries } from "../plot.js";

const results = [
  ["hit", "Hit"], ["joined", "Joined"], ["stale", "Stale"], ["miss", "Miss"], ["passed", "Passed"], ["error", "Error"],
];

// fillsShown is how many fills are shown one by one.
const fillsShown = 8;

export function overview(place, query) {
  let span = Object.hasOwn(spans, query.span) ? query.span : "hour";
  let ended = false;

  const requests = p.tile("Requests", "#/clients");
  const ratio = p.tile("Hit ratio", "#/clients?rsort=-requests");
  const pulls = p.tile("Pulls saved", "#/upstreams");
  const saved = p.tile("Traffic saved", "#/clients");
  const kept = p.tile("Folder", "#/storage");
  const ratioBar = p.bar(-1, "Hit ratio by requests");
  const keptBar = p.bar(-1, "Room used");

  const byResult = plot({
    title: "Requests by result", stacked: true, rates: true, y: (v) => f.compact(v) + "/s",
    series: results.map(([name, label]) => ({ label, colour: "--" + name, total: (c) => f.compact(sum(c)), value: (v) => f.compact(v) + "/s" })),
  });
  const byBytes = plot({
    title: "Traffic", inBytes: true, rates: true, y: (v) => f.bytes(v) + "/s",
    series: [
      { label: "To clients", colour: "--hit", total: (c) => f.bytes(sum(c)), value: (v) => f.bytes(v) + "/s" },
      { label: "From upstreams", colour: "--miss", total: (c) => f.bytes(sum(c)), value: (v) => f.bytes(v) + "/s" },
    ],
  });
  const latency = plot({
    title: "Time to the first byte", log: true, y: f.micros,
    series: [tookSeries("Served from here, median", "--hit"), tookSeries("slowest 5%", "--joined"), tookSeries("Fetched, median", "--miss"), tookSeries("slowest 5%", "--passed")],
  });
  const errors = plot({
    title: "Errors and stale answers", step: true, y: f.compact,
    series: [["error", "Error"], ["stale", "Stale"]].map(([name, label]) => ({ label, colour: "--" + name, line: true, total: (c) => f.compact(sum(c)), value: f.count })),
  });
  const registries = h("ul", { class: "rows" }, p.skeleton(3, 34));
  const fills = h("ul", { class: "rows" });
  const moreFills = h("p", { class: "soft", hidden: true });
  const noFills = p.empty("Nothing is being fetched", "What clients ask for is served from what is kept.");
  const log = h("ol", { class: "log" });
  const noLog = h("div", {}, p.empty("No events yet", "Tags that move, evictions and failures are told here."));

  const welcome = h("div", { hidden: true });
  let waited = false;

  // firstRun shows an empty mirror how clients are pointed at it, and says when the first pull came.
  function firstRun(s) {
    const empty = s.stats.tags === 0 && s.usage.pulls === 0;
    if (empty && !waited) {
      waited = true;
      welcome.hidden = false;
      fill(welcome, setup(s));
    } else if (waited && !empty && welcome.dataset.done !== "yes") {
      welcome.dataset.done = "yes";
      fill(welcome, h("section", { class: "panel" }, p.empty("It works: the first pull has come", "What it was stands under Images, and who pulled it under Clients. What is pulled again is served from here.",
        h("a", { class: "button", href: "#/images", text: "See it" }))));
    }
  }

  fill(place,
    p.pageHead("Overview", p.segmented("Time that is shown", spans, span, (next) => {
      span = next;
      history.replaceState(null, "", "#/overview?span=" + span);
      load();
    })),
    welcome,
    p.tiles(requests, ratio, pulls, saved, kept),
    h("div", { class: "grid two" }, p.panel("Requests", { id: "requests" }, byResult.element), p.panel("Traffic", { id: "traffic" }, byBytes.element)),
    h("div", { class: "grid two" }, p.panel("Time to the first byte", { id: "latency", note: "Of clients' requests" }, latency.element),
      p.panel("Errors and stale answers", { id: "errors", note: "In each step", extra: h("a", { class: "more", href: "#/events?show=trouble", text: "Events" }) }, errors.element)),
    h("div", { class: "grid two" },
      p.panel("Upstreams", { id: "registries", extra: h("a", { class: "more", href: "#/upstreams", text: "All upstreams" }) }, registries),
      p.panel("Being fetched", { id: "fills" }, h("div", { class: "fills-room" }, noFills, fills, moreFills))),
    p.panel("Latest events", { id: "latest", extra: h("a", { class: "more", href: "#/events", text: "All events" }) }, noLog, log));
  ratio.note.after(h("dd", { class: "tile-bar" }, ratioBar));
  kept.note.after(h("dd", { class: "tile-bar" }, keptBar));

  async function load() {
    try {
      const asked = span;
      const s = await get("/series", { span });
      if (ended || asked !== span) return;
      showSeries(s);
    } catch (fault) {
      if (!ended) setText(requests.note, fault.message);
    }
  }

  function showSeries(s) {
    const now = Date.now() / 1000;
    const from = now - spanSeconds[span];
    byResult.show(s.times, results.map(([name]) => s[name]), s.step_seconds, from, now);
    byBytes.show(s.times, [s.client_bytes, s.upstream_bytes], s.step_seconds, from, now);
    latency.show(s.times, [s.hit_p50_us, s.hit_p95_us, s.miss_p50_us, s.miss_p95_us].map(measured), s.step_seconds, from, now);
    errors.show(s.times, [s.error, s.stale], s.step_seconds, from, now);
    const all = s.sum;
    const answered = results.reduce((n, [name]) => n + all[name], 0);
    const recent = results.reduce((n, [name]) => n + lastOf(s[name].slice(0, -1)), 0) / s.step_seconds;
    setText(requests.value, f.count(answered));
    setText(requests.note, f.compact(recent) + "/s now, " + f.plural(all.error, "error"));
    const hits = all.hit + all.joined + all.stale;
    const savedBytes = Math.max(0, all.client_bytes - all.upstream_bytes);
    setText(ratio.value, answered ? f.percent(hits / answered) : "–");
    setText(ratio.note, all.client_bytes ? f.percent(savedBytes / all.client_bytes) + " of bytes" : "nothing was asked for");
    p.setBar(ratioBar, answered ? hits / answered : 0, "good");
    setText(pulls.value, f.count(all.saved_pulls));
    setText(pulls.note, "of " + f.plural(all.pulls, "pull"));
    setText(saved.value, f.bytes(savedBytes));
    const usage = live.status && live.status.usage;
    const price = usage ? usage.price_per_gib : 0;
    setText(saved.note, price > 0 ? "worth " + f.money((savedBytes / 2 ** 30) * price, usage.currency) : f.bytes(all.upstream_bytes) + " from upstreams");
  }

  function showStatus(s) {
    firstRun(s);
    // A mirror that never was asked has nothing to say of seven registries.
    const asked = s.upstreams.filter((u) => u.state !== "unknown");
    registries.dataset.asked = String(asked.length);
    setText(kept.value, f.bytes(s.stats.used_bytes));
    setText(kept.note, (s.stats.max_bytes ? "of " + f.bytes(s.stats.max_bytes) + ", " : "") + f.plural(s.stats.tags, "tag"));
    p.setBar(keptBar, s.stats.max_bytes ? s.stats.used_bytes / s.stats.max_bytes : -1, "");
    keyed(registries, asked.length ? asked : s.upstreams.slice(0, 3), (u) => u.name, registryRow, updateRegistry);
    noFills.hidden = s.fills.length > 0;
    moreFills.hidden = s.fills.length <= fillsShown;
    setText(moreFills, "and " + f.count(s.fills.length - fillsShown) + " more");
    keyed(fills, s.fills.slice(0, fillsShown), (x) => x.upstream + x.repository + x.digest, fillRow, updateFill);
  }

  const latest = [];
  function showEvents() {
    noLog.hidden = latest.length > 0;
    keyed(log, p.grouped(latest).slice(0, 8), (g) => g.key + "/" + g.events.length, p.groupRow);
  }

  const offs = [
    live.on("status", showStatus),
    live.on("event", (e) => {
      latest.unshift(e);
      latest.length = Math.min(latest.length, 600);
      showEvents();
    }),
  ];
  if (live.status) showStatus(live.status);
  async function loadEvents() {
    try {
      const list = await get("/events", { limit: 300 });
      if (ended) return;
      const seen = new Set(latest.map((e) => e.id));
      latest.push(...list.events.filter((e) => !seen.has(e.id)));
      if (noLog.querySelector(".failure")) fill(noLog, p.empty("No events yet"));
      showEvents();
    } catch (fault) {
      if (!ended) fill(noLog, p.failure(fault, () => Promise.all([load(), loadEvents()])));
    }
  }
  load();
  loadMarks();
  loadEvents();
  const tick = setInterval(load, 10000);
  return () => {
    ended = true;
    clearInterval(tick);
    offs.forEach((off) => off());
    [byResult, byBytes, latency, errors].forEach((x) => x.end());
  };
}

function registryRow() {
  return h("li", { class: "registry" });
}

function updateRegistry(row, u) {
  const b = p.budgetOf(u);
  const open = u.endpoints.filter((e) => e.open).length;
  const fault = u.state === "fails" ? (u.endpoints.find((e) => e.last_fault) || {}).last_fault : "";
  const text = JSON.stringify([u.name, u.state, u.sparing, b, open, fault]);
  if (row.dataset.shown === text) return;
  row.dataset.shown = text;
  fill(row,
    h("div", { class: "row-top" }, h("a", { class: "strong clip", href: "#/upstreams?name=" + encodeURIComponent(u.name), text: u.name }), p.upstreamPill(u)),
    b
      ? [
          p.bar(b.remaining / b.limit, "Pulls left of " + u.name, p.budgetTone(b)),
          h("div", { class: "row-note" },
            h("span", { text: f.count(b.remaining) + " of " + f.count(b.limit) + " pulls left" + (b.window_seconds ? " per " + f.duration(b.window_seconds) : "") }),
            h("span", { text: p.forecast(b) })),
        ]
      : h("div", { class: "row-note" }, h("span", { text: f.known(u.last_asked) ? "Tells no limit" : "Has not been asked since the start" })),
    fault && h("div", { class: "row-note" }, h("span", { class: "bad-text break", text: fault })),
    open > 0 && h("div", { class: "row-note" }, h("span", { class: "bad-text", text: f.count(open) + " of " + f.plural(u.endpoints.length, "endpoint") + " shut off by the breaker" })));
}

export function fillRow(x) {
  const row = h("li", { class: "fill" },
    h("div", { class: "row-top" }, h("a", { class: "strong clip", href: "#/repository?name=" + encodeURIComponent(x.upstream + "/" + x.repository), text: f.familiar(x.upstream, x.repository) }), h("span", { class: "soft num" })),
    p.bar(0, "Progress of " + f.familiar(x.upstream, x.repository)),
    h("div", { class: "row-note" }, h("code", { text: f.digest(x.digest), title: x.digest }), h("span", {}),
      h("button", { class: "button small", type: "button", data: { acts: "" }, "aria-label": "Cancel the fetching of " + f.familiar(x.upstream, x.repository), text: "Cancel", on: { click: (e) => actions.run(e.currentTarget, () => actions.cancelFill(row.fetched)) } })));
  return row;
}

export function updateFill(row, x) {
  const [top, progress, note] = row.children;
  row.fetched = x;
  setText(top.lastChild, x.size > 0 ? f.bytes(x.bytes) + " of " + f.bytes(x.size) : f.bytes(x.bytes));
  p.setBar(progress, x.size > 0 ? x.bytes / x.size : -1, "");
  setText(note.children[1], (x.verifying ? "being verified, " : "") + f.plural(x.clients, "client") + (x.clients === 1 ? " waits" : " wait"));
  note.lastChild.hidden = x.verifying;
}
