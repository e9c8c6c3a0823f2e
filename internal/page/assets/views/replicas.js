import { get } from "../api.js";
import { fill } from "../dom.js";
import * as f from "../format.js";
import { grid } from "../grid.js";
import * as p from "../parts.js";

const states = { here: ["good", "Here"], silent: ["warn", "Does not answer"], away: ["bad", "Away"] };

// replicas shows the mirrors of the fleet, and what they are to each other.
export function replicas(place, query) {
  let ended = false;
  const there = (r) => r.state === "here";
  const figure = (id, title, of, text = f.count) => ({ id, title, class: "num", value: (r) => (there(r) ? of(r) : -1), text: (r) => (there(r) ? text(of(r)) : "–") });
  const all = grid({
    caption: "Replicas", key: (r) => r.id, sort: "name", query, file: "replicas", placeholder: "Name, zone or address",
    nothing: () => p.empty("This mirror is alone", "Several mirrors behind one balancer share what registries say by fleet in the configuration."),
    changed: (params) => {
      const words = new URLSearchParams(params);
      history.replaceState(null, "", "#/replicas" + (words.size ? "?" + words : ""));
    },
    columns: [
      { id: "name", title: "Mirror", class: "break name-cell", value: (r) => r.name, text: (r) => r.name },
      { id: "state", title: "State", value: (r) => r.state + (r.seen || ""), cell: (r) => [p.pill(...(states[r.state] || ["idle", r.state])), f.known(r.seen) && [" seen ", p.when(r.seen)]] },
      { id: "address", title: "Address", class: "wide break", value: (r) => r.address, text: (r) => r.address },
      { id: "zone", title: "Zone", value: (r) => r.zone || "", text: (r) => r.zone || "–" },
      { id: "version", title: "Version", class: "wide", value: (r) => r.version || "", text: (r) => r.version || "–" },
      { id: "since", title: "Since", class: "wide", value: (r) => r.started_at || "", cell: (r) => p.when(r.started_at) },
      figure("led", "Led", (r) => r.led),
      figure("followed", "Followed", (r) => r.followed),
      figure("alone", "Alone", (r) => r.alone),
      figure("in", "From others", (r) => r.bytes_in, f.bytes),
      figure("out", "To others", (r) => r.bytes_out, f.bytes),
      { id: "engine", title: "Engine", class: "num", value: (r) => r.engine_seconds, text: (r) => (!there(r) ? "–" : f.known(r.engine_away_since) ? "away" : f.micros(r.engine_seconds * 1e6)) },
    ],
  });
  const room = p.skeleton(4, 28);
  const panel = p.panel("Mirrors of the fleet", { id: "replicas", note: "Led: asked a registry for all. Followed: had it from another mirror. Alone: asked by itself." }, room);
  fill(place, p.pageHead("Replicas"), panel);

  async function load() {
    try {
      const list = await get("/replicas");
      if (ended) return;
      all.show(list.replicas);
      if (!all.element.isConnected) panel.lastChild.replaceWith(all.element);
    } catch (fault) {
      if (!ended) panel.lastChild.replaceWith(p.failure(fault, load));
    }
  }
  load();
  const tick = setInterval(load, 3000);
  return () => {
    ended = true;
    clearInterval(tick);
  };
}
