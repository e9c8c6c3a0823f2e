// Pieces that the views are made of.

import { fill, h, icon } from "./dom.js";
import * as f from "./format.js";

export function panel(title, { extra, id, note, wide } = {}, ...children) {
  const heading = "h-" + (id || title.toLowerCase().replace(/[^a-z]+/g, "-"));
  return h("section", { class: "panel" + (wide ? " wide-panel" : ""), "aria-labelledby": heading, id },
    h("div", { class: "panel-head" }, h("h2", { id: heading, text: title }), note && h("p", { class: "soft", text: note }), extra),
    children);
}

export function pageHead(title, ...extra) {
  return h("div", { class: "page-head" }, h("h1", { text: title }), extra);
}

// crumbs leads from a view of details to that of the navigation.
export const crumbs = (href, text) => h("nav", { class: "crumbs", "aria-label": "Path" }, h("a", { href, text }), h("span", { "aria-hidden": "true", text: "/" }));

export const fact = (label, ...value) => h("div", {}, h("dt", { text: label }), h("dd", {}, value));

// pill is a state in a word; its colour only repeats what the word says.
export const pill = (tone, text) => h("span", { class: "pill " + tone }, h("span", { class: "dot", "aria-hidden": "true" }), h("span", { text }));

export function upstreamPill(upstream) {
  switch (upstream.state) {
    case "answers":
      return upstream.sparing ? pill("warn", "Spared") : pill("good", "Answers");
    case "fails":
      return pill("bad", "Failing");
    case "limited":
      return pill("bad", "Limited");
    case "degraded":
      return pill("warn", "Some requests fail");
    case "offline":
      return pill("idle", "Offline");
    default:
      return pill("idle", "Not asked yet");
  }
}

export const stateNames = { complete: "Complete", incomplete: "Incomplete", absent: "Not pulled" };
const stateTones = { complete: "good", incomplete: "warn", absent: "idle" };
export const imagePill = (state) => pill(stateTones[state] || "idle", stateNames[state] || state);

// tile is one figure.
export function tile(label, href) {
  const value = h("dd", { class: "tile-value", text: "–" });
  const note = h("dd", { class: "tile-note", text: "\u00a0" });
  return { element: h("div", { class: "tile" }, h("dt", {}, href ? h("a", { class: "tile-link", href, text: label }) : label), value, note), value, note };
}

export const tiles = (...all) => h("dl", { class: "tiles" }, all.map((t) => t.element));

// bar shows a share. Its label is for those who do not see it.
export function bar(share, label, tone = "") {
  const element = h("div", { class: "bar " + tone, role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", "aria-label": label }, h("span", {}));
  setBar(element, share, tone);
  return element;
}

export function setBar(element, share, tone) {
  const known = share >= 0;
  const percent = known ? Math.min(100, share * 100) : 0;
  element.className = "bar " + (tone || "") + (known ? "" : " unknown");
  if (known) element.setAttribute("aria-valuenow", percent.toFixed(0));
  else element.removeAttribute("aria-valuenow");
  element.firstChild.style.setProperty("inline-size", known ? percent + "%" : "100%");
}

export function empty(title, text, ...more) {
  return h("div", { class: "empty" }, h("p", { class: "empty-title", text: title }), text && h("p", { class: "soft", text }), more);
}

export function failure(fault, again) {
  return h("div", { class: "empty failure", role: "alert" },
    h("p", { class: "empty-title", text: "This could not be loaded" }),
    h("p", { class: "soft", text: fault.message }),
    again && h("button", { class: "button", type: "button", on: { click: again }, text: "Try again" }));
}

// skeleton keeps the room of what is being loaded.
export function skeleton(rows, height = 20) {
  return h("div", { class: "skeleton", "aria-hidden": "true" },
    Array.from({ length: rows }, (_, i) => h("span", { style: { "block-size": height + "px", "inline-size": 92 - ((i * 17) % 34) + "%" } })));
}

// segmented is a choice of a few.
export function segmented(label, options, value, choose) {
  const group = h("div", { class: "segmented", role: "group", "aria-label": label });
  const show = (now) => fill(group, Object.entries(options).map(([key, text]) =>
    h("button", { type: "button", "aria-pressed": String(key === now), text, on: { click: () => {
      if (key === now) return;
      show(key);
      [...group.children][Object.keys(options).indexOf(key)].focus();
      choose(key);
    } } })));
  show(value);
  return group;
}

// table makes a table with a caption. columns: {title, class}. rows are <tr>.
export function table(caption, columns, rows) {
  const body = h("tbody", {}, rows);
  const element = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", { class: "hidden", text: caption }),
      h("thead", {}, h("tr", {}, columns.map((c) => (c.title ? h("th", { scope: "col", class: c.class, text: c.title }) : h("td", { class: c.class }))))), body));
  return { element, body };
}

