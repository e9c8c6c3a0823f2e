import * as actions from "../actions.js";
import { get, send } from "../api.js";
import { fill, h, icon, keyed, setText } from "../dom.js";
import * as f from "../format.js";
import { live } from "../live.js";
import { grid } from "../grid.js";
import * as p from "../parts.js";
import { allImages } from "./images.js";
import { lastOf, loadMarks, plot, spans, spanSeconds, sum } from "../plot.js";

export function storage(place, query) {
  let span = Object.hasOwn(spans, query.span) ? query.span : "day";
  let ended = false;
  const used = p.tile("Used");
  const files = p.tile("Files");
  const free = p.tile("Free on the disk");
  const pinned = p.tile("Pinned");
  const evicted = p.tile("Evicted");
  const usedBar = p.bar(-1, "Room used");
  const size = plot({ title: "Room used", inBytes: true, y: f.bytes, limits: () => (live.status && live.status.stats.max_bytes ? [{ value: live.status.stats.max_bytes, text: "max_size " + f.bytes(live.status.stats.max_bytes) }] : []), series: [{ label: "Used", colour: "--hit", total: (c) => f.bytes(lastOf(c) || 0), value: f.bytes }] });
  const gone = plot({ title: "Evicted", inBytes: true, y: f.bytes, step: true, series: [
    { label: "Evicted", colour: "--miss", total: (c) => f.bytes(sum(c)), value: f.bytes },
    { label: "Fetched again after that", colour: "--error", line: true, total: (c) => f.bytes(sum(c)), value: f.bytes }] });
  const use = h("p", { class: "soft use" });
  const growth = h("p", { class: "soft use" });
  const room = h("div", { class: "stack" });
  let looked = false;
  const scrub = h("dl", { class: "facts" });
  const scrubBar = p.bar(-1, "Progress of the scrub");
  const jobs = h("ul", { class: "rows" });
  const noJobs = p.empty("No job has run since the start");

  const start = (label, path, body, begun) => {
    const button = h("button", { class: "button", type: "button", data: { acts: "" }, text: label, on: { click: () => actions.run(button, () => actions.job(path, body, begun, loadJobs)) } });
    return button;
  };

  fill(place,
    p.pageHead("Storage", p.segmented("Time that is shown", spans, span, (next) => {
      span = next;
      history.replaceState(null, "", "#/storage?span=" + span);
      load();
    })),
    p.tiles(used, files, free, pinned, evicted),
    h("div", { class: "grid two" }, p.panel("Room used", { id: "room" }, size.element, growth), p.panel("Evicted", { id: "evicted", note: "In each step" }, gone.element, use)),
    p.panel("What takes the room", { id: "shares", note: "Layers that images share are counted for each" }, h("details", { class: "platform", on: { toggle: () => {
      if (looked) return;
      looked = true;
      fill(room, p.skeleton(4, 28));
      takes().catch((fault) => fill(room, p.failure(fault, takes)));
    } } }, h("summary", {}, icon("chevron"), h("span", { class: "strong", text: "By registry, by last use and by repository" })), room)),
    h("div", { class: "grid two" },
      p.panel("Scrub", { note: "Everything is read again and compared with its digest" }, scrubBar, scrub),
      p.panel("Jobs", { id: "jobs", extra: h("div", { class: "buttons" },
        start("Verify", "/verify", { repair: false }, "The verification has begun."),
        start("Verify and repair", "/verify", { repair: true }, "The verification has begun."),
        start("Dry run", "/gc", { dry_run: true }, "The trial collection has begun."),
        start("Collect garbage", "/gc", { dry_run: false }, "The collection has begun.")) }, noJobs, jobs)));
  used.note.after(h("dd", { class: "tile-bar" }, usedBar));

  function showStatus(status) {
    const s = status.stats;
    setText(used.value, f.bytes(s.used_bytes));
    setText(used.note, s.max_bytes ? "of " + f.bytes(s.max_bytes) : "without a limit");
    p.setBar(usedBar, s.max_bytes ? s.used_bytes / s.max_bytes : -1, "");
    setText(files.value, f.count(s.blobs));
    setText(files.note, f.plural(s.tags, "tag") + " in " + f.plural(s.repositories, "repository", "repositories"));
    setText(free.value, f.bytes(s.disk_free_bytes));
    setText(free.note, "of " + f.bytes(s.disk_total_bytes));
    setText(pinned.value, f.bytes(s.pinned_bytes));
    setText(pinned.note, s.pin_limit_bytes ? "of at most " + f.bytes(s.pin_limit_bytes) : "\u00a0");
    setText(evicted.value, f.bytes(s.evicted_bytes));
    setText(evicted.note, f.plural(s.evicted_blobs, "file") + " since the start");
    setText(use, s.evicted_blobs === 0 ? "Nothing had to make room since the start: the store is large enough for what is pulled."
      : "Half of what was evicted had not been used for " + f.duration(s.evicted_idle_seconds) + " or more. "
        + (s.again_bytes ? "A store of about twice the size would have saved " + f.bytes(s.again_bytes) + " and up to " + f.plural(s.again_blobs, "request") + " to registries since the start." : "None of it was fetched again: a larger store would have saved nothing."));
    const c = s.scrub;
    p.setBar(scrubBar, c.enabled && f.known(c.began) ? c.done : 0, s.quarantine_files ? "bad" : "good");
    const text = JSON.stringify([c, s.quarantine_files]);
    if (scrub.dataset.shown !== text) {
      scrub.dataset.shown = text;
      fill(scrub,
        p.fact("Progress", !c.enabled ? "off" : !f.known(c.began) ? "begins " + (f.known(c.next) ? f.until(c.next) : "soon") : c.done === 1 ? "all was read" : f.percent(c.done)),
        p.fact("Round began", f.known(c.began) ? p.when(c.began) : "–"),
        p.fact("Round ended", f.known(c.ended) ? p.when(c.ended) : "–"),
        f.known(c.began) && f.known(c.next) && p.fact("Next round", f.until(c.next)),
        p.fact("Damaged", f.count(c.damaged)),
        p.fact("In quarantine", f.plural(s.quarantine_files, "file") + ", " + f.bytes(s.quarantine_bytes)));
    }
  }

  // takes says whose images take the room, and how long they have not been used.
  async function takes() {
    const { list } = await allImages({});
    const images = list.filter((i) => i.kept_bytes > 0);
    const all = images.reduce((n, i) => n + i.kept_bytes, 0);
    const shares = (of) => {
      const sums = new Map();
      for (const i of images) sums.set(of(i), (sums.get(of(i)) || 0) + i.kept_bytes);
      return [...sums].sort((a, b) => b[1] - a[1]).map(([name, n]) => ({ name, bytes: n, images: images.filter((i) => of(i) === name).length }));
    };
    const rows = (caption, list) => h("div", {}, h("h3", { text: caption }), h("ul", { class: "mini shares" }, list.map((x) => h("li", {}, h("span", { class: "break", text: x.name }), h("span", { class: "num soft" }, p.bar(x.bytes / all, caption + ": " + x.name), f.bytes(x.bytes) + " of " + f.plural(x.images, "image"))))));
    const repositories = grid({ caption: "Room by repository", key: (x) => x.name, sort: "-bytes", file: "room", placeholder: "Repository", per: 25, prefix: "r", columns: [
      { id: "name", title: "Repository", class: "break", value: (x) => x.name, cell: (x) => h("a", { href: "#/repository?name=" + encodeURIComponent(x.name), text: f.short(x.name) }) },
      { id: "images", title: "Images", class: "num", value: (x) => x.images, text: (x) => f.count(x.images) },
      { id: "bytes", title: "Size", class: "num", value: (x) => x.bytes, text: (x) => f.bytes(x.bytes) },
      { id: "share", title: "Share", class: "num", value: (x) => x.bytes / all, text: (x) => f.percent(x.bytes / all) }] });
    const age = (i) => ages.find(([, days]) => Date.now() - Date.parse(i.used_at || 0) < days * 86400000)[0];
    const byAge = shares(age);
    if (images.length === 0) return fill(room, p.empty("Nothing is kept yet"));
    fill(room, h("div", { class: "grid two" }, rows("By registry", shares((i) => i.upstream)), rows("Last used", ages.map(([name]) => byAge.find((x) => x.name === name)).filter(Boolean))), repositories.element);
    repositories.show(shares((i) => i.upstream + "/" + i.repository));
  }

  async function load() {
    try {
      const s = await get("/series", { span });
      if (ended) return;
      const now = Date.now() / 1000;
      setText(growth, grows(s.times, s.used_bytes));
      size.show(s.times, [s.used_bytes], s.step_seconds, now - spanSeconds[span], now);
      gone.show(s.times, [s.evicted_bytes, s.again_bytes], s.step_seconds, now - spanSeconds[span], now);
    } catch {
      // The state of the connection is told elsewhere; the plots keep what they have.
    }
  }

  async function loadJobs() {
    try {
      const list = await get("/jobs");
      if (ended) return;
      noJobs.hidden = list.jobs.length > 0;
      if (noJobs.querySelector(".failure")) fill(noJobs, h("p", { class: "empty-title", text: "No job has run since the start" }));
      keyed(jobs, list.jobs, (j) => j.id, () => h("li", { class: "job" }), jobRow);
    } catch (fault) {
      if (!ended) fill(noJobs, p.failure(fault, loadJobs));
    }
  }

  function jobRow(row, j) {
    const text = JSON.stringify(j);
    if (row.dataset.shown === text) return;
    row.dataset.shown = text;
    const at = j.progress;
    const share = at.bytes_total ? at.bytes / at.bytes_total : at.items_total ? at.items / at.items_total : -1;
    const running = j.state === "running";
    const cancel = running && h("button", { class: "button small", type: "button", data: { acts: "" }, "aria-label": "Cancel " + actions.jobName(j), text: "Cancel",
      on: { click: () => actions.run(cancel, () => send("DELETE", "/jobs/" + j.id)) } });
    fill(row,
      h("div", { class: "row-top" }, h("span", { class: "strong clip", text: actions.jobName(j) }), p.outcome(outcomeOf(j)), cancel),
      running && p.bar(share, "Progress of " + actions.jobName(j)), running && p.fetching(j.prefetch),
      h("div", { class: "row-note" }, h("span", { class: "break", text: j.state === "failed" ? j.error : running ? f.plural(at.items, "file") + ", " + f.bytes(at.bytes) : j.result ? actions.jobResult(j) : j.state }),
        h("span", { text: (j.by ? "by " + j.by + ", " : "") + (running ? f.ago(j.started) : "took " + f.duration((Date.parse(j.ended) - Date.parse(j.started)) / 1000) + ", " + f.ago(j.ended)) })));
  }

  const off = live.on("status", (s) => {
    showStatus(s);
    if (s.jobs.length) loadJobs();
  });
  if (live.status) showStatus(live.status);
  load();
  loadMarks();
  loadJobs();
  const ticks = [setInterval(load, 30000), setInterval(loadJobs, 10000)];
  return () => {
    ended = true;
    off();
    ticks.forEach(clearInterval);
    size.end();
    gone.end();
  };
}

