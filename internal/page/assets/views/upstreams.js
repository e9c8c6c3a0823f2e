import { get } from "../api.js";
import { fill, h, keyed } from "../dom.js";
import * as f from "../format.js";
import { grid } from "../grid.js";
import { live } from "../live.js";
import * as p from "../parts.js";
import { lastOf, loadMarks, measured, plot, spans, spanSeconds, sum, tookSeries } from "../plot.js";

export function upstreams(place, query) {
  let span = Object.hasOwn(spans, query.span) ? query.span : "day";
  let only = query.name || "";
  let ended = false;
  let history_ = null;
  let recent = null; // the last hour, in steps of ten seconds
  const plots = new Map();
  const speeds = new Map(); // by name: how long it took, and what failed
  const all = grid({
    caption: "Upstreams", key: (u) => u.name, sort: "trouble", query: { q: query.q, sort: query.sort }, file: "upstreams", placeholder: "Name", changed: (params) => address(params),
    columns: [
      { id: "name", title: "Upstream", class: "break name-cell", value: (u) => u.name, cell: (u) => h("a", { class: "strong", href: "#/upstreams?name=" + encodeURIComponent(u.name), text: u.name }) },
      { id: "trouble", title: "State", value: (u) => ({ fails: 0, limited: 1, degraded: 2, answers: 3, offline: 4, unknown: 5 })[u.state] + u.name, signature: (u) => [u.state, u.sparing], cell: (u) => p.upstreamPill(u) },
      { id: "asked", title: "Last asked", class: "wide wider", value: (u) => (f.known(u.last_asked) ? u.last_asked : ""), text: (u) => f.ago(u.last_asked) },
      { id: "requests", title: "Requests", class: "num", value: (u) => answered(u.traffic), text: (u) => f.count(answered(u.traffic)) },
      { id: "errors", title: "Errors", class: "num wide", value: (u) => (answered(u.traffic) ? u.traffic.error / answered(u.traffic) : 0), text: (u) => (answered(u.traffic) ? f.percent(u.traffic.error / answered(u.traffic)) : "–") },
      { id: "took", title: "Answers in", class: "num wide", value: (u) => u.took || 0, text: (u) => (u.took ? f.micros(u.took) : "–") },
      { id: "left", title: "Pulls left", class: "num", value: (u) => (p.budgetOf(u) ? p.budgetOf(u).remaining : Infinity), text: (u) => (p.budgetOf(u) ? f.count(p.budgetOf(u).remaining) + " of " + f.count(p.budgetOf(u).limit) : "–") },
      { id: "traffic", title: "From it", class: "num wide", value: (u) => u.traffic.upstream_bytes, text: (u) => f.bytes(u.traffic.upstream_bytes) },
    ],
  });
  const list = h("div", { class: "stack" }, h("section", { class: "panel" }, p.skeleton(6, 28)));
  const head = h("div", {}, only && p.crumbs("#/upstreams", "Upstreams"));
  fill(place, head, p.pageHead(only || "Upstreams", h("a", { class: "button small", href: "#/drill", text: "Rehearse an outage" }), p.segmented("Time that is shown", spans, span, (next) => {
    span = next;
    address({});
    load();
  })), !only && p.panel("All upstreams", { id: "all" }, all.element), list);

  function address(params) {
    const words = new URLSearchParams({ ...(only ? { name: only } : {}), ...(span === "day" ? {} : { span }), ...params });
    history.replaceState(null, "", "#/upstreams" + (words.size ? "?" + words : ""));
  }

  // wanted are the upstreams that are shown whole: the one that the address names, else those
  // that need a look or have a budget.
  function wanted(s) {
    if (only) return s.upstreams.filter((u) => u.name === only);
    const some = s.upstreams.filter((u) => ["fails", "limited", "degraded"].includes(u.state) || p.budgetOf(u));
    return some.length ? some : s.upstreams.slice(0, 1);
  }

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
      chart = plot({ title: "Pulls left of " + u.name, height: 150, step: true, y: (v) => f.compact(v), limits: () => u.budgets.filter((b) => b.limit > 0).slice(0, 1).map((b) => ({ value: b.limit, text: "limit " + f.count(b.limit) })), series: [
        { label: "Pulls left", colour: "--hit", total: (c) => (c.length && lastOf(c) !== null ? f.count(lastOf(c)) : "not known"), value: (v) => (v === null ? "not known" : f.count(v)) },
      ] });
      plots.set(u.name, chart);
    }
    if (!speeds.has(u.name)) {
      speeds.set(u.name, [
        plot({ title: "Response time of " + u.name, height: 150, log: true, y: f.micros, series: [tookSeries("Median", "--hit"), tookSeries("slowest 5%", "--miss")] }),
        plot({ title: "Requests to " + u.name, height: 150, rates: true, y: (v) => f.compact(v) + "/s", series: [
          { label: "Requests", colour: "--hit", total: (c) => f.count(sum(c)), value: (v) => f.compact(v) + "/s" },
          { label: "Failed", colour: "--error", line: true, total: (c) => f.count(sum(c)), value: (v) => f.compact(v) + "/s" }] }),
      ]);
    }
    const limited = Object.entries(u.limited).filter(([, n]) => n > 0);
    fill(element.lastChild,
      h("dl", { class: "facts" },
        p.fact("Last asked", p.when(u.last_asked)),
        traffic && p.fact("Requests", f.count(traffic.hit + traffic.joined + traffic.miss + traffic.stale + traffic.passed + traffic.error)),
        traffic && p.fact("Pulls saved", f.count(traffic.saved_pulls) + " of " + f.count(traffic.pulls)),
        traffic && p.fact("To clients", f.bytes(traffic.client_bytes)),
        traffic && p.fact("From upstream", f.bytes(traffic.upstream_bytes)),
        p.fact("Refused for limits", limited.length ? limited.map(([what, n]) => what + " " + f.count(n)).join(", ") : "never"),
        p.fact("More", h("span", { class: "trouble-ways" }, h("a", { href: "#/images?q=" + encodeURIComponent(u.name + "/*"), text: "Its images" }), h("a", { href: "#/events?q=" + encodeURIComponent(u.name), text: "Its events" })))),
      u.budgets.filter((b) => b.limit > 0 && b.remaining >= 0).map((b) => budget(u, b, spentLately(u.name))),
      chart && h("div", {}, h("h3", { text: "Budget over time" }), chart.element),
      h("div", { class: "grid two" }, speeds.get(u.name).map((one, i) => h("div", {}, h("h3", { text: ["Response time", "Requests to it"][i] }), one.element))),
      spenders(u),
      endpoints(u));
    draw(u.name);
  }

  function draw(name) {
    if (!history_) return;
    const now = Date.now() / 1000;
    const how = history_.upstreams[name] || { asked: [], failed: [], p50_us: [], p95_us: [] };
    const [took, asked] = speeds.get(name);
    const times = how.asked.length ? history_.times : [];
    took.show(times, [how.p50_us, how.p95_us].map(measured), history_.step_seconds, now - spanSeconds[span], now);
    asked.show(times, [how.asked, how.failed], history_.step_seconds, now - spanSeconds[span], now);
    const chart = plots.get(name);
    if (!chart) return;
    const left = (history_.budgets[name] || history_.times.map(() => -1)).map((v) => (v < 0 ? null : v));
    chart.show(history_.times, [left], history_.step_seconds, now - spanSeconds[span], now);
  }

  function showStatus(s) {
    if (!only) all.show(s.upstreams.map((u) => ({ ...u, traffic: s.usage.upstreams[u.name] || {}, took: tookLately(u.name) })));
    const some = wanted(s);
    if (some.length === 0) fill(list, h("section", { class: "panel" }, p.empty(only ? "There is no upstream of this name" : "No upstream is configured", "", h("a", { class: "button", href: "#/upstreams", text: "All upstreams" }))));
    else keyed(list, some, (u) => u.name, make, update);
  }

  // spentLately is how many pulls went in the last ten minutes, by what the registry said; -1 when
  // that is not known, or some came back meanwhile.
  function spentLately(name) {
    const left = recent && recent.budgets[name];
    if (!left) return -1;
    const since = Date.now() / 1000 - 600;
    const told = left.filter((v, i) => v >= 0 && recent.times[i] >= since);
    return told.length > 1 && told[0] >= told[told.length - 1] ? told[0] - told[told.length - 1] : -1;
  }

  // tookLately is the median until the head of an answer, at the latest step that had one.
  function tookLately(name) {
    const how = recent && recent.upstreams[name];
    return how ? lastOf(how.p50_us.filter(Boolean)) : 0;
  }

  async function load() {
    try {
      const [s, hour] = await Promise.all([get("/series", { span }), get("/series", { span: "hour" })]);
      if (ended) return;
      history_ = s;
      recent = hour;
      for (const name of speeds.keys()) draw(name);
      if (live.status) showStatus(live.status);
    } catch {
      // The status says that the server is gone; the plots keep what they have.
    }
  }

  const off = live.on("status", showStatus);
  if (live.status) showStatus(live.status);
  load();
  loadMarks();
  const tick = setInterval(load, 30000);
  return () => {
    ended = true;
    off();
    clearInterval(tick);
    for (const chart of [...plots.values(), ...[...speeds.values()].flat()]) chart.end();
  };
}