export const cell = (kind, ...children) => h("td", { class: kind }, children);

// shortDigest shows the beginning of a digest and copies all of it.
export function shortDigest(digest) {
  return h("span", { class: "digest" }, h("code", { title: digest, text: f.digest(digest) }),
    h("button", {
      class: "icon-button", type: "button", "aria-label": "Copy digest " + f.digest(digest), title: "Copy the digest",
      on: { click: async (event) => {
        event.stopPropagation();
        try {
          await navigator.clipboard.writeText(digest);
          toast("Digest copied.");
        } catch {
          toast("The browser does not let the digest be copied.", "bad");
        }
      } },
    }, icon("copy")));
}

// outcome says how a run or a job ended, or that it has not.
const outcomes = { running: ["idle", "Running"], done: ["good", "Done"], partial: ["warn", "Partial"], failed: ["bad", "Failed"], limited: ["warn", "Limited"], cancelled: ["idle", "Cancelled"] };
export const outcome = (o) => pill(...(outcomes[o] || ["idle", o]));

export const when = (time) => h("time", { datetime: f.known(time) ? time : null, title: f.fullTime(time), text: f.ago(time) });

// toast tells something in the corner. act, if given, is a button: {label, act}. It returns what takes it away.
export function toast(text, tone = "good", act, stay = 6000) {
  const element = h("div", { class: "toast " + tone }, h("span", { text }), act && h("button", { class: "button small", type: "button", text: act.label, on: { click: () => {
    element.remove();
    act.act();
  } } }),
    h("button", { class: "icon-button", type: "button", "aria-label": "Dismiss", text: "×", on: { click: () => element.remove() } }));
  const place = document.getElementById("toasts");
  while (place.children.length >= 3) (place.querySelector(".toast.good") || place.firstChild).remove(); // errors stay the longest
  place.append(element);
  if (tone !== "bad") setTimeout(() => element.remove(), stay);
  return () => element.remove();
}

