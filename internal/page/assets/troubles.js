// The one bar that says what is wrong, above every view. What it says comes from the server, in
// the server's words; only that the server is gone is found out here.

import { fill, h, icon } from "./dom.js";
import * as f from "./format.js";
import { live } from "./live.js";

const place = document.getElementById("troubles");
const opened = new Set();
let lost = null; // since when nothing comes

const words = { critical: "Critical", warning: "Warning" };

// all returns what is wrong now, the most urgent first.
function all() {
  const list = ((live.status && live.status.troubles) || []).filter((t) => t.severity !== "notice");
  if (!lost) return list;
  const gone = {
    id: "connection", severity: "critical", what: "No connection to the mirror", since: lost.toISOString(),
    cause: "It was stopped, or something lies between it and this browser.",
    served: "Not known. What you see below is from " + f.timeOfDay(lost) + ".", do: "Look whether it runs: systemctl status forebay, or the log of its container.",
  };
  return [gone];
}

export function troubleCount() {
  return all().length;
}

function since(t) {
  return [h("time", { datetime: t.since, title: f.fullTime(t.since), text: "since " + f.timeOfDay(t.since) }),
    f.known(t.until) && h("time", { datetime: t.until, title: f.fullTime(t.until),
      text: (t.kind === "budget" ? ", spent " : t.kind === "limit" ? ", first pulls return " : ", until ") + f.timeOfDay(t.until) + " (" + f.until(t.until) + ")" })];
}

function row(t) {
  const id = "trouble-" + t.id.replace(/[^a-zA-Z0-9]+/g, "-");
  const details = h("div", { class: "trouble-more", id, hidden: !opened.has(t.id) },
    h("dl", {},
      [["Cause", t.cause], ["Still served", t.served], ["What to do", t.do], ["Said", t.detail && !t.cause.includes(t.detail) ? t.detail : ""]].filter(([, text]) => text)
        .map(([name, text]) => h("div", {}, h("dt", { text: name }), h("dd", { class: "break", text })))),
    h("p", { class: "trouble-ways" }, t.view && h("a", { href: t.view, text: "Look closer" }),
      h("a", { href: "#/events?show=trouble" + (t.upstream ? "&q=" + encodeURIComponent(t.upstream) : ""), text: "Events" }),
      t.id === "connection" && h("button", { class: "button small", type: "button", text: "Try again now", on: { click: () => live.again() } })));
  const toggle = h("button", { class: "expand", type: "button", "aria-expanded": String(opened.has(t.id)), "aria-controls": id, on: { click: () => {
    details.hidden = !details.hidden;
    toggle.setAttribute("aria-expanded", String(!details.hidden));
    if (details.hidden) opened.delete(t.id);
    else opened.add(t.id);
  } } }, icon("chevron"), h("span", { class: "hidden", text: words[t.severity] + ": " }), h("span", { class: "strong", text: t.what }));
  return h("li", { class: "trouble " + t.severity, data: { id: t.id } }, h("div", { class: "trouble-head" }, toggle, h("span", { class: "trouble-since" }, since(t))), details);
}

let shown = "";
let listener = () => {};

// show draws the bar if what is wrong has changed.
function show() {
  const list = all();
  document.body.classList.toggle("lost", Boolean(lost));
  // Of the causes, only figures change all the time: those are not worth to move what somebody reads.
  const text = JSON.stringify(list.map((t) => [t.id, t.severity, t.what, t.since, t.until && f.until(t.until), opened.has(t.id) ? "" : t.cause]));
  if (text === shown) return;
  shown = text;
  const focus = place.contains(document.activeElement) ? document.activeElement.closest("li")?.dataset.id : "";
  place.hidden = list.length === 0;
  fill(place, h("h2", { class: "hidden", text: "Troubles" }), h("ul", {}, list.map(row)));
  if (focus) [...place.querySelectorAll("li")].find((li) => li.dataset.id === focus)?.querySelector("button").focus();
  listener(list);
}

// watchTroubles draws the bar from now on; changed is told the list whenever it is another.
export function watchTroubles(changed) {
  listener = changed;
  live.on("status", show);
  live.on("state", ({ state }) => {
    if (state === "lost" && !lost) lost = live.heard || new Date();
    if (state === "live" || state === "refused") lost = null;
    show();
  });
  setInterval(show, 15000); // how far a time is away
}
