import { get } from "../api.js";
import { fill, h } from "../dom.js";
import * as f from "../format.js";
import { grid } from "../grid.js";
import * as p from "../parts.js";

const windows = { hour: "Last hours", day: "24 hours", start: "Since the start" };
const errorsCell = (n) => h("span", { class: n ? "bad-text" : "soft", text: f.count(n) });
const share = (part) => h("span", { class: "share-bar", style: { "inline-size": 100 * part + "%" } });

export function clients(place, query) {
  let window_ = Object.hasOwn(windows, query.window) ? query.window : "day";
  let ended = false;
  let most = 1;
  let mostUsed = 1;
  const past = new Map(); // requests of each client at the last look
  let looked = 0;
  const chosen = { clients: {}, repositories: {} };
  const address = (which) => (params) => {
    chosen[which] = params;
    const all = new URLSearchParams({ ...(window_ === "day" ? {} : { window: window_ }), ...chosen.clients, ...chosen.repositories });
    history.replaceState(null, "", "#/clients" + (all.size ? "?" + all : ""));
  };

  const list = grid({
    caption: "Clients", key: (c) => c.address || "unknown", sort: "-traffic", query, changed: address("clients"), file: "clients", placeholder: "Address, name or program", details: more,
    nothing: () => p.empty("No client has asked for anything", "Who pulls through this mirror is listed here, with what and how much."),
    columns: [
      { id: "client", title: "Client", value: (c) => [c.address, c.name, c.user].filter(Boolean).join(" "), cell: (c) => [h("span", { class: "strong", text: c.name || c.address || "unknown" }), c.name && h("span", { class: "soft break", text: " " + c.address }), c.user && h("span", { class: "soft break", text: " " + c.user })] },
      { id: "program", title: "Program", class: "wider soft clip-cell", value: (c) => c.user_agent, text: (c) => c.user_agent || "–" },
      { id: "requests", title: "Requests", class: "num wide", value: (c) => c.requests, text: (c) => f.count(c.requests) },
      { id: "now", title: "Now", class: "num wide wider", value: (c) => c.now, text: (c) => (c.now > 0 ? f.compact(c.now) + "/s" : "–") },
      { id: "errors", title: "Errors", class: "num wide", value: (c) => c.errors, cell: (c) => errorsCell(c.errors) },
      { id: "spent", title: "Pulls spent", class: "num", value: (c) => c.pulls - c.saved_pulls, text: (c) => f.count(c.pulls - c.saved_pulls) },
      { id: "hits", title: "Served from here", class: "num wide", value: (c) => (c.requests ? c.hits / c.requests : 0), text: (c) => f.percent(c.requests ? c.hits / c.requests : -1) },
      { id: "traffic", title: "Traffic", class: "num", value: (c) => c.bytes, text: (c) => f.bytes(c.bytes) },
      { id: "share", title: "", class: "wide wider share", signature: (c) => c.bytes / most, cell: (c) => share(c.bytes / most) },
      { id: "seen", title: "Last seen", class: "wide", value: (c) => c.last_seen, text: (c) => f.ago(c.last_seen) },
    ],
  });
  const repositories = grid({
    caption: "Repositories", key: (r) => r.upstream + "/" + r.repository, sort: "-traffic", prefix: "r", query, changed: address("repositories"), file: "repositories", placeholder: "Repository", per: 25,
    nothing: () => p.empty("Nothing was asked for"),
    columns: [
      { id: "repository", title: "Repository", class: "break", value: (r) => r.upstream + "/" + r.repository, cell: (r) => repositoryLink(r) },
      { id: "requests", title: "Requests", class: "num wide", value: (r) => r.requests, text: (r) => f.count(r.requests) },
      { id: "pulls", title: "Pulls", class: "num wide", value: (r) => r.pulls, text: (r) => f.count(r.pulls) },
      { id: "spent", title: "Pulls spent", class: "num", value: (r) => r.pulls - r.saved_pulls, text: (r) => f.count(r.pulls - r.saved_pulls) },
      { id: "errors", title: "Errors", class: "num wide", value: (r) => r.errors, cell: (r) => errorsCell(r.errors) },
      { id: "traffic", title: "Traffic", class: "num", value: (r) => r.bytes, text: (r) => f.bytes(r.bytes) },
      { id: "share", title: "", class: "wide wider share", signature: (r) => r.bytes / mostUsed, cell: (r) => share(r.bytes / mostUsed) },
    ],
  });
  const body = h("div", { class: "stack" }, h("section", { class: "panel" }, p.skeleton(8, 30)));
  fill(place, p.pageHead("Clients", p.segmented("Time that is counted", windows, window_, (next) => {
    window_ = next;
    past.clear();
    address("clients")(chosen.clients);
    load();
  })), pastIt(), body);

  async function load() {
    try {
      const asked = window_;
      const found = await get("/clients", { window: window_, limit: 512 });
      if (ended || asked !== window_) return;
      const now = Date.now() / 1000;
      for (const c of found.clients) {
        c.now = past.has(c.address) ? Math.max(0, c.requests - past.get(c.address)) / (now - looked) : 0;
        past.set(c.address, c.requests);
      }
      looked = now;
      most = Math.max(...found.clients.map((c) => c.bytes), 1);
      mostUsed = Math.max(...found.repositories.map((r) => r.bytes), 1);
      if (!list.element.isConnected) {
        fill(body, p.panel("Clients", { id: "clients" }, list.element), p.panel("Repositories", { id: "repositories" }, repositories.element));
      }
      list.show(found.clients);
      repositories.show(found.repositories);
    } catch (fault) {
      if (!ended && !list.element.isConnected) fill(body, h("section", { class: "panel" }, p.failure(fault, load)));
    }
  }

  load();
  const tick = setInterval(load, 5000);
  return () => {
    ended = true;
    clearInterval(tick);
  };
}