// confirm asks before something is done. options are check boxes by name, those of chosen with a tick;
// fields are lines of text by name: {label, value, placeholder}. It resolves to null, or to what was
// chosen and written.
export function confirm({ title, text, yes, options = {}, chosen = [], fields = {}, tone = "danger filled" }) {
  return new Promise((resolve) => {
    const boxes = Object.entries(options).map(([name, label]) => [name, h("input", { type: "checkbox", id: "o-" + name }), label]);
    for (const [name, box] of boxes) box.checked = chosen.includes(name);
    const lines = Object.entries(fields).map(([name, x]) => [name, h("input", { id: "f-" + name, value: x.value, placeholder: x.placeholder, autocapitalize: "none", spellcheck: "false", autocomplete: "off" }), x.label]);
    const agree = () => dialog.close("yes");
    const dialog = h("dialog", { class: "dialog", "aria-labelledby": "dialog-title" },
      h("h2", { id: "dialog-title", text: title }), [text].flat().filter(Boolean).map((t) => h("p", { text: t })),
      lines.length > 0 && h("form", { on: { submit: (event) => {
        event.preventDefault();
        agree();
      } } }, lines.map(([name, line, label]) => h("div", { class: "line" }, h("label", { for: "f-" + name, text: label }), line)), h("button", { hidden: true })),
      boxes.map(([name, box, label]) => h("label", { class: "check", for: "o-" + name }, box, h("span", { text: label }))),
      h("div", { class: "dialog-buttons" },
        h("button", { class: "button", type: "button", autofocus: lines.length === 0, text: "Cancel", on: { click: () => dialog.close() } }),
        h("button", { class: "button " + tone, type: "button", text: yes, on: { click: agree } })));
    const before = document.activeElement;
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (before && before.isConnected) before.focus();
      resolve(dialog.returnValue === "yes" ? Object.fromEntries([...boxes.map(([name, box]) => [name, box.checked]), ...lines.map(([name, line]) => [name, line.value.trim()])]) : null);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

// budgetOf picks the budget of an upstream that counts: that with the most left.
export function budgetOf(upstream) {
  const told = upstream.budgets.filter((b) => b.limit > 0 && b.remaining >= 0);
  return told.reduce((best, b) => (!best || b.remaining > best.remaining ? b : best), null);
}

export const budgetTone = (b) => (f.known(b.paused_until) || b.remaining === 0 ? "bad" : b.low ? "warn" : "");

// forecast says what becomes of a budget.
export function forecast(b) {
  if (b.remaining === 0) return "None are left" + (f.known(b.returns) ? "; first ones return " + f.timeOfDay(b.returns) + ", " + f.until(b.returns) : "");
  if (f.known(b.paused_until)) return "Pulls are refused; tried again " + f.until(b.paused_until);
  if (f.known(b.runs_out)) return "Runs out " + f.until(b.runs_out) + " at the last hour's rate, " + f.compact(b.per_hour) + " pulls an hour";
  if (b.low) return "Below its reserve: known tags are served without asking";
  if (b.per_hour > 0) return "Lasts at the last hour's rate, " + f.compact(b.per_hour) + " pulls an hour";
  return "Nothing is being spent";
}

// fetching shows how far each image of a prefetch is.
export const fetching = (snapshot) => snapshot && snapshot.active.length > 0 && h("ul", { class: "mini fetching" }, snapshot.active.map((a) => h("li", {}, h("span", { class: "break", text: f.short(a.ref) }),
  h("span", { class: "num soft" }, bar(a.progress.bytes_total ? a.progress.bytes / a.progress.bytes_total : -1, "Progress of " + a.ref), f.bytes(a.progress.bytes) + (a.progress.bytes_total ? " of " + f.bytes(a.progress.bytes_total) : "")))));

const eventWords = {
  tag_moved: ["idle", "Tag moved"], release_moved: ["warn", "Release tag moved"], evicted: ["idle", "Evicted"],
  fill_done: ["good", "Fetched"], fill_failed: ["bad", "Fetch failed"], verification_failed: ["bad", "Wrong content"],
  quarantined: ["bad", "Quarantined"], degraded: ["bad", "Storage degraded"], recovered: ["good", "Storage recovered"],
  upstream_failing: ["bad", "Upstream failing"], upstream_back: ["good", "Upstream back"], limited: ["warn", "Limited"],
  served_stale: ["warn", "Served stale"], purged: ["idle", "Purged"], pinned: ["idle", "Pinned"], unpinned: ["idle", "Unpinned"],
  vanished: ["warn", "Vanished"], returned: ["good", "Returned"], trouble_began: ["warn", "Trouble began"], trouble_ended: ["good", "Trouble ended"],
  started: ["idle", "Mirror started"], config_reloaded: ["idle", "Configuration read"], config_refused: ["bad", "Configuration refused"],
  waiting: ["idle", "Waits by policy"], refused: ["warn", "Refused by policy"], promoted: ["good", "Promoted"], frozen: ["idle", "Frozen"], thawed: ["idle", "Thawed"],
  snapshot_made: ["idle", "Snapshot made"], snapshot_dropped: ["idle", "Snapshot dropped"],
};

export function eventWord(kind) {
  return eventWords[kind] || ["idle", kind.replaceAll("_", " ")];
}

// eventText says in words what an event was about.
export function eventText(e) {
  const parts = [];
  if (e.repository) {
    const name = f.familiar(e.upstream, e.repository) + (e.tag ? ":" + e.tag : "");
    parts.push(e.tag ? h("a", { href: "#/image?ref=" + encodeURIComponent(e.upstream + "/" + e.repository + ":" + e.tag), text: name }) : h("a", { href: "#/repository?name=" + encodeURIComponent(e.upstream + "/" + e.repository), text: name }));
  } else if (e.upstream) {
    parts.push(h("a", { href: "#/upstreams?name=" + encodeURIComponent(e.upstream), text: e.upstream }));
  }
  if (e.was && e.digest) parts.push(h("code", { text: f.digest(e.was) + " → " + f.digest(e.digest), title: e.was + " → " + e.digest }));
  else if (e.digest && !e.tag) parts.push(h("code", { text: f.digest(e.digest), title: e.digest }));
  if (e.count) parts.push(h("span", { text: f.plural(e.count, "file") }));
  if (e.bytes) parts.push(h("span", { text: f.bytes(e.bytes) }));
  if (e.actor) parts.push(h("span", { text: "by " + e.actor }));
  if (e.detail) parts.push(h("span", { class: "soft", text: e.detail.replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, f.timeOfDay) }));
  return h("span", { class: "event-text" }, parts.flatMap((p, i) => (i ? [h("span", { class: "sep", "aria-hidden": "true", text: " · " }), p] : [p])));
}

// groupOf names what an event is counted with: what happened, where, and for the same cause.
const groupOf = (e) => [e.kind, e.upstream, ["evicted", "fill_done"].includes(e.kind) ? "" : e.repository, ["served_stale", "fill_failed", "upstream_failing", "limited"].includes(e.kind) ? e.detail : "", e.kind === "tag_moved" || e.kind === "release_moved" ? e.id : ""].join("\u0000");

// together is how far apart in time two events of a group may be.
const together = 5 * 60000;

// grouped puts events together, the latest first, that have one cause and follow each other.
export function grouped(events) {
  const groups = [];
  const open = new Map();
  for (const e of events) {
    const name = groupOf(e);
    const group = open.get(name);
    if (group && Date.parse(group.events[group.events.length - 1].at) - Date.parse(e.at) < together) {
      group.events.push(e);
    } else {
      const fresh = { key: name + e.at.slice(0, 0), events: [e] };
      open.set(name, fresh);
      groups.push(fresh);
    }
  }
  for (const g of groups) g.key = groupOf(g.events[0]) + g.events[g.events.length - 1].id;
  return groups;
}

// groupText says what a group of events was about: their sum.
export function groupText(group) {
  const [first] = group.events;
  if (group.events.length === 1) return eventText(first);
  const last = group.events[group.events.length - 1];
  const span = (Date.parse(first.at) - Date.parse(last.at)) / 1000;
  const sum = { ...first, count: group.events.reduce((n, e) => n + (e.count || 0), 0), bytes: group.events.reduce((n, e) => n + (e.bytes || 0), 0) };
  if (["evicted", "fill_done"].includes(first.kind)) Object.assign(sum, { repository: "", upstream: "", digest: "", detail: "" });
  const text = eventText(sum);
  text.querySelectorAll("a").forEach((a) => a.replaceWith(a.textContent)); // it opens; each event leads on
  text.append(h("span", { class: "soft", text: (text.childNodes.length ? " · " : "") + f.count(group.events.length) + " times" + (span > 0 ? " in " + f.duration(Math.max(span, 1)) : "") }));
  return text;
}

// groupRow is a row of the log; several events open to each of them.
export function groupRow(group) {
  const [first] = group.events;
  const [tone, word] = eventWord(first.kind);
  const time = (e) => h("time", { datetime: e.at, title: f.utc(e.at), text: f.timeOfDay(e.at) });
  if (group.events.length === 1) return h("li", {}, time(first), pill(tone, word), eventText(first));
  return h("li", {}, time(first), pill(tone, word), h("details", { class: "group" }, h("summary", {}, icon("chevron"), groupText(group)),
    h("ol", { class: "mini" }, group.events.slice(0, 200).map((e) => h("li", {}, h("span", { class: "soft" }, time(e)), eventText(e))))));
}
