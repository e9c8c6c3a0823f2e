import { get } from "../api.js";
import { fill, h, icon } from "../dom.js";
import * as f from "../format.js";
import * as p from "../parts.js";

const windows = { hour: "Last hours", day: "24 hours", start: "Since the start" };

export function clients(place, query) {
  let window_ = Object.hasOwn(windows, query.window) ? query.window : "day";
  let ended = false;
  let opened = new Set();
  const body = h("div", { class: "stack" }, h("section", { class: "panel" }, p.skeleton(8, 30)));
  fill(place, p.pageHead("Clients", p.segmented("Time that is counted", windows, window_, (next) => {
    window_ = next;
    history.replaceState(null, "", "#/clients?window=" + window_);
    load(true);
  })), body);

  async function load(anew) {
    try {
      const asked = window_;
      const list = await get("/clients", { window: window_, limit: 100 });
      if (ended || asked !== window_) return;
      if (!anew && body.contains(document.activeElement)) return; // nothing moves under somebody's hands
      show(list);
    } catch (fault) {
      if (!ended && anew) fill(body, h("section", { class: "panel" }, p.failure(fault, () => load(true))));
    }
  }

  function show(list) {
    if (list.clients.length === 0) {
      fill(body, h("section", { class: "panel" }, p.empty("No client has asked for anything", "Who pulls through this mirror is listed here, with what and how much.")));
      return;
    }
    const most = Math.max(...list.clients.map((c) => c.bytes), 1);
    const mostUsed = Math.max(...list.repositories.map((r) => r.bytes), 1);
    fill(body,
      p.panel("Clients", { id: "clients", note: "The most traffic first" }, p.table("Clients, the most traffic first",
        [{ title: "Client" }, { title: "Program", class: "wider" }, { title: "Requests", class: "num" }, { title: "Errors", class: "num wide" }, { title: "Served from here", class: "num wide" }, { title: "Traffic", class: "num" }, { title: "", class: "wide share" }, { title: "Last seen", class: "wide" }],
        list.clients.flatMap((c, n) => clientRows(c, n, most))).element),
      p.panel("Repositories", { id: "repositories", note: "The most traffic first" }, p.table("Repositories, the most traffic first",
        [{ title: "Repository" }, { title: "Requests", class: "num" }, { title: "Pulls", class: "num wide" }, { title: "Saved", class: "num wide" }, { title: "Errors", class: "num wide" }, { title: "Traffic", class: "num" }, { title: "", class: "wide share" }],
        list.repositories.slice(0, 50).map((r) => h("tr", {},
          h("td", { class: "break" }, r.upstream ? h("a", { href: "#/images?q=" + encodeURIComponent(r.upstream + "/" + r.repository + "*"), text: f.familiar(r.upstream, r.repository) }) : h("span", { text: r.repository })),
          h("td", { class: "num", text: f.count(r.requests) }), h("td", { class: "num wide", text: f.count(r.pulls) }), h("td", { class: "num wide", text: f.count(r.saved_pulls) }),
          errorsCell(r.errors), h("td", { class: "num", text: f.bytes(r.bytes) }), shareCell(r.bytes / mostUsed)))).element));
  }

  function clientRows(c, n, most) {
    const id = "client-" + n;
    const open = opened.has(c.address);
    const details = h("tr", { id, class: "inner", hidden: !open }, h("td", { colspan: "8" },
      c.last_error && h("p", { class: "bad-text break", text: "Last error, " + f.ago(c.error_at) + ": " + c.last_error }),
      h("ul", { class: "mini" }, c.repositories.map((r) => h("li", {}, h("span", { class: "break", text: f.familiar(r.upstream, r.repository) }),
        h("span", { class: "soft num", text: f.plural(r.requests, "request") + ", " + f.bytes(r.bytes) + (r.errors ? ", " + f.plural(r.errors, "error") : "") }))))));
    const toggle = h("button", { class: "expand", type: "button", "aria-expanded": String(open), "aria-controls": id, on: { click: () => {
      details.hidden = !details.hidden;
      toggle.setAttribute("aria-expanded", String(!details.hidden));
      if (details.hidden) opened.delete(c.address);
      else opened.add(c.address);
    } } }, icon("chevron"), h("span", { class: "strong", text: c.address || "unknown" }));
    return [
      h("tr", {}, h("td", {}, toggle, h("span", { class: "narrow soft", text: f.plural(c.errors, "error") + ", " + f.ago(c.last_seen) })),
        h("td", { class: "wider soft clip-cell", title: c.user_agent, text: c.user_agent || "–" }),
        h("td", { class: "num", text: f.count(c.requests) }), errorsCell(c.errors),
        h("td", { class: "num wide", text: f.percent(c.requests ? c.hits / c.requests : -1) }), h("td", { class: "num", text: f.bytes(c.bytes) }),
        shareCell(c.bytes / most), h("td", { class: "wide" }, p.when(c.last_seen))),
      details,
    ];
  }

  load(true);
  const tick = setInterval(() => load(false), 5000);
  return () => {
    ended = true;
    clearInterval(tick);
  };
}

const errorsCell = (n) => h("td", { class: "num wide" + (n ? " bad-text" : " soft"), text: f.count(n) });
const shareCell = (share) => h("td", { class: "wide share", "aria-hidden": "true" }, h("span", { class: "share-bar", style: { "inline-size": 100 * share + "%" } }));
