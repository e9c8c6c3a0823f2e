import * as actions from "../actions.js";
import { get, send } from "../api.js";
import { fill, h, setText } from "../dom.js";
import * as f from "../format.js";
import { grid } from "../grid.js";
import * as p from "../parts.js";

const lengths = { 1: "1 min", 5: "5 min", 15: "15 min", 60: "1 h" };

// drill rehearses an outage: no registry is asked for a while, and what fails for whom is told.
export function drill(place) {
  let minutes = "5";
  let ended = false;
  const state = h("p", { role: "status" });
  const begin = h("button", { class: "button danger", type: "button", data: { acts: "" }, text: "Begin", on: { click: () => actions.run(begin, async () => {
    const sure = await p.confirm({ title: "Ask no registry for " + lengths[minutes] + "?", yes: "Begin",
      text: "What is kept is served. Who wants anything else gets an error, or goes to the registry itself. It ends by itself, also when this mirror is stopped." });
    if (!sure) return;
    await send("POST", "/drill", { minutes: Number(minutes) });
    await load();
  }) } });
  const stop = h("button", { class: "button", type: "button", data: { acts: "" }, hidden: true, text: "End it now", on: { click: () => actions.run(stop, async () => {
    await send("DELETE", "/drill");
    await load();
  }) } });
  const failures = grid({
    caption: "What failed for whom", key: (x) => x.client + x.upstream + x.repository + x.reference, sort: "-times", file: "drill", placeholder: "Client or image",
    nothing: () => p.empty("Nothing failed", "What failed for whom while no registry is asked stands here."),
    columns: [
      { id: "client", title: "Client", value: (x) => [x.name, x.client].filter(Boolean).join(" "), cell: (x) => h("a", { href: "#/clients?q=" + encodeURIComponent(x.client), text: x.name || x.client }) },
      { id: "image", title: "Image", class: "break", value: (x) => x.upstream + "/" + x.repository, cell: (x) => h("a", { href: "#/repository?name=" + encodeURIComponent(x.upstream + "/" + x.repository), text: f.familiar(x.upstream, x.repository) }) },
      { id: "reference", title: "Tag or digest", class: "break", value: (x) => x.reference, text: (x) => f.digest(x.reference) },
      { id: "times", title: "Times", class: "num", value: (x) => x.times, text: (x) => f.count(x.times) },
      { id: "why", title: "Why", class: "wider soft break", value: (x) => x.fault, text: (x) => x.fault },
    ],
  });
  fill(place, p.crumbs("#/upstreams", "Upstreams"),
    p.pageHead("Rehearse an outage"),
    p.panel("No registry is asked", { id: "drill", extra: h("div", { class: "buttons" }, p.segmented("For how long", lengths, minutes, (next) => (minutes = next)), begin, stop) }, state),
    p.panel("What failed for whom", { id: "failures" }, failures.element));

  async function load() {
    try {
      const d = await get("/drill");
      if (ended) return;
      begin.hidden = d.runs;
      stop.hidden = !d.runs;
      setText(state, !d.from ? "Of what is used, what could be served if the registries went away now? Without a rehearsal, forebay drill says what is kept whole."
        : (d.runs ? "It ends by itself " + f.until(d.until) + ", at " + f.timeOfDay(d.until) + ". " : "The last one ran from " + f.timeOfDay(d.from) + " to " + f.timeOfDay(d.until) + ". ")
          + f.plural(d.served, "request was", "requests were") + " served, and " + f.count(d.failed) + " failed.");
      failures.show(d.failures);
    } catch (fault) {
      if (!ended) setText(state, fault.message);
    }
  }
  load();
  const tick = setInterval(load, 3000);
  return () => {
    ended = true;
    clearInterval(tick);
  };
}
