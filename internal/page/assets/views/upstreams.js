import { get } from "../api.js";
import { fill, h, keyed } from "../dom.js";
import * as f from "../format.js";
import { live } from "../live.js";
import * as p from "../parts.js";
import { lastOf, plot, spans, spanSeconds } from "../plot.js";

export function upstreams(place, query) {
  let span = Object.hasOwn(spans, query.span) ? query.span : "day";
  let ended = false;
  let history_ = null;
  const plots = new Map();
  const list = h("div", { class: "stack" }, h("section", { class: "panel" }, p.skeleton(6, 28)));
  fill(place, p.pageHead("Upstreams", p.segmented("Time that is shown", spans, span, (next) => {
    span = next;
    history.replaceState(null, "", "#/upstreams?span=" + span);
    load();
  })), list);

  function make(u) {
    const facts = h("div", { class: "stack" });
    const element = p.panel(u.name, { id: "up-" + u.name.replace(/[^a-z0-9]+/g, "-") }, facts);
    element.querySelector("h2").after(h("span", { class: "pill-room" }));
    return element;
  }

  function update(element, u) {
    const text = JSON.stringify([u, live.status.usage.upstreams[u.name]]);
    if (element.dataset.shown === text) return;
    element.dataset.shown = text;
    fill(element.querySelector(".pill-room"), p.upstreamPill(u));
    const traffic = live.status.usage.upstreams[u.name];
    let chart = plots.get(u.name);
    if (!chart && u.budgets.some((b) => b.limit > 0)) {
      chart = plot({ title: "Pulls left of " + u.name, height: 150, step: true, y: (v) => f.compact(v), series: [
        { label: "Pulls left", colour: "--hit", total: (c) => (c.length && lastOf(c) !== null ? f.count(lastOf(c)) : "not known"), value: (v) => (v === null ? "not known" : f.count(v)) },
      ] });
      plots.set(u.name, chart);
    }
    const limited = Object.entries(u.limited).filter(([, n]) => n > 0);
    fill(element.lastChild,
      h("dl", { class: "facts" },
        fact("Last asked", p.when(u.last_asked)),
        traffic && fact("Requests", f.count(traffic.hit + traffic.joined + traffic.miss + traffic.stale + traffic.passed + traffic.error)),
        traffic && fact("Pulls saved", f.count(traffic.saved_pulls) + " of " + f.count(traffic.pulls)),
        traffic && fact("To clients", f.bytes(traffic.client_bytes)),
        traffic && fact("From upstream", f.bytes(traffic.upstream_bytes)),
        fact("Refused for limits", limited.length ? limited.map(([what, n]) => what + " " + f.count(n)).join(", ") : "never")),
      u.budgets.filter((b) => b.limit > 0 && b.remaining >= 0).map((b) => budget(u, b)),
      chart && h("div", {}, h("h3", { text: "Budget over time" }), chart.element),
      spenders(u),
      endpoints(u));
    draw(u.name);
  }

  function draw(name) {
    const chart = plots.get(name);
    if (!chart || !history_) return;
    const now = Date.now() / 1000;
    const left = (history_.budgets[name] || history_.times.map(() => -1)).map((v) => (v < 0 ? null : v));
    chart.show(history_.times, [left], history_.step_seconds, now - spanSeconds[span], now);
  }

  function showStatus(s) {
    if (s.upstreams.length === 0) fill(list, p.empty("No upstream is configured"));
    else keyed(list, s.upstreams, (u) => u.name, make, update);
  }

  async function load() {
    try {
      const s = await get("/series", { span });
      if (ended) return;
      history_ = s;
      for (const name of plots.keys()) draw(name);
    } catch {
      // The status says that the server is gone; the plots keep what they have.
    }
  }

  const off = live.on("status", showStatus);
  if (live.status) showStatus(live.status);
  load();
  const tick = setInterval(load, 30000);
  return () => {
    ended = true;
    off();
    clearInterval(tick);
    for (const chart of plots.values()) chart.end();
  };
}

const fact = (label, value) => h("div", {}, h("dt", { text: label }), h("dd", {}, value));

function budget(u, b) {
  return h("div", { class: "budget" },
    h("div", { class: "row-top" }, h("span", {}, h("span", { class: "big", text: f.count(b.remaining) }), h("span", { class: "soft", text: " of " + f.count(b.limit) + " pulls left" + (b.window_seconds ? " per " + f.duration(b.window_seconds) : "") })),
      h("span", { class: "soft", text: b.credential === "anonymous" ? "without credentials" : "as " + b.credential })),
    p.bar(b.remaining / b.limit, "Pulls left of " + u.name + " for " + b.credential, p.budgetTone(b)),
    h("div", { class: "row-note" }, h("span", { text: p.forecast(b) }),
      h("span", { text: [b.elsewhere > 0 && f.plural(b.elsewhere, "pull") + " spent elsewhere", f.known(b.returns) && "some return " + f.until(b.returns), f.known(b.seen_at) && "told " + f.ago(b.seen_at)].filter(Boolean).join(" · ") })));
}

function spenders(u) {
  const all = u.budgets.flatMap((b) => b.spent).sort((a, b) => b.pulls - a.pulls).slice(0, 10);
  if (all.length === 0) return null;
  const most = all[0].pulls;
  return h("div", {}, h("h3", { text: "Who spent it" }), p.table("Who spent the pulls of " + u.name, [{ title: "Client" }, { title: "Repository" }, { title: "Pulls", class: "num" }, { title: "", class: "wide share" }],
    all.map((s) => h("tr", {}, h("td", { text: s.client || "the mirror itself" }), h("td", { class: "break", text: s.repository }), h("td", { class: "num", text: f.count(s.pulls) }),
      h("td", { class: "wide share", "aria-hidden": "true" }, h("span", { class: "share-bar", style: { "inline-size": (100 * s.pulls) / most + "%" } }))))).element);
}

function endpoints(u) {
  if (u.endpoints.length === 0) return null;
  return h("div", {}, h("h3", { text: "Endpoints" }), p.table("Endpoints of " + u.name, [{ title: "Address" }, { title: "Breaker" }, { title: "Last fault", class: "wide" }],
    u.endpoints.map((e) => h("tr", {}, h("td", { class: "break" }, h("span", { text: e.url }), e.stand_in && h("span", { class: "soft", text: " stand-in" }),
      e.last_fault && h("span", { class: "narrow soft", text: e.last_fault })),
      h("td", {}, e.open ? p.pill("bad", "Open") : f.known(e.paused_until) ? p.pill("warn", "Paused") : p.pill("good", "Closed"),
        e.open && f.known(e.next_probe) && h("span", { class: "soft narrow-break", text: " tried again " + f.until(e.next_probe) })),
      h("td", { class: "wide soft break", text: e.last_fault || e.why || "–" })))).element);
}
