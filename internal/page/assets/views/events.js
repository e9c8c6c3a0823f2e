import { get } from "../api.js";
import { fill, h, icon, keyed, setText } from "../dom.js";
import * as f from "../format.js";
import { live } from "../live.js";
import * as p from "../parts.js";

const groups = {
  all: ["All", []],
  trouble: ["Trouble", ["fill_failed", "verification_failed", "quarantined", "degraded", "upstream_failing", "limited", "served_stale", "release_moved", "vanished", "trouble_began", "trouble_ended", "prefetch_failed", "config_refused"]],
  tags: ["Tags", ["tag_moved", "release_moved", "vanished", "returned"]],
  storage: ["Storage", ["evicted", "fill_done", "fill_failed", "quarantined", "degraded", "recovered", "purged", "pinned", "unpinned"]],
  upstreams: ["Upstreams", ["upstream_failing", "upstream_back", "limited", "served_stale"]],
};

export function events(place, query) {
  let group = Object.hasOwn(groups, query.show) ? query.show : "all";
  let ended = false;
  let turn = 0;
  let timer = 0;
  const input = h("input", { type: "search", id: "search", placeholder: "Repository, tag or text", value: query.q || "", autocomplete: "off", spellcheck: "false",
    on: { input: () => {
      clearTimeout(timer);
      timer = setTimeout(changed, 250);
    } } });
  let loaded = []; // the latest first
  const log = h("ol", { class: "log roomy" });
  const counted = h("span", { class: "soft counted", role: "status" });
  const room = h("div", {}, p.skeleton(10, 22));
  const more = h("button", { class: "button", type: "button", text: "Show older", hidden: true });
  fill(place, p.pageHead("Events"),
    h("div", { class: "tools" },
      h("div", { class: "search" }, h("label", { class: "hidden", for: "search", text: "Search events" }), icon("search"), input),
      p.segmented("Which events", Object.fromEntries(Object.entries(groups).map(([k, [title]]) => [k, title])), group, (next) => {
        group = next;
        changed();
      }), counted,
      h("button", { class: "button small", type: "button", text: "Export JSON", on: { click: () => {
        const link = h("a", { href: URL.createObjectURL(new Blob([JSON.stringify(loaded, null, 1)], { type: "application/json" })), download: "events.json" });
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      } } })),
    h("section", { class: "panel flush pad", "aria-label": "Events" }, room), more);

  function changed() {
    const params = new URLSearchParams();
    if (input.value.trim()) params.set("q", input.value.trim());
    if (group !== "all") params.set("show", group);
    history.replaceState(null, "", "#/events" + (params.size ? "?" + params : ""));
    load(0);
  }

  async function load(before) {
    const mine = ++turn;
    try {
      const list = await get("/events", { kind: groups[group][1].join(","), q: input.value.trim(), before: before || "", limit: 500 });
      if (ended || mine !== turn) return;
      loaded = before ? [...loaded, ...list.events] : list.events;
      draw();
      more.hidden = !list.before;
      more.onclick = () => load(list.before);
    } catch (fault) {
      if (!ended && mine === turn) fill(room, p.failure(fault, () => load(0)));
    }
  }

  // draw shows the events by groups. A group that somebody has opened stays open.
  function draw() {
    const list = p.grouped(loaded);
    setText(counted, f.plural(loaded.length, "event") + (list.length < loaded.length ? " in " + f.plural(list.length, "row") : ""));
    keyed(log, list, (g) => g.key, p.groupRow, (row, g) => {
      const size = String(g.events.length);
      if (row.dataset.size === size) return;
      if (row.dataset.size !== undefined) {
        const open = row.querySelector("details")?.open;
        const fresh = p.groupRow(g);
        fill(row, [...fresh.childNodes]);
        if (open && row.querySelector("details")) row.querySelector("details").open = true;
      }
      row.dataset.size = size;
    });
    settle();
  }

  function settle() {
    if (log.children.length) fill(room, log);
    else if (input.value.trim() || group !== "all") fill(room, p.empty("No event matches"));
    else fill(room, p.empty("No events yet", "Tags that move, evictions, failures, limits, and what operators do are told here."));
  }

  const off = live.on("event", (e) => {
    const kinds = groups[group][1];
    const text = input.value.trim().toLowerCase();
    if (kinds.length && !kinds.includes(e.kind)) return;
    if (text && !JSON.stringify(e).toLowerCase().includes(text)) return;
    loaded = [e, ...loaded].slice(0, 5000);
    draw();
  });
  load(0);
  return () => {
    ended = true;
    clearTimeout(timer);
    off();
  };
}
