import { run } from "../actions.js";
import { get, send } from "../api.js";
import { fill, h, icon, keyed } from "../dom.js";
import * as f from "../format.js";
import * as p from "../parts.js";

export function prefetch(place) {
  let ended = false;
  let timer = 0;
  const list = h("div", { class: "stack" }, h("section", { class: "panel" }, p.skeleton(4, 28)));
  fill(place, p.pageHead("Prefetch"), list);

  async function load() {
    clearTimeout(timer);
    let soon = false;
    try {
      const { sets } = await get("/prefetch");
      if (ended) return;
      if (sets.length === 0) {
        fill(list, h("section", { class: "panel" }, p.empty("No prefetch set is configured",
          "Sets of images that are fetched ahead of need, by a schedule or when asked, are listed here. They stand under prefetch in the configuration.")));
      } else {
        keyed(list, sets, (s) => s.name, make, update);
      }
      soon = sets.some((s) => s.running);
    } catch (fault) {
      if (!ended) fill(list, h("section", { class: "panel" }, p.failure(fault, load)));
    }
    if (!ended) timer = setTimeout(load, soon ? 700 : 5000);
  }

  function make(s) {
    const button = h("button", { class: "button", type: "button", data: { acts: "" }, "aria-label": "Run now: " + s.name, text: "Run now", on: { click: () => run(button, async () => {
      await send("POST", "/prefetch/" + encodeURIComponent(s.name) + "/run");
      p.toast("The run of " + s.name + " has begun.");
      await load();
    }) } });
    const element = p.panel(s.name, { id: "set-" + s.name.replace(/[^a-zA-Z0-9]+/g, "-"), extra: h("div", { class: "buttons" }, button) }, h("div", { class: "stack" }));
    element.querySelector("h2").after(h("span", { class: "pill-room" }));
    return element;
  }

  function update(element, s) {
    const text = JSON.stringify(s);
    if (element.dataset.shown === text) return;
    element.dataset.shown = text;
    fill(element.querySelector(".pill-room"), s.running ? p.pill("idle", "Running") : s.last ? p.outcome(s.last.outcome) : p.pill("idle", "Never run"));
    element.querySelector(".button").disabled = s.running;
    const at = s.progress;
    fill(element.lastChild,
      s.running && at && h("div", { class: "budget" }, p.bar(at.total.bytes_total ? (at.done + (at.images - at.done) * (at.total.bytes / at.total.bytes_total)) / at.images : at.images ? at.done / at.images : -1, "Progress of " + s.name),
        h("div", { class: "row-note" }, h("span", { text: f.count(at.done) + " of " + f.plural(at.images, "image") + (at.failed ? ", " + f.count(at.failed) + " with faults" : "") }), h("span", { text: f.bytes(at.total.bytes) + (at.total.bytes_total ? " of " + f.bytes(at.total.bytes_total) : "") + " fetched" })), p.fetching(at)),
      h("dl", { class: "facts" },
        p.fact("Schedule", s.schedule ? [inWords(s.schedule), h("code", { text: " " + s.schedule + (s.time_zone ? " " + s.time_zone : "") })] : "only when asked"),
        p.fact("Next run", f.known(s.next) ? h("time", { datetime: s.next, title: f.fullTime(s.next), text: f.timeOfDay(s.next) + " (" + f.until(s.next) + ")" }) : "–"),
        p.fact("Last run", s.last ? p.when(s.last.ended) : "never"),
        p.fact("Platforms", s.platforms.join(", ")),
        p.fact("Pins what it fetches", s.pin ? "yes" : "no")),
      h("div", {}, h("h3", { text: "Images" }), h("span", { class: "chips" }, (s.images || []).map((i) => h("a", { class: "chip break", href: "#/images?q=" + encodeURIComponent(/[*?[]/.test(i) ? i : "*" + i.replace(/^docker\.io\//, "") + "*"), text: i })), (s.files || []).map((i) => h("span", { class: "chip break", text: i })))),
      s.last && s.last.error && h("p", { class: "bad-text break", text: s.last.error }),
      faults(s.runs || []),
      s.runs && s.runs.length > 0 && h("div", {}, h("h3", { text: "Runs" }), p.table("Runs of " + s.name,
        [{ title: "Ended" }, { title: "Outcome" }, { title: "Started by", class: "wide" }, { title: "Images", class: "num" }, { title: "Pulls", class: "num wide" }, { title: "Fetched", class: "num" }, { title: "Took", class: "num wide" }],
        s.runs.map((r) => h("tr", {}, h("td", {}, p.when(r.ended)), h("td", {}, p.outcome(r.outcome)), h("td", { class: "wide", text: r.by }), h("td", { class: "num", text: f.count(r.images) }),
          h("td", { class: "num wide", text: f.count(r.pulls) }), h("td", { class: "num", text: f.bytes(r.bytes) }), h("td", { class: "num wide", text: f.duration((Date.parse(r.ended) - Date.parse(r.started)) / 1000) })))).element));
  }

  load();
  return () => {
    ended = true;
    clearTimeout(timer);
  };
}


const days = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

// inWords says what the plain ones of the cron expressions mean; others stand for themselves.
function inWords(cron) {
  const [minute, hour, day, month, weekday] = cron.trim().split(/\s+/);
  const at = /^\d+$/.test(minute) && /^\d+$/.test(hour) ? " at " + hour.padStart(2, "0") + ":" + minute.padStart(2, "0") : "";
  if (month !== "*") return "";
  if (day === "*" && weekday === "*" && at) return "daily" + at;
  if (day === "*" && /^[0-7]$/.test(weekday || "") && at) return "on " + days[Number(weekday)] + at;
  if (/^\d+$/.test(day || "") && weekday === "*" && at) return "on day " + day + " of each month" + at;
  if (day === "*" && weekday === "*" && hour === "*") return /^\d+$/.test(minute) ? "hourly at minute " + minute : /^\*\/\d+$/.test(minute) ? "every " + minute.slice(2) + " minutes" : "";
  return "";
}

// faults are what went wrong in the runs that are remembered; those of the last one are shown at once.
const faults = (runs) => runs.filter((r) => (r.faulty || []).length > 0).map((r) => h("details", { class: "platform", open: r === runs[0] },
  h("summary", {}, icon("chevron"), h("span", { class: "strong", text: "Faults of the " + (r === runs[0] ? "last run" : "run that ended ") }), r !== runs[0] && p.when(r.ended), h("span", { class: "soft", text: f.plural(r.faulty.length, "image") })),
  h("ul", { class: "mini" }, r.faulty.map((i) => h("li", {}, h("a", { class: "break", href: "#/image?ref=" + encodeURIComponent(i.ref), text: i.ref }), h("span", { class: "bad-text break", text: i.error || i.state }))))));
