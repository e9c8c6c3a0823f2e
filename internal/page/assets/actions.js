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

export async function pin(ref) {
  await send("POST", "/pins", { ref });
  toast("Pinned: it is never evicted.");
}

export async function unpin(ref) {
  await send("DELETE", "/pins?ref=" + encodeURIComponent(ref));
  toast("Unpinned.");
}

// undoFor is for how many seconds a purge can be taken back.
const undoFor = 10;

// purge asks first, and then waits: it returns whether it was agreed to, and done is called when it
// has happened. image is what is known of it, if anything.
export async function purge(target, { pinned, image, done = () => {} } = {}) {
  const budget = image && live.status && live.status.upstreams.filter((u) => u.name === image.upstream).map((u) => budgetOf(u)).filter(Boolean)[0];
  const answer = await confirm({
    title: "Purge " + target + "?",
    text: ["It is forgotten here" + (image ? ": " + f.bytes(image.kept_bytes) + ", but for what other images need. It was last used " + f.ago(image.used_at) + "." : ", but for what other images need."),
      "The next pull fetches it from its upstream, which may count it" + (budget ? ": " + f.count(budget.remaining) + " of " + f.plural(budget.limit, "pull") + " are left." : ".")],
    yes: "Purge",
    options: pinned ? { force: "It is pinned: purge it all the same" } : {},
  });
  if (!answer) return false;
  let undone = false;
  toast("Purging " + target + " in " + undoFor + " seconds, while this page is open.", "good", { label: "Undo", act: () => {
    undone = true;
    toast("Nothing was purged.");
  } }, undoFor * 1000);
  setTimeout(async () => {
    if (undone) return;
    try {
      const gone = await send("POST", "/purge", { target, force: Boolean(answer.force) });
      toast("Purged. " + f.plural(gone.blobs, "file") + ", " + f.bytes(gone.bytes) + (gone.shared ? "; " + f.plural(gone.shared, "file") + " stay for other repositories." : "."));
      done();
      document.dispatchEvent(new Event("purged"));
    } catch (fault) {
      toast(fault.message, "bad");
    }
  }, undoFor * 1000);
  return true;
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
  return follow(begun.id, told).finally(() => clearTimeout(late));
}

async function follow(id, told) {
  for (;;) {
    const one = await get("/jobs/" + id);
    if (told) told(one);
    if (one.state !== "running") {
      if (one.state === "failed") toast(jobName(one) + " failed: " + one.error, "bad");
      else toast(jobName(one) + (one.state === "cancelled" ? " was cancelled." : " is done: " + jobResult(one) + "."));
      return one;
    }
    await new Promise((resolve) => setTimeout(resolve, 700));
  }
}

export const jobName = (one) => ({ repair: "Repair of " + one.target, verify: "Verification", gc: "Collection", prefetch: "Prefetch of " + one.target, lock: "Lock of " + one.target })[one.kind] || (one.kind + " " + (one.target || "")).trim();

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
    case "prefetch":
      return f.plural((r.images || []).length, "image") + ", " + f.bytes(r.bytes || 0) + " fetched";
    default:
      return one.state;
  }
}
