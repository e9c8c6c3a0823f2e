import * as actions from "../actions.js";
import { get, send } from "../api.js";
import { fill, h, setText } from "../dom.js";
import * as f from "../format.js";
import { grid } from "../grid.js";
import * as p from "../parts.js";

// held is what operators said of images: which are pinned, which tags wait by a policy, and which images
// clients wanted in vain while their registry was not to be asked.
export function held(place, query) {
  let ended = false;
  const note = h("p", { class: "soft" });
  const release = (pin) => {
    if (pin.pattern) return null;
    const button = h("button", { class: "button small", type: "button", data: { acts: "" }, text: "Unpin", "aria-label": "Unpin " + pin.ref, on: { click: () => actions.run(button, async () => {
      await actions.unpin(pin.ref);
      await load();
    }) } });
    return button;
  };
  const pins = grid({
    caption: "Pinned", key: (x) => x.ref, sort: "-size", query, file: "pins", placeholder: "Image",
    nothing: () => p.empty("Nothing is pinned", "An image that is pinned is never evicted. Pin it on its page, or by pins in the configuration."),
    columns: [
      { id: "image", title: "Image", class: "break", value: (x) => x.ref, cell: (x) => h("a", { href: "#/image?ref=" + encodeURIComponent(x.ref), text: f.short(x.ref) }) },
      { id: "state", title: "State", value: (x) => x.state, signature: (x) => [x.state, x.held], cell: (x) => [p.imagePill(x.state), !x.held && p.pill("bad", "Does not fit")] },
      { id: "platforms", title: "Platforms", class: "wide soft break", value: (x) => (x.platforms || []).join(", "), text: (x) => (x.platforms || []).join(", ") || "those that were pulled" },
      { id: "origin", title: "By", class: "wide soft break", value: (x) => x.pattern || x.at || "", text: (x) => (x.pattern ? "configuration: " + x.pattern : f.known(x.at) ? "hand, " + f.ago(x.at) : "hand") },
      { id: "size", title: "Size", class: "num", value: (x) => x.bytes, text: (x) => f.bytes(x.bytes) },
      { id: "missing", title: "Missing", class: "num wide", value: (x) => x.missing_bytes || 0, text: (x) => (x.missing_bytes ? f.bytes(x.missing_bytes) : "–") },
      { id: "act", title: "", class: "num", signature: (x) => x.ref, cell: release },
    ],
  });
  const clear = h("button", { class: "button small", type: "button", data: { acts: "" }, text: "Empty the list", on: { click: () => actions.run(clear, async () => {
    await send("DELETE", "/wanted");
    await load();
  }) } });
  const wanted = grid({
    caption: "Wanted", key: (x) => x.ref, sort: "-times", prefix: "w", query, file: "wanted", placeholder: "Image",
    nothing: () => p.empty("Nothing is wanted that is not here", "What clients ask for in vain while a registry is offline is noted here; forebay prefetch takes the list where there is a line."),
    columns: [
      { id: "image", title: "Image", class: "break", value: (x) => x.ref, text: (x) => x.ref },
      { id: "times", title: "Asked for", class: "num", value: (x) => x.count || 0, text: (x) => f.plural(x.count || 0, "time") },
      { id: "last", title: "Last", class: "wide", value: (x) => x.last || "", text: (x) => f.ago(x.last) },
    ],
  });
  const waits = grid({
    caption: "Waiting", key: (x) => x.ref, sort: "-since", prefix: "r", query, file: "waiting", placeholder: "Image",
    nothing: () => p.empty("Every tag answers with what it points to", "A tag that a policy keeps from that is listed here; forebay tag promote lets it answer."),
    columns: [
      { id: "tag", title: "Tag", class: "break", value: (x) => x.ref, text: (x) => f.short(x.ref) },
      { id: "since", title: "Points to", value: (x) => x.since || "", text: (x) => x.points_to.slice(0, 19) + ", " + f.ago(x.since) },
      { id: "answers", title: "Answers", class: "wide", value: (x) => x.answers, text: (x) => x.answers.slice(0, 19) || "nothing" },
      { id: "due", title: "Answers from", class: "wide", value: (x) => x.passed[0].due || "~", text: (x) => (x.passed[0].due ? f.until(x.passed[0].due) : "–") },
      { id: "why", title: "Why", class: "soft break", value: (x) => x.passed[0].rule, text: (x) => x.passed[0].rule + ": " + x.passed[0].why },
    ],
  });
  const room = h("div", { class: "stack", id: "held" }, p.skeleton(6, 28));
  const gone = h("a", { class: "button", href: "#/vanished", text: "Vanished" });
  fill(place, p.pageHead("Pinned and wanted", gone), room);

  async function load() {
    try {
      const [held_, asked, report, lost] = await Promise.all([get("/pins"), get("/wanted"), get("/policy/report"), get("/vanished")]);
      if (ended) return;
      setText(gone, lost.vanished.length ? "Vanished: " + lost.vanished.length : "Vanished");
      if (!pins.element.isConnected) {
        fill(room, p.panel("Pinned", { id: "pins" }, note, pins.element),
          p.panel("Waiting", { id: "waiting", note: "Tags that a policy keeps from what they point to" }, waits.element),
          p.panel("Wanted", { id: "wanted", note: "In vain, while its registry was not to be asked", extra: clear }, wanted.element));
      }
      fill(note, f.plural(held_.pins.length, "image") + ", " + f.bytes(held_.bytes) + (held_.limit_bytes ? " of at most " + f.bytes(held_.limit_bytes) : ""));
      pins.show(held_.pins);
      waits.show(report.tags.filter((x) => x.passed.length > 0));
      clear.hidden = asked.wanted.length === 0;
      wanted.show(asked.wanted);
    } catch (fault) {
      if (!ended && !pins.element.isConnected) fill(room, p.failure(fault, load));
    }
  }
  load();
  const tick = setInterval(load, 15000);
  return () => {
    ended = true;
    clearInterval(tick);
  };
}