const answered = (t) => t.hit + t.joined + t.miss + t.stale + t.passed + t.error || 0;

function budget(u, b, lately) {
  return h("div", { class: "budget" },
    h("div", { class: "row-top" }, h("span", {}, h("span", { class: "big", text: f.count(b.remaining) }), h("span", { class: "soft", text: " of " + f.count(b.limit) + " pulls left" + (b.window_seconds ? " per " + f.duration(b.window_seconds) : "") })),
      h("span", { class: "soft", text: b.credential === "anonymous" ? "without credentials" : "as " + b.credential })),
    p.bar(b.remaining / b.limit, "Pulls left of " + u.name + " for " + b.credential, p.budgetTone(b)),
    h("div", { class: "row-note" }, h("span", { text: p.forecast(b) + (lately >= 0 ? "; " + f.plural(lately, "pull") + " in the last 10 minutes" : "") }),
      h("span", { text: [b.elsewhere > 0 && f.plural(b.elsewhere, "pull") + " spent elsewhere", f.known(b.returns) && "some return " + f.until(b.returns), f.known(b.seen_at) && "told " + f.ago(b.seen_at)].filter(Boolean).join(" · ") })));
}

// spenders says who spent the pulls of the present window, and for what. Both add up to what the
// registry counts.
function spenders(u) {
  const budgets = u.budgets.filter((b) => b.spent_here > 0 || b.elsewhere > 0);
  if (budgets.length === 0) return null;
  return budgets.map((b) => {
    const total = b.spent_here + b.elsewhere;
    const side = (title, list, link, more) => {
      const told = list.reduce((n, s) => n + s.pulls, 0);
      const rows = [...list.map((s) => [link(s.name), s.pulls]), ...(b.spent_here > told ? [[h("span", { class: "soft", text: "all others" }), b.spent_here - told]] : []), ...more];
      return h("div", {}, h("h3", { text: title }), p.table(title + ": pulls of " + u.name, [{ title: "Who" }, { title: "Pulls", class: "num" }, { title: "Share", class: "num" }, { title: "", class: "wide share" }],
        rows.map(([who, pulls]) => h("tr", {}, h("td", { class: "break" }, who), h("td", { class: "num", text: f.count(pulls) }), h("td", { class: "num soft", text: f.percent(pulls / total) }),
          h("td", { class: "wide share", "aria-hidden": "true" }, h("span", { class: "share-bar", style: { "inline-size": (100 * pulls) / total + "%" } }))))).element);
    };
    const others = () => (b.elsewhere > 0 ? [[h("span", { text: "not through this mirror", title: "Somebody with the same credential or address goes past it." }), b.elsewhere]] : []);
    return h("div", {}, h("p", { class: "soft", text: "Of " + f.plural(total, "pull") + " in the present window, " + f.count(b.spent_here) + " went through this mirror" + (b.elsewhere ? " and " + f.count(b.elsewhere) + " past it." : ".") }),
      h("div", { class: "grid two" },
        side("Spent by", b.spent_by_client, (name) => (name ? h("a", { href: "#/clients?q=" + encodeURIComponent(name), text: name }) : h("span", { text: "the mirror itself, ahead of time" })), others()),
        side("Spent for", b.spent_by_repository, (name) => h("a", { href: "#/repository?name=" + encodeURIComponent(u.name + "/" + name), text: name }), others())));
  });
}

function endpoints(u) {
  if (u.endpoints.length === 0) return null;
  return h("div", {}, h("h3", { text: "Endpoints" }), p.table("Endpoints of " + u.name, [{ title: "Address" }, { title: "State" }, { title: "Last fault", class: "wide" }],
    u.endpoints.map((e) => h("tr", {}, h("td", { class: "break" }, h("span", { text: e.url }), e.stand_in && h("span", { class: "soft", text: " stand-in" }),
      e.last_fault && h("span", { class: "narrow soft", text: e.last_fault })),
      h("td", {}, e.open ? p.pill("bad", "Left alone") : f.known(e.paused_until) ? p.pill("warn", "Paused") : (e.failures > 0 ? p.pill("warn", f.plural(e.failures, "failure")) : p.pill("good", "Asked")),
        e.open && f.known(e.next_probe) && h("span", { class: "soft narrow-break", text: " tried again " + f.until(e.next_probe) })),
      h("td", { class: "wide soft break", text: e.last_fault || e.why || "–" })))).element);
}
