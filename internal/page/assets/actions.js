// What operators do: one function for each, which tells of its outcome.

import { get, send } from "./api.js";
import * as f from "./format.js";
import { live } from "./live.js";
import { budgetOf, confirm, toast } from "./parts.js";

// run keeps a button from being pressed twice, and tells of failures.
// The button keeps the focus meanwhile, which a disabled one would lose.
export async function run(button, work) {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  try {
    await work();
  } catch (fault) {
    toast(fault.message, "bad");
  } finally {
    button.setAttribute("aria-disabled", "false");
  }
}

export async function refresh(ref) {
  const found = await send("POST", "/refresh", { ref });
  if (found.moved) toast("The tag moved to " + f.digest(found.digest) + ".");
  else toast("The upstream confirms " + f.digest(found.digest) + ".");
}

// pin asks which platforms are to be kept, says what fits, and has fetched what is missing.
export async function pin(ref, image) {
  const known = image.platforms.filter((x) => /^[a-z0-9]+\/[a-z0-9]/.test(x.platform));
  const held = await get("/pins");
  const answer = await confirm({
    title: "Pin " + ref + "?", yes: "Pin", tone: "primary",
    text: ["It is never evicted then, and what is missing of it is fetched. " + (held.limit_bytes ? f.bytes(held.bytes) + " of at most " + f.bytes(held.limit_bytes) + " are pinned." : f.bytes(held.bytes) + " are pinned."),
      known.length > 1 && "Of these platforms; of none: those that somebody pulls."],
    options: known.length > 1 ? Object.fromEntries(known.map((x) => [x.platform, x.platform + (x.size >= 0 ? ", " + f.bytes(x.size) : "") + (x.state === "absent" ? ", not pulled yet" : "")])) : {},
    chosen: known.length > 1 ? known.filter((x) => x.state !== "absent").map((x) => x.platform) : [],
  });
  if (!answer) return;
  const done = await send("POST", "/pins", { ref, platforms: Object.keys(answer).filter((name) => answer[name]), fill: true });
  toast(done.held ? "Pinned: it is never evicted." : "Pinned, but it does not fit beside the other pins.", done.held ? "good" : "bad");
  if (done.job) await follow(done.job);
}

export async function unpin(ref) {
  await send("DELETE", "/pins?ref=" + encodeURIComponent(ref));
  toast("Unpinned.");
}

// left says how many pulls a registry still gives.
function left(upstream) {
  const b = live.status && live.status.upstreams.filter((u) => u.name === upstream).map((u) => budgetOf(u)).find(Boolean);
  return b ? " " + f.count(b.remaining) + " of " + f.plural(b.limit, "pull") + " of " + upstream + " are left." : "";
}

// undoFor is for how many seconds a purge can be taken back.
const undoFor = 10;

// purge says first how much goes, what others need and what it costs to get it back, and then has
// the server wait: it returns whether it was agreed to.
export async function purge(targets, { upstream = "", pinned = false, used } = {}) {
  const sum = { blobs: 0, bytes: 0, shared: 0, pulls: 0 };
  for (const target of targets) {
    const one = await send("POST", "/purge", { target, force: true, dry_run: true });
    for (const name of Object.keys(sum)) sum[name] += one[name];
  }
  const name = targets.length === 1 ? targets[0] : f.plural(targets.length, "image");
  const answer = await confirm({
    title: "Purge " + name + "?",
    text: [(targets.length > 1 ? "At least " : "") + f.bytes(sum.bytes) + " in " + f.plural(sum.blobs, "file") + " go" + (sum.shared ? "; " + f.plural(sum.shared, "file") + " stay, which other repositories hold." : ".") + (used ? " Last used " + f.ago(used) + "." : ""),
      "To get it back costs that much traffic and " + f.plural(sum.pulls, "request") + " that registries may count as pulls." + left(upstream)],
    yes: "Purge",
    options: pinned ? { force: "It is pinned: purge it all the same" } : {},
  });
  if (!answer) return false;
  await send("POST", "/purges", { targets, force: Boolean(answer.force), wait_seconds: undoFor });
  return true;
}

// watchPurges tells on every open page of what is about to be purged, with a way back.
export function watchPurges() {
  const told = new Map(); // by the ID of the job: what takes the message away
  live.on("status", ({ jobs }) => {
    for (const one of jobs.filter((x) => x.due && !told.has(x.id) && Date.parse(x.due) > Date.now())) {
      told.set(one.id, toast("Purging " + one.target + " at " + f.timeOfDay(one.due) + (one.by ? ", for " + one.by : "") + ".", "good",
        { label: "Undo", act: () => send("DELETE", "/jobs/" + one.id).catch((fault) => toast(fault.message, "bad")) }, Math.max(Date.parse(one.due) - Date.now(), 1000)));
    }
    for (const [id, away] of told) {
      if (jobs.some((x) => x.id === id)) continue;
      told.delete(id);
      away();
      get("/jobs/" + id).then((one) => {
        if (one.state === "cancelled") toast("Nothing was purged.");
        else if (one.state === "failed") toast(one.error, "bad");
        else toast("Purged. " + jobResult(one) + ".");
        document.dispatchEvent(new Event("purged"));
      }, () => {}); // the server has forgotten it: it was started anew
    }
  });
}

