import { get } from "../api.js";
import { fill, h, icon } from "../dom.js";
import * as f from "../format.js";
import * as p from "../parts.js";

const filters = { all: "All", missing: "Incomplete", pinned: "Pinned" };

export function images(place, query) {
  let filter = Object.hasOwn(filters, query.show) ? query.show : "all";
  let control = null;
  let timer = 0;
  const input = h("input", { type: "search", id: "search", placeholder: "nginx, *grafana*, ghcr.io/owner/*:v1*", value: query.q || "", autocomplete: "off", spellcheck: "false",
    on: { input: () => {
      clearTimeout(timer);
      timer = setTimeout(changed, 250);
    } } });
  const note = h("p", { class: "soft result-note", role: "status", text: "\u00a0" });
  const list = p.table("Images that are kept", [
    { title: "Image" }, { title: "Platforms", class: "wide" }, { title: "State" }, { title: "Size", class: "num" },
    { title: "Last use", class: "wide" }, { title: "Digest", class: "wider" },
  ], []);
  const room = h("div", {}, p.skeleton(8, 30));
  const more = h("button", { class: "button", type: "button", text: "Show more", hidden: true });

  fill(place,
    p.pageHead("Images"),
    h("div", { class: "tools" },
      h("div", { class: "search" }, h("label", { class: "hidden", for: "search", text: "Search images" }), icon("search"), input),
      p.segmented("Which images", filters, filter, (next) => {
        filter = next;
        changed();
      })),
    note,
    h("section", { class: "panel flush", "aria-label": "Images" }, room),
    more);

  function changed() {
    const params = new URLSearchParams();
    if (input.value.trim()) params.set("q", input.value.trim());
    if (filter !== "all") params.set("show", filter);
    history.replaceState(null, "", "#/images" + (params.size ? "?" + params : ""));
    load("");
  }

  // pattern finds a word anywhere, unless it is a pattern or a full name already.
  function pattern() {
    const text = input.value.trim();
    if (!text) return "";
    if (/[*?[]/.test(text)) return text;
    return text.includes(":") || text.includes("@") ? text : "*" + text + "*";
  }

  async function load(after) {
    if (control) control.abort();
    const mine = new AbortController();
    control = mine;
    try {
      const page = await get("/images", { pattern: pattern(), missing: filter === "missing", after, limit: 100 }, mine.signal);
      if (control !== mine) return;
      const found = filter === "pinned" ? page.images.filter((i) => i.pinned) : page.images;
      if (!after) list.body.replaceChildren();
      list.body.append(...found.map(row));
      const n = list.body.children.length;
      if (n > 0) fill(room, list.element);
      else if (!page.next) fill(room, nothing());
      note.textContent = n === 0 ? "\u00a0" : f.plural(n, "image") + (page.next ? " so far" : "");
      more.hidden = !page.next;
      more.onclick = () => load(page.next);
      if (n === 0 && page.next) load(page.next); // a page may be empty though there are more
    } catch (fault) {
      if (control !== mine || fault.name === "AbortError") return;
      note.textContent = "\u00a0";
      more.hidden = true;
      fill(room, p.failure(fault, () => load("")));
    }
  }

  function nothing() {
    if (input.value.trim()) return p.empty("No image matches", "Use * for any text, as in *nginx* or ghcr.io/*:v1*.");
    if (filter === "missing") return p.empty("Every image is complete", "All that was pulled can be served without its upstream.");
    if (filter === "pinned") return p.empty("Nothing is pinned", "A pinned image is never evicted. Open an image to pin it.");
    return p.empty("Nothing is kept yet", "Point a client at this mirror and pull: what it pulls is listed here.");
  }

  load("");
  return () => {
    clearTimeout(timer);
    if (control) control.abort();
    control = null;
  };
}

function row(i) {
  const href = "#/image?ref=" + encodeURIComponent(f.imageRef(i));
  const platforms = i.platforms.filter((x) => x.platform !== "attestation");
  return h("tr", {},
    h("td", {}, h("a", { class: "image-name", href },
      h("span", { class: "strong", text: f.familiar(i.upstream, i.repository) }),
      h("span", { class: "tag", text: i.tag ? ":" + i.tag : "@" + f.digest(i.digest) })),
      i.pinned && h("span", { class: "pinned" }, icon("pin"), h("span", { class: "hidden", text: "pinned" })),
      h("span", { class: "narrow soft", text: "used " + f.ago(i.used_at) })),
    h("td", { class: "wide" }, chips(platforms)),
    h("td", {}, p.imagePill(i.state)),
    h("td", { class: "num", text: f.bytes(i.kept_bytes) }),
    h("td", { class: "wide" }, p.when(i.used_at)),
    h("td", { class: "wider" }, p.shortDigest(i.digest)));
}

// chips shows the platforms that were pulled, and counts the others.
function chips(platforms) {
  const pulled = platforms.filter((x) => x.state !== "absent");
  const others = platforms.length - pulled.length;
  return h("span", { class: "chips" },
    pulled.slice(0, 3).map((x) => h("span", { class: "chip " + x.state, text: x.platform || "unknown", title: p.stateNames[x.state] })),
    pulled.length > 3 && h("span", { class: "soft", text: "+" + (pulled.length - 3) }),
    others > 0 && h("span", { class: "soft", text: (pulled.length ? "" : "none") + " of " + platforms.length }));
}
