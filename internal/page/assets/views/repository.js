import * as actions from "../actions.js";
import { get, send } from "../api.js";
import { fill, h } from "../dom.js";
import * as f from "../format.js";
import { grid } from "../grid.js";
import { live } from "../live.js";
import * as p from "../parts.js";
import { allImages, imageColumns } from "./images.js";

// repository shows all that is known of one: its tags, who pulled it, and what that cost.
export function repository(place, query) {
  const name = query.name || "";
  const upstream = name.slice(0, name.indexOf("/"));
  const path = name.slice(name.indexOf("/") + 1);
  let ended = false;
  const facts = h("dl", { class: "facts" });
  const tags = grid({ caption: "Tags of " + name, key: f.imageRef, sort: "-used", query, file: "tags", placeholder: "Tag", columns: imageColumns((i) => (i.tag ? i.tag : "@" + f.digest(i.digest))),
    nothing: () => p.empty("No image of it is kept") });
  const pullers = grid({ caption: "Who asked for " + name, key: (c) => c.address, sort: "-requests", file: "clients", placeholder: "Client", prefix: "c", nothing: () => p.empty("No client has asked for it lately"),
    columns: [
      { id: "client", title: "Client", value: (c) => c.address, cell: (c) => h("a", { href: "#/clients?q=" + encodeURIComponent(c.address), text: c.address }) },
      { id: "requests", title: "Requests", class: "num", value: (c) => c.use.requests, text: (c) => f.count(c.use.requests) },
      { id: "spent", title: "Pulls spent", class: "num", value: (c) => c.use.pulls - c.use.saved_pulls, text: (c) => f.count(c.use.pulls - c.use.saved_pulls) },
      { id: "errors", title: "Errors", class: "num", value: (c) => c.use.errors, text: (c) => f.count(c.use.errors) },
      { id: "traffic", title: "Traffic", class: "num", value: (c) => c.use.bytes, text: (c) => f.bytes(c.use.bytes) },
      { id: "seen", title: "Last", class: "wide", value: (c) => c.use.last_seen, text: (c) => f.ago(c.use.last_seen) },
    ] });
  let known = [];
  const refreshAll = h("button", { class: "button", type: "button", data: { acts: "" }, text: "Refresh all tags", on: { click: () => actions.run(refreshAll, async () => {
    let moved = 0;
    const list = known.filter((i) => i.tag).slice(0, 200);
    for (const i of list) moved += (await send("POST", "/refresh", { ref: f.imageRef(i) })).moved ? 1 : 0;
    p.toast(f.plural(list.length, "tag") + " asked for, " + f.count(moved) + " moved.");
    await load();
  }) } });
  const purgeAll = h("button", { class: "button danger", type: "button", data: { acts: "" }, text: "Purge all of it", on: { click: () => actions.run(purgeAll, () => actions.purge([name], { upstream, pinned: known.some((i) => i.pinned), used: known.map((i) => i.used_at || "").sort().pop() })) } });
  const body = h("div", { class: "stack" }, h("section", { class: "panel" }, p.skeleton(8, 28)));
  fill(place, p.crumbs("#/images", "Images"),
    p.pageHead(name ? f.familiar(upstream, path) : "No repository", h("div", { class: "buttons" }, refreshAll, purgeAll,
      h("a", { class: "button", href: "#/events?q=" + encodeURIComponent(path), text: "Its events" }), h("a", { class: "button", href: "#/upstreams?name=" + encodeURIComponent(upstream), text: upstream }))), body);

  async function load() {
    try {
      const [images, who] = await Promise.all([allImages({ pattern: name }), get("/clients", { window: "day", limit: 512 })]);
      if (ended) return;
      known = images.list;
      if (!tags.element.isConnected) {
        fill(body, h("section", { class: "panel", "aria-label": "Facts" }, facts), p.panel("Tags", { id: "tags" }, tags.element), p.panel("Who asked for it", { id: "pullers", note: "in 24 hours" }, pullers.element));
      }
      const use = who.repositories.find((r) => r.upstream === upstream && r.repository === path) || { requests: 0, pulls: 0, saved_pulls: 0, bytes: 0, errors: 0 };
      const kept = images.list.reduce((n, i) => n + i.kept_bytes, 0);
      const spent = ((live.status && live.status.upstreams) || []).flatMap((u) => (u.name === upstream ? u.budgets : [])).flatMap((b) => b.spent_by_repository).filter((s) => s.name === path).reduce((n, s) => n + s.pulls, 0);
      fill(facts, Object.entries({
        "Images": f.count(images.list.length), "Kept, layers that images share counted for each": f.bytes(kept), "Requests in 24 hours": f.count(use.requests), "Errors": f.count(use.errors),
        "Traffic": f.bytes(use.bytes), "Spent of the present limit": f.plural(spent, "pull"),
      }).map(([label, value]) => h("div", {}, h("dt", { text: label }), h("dd", { text: value }))));
      tags.show(images.list);
      pullers.show(who.clients.map((c) => ({ address: c.address, use: c.repositories.find((r) => r.upstream === upstream && r.repository === path) })).filter((c) => c.use));
    } catch (fault) {
      if (!ended && !tags.element.isConnected) fill(body, h("section", { class: "panel" }, p.failure(fault, load)));
    }
  }
  load();
  const tick = setInterval(load, 10000);
  document.addEventListener("purged", load);
  return () => {
    ended = true;
    document.removeEventListener("purged", load);
    clearInterval(tick);
  };
}
