import * as actions from "../actions.js";
import { get } from "../api.js";
import { fill, h, icon } from "../dom.js";
import * as f from "../format.js";
import { grid } from "../grid.js";
import * as p from "../parts.js";

const filters = { all: "All", missing: "Incomplete", pinned: "Pinned", names: "Name only" };

// most bounds how many are looked at together: the table sorts what it has.
const most = 3000;

// purgesMost is how many the server purges together.
const purgesMost = 500;

// allImages gets all pages of a list, up to most; more is whether there are others.
export async function allImages(query, signal) {
  const list = [];
  let after = "";
  do {
    const page = await get("/images", { ...query, after, limit: 500 }, signal);
    list.push(...page.images);
    after = page.next;
  } while (after && list.length < most);
  return { list, more: Boolean(after) };
}

// nameOnly reports whether nothing is kept of an image but what its tag points to: somebody
// asked for its name, and pulled nothing.
const nameOnly = (i) => i.kept_bytes === 0 && i.platforms.every((x) => x.state !== "complete");

export function images(place, query) {
  let filter = Object.hasOwn(filters, query.show) ? query.show : "all";
  let control = null;
  let timer = 0;
  let chosen = {};
  let shown = [];
  const picked = new Set(); // references
  const purge = h("button", { class: "button danger", type: "button", hidden: true, data: { acts: "" }, on: { click: () => actions.run(purge, async () => {
    const those = shown.filter((i) => picked.has(f.imageRef(i)));
    const upstreams = new Set(those.map((i) => i.upstream));
    if (await actions.purge(those.map(f.imageRef), { pinned: those.some((i) => i.pinned), upstream: upstreams.size === 1 ? those[0].upstream : "" })) pick([], false);
  }) } });
  const all = h("button", { class: "button", type: "button", data: { acts: "" }, text: "Select all that match", on: { click: () => pick(shown.slice(0, purgesMost), picked.size === 0) } });

  // pick selects images, or without any lets all of them go.
  function pick(list, on) {
    if (!on && list.length !== 1) picked.clear();
    for (const i of list) picked[on ? "add" : "delete"](f.imageRef(i));
    purge.hidden = picked.size === 0;
    purge.textContent = "Purge " + f.plural(picked.size, "image");
    all.textContent = picked.size === 0 ? "Select all that match" : "Select none";
    table.show(shown);
  }
  const input = h("input", { type: "search", id: "search", placeholder: "nginx, *grafana*, ghcr.io/owner/*:v1*", value: query.q || "", autocomplete: "off", spellcheck: "false",
    on: { input: () => {
      clearTimeout(timer);
      timer = setTimeout(changed, 250);
    } } });
  const note = h("p", { class: "soft result-note", role: "status", text: "\u00a0" });
  const table = grid({ caption: "Images that are kept", key: f.imageRef, sort: "image", query: { sort: query.sort, page: query.page }, search: false, file: "images", per: 100, columns: [{ id: "pick", title: "", class: "pick wide", signature: (i) => [f.imageRef(i), picked.has(f.imageRef(i))], cell: (i) => {
      const box = h("input", { type: "checkbox", data: { acts: "" }, "aria-label": "Select " + shownName(i), on: { change: () => pick([i], box.checked) } });
      box.checked = picked.has(f.imageRef(i));
      return box;
    } }, ...imageColumns()],
    changed: (params) => {
      chosen = params;
      address();
    } });
  const room = h("div", {}, p.skeleton(8, 30));
  const drill = h("div", { hidden: true });

  // rehearse says which of the images that were used within a week could be served if their
  // registries went away now, and completes the rest.
  function rehearse(all) {
    const used = all.filter((i) => f.known(i.used_at) && Date.now() - Date.parse(i.used_at) < 7 * 86400000 && i.state !== "absent");
    const lacking = used.filter((i) => i.state !== "complete");
    drill.hidden = used.length === 0;
    if (used.length === 0) return;
    const missing = lacking.reduce((n, i) => n + missingOf(i), 0);
    fill(drill, h("section", { class: "panel drill", "aria-label": "If the registries went away now" },
      h("span", { class: "strong", text: "If the registries went away now, " + f.count(used.length - lacking.length) + " of " + f.plural(used.length, "image") + " used within 7 days could be served whole." }),
      lacking.length > 0 && h("span", { class: "soft", text: f.bytes(missing) + " or more missing of " + f.plural(lacking.length, "image") + "." }),
      lacking.length > 0 && h("button", { class: "button", type: "button", data: { acts: "" }, text: "Complete and pin " + (lacking.length === 1 ? "it" : "them"), on: { click: (event) => actions.run(event.currentTarget, async () => {
        const images = lacking.map((i) => ({ ref: f.imageRef(i), platforms: i.platforms.filter((x) => x.state !== "absent" && /^[a-z0-9]+\/[a-z0-9]/.test(x.platform)).map((x) => x.platform) }));
        await actions.job("/prefetch", { images, platforms: [images.flatMap((i) => i.platforms)[0] || "linux/amd64"], pin: true }, "The rest is being fetched, as far as budgets and pins allow.");
        await load();
      }) } })));
  }

  fill(place,
    p.pageHead("Images"),
    h("div", { class: "tools" },
      h("div", { class: "search" }, h("label", { class: "hidden", for: "search", text: "Search images" }), icon("search"), input),
      p.segmented("Which images", filters, filter, (next) => {
        filter = next;
        changed();
      }),
      h("div", { class: "buttons" }, h("button", { class: "button", type: "button", data: { acts: "" }, text: "Prefetch an image", on: { click: (e) => actions.run(e.currentTarget, async () => {
        await actions.prefetch();
        await load();
      }) } }), all, purge)),
    note, drill,
    h("section", { class: "panel flush", "aria-label": "Images" }, room));

  function address() {
    const params = new URLSearchParams(chosen);
    if (input.value.trim()) params.set("q", input.value.trim());
    if (filter !== "all") params.set("show", filter);
    history.replaceState(null, "", "#/images" + (params.size ? "?" + params : ""));
  }

  function changed() {
    address();
    load();
  }

  // pattern finds a word anywhere, unless it is a pattern or a full name already.
  function pattern() {
    const text = input.value.trim();
    if (!text) return "";
    if (/[*?[]/.test(text)) return text;
    return text.includes(":") || text.includes("@") ? text : "*" + text + "*";
  }

  async function load() {
    if (control) control.abort();
    const mine = new AbortController();
    control = mine;
    try {
      const found = await allImages({ pattern: pattern(), missing: filter === "missing" }, mine.signal);
      if (control !== mine) return;
      const names = found.list.filter(nameOnly);
      if (filter === "all" && !input.value.trim()) rehearse(found.list.filter((i) => !nameOnly(i)));
      else drill.hidden = true;
      shown = filter === "names" ? names : found.list.filter((i) => !nameOnly(i) && (filter !== "pinned" || i.pinned));
      if (shown.length > 0) {
        if (!table.element.isConnected) fill(room, table.element);
        table.show(shown);
      } else fill(room, nothing());
      all.hidden = shown.length === 0;
      note.textContent = shown.length === 0 ? "\u00a0" : f.plural(shown.length, "image") + ", " + f.bytes(shown.reduce((n, i) => n + i.kept_bytes, 0)) + " with what they share counted for each" +
        (found.more ? "; only the first " + f.count(most) + " by name: search for fewer" : "") + (filter === "all" && names.length ? "; of " + f.count(names.length) + " more only the name is known" : "");
    } catch (fault) {
      if (control !== mine || fault.name === "AbortError") return;
      note.textContent = "\u00a0";
      fill(room, p.failure(fault, load));
    }
  }

  function nothing() {
    if (input.value.trim()) return p.empty("No image matches", "Use * for any text, as in *nginx* or ghcr.io/*:v1*.");
    if (filter === "missing") return p.empty("Every image is complete", "All that was pulled can be served without its upstream.");
    if (filter === "pinned") return p.empty("Nothing is pinned", "A pinned image is never evicted. Open an image to pin it.");
    if (filter === "names") return p.empty("Nothing is known by its name only", "Tags that somebody asked about without pulling the image are listed here.");
    return p.empty("Nothing is kept yet", "Point a client at this mirror and pull: what it pulls is listed here.", h("a", { class: "button", href: "#/overview", text: "How to point clients here" }));
  }

  load();
  document.addEventListener("purged", load);
  return () => {
    document.removeEventListener("purged", load);
    clearTimeout(timer);
    if (control) control.abort();
    control = null;
  };
}

const shownName = (i) => f.familiar(i.upstream, i.repository) + (i.tag ? ":" + i.tag : "@" + i.digest);
const missingOf = (i) => i.platforms.reduce((n, x) => n + (x.state === "incomplete" ? x.missing_bytes : 0), 0);

// imageColumns are those of a table of images; named is what the first shows, the whole name if
// it is not given.
export function imageColumns(named) {
  return [
    { id: "image", title: named ? "Tag" : "Image", value: shownName, signature: (i) => [i.pinned, i.used_at], cell: (i) => [
      h("a", { class: "image-name", href: "#/image?ref=" + encodeURIComponent(f.imageRef(i)) },
        named ? h("span", { class: "strong", text: named(i) })
          : [h("span", { class: "strong", text: f.familiar(i.upstream, i.repository) }), h("span", { class: "tag", text: i.tag ? ":" + i.tag : "@" + f.digest(i.digest) })]),
      i.pinned && h("span", { class: "pinned" }, icon("pin"), h("span", { class: "hidden", text: "pinned" })),
      h("span", { class: "narrow soft", text: "used " + f.ago(i.used_at) })] },
    { id: "platforms", title: "Platforms", class: "wide", signature: (i) => i.platforms, cell: (i) => chips(i.platforms.filter((x) => x.platform !== "attestation")) },
    { id: "state", title: "State", value: (i) => (nameOnly(i) ? "name only" : i.state), signature: (i) => [i.state, missingOf(i)],
      cell: (i) => (nameOnly(i) ? p.pill("idle", "Name only") : [p.imagePill(i.state), i.state === "incomplete" && missingOf(i) > 0 && h("span", { class: "soft small-note", text: " " + f.bytes(missingOf(i)) + " missing" })]) },
    { id: "size", title: "Size", class: "num", value: (i) => i.kept_bytes, text: (i) => f.bytes(i.kept_bytes) },
    { id: "used", title: "Last use", class: "wide", value: (i) => (f.known(i.used_at) ? i.used_at : ""), text: (i) => f.ago(i.used_at) },
    { id: "digest", title: "Digest", class: "wider", value: (i) => i.digest, cell: (i) => p.shortDigest(i.digest) },
  ];
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