// prefetch asks for an image, says what fetching it takes, and fetches it.
export async function prefetch(ref = "") {
  const asked = await confirm({
    title: "Prefetch an image", yes: "See what it takes", tone: "primary", text: "It is fetched before anybody pulls it.",
    fields: { ref: { label: "Image", value: ref, placeholder: "nginx:1.27 or ghcr.io/owner/app:v1" }, platforms: { label: "Platforms, or all", value: "linux/amd64", placeholder: "linux/amd64, linux/arm64" } },
    options: { pin: "Pin it, so that it is never evicted", referrers: "Signatures and SBOMs, too" },
  });
  if (!asked || !asked.ref) return;
  const body = { images: [{ ref: asked.ref }], platforms: asked.platforms.split(/[\s,]+/).filter(Boolean), pin: asked.pin, referrers: asked.referrers };
  const tried = await follow((await send("POST", "/prefetch", { ...body, dry_run: true })).id, { quiet: true });
  if (tried.state !== "done") return;
  const [one] = tried.result.images;
  if (one.error) {
    toast(one.ref + ": " + one.error, "bad");
    return;
  }
  const sure = one.state === "kept" && !asked.pin ? null : await confirm({
    title: "Fetch " + one.ref + "?", yes: "Fetch", tone: "primary",
    text: [(one.more ? "At least " : "") + f.bytes(one.bytes) + " in " + f.plural(one.fetched, "file") + " would be fetched; " + f.bytes(one.kept_bytes) + " of it are here already.",
      f.plural(one.pulls, "request") + " may count as pulls." + left(one.ref.split("/")[0])],
  });
  if (sure) await job("/prefetch", body, "The prefetch has begun.");
  else if (one.state === "kept" && !asked.pin) toast("All of " + one.ref + " is here already.");
}

// cancelFill ends a download.
export async function cancelFill(x) {
  const sure = await confirm({
    title: "Cancel the fetching of " + f.familiar(x.upstream, x.repository) + "?", yes: "Cancel it",
    text: [f.plural(x.clients, "client") + (x.clients === 1 ? " waits" : " wait") + " for it, and " + (x.clients === 1 ? "gets" : "get") + " an error.", f.bytes(x.bytes) + " have come and are kept for a day: the next pull goes on from there."],
  });
  if (sure) await send("DELETE", "/fills/" + x.digest);
}

// copy puts a text into the clipboard.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied: " + text);
  } catch {
    toast("The browser does not let it be copied.", "bad");
  }
}

// job starts what takes long, and follows it until it has ended.
export async function job(path, body, started, told) {
  const begun = await send("POST", path, body);
  // What takes no time is told once.
  const late = setTimeout(() => toast(started), 900);
  return follow(begun.id, { told }).finally(() => clearTimeout(late));
}

async function follow(id, { told, quiet } = {}) {
  for (;;) {
    const one = await get("/jobs/" + id);
    if (told) told(one);
    if (one.state !== "running") {
      if (quiet && one.state === "done") return one;
      if (one.state === "failed") toast(jobName(one) + " failed: " + one.error, "bad");
      else toast(jobName(one) + (one.state === "cancelled" ? " was cancelled." : " is done: " + jobResult(one) + "."));
      return one;
    }
    await new Promise((resolve) => setTimeout(resolve, 700));
  }
}

export const jobName = (one) => ({ repair: "Repair of " + one.target, verify: "Verification", gc: "Collection", prefetch: "Prefetch of " + one.target, lock: "Lock of " + one.target, purge: "Purge of " + one.target })[one.kind] || (one.kind + " " + (one.target || "")).trim();

// jobResult says in words what a job came to.
export function jobResult(one) {
  const r = one.result || {};
  switch (one.kind) {
    case "repair":
      return f.plural(r.fetched || 0, "file") + " fetched, " + f.bytes(r.bytes || 0) + (r.failed && r.failed.length ? ", " + f.count(r.failed.length) + " still missing" : "");
    case "verify":
      return f.plural(r.blobs || 0, "file") + " read, " + f.plural(r.faults || 0, "fault");
    case "gc":
      return f.plural((r.blobs || 0) + (r.partials || 0), "file") + (r.dry_run ? " would be removed, " : " removed, ") + f.bytes((r.blob_bytes || 0) + (r.partial_bytes || 0));
    case "purge":
      return f.plural(r.blobs || 0, "file") + ", " + f.bytes(r.bytes || 0) + (r.shared ? "; " + f.plural(r.shared, "file") + " stay for other repositories" : "");
    case "prefetch":
      return f.plural((r.images || []).length, "image") + ", " + f.bytes(r.bytes || 0) + " fetched" + (r.outcome === "partial" ? ", " + f.count(r.images.filter((i) => i.error).length) + " with faults" : "");
    default:
      return one.state;
  }
}
