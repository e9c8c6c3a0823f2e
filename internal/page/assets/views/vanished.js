import * as actions from "../actions.js";
import { get, send } from "../api.js";
import { fill, h } from "../dom.js";
import * as f from "../format.js";
import { grid } from "../grid.js";
import * as p from "../parts.js";

// vanished is what registries say is gone that they had: since when, what keeps it, and who still pulls it.
export function vanished(place, query) {
  let ended = false;
  const tagged = (ref) => ref.lastIndexOf(":") > ref.lastIndexOf("/");
  const pinned = (x) => (x.pinned || []).length;
  const kept = (x) => {
    if (pinned(x)) return [p.pill("good", "Pinned"), " " + (tagged(x.ref) ? "" : f.plural(pinned(x), "tag") + ", ") + f.bytes(x.bytes)];
    return [p.pill("warn", "Not pinned"), x.not_pinned && " " + x.not_pinned];
  };
  const act = (x) => {
    const button = h("button", { class: "button small", type: "button", data: { acts: "" }, text: "Let go", "aria-label": "Let go of " + x.ref, on: { click: () => actions.run(button, async () => {
      const sure = await p.confirm({ title: "Let go of " + f.short(x.ref) + "?", yes: "Let go", tone: "danger",
        text: "Its pins are taken back: what is kept of it is evicted like all else, and its registry has it no more. It is listed again when its registry says again that it is gone." });
      if (!sure) return;
      await send("DELETE", "/vanished?ref=" + encodeURIComponent(x.ref));
      await load();
    }) } });
    return button;
  };
  const list = grid({
    caption: "Vanished", key: (x) => x.ref, sort: "-asked", query, file: "vanished", placeholder: "Image",
    nothing: () => p.empty("Nothing has vanished", "What its registry says is gone that it had is listed here, and pinned as far as there is room."),
    columns: [
      { id: "image", title: "Image", class: "break", value: (x) => x.ref, cell: (x) => h("a", { href: (tagged(x.ref) ? "#/image?ref=" : "#/repository?name=") + encodeURIComponent(x.ref), text: f.short(x.ref) }) },
      { id: "since", title: "Gone", value: (x) => x.since, cell: (x) => p.when(x.since) },
      { id: "kept", title: "Kept", value: (x) => (pinned(x) ? "pinned" : "not pinned " + (x.not_pinned || "")), signature: (x) => [x.pinned, x.bytes, x.not_pinned, x.served], cell: (x) => [kept(x), !x.served && [" ", p.pill("bad", "Not served")]] },
      { id: "asked", title: "Still pulled", value: (x) => x.asked, text: (x) => (x.asked ? f.plural(x.asked, "time") + " by " + (x.clients || []).join(", ") + ", " + f.ago(x.last) : "never") },
      { id: "said", title: "Its registry says", class: "wide soft break", value: (x) => x.said, text: (x) => x.said },
      { id: "act", title: "", class: "num wide", signature: (x) => x.ref, cell: act },
    ],
  });
  const room = h("div", { class: "stack", id: "vanished" }, p.skeleton(6, 28));
  fill(place, p.crumbs("#/held", "Pinned, wanted"), p.pageHead("Vanished"), room);

  async function load() {
    try {
      const all = await get("/vanished");
      if (ended) return;
      if (!list.element.isConnected) fill(room, p.panel("Gone from their registries", { note: "forebay copy carries what is kept to a registry of your own" }, list.element));
      list.show(all.vanished);
    } catch (fault) {
      if (!ended && !list.element.isConnected) fill(room, p.failure(fault, load));
    }
  }
  load();
  const tick = setInterval(load, 15000);
  return () => {
    ended = true;
    clearInterval(tick);
  };
}