const ages = [["today", 1], ["within a week", 7], ["within a month", 30], ["within three months", 91], ["longer ago", Infinity]];

// grows says how fast the store grows, and when it would be full.
function grows(times, bytes) {
  const points = times.map((t, i) => [t, bytes[i]]).filter(([, b]) => b > 0);
  const [first, last] = [points[0], points[points.length - 1]];
  if (!first || last[0] - first[0] < 3600) return "How fast it grows is told after an hour.";
  const perDay = (last[1] - first[1]) / ((last[0] - first[0]) / 86400);
  const most = live.status && live.status.stats.max_bytes;
  if (perDay < 1) return "It has not grown within " + f.duration(last[0] - first[0]) + ".";
  return "It grew by " + f.bytes(last[1] - first[1]) + " within " + f.duration(last[0] - first[0]) + ": " + f.bytes(perDay) + " a day" + (most ? "; full " + (last[1] < 0.95 * most ? f.until(new Date(Date.now() + ((most - last[1]) / perDay) * 86400000).toISOString()) : "already") : "") + ".";
}

// outcomeOf is how a job ended: one that has done all it was to do is done, though some of that may have failed.
const outcomeOf = ({ state, result }) => (state === "done" && result && (result.outcome || ((result.failed || []).length > 0 && "partial"))) || state;