// pastIt leads to who is not among the clients.
const pastIt = () => h("p", { class: "soft trouble-ways" }, "Not everybody may pull through here: ", h("a", { href: "#/bypass", text: "who seems to go past the mirror" }));

const kinds = { budget: "Spent elsewhere", manifests: "Layers elsewhere", silent: "Fell silent", never: "Never asked" };

// bypass is who seems not to pull through the mirror, and what is probably missing there.
export function bypass(place) {
  let ended = false;
  const list = grid({
    caption: "Who goes past the mirror", key: (a) => a.kind + a.client + a.upstream + a.since, sort: "-since", file: "bypass", placeholder: "Address, name or registry",
    nothing: () => p.empty("Nothing shows that anybody goes past the mirror", "It is seen when a registry counts more pulls than were spent here, when clients get manifests here and layers elsewhere, when they came on several days and do not any more, and when those of client_names.file, or nodes of the cluster, never came."),
    columns: [
      { id: "who", title: "Who", class: "break", value: (a) => [a.name, a.client, a.upstream].filter(Boolean).join(" "), cell: (a) => (a.client ? h("a", { class: "strong", href: "#/clients?q=" + encodeURIComponent(a.client), text: a.name ? a.name + " " + a.client : a.client }) : a.upstream ? h("a", { class: "strong", href: "#/upstreams?name=" + encodeURIComponent(a.upstream), text: "Somebody at " + a.upstream }) : h("span", { class: "strong", text: a.name })) },
      { id: "kind", title: "Sign", value: (a) => kinds[a.kind], cell: (a) => p.pill(a.kind === "never" ? "idle" : "warn", kinds[a.kind]) },
      { id: "what", title: "What shows it", class: "break wider", value: (a) => a.what, text: (a) => a.what },
      { id: "since", title: "Since", class: "wide", value: (a) => a.since || "", cell: (a) => (a.since ? p.when(a.since) : "–") },
      { id: "line", title: "Probably missing there", class: "break", value: (a) => a.line, cell: (a) => [h("code", { text: a.line }), h("span", { class: "soft", text: " forebay client-config " + a.engine })] },
    ],
  });
  const body = h("div", { class: "stack" }, p.skeleton(6, 28));
  fill(place, p.crumbs("#/clients", "Clients"), p.pageHead("Past the mirror"),
    h("p", { class: "soft", text: "Signs, and no proof. On the machine itself, forebay doctor says what is wrong." }), body);
  async function load() {
    try {
      const found = await get("/around");
      if (ended) return;
      if (!list.element.isConnected) fill(body, p.panel("Who seems not to use this mirror", { id: "bypass" }, list.element));
      list.show(found.around);
    } catch (fault) {
      if (!ended && !list.element.isConnected) fill(body, p.failure(fault, load));
    }
  }
  load();
  const tick = setInterval(load, 30000);
  return () => {
    ended = true;
    clearInterval(tick);
  };
}

export function repositoryLink(r) {
  if (!r.upstream) return h("span", { text: r.repository });
  return h("a", { href: "#/repository?name=" + encodeURIComponent(r.upstream + "/" + r.repository), text: f.familiar(r.upstream, r.repository) });
}

// more is what a client asked for.
function more(c) {
  return [
    c.last_error && h("p", { class: "bad-text break", text: "Last error, " + f.ago(c.error_at) + ": " + c.last_error }),
    h("ul", { class: "mini" }, c.repositories.map((r) => h("li", {}, h("span", { class: "break" }, repositoryLink(r)),
      h("span", { class: "soft num", text: f.plural(r.requests, "request") + ", " + f.plural(r.pulls - r.saved_pulls, "pull") + " spent, " + f.bytes(r.bytes) + (r.errors ? ", " + f.plural(r.errors, "error") : "") })))),
    h("p", { class: "trouble-ways" }, h("a", { href: "#/events?show=trouble&q=" + encodeURIComponent(c.address), text: "Troubles and events" }), h("a", { href: "#/upstreams", text: "Budgets that it spends" })),
  ];
}
