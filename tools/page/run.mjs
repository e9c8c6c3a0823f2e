// Drives Chromium over the dashboard. test/page starts it, with the addresses of
// three mirrors (with data, empty, with a configured token) and of what changes the world around them.
// Each step prints "ok NAME" or "not ok NAME: WHY"; figures begin with "# ".

import { readFileSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { chromium } from "playwright-core";

const world = JSON.parse(process.env.PAGE_WORLD);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const views = ["overview", "images", "upstreams", "clients", "storage", "prefetch", "held", "events"];
const wide = { width: 1440, height: 900 };
const mid = { width: 1024, height: 768 };
const phone = { width: 390, height: 844 };
const details = { image: () => imageHash, repository: () => "#/repository?name=docker.io%2Flibrary%2Fnginx", bypass: () => "#/bypass", drill: () => "#/drill", vanished: () => "#/vanished" };
const image = "docker.io/library/nginx:1.27";
const imageHash = "#/image?ref=" + encodeURIComponent(image);
const only = process.env.PAGE_ONLY; // a regular expression of steps, while working on one
const patience = 90000; // of milliseconds: it ends what hangs and measures nothing, on a machine that has much else to do
let failed = false;

const browser = await chromium.launch({
  executablePath: world.chromium,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
process.on("SIGINT", async () => {
  await browser.close();
  process.exit(1);
});

function must(condition, text) {
  if (!condition) throw new Error(text);
}

async function control(name) {
  const answer = await fetch(world.control + "/" + name, { method: "POST" });
  must(answer.ok, "control: " + (await answer.text()));
}

// step runs one test in a page of its own, and then asks whether the page complained.
async function step(name, options, work) {
  if (only && !new RegExp(only).test(name)) return;
  const started = Date.now();
  const complaints = [];
  const context = await browser.newContext({ viewport: wide, colorScheme: "light", reducedMotion: "reduce", ...options });
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const keys = {}; // signed in, but where that is what is tested
  for (const [place, token] of [[world.data, world.dataToken], [world.empty, world.emptyToken], ...(options.fleet ? [[world.fleet, world.fleetToken]] : [])]) {
    const answer = await context.request.post(place + "/api/v1/session", { headers: { "Forebay-Request": "1" }, data: { token } });
    must(answer.ok(), "sign in: " + (await answer.text()));
    keys[place] = (await answer.json()).key;
  }
  await context.addInitScript(([keys, name]) => {
    if (keys[location.origin]) localStorage.setItem(name, keys[location.origin]);
  }, [keys, "forebay-session"]);
  const page = await context.newPage();
  page.setDefaultTimeout(patience);
  page.on("console", (m) => {
    if (["error", "warning"].includes(m.type())) complaints.push("console: " + m.text() + " " + m.location().url);
  });
  page.on("pageerror", (e) => complaints.push("uncaught: " + e));
  page.on("request", (r) => {
    if (![world.data, world.empty, world.guarded, world.fleet].includes(new URL(r.url()).origin)) complaints.push("asks elsewhere: " + r.url());
  });
  await page.addInitScript(() => {
    window.moved = 0;
    addEventListener("securitypolicyviolation", (e) => console.error("policy: " + e.violatedDirective + " " + e.blockedURI));
    new PerformanceObserver((list) => list.getEntries().forEach((e) => (window.moved += e.hadRecentInput ? 0 : e.value))).observe({ type: "layout-shift", buffered: true });
  });
  try {
    await work(page, context);
    const excused = options.excuse || (() => false);
    const left = complaints.filter((c) => !excused(c));
    must(left.length === 0, "the page complained:\n" + [...new Set(left)].join("\n"));
    must(!(await page.evaluate(() => window.pwned)), "a hostile text was run");
    console.log("ok " + name + " (" + (Date.now() - started) + " ms)");
  } catch (error) {
    failed = true;
    console.log("not ok " + name + ": " + String(error.stack || error).replaceAll("\n", "\n  "));
    if (world.screenshots) await page.screenshot({ path: join(world.screenshots, "failed-" + name.replace(/\W+/g, "-") + ".png") }).catch(() => {});
  } finally {
    await context.close();
  }
}

// open shows a view and waits until it has what it shows.
async function open(page, base, hash) {
  await page.goto(base + "/" + hash, { waitUntil: "load" });
  await settled(page);
}

async function go(page, hash) {
  await page.evaluate((to) => (location.hash = to), hash);
  await settled(page);
}

// focused waits until the element with that text has the focus: on a busy machine a key that
// was pressed takes its time.
async function focused(page, text, complaint) {
  await page.waitForFunction((want) => document.activeElement.textContent === want, text).catch(() => must(false, complaint));
}

async function settled(page) {
  await page.waitForSelector("main h1");
  await page.waitForFunction(() => !document.querySelector(".skeleton") && document.querySelector(".conn.live"));
}

async function accessible(page, what) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const bad = violations.filter((v) => ["serious", "critical"].includes(v.impact));
  must(bad.length === 0, what + " is not accessible:\n" + bad.map((v) => v.id + ": " + v.help + "\n    " + v.nodes.slice(0, 3).map((n) => n.html + " " + n.failureSummary).join("\n    ")).join("\n"));
}

async function fits(page, what) {
  const [content, room, widest] = await page.evaluate(() => {
    const out = [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll, .plot"));
    return [document.scrollingElement.scrollWidth, innerWidth, out.slice(0, 6).map((e) => e.tagName + "." + e.className + " " + e.textContent.slice(0, 60)).join("\n  ")];
  });
  must(content <= room, what + " is " + content + " px wide in " + room + " px:\n  " + widest);
}

async function shot(page, name, more) {
  if (!world.screenshots) return;
  mkdirSync(world.screenshots, { recursive: true });
  await page.screenshot({ path: join(world.screenshots, name + ".png"), fullPage: true, ...more });
}

const text = (page, selector) => page.textContent(selector);

await step("first view: weight, time, stillness", {}, async (page, context) => {
  const client = await context.newCDPSession(page);
  await client.send("Network.enable");
  let weight = 0;
  const addresses = new Map();
  client.on("Network.responseReceived", (e) => addresses.set(e.requestId, e.response.url));
  client.on("Network.loadingFinished", (e) => {
    if (!addresses.get(e.requestId)?.includes("/api/v1/events")) weight += e.encodedDataLength;
  });
  await open(page, world.data, "");
  await page.waitForFunction(() => document.querySelector(".tile-value").textContent !== "–" && document.querySelector(".registry"));
  const times = await page.evaluate(() => ({
    paint: performance.getEntriesByName("first-contentful-paint")[0]?.startTime,
    data: performance.now(),
  }));
  await page.waitForTimeout(1500); // what moves, moves now
  const moved = await page.evaluate(() => window.moved);
  console.log(`# first view: ${(weight / 1024).toFixed(1)} KiB over the wire with its data, first paint ${times.paint.toFixed(0)} ms, figures ${times.data.toFixed(0)} ms, layout shift ${moved.toFixed(4)}`);
  must(weight > 1000 && weight < 120 * 1024, "the first view weighs " + weight + " bytes");
  must(moved < 0.05, "things moved: " + moved);
  must(times.data < 5000, "the first figures came after " + times.data + " ms");
});

for (const theme of ["light", "dark"]) {
  for (const [name, viewport] of Object.entries({ wide, mid, phone })) {
    await step("every view with data, " + theme + ", " + name, { colorScheme: theme, viewport }, async (page) => {
      await open(page, world.data, "#/overview");
      for (const view of [...views, ...Object.keys(details)]) {
        await go(page, details[view] ? details[view]() : "#/" + view + (view === "overview" ? "?span=day" : ""));
        await page.waitForTimeout(250);
        await fits(page, view);
        await shot(page, view + "-" + name + "-" + theme);
        await accessible(page, view);
      }
    });
  }
}
await step("every view without data", { viewport: phone, excuse: (c) => c.includes("404 (Not Found)") }, async (page) => {
  const says = {
    overview: "Nothing is being fetched", images: "Nothing is kept yet", upstreams: "Not asked yet", clients: "No client has asked for anything",
    storage: "No job has run", prefetch: "No prefetch set is configured", held: "Nothing is pinned", events: "Mirror started",
  };
  await open(page, world.empty, "#/overview");
  for (const view of views) {
    await go(page, "#/" + view);
    await page.getByText(says[view]).first().waitFor();
    await fits(page, view);
    await accessible(page, view + " without data");
    await shot(page, "empty-" + view);
  }
  await go(page, "#/image?ref=nginx");
  await page.getByText("Nothing is kept under this name").waitFor();
  await go(page, "#/vanished");
  await page.getByText("Nothing has vanished").waitFor();
});

await step("what waits and what vanished", {}, async (page) => {
  await open(page, world.data, "#/held");
  const waits = page.locator("#waiting tr", { hasText: "team/waits:1" });
  await waits.waitFor();
  must(/cooling: the tag has had it for/.test(await waits.textContent()) && /nothing/.test(await waits.textContent()), "waiting: " + (await waits.textContent()));
  await page.locator("#waiting").scrollIntoViewIfNeeded();
  await shot(page, "waiting");
  await page.getByRole("link", { name: "Vanished: 3" }).click();
  const row = (name) => page.locator("#vanished tbody tr", { hasText: name });
  for (const [name, ...says] of [
    ["bitnami/kafka:3.7", "Not pinned", "nothing of it is kept", "41 times by 10.1.2.3, 10.1.2.4, "],
    ["quay.io/team/gone", "Pinned", "2 tags, ", "never", "Not served"],
    ["postgres:9", "Pinned", "7 times", "<script>"],
  ]) {
    await row(name).waitFor();
    const got = await row(name).textContent();
    for (const want of says) must(got.includes(want), name + " does not say " + want + ": " + got);
  }
  await shot(page, "vanished");
  await row("bitnami/kafka:3.7").getByRole("button", { name: "Let go" }).click();
  await accessible(page, "the question before something is let go");
  await page.getByRole("dialog").getByRole("button", { name: "Let go" }).click();
  await row("bitnami/kafka:3.7").waitFor({ state: "detached" });
  must((await page.locator("#vanished tbody tr").count()) === 2, "more was let go");
});

await step("every view with errors", { excuse: (c) => c.includes("500 (Internal Server Error)") }, async (page) => {
  let broken = true;
  await page.route("**/api/v1/**", (route) => (broken && !route.request().url().endsWith("/events") ? route.fulfill({ status: 500, contentType: "application/json", body: JSON.stringify({ error: { code: "internal", message: "disk on fire <b>now</b>" } }) }) : route.continue()));
  await page.goto(world.data + "/#/images");
  for (const view of ["images", "overview", "clients", "prefetch", "image", "storage", "events?q=a"]) {
    broken = true;
    await page.evaluate((to) => (location.hash = to), view === "image" ? imageHash : "#/" + view);
    await page.getByText("disk on fire <b>now</b>").first().waitFor();
    await shot(page, "error-" + view.replace("?q=a", ""));
    await accessible(page, view + " with an error");
    broken = false;
    await page.getByRole("button", { name: "Try again" }).first().click();
    await page.getByText("disk on fire").first().waitFor({ state: "detached" });
  }
});

await step("the deep link to every view survives a reload", {}, async (page) => {
  await open(page, world.data, "#/images?q=*nginx*");
  must((await page.inputValue("#search")) === "*nginx*" && (await page.locator("tbody tr").count()) === 1, "the search is not in the address");
  await page.getByRole("link", { name: "nginx:1.27" }).click();
  await page.getByRole("heading", { name: "nginx:1.27" }).waitFor();
  await page.reload();
  await page.getByRole("heading", { name: "nginx:1.27" }).waitFor();
  await page.goBack();
  await page.locator("#search").waitFor();
  must((await page.inputValue("#search")) === "*nginx*", "going back forgets the search");
  must((await page.title()).startsWith("Images · "), "title " + (await page.title()));
});

await step("a fill is shown while it runs", {}, async (page) => {
  await open(page, world.data, "#/overview?span=day");
  await control("slow");
  const row = page.locator(".fill").first();
  await row.waitFor();
  const at = async () => Number((await page.locator(".fill .bar").first().getAttribute("aria-valuenow")) || 0);
  const first = await at();
  await page.waitForFunction((before) => Number(document.querySelector(".fill .bar")?.getAttribute("aria-valuenow") || 0) > before + 5, first);
  must(/cassandra/.test(await row.textContent()) && /client/.test(await row.textContent()), "row: " + (await row.textContent()));
  await shot(page, "readme-overview", { fullPage: false });
  await accessible(page, "overview during a fill");
  await control("fast");
  await page.waitForFunction(() => !document.querySelector(".fill"));
  await page.getByText("Nothing is being fetched").waitFor();
});

await step("refresh, pin, unpin, repair, purge", {}, async (page) => {
  await open(page, world.data, imageHash);
  await control("move");
  await page.getByRole("button", { name: "Refresh" }).click();
  await page.getByText("The tag moved to").waitFor();
  await page.waitForFunction(() => document.querySelectorAll(".timeline li").length === 2);
  must(/Now/.test(await text(page, ".timeline li:first-child")) && /Still kept/.test(await text(page, ".timeline li:last-child")), "history: " + (await text(page, ".timeline")));
  await shot(page, "image-history");

  await page.getByRole("button", { name: "Pin", exact: true }).click();
  const pinning = page.getByRole("dialog");
  await pinning.getByText("linux/arm64").waitFor();
  await accessible(page, "the choice of platforms");
  await shot(page, "dialog-pin", { fullPage: false });
  for (const platform of ["amd64", "arm64"]) await pinning.getByLabel("linux/" + platform).check();
  await pinning.getByRole("button", { name: "Pin" }).click();
  await page.getByText("Pinned: it is never evicted.").waitFor();
  await page.getByText("Repair of " + image + " is done").waitFor();
  await go(page, "#/held");
  await page.locator("#pins tr", { hasText: "nginx:1.27" }).getByText("linux/amd64, linux/arm64").waitFor();
  await go(page, imageHash);
  await page.getByRole("button", { name: "Unpin" }).waitFor();
  await go(page, "#/images?show=pinned");
  await page.getByRole("link", { name: "nginx:1.27" }).waitFor();
  await go(page, imageHash);
  await page.getByRole("button", { name: "Unpin" }).click();
  await page.getByText("Unpinned.").waitFor();

  const redis = "docker.io/bitnami/redis:7.4";
  await go(page, "#/images?show=missing");
  await page.getByRole("link", { name: "bitnami/redis:7.4" }).click();
  await page.locator("main").getByText("Incomplete").first().waitFor();
  await page.getByRole("button", { name: "Repair" }).click();
  await page.getByText("Repair of " + redis + " is done").waitFor();
  await page.locator(".facts").getByText("Complete", { exact: true }).waitFor();
  await page.locator("summary").first().click();
  must((await page.locator(".platform tbody tr").count()) === 5, "the image has not its five parts");
  await page.locator(".platform tbody tr .icon-button").first().click();
  await page.getByText("Digest copied.").waitFor();

  await go(page, "#/image?ref=" + encodeURIComponent("docker.io/team/scratch:old"));
  await page.getByRole("button", { name: "Purge" }).click();
  await page.getByRole("dialog").waitFor();
  await accessible(page, "the dialog");
  await shot(page, "dialog", { fullPage: false });
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  must(await page.getByRole("button", { name: "Purge" }).evaluate((b) => b === document.activeElement), "the focus does not return");
  await page.getByRole("button", { name: "Purge" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Purge" }).click();
  await page.locator("#search").waitFor();
  await page.getByRole("button", { name: "Undo" }).click(); // it was a mistake
  await page.getByText("Nothing was purged.").waitFor();
  await page.getByRole("link", { name: "team/scratch:old" }).click();
  await page.getByRole("button", { name: "Purge" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Purge" }).click();
  await page.getByText("Purged. ").waitFor();
  await page.locator("#search").waitFor();
  await page.getByRole("link", { name: "team/scratch:old" }).waitFor({ state: "detached" });

  await go(page, "#/events");
  for (const word of ["Tag moved", "Pinned", "Unpinned", "Purged"]) await page.locator(".log .pill", { hasText: word }).first().waitFor();
});

await step("a purge waits on the server, and any page can take it back", { excuse: (c) => c.includes("favicon.ico") }, async (page, context) => {
  const both = "#/images?q=" + encodeURIComponent("*team/several*");
  const ask = async () => {
    const asking = await context.newPage();
    await open(asking, world.data, both);
    await asking.getByLabel("Select team/several:old-1").check();
    await asking.getByRole("button", { name: "Purge 1 image" }).waitFor();
    await asking.getByRole("button", { name: "Select none" }).click();
    await asking.getByRole("button", { name: "Select all that match" }).click();
    await shot(asking, "images-selected", { fullPage: false });
    await asking.getByRole("button", { name: "Purge 2 images" }).click();
    await asking.getByRole("dialog").getByText(/At least .* in \d+ files? go/).waitFor();
    must(/requests that registries may count as pulls. \d+ of \d+ pulls of docker.io are left/.test(await text(asking, "dialog")), "dialog: " + (await text(asking, "dialog")));
    await accessible(asking, "the dialog of a purge of several");
    await shot(asking, "dialog-several", { fullPage: false });
    await asking.getByRole("dialog").getByRole("button", { name: "Purge" }).click();
    await asking.getByRole("button", { name: "Undo" }).waitFor();
    await asking.close(); // who asked has left
  };
  await open(page, world.data, "#/storage");
  await ask();
  await page.bringToFront();
  await page.getByRole("button", { name: "Undo" }).click();
  await page.getByText("Nothing was purged.").waitFor();
  await go(page, both);
  await page.waitForFunction(() => document.querySelectorAll("tbody tr").length === 2);
  await page.goto(world.data + "/healthz"); // nobody looks any more
  await ask();
  await page.waitForTimeout(11000);
  await open(page, world.data, both);
  await page.getByText("No image matches").waitFor();
  await go(page, "#/storage");
  await page.locator(".job", { hasText: "Purge of" }).getByText(/by admin_token/).first().waitFor();
});

await step("an image is prefetched once it is told what that takes", {}, async (page) => {
  await open(page, world.data, "#/images");
  await page.getByRole("button", { name: "Prefetch an image" }).click();
  await page.getByRole("dialog").getByLabel("Image").fill("memcached:1.6");
  await accessible(page, "the dialog of a prefetch");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").getByText(/in \d+ files? would be fetched/).waitFor();
  await shot(page, "dialog-prefetch", { fullPage: false });
  await page.getByRole("dialog").getByRole("button", { name: "Fetch" }).click();
  await page.getByText(/Prefetch of .*memcached:1.6 is done: 1 image/).waitFor();
  await page.getByRole("link", { name: "memcached:1.6" }).waitFor();
  await go(page, "#/image?ref=" + encodeURIComponent("docker.io/library/memcached:1.6"));
  must(/docker\.io\/memcached:1\.6/.test(await text(page, "main h1")), "its registry is not told: " + (await text(page, "main h1")));
});

await step("a fill is cancelled, and goes on with the next pull", {}, async (page) => {
  await open(page, world.data, "#/overview?span=day");
  await control("slowly");
  await page.locator(".fill").first().waitFor();
  await page.getByRole("button", { name: "Cancel the fetching of influxdb" }).first().click();
  await page.getByRole("dialog").getByText(/1 client waits for it, and gets an error/).waitFor();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel it" }).click();
  await page.getByText("Nothing is being fetched").waitFor();
  await control("slowlyOver"); // its client got an error, and pulls it now
});

await step("what takes the room is told by registry, age and repository", {}, async (page) => {
  await open(page, world.data, "#/storage");
  await page.locator("#shares summary").click();
  await page.locator("#shares tbody").getByRole("link", { name: "nginx" }).waitFor();
  await page.locator("#shares").getByText("Last used").waitFor();
  await accessible(page, "storage with what takes the room");
  await shot(page, "storage-room");
});

await step("verification, collection, prefetch", {}, async (page) => {
  await open(page, world.data, "#/storage");
  await page.getByRole("button", { name: "Verify", exact: true }).click();
  await page.getByText(/Verification is done: \d+ files? read, 0 faults/).waitFor();
  await page.getByRole("button", { name: "Dry run" }).click();
  await page.getByText(/Collection is done: .* would be removed/).first().waitFor();
  await page.getByRole("button", { name: "Collect garbage" }).click();
  await page.getByText(/Collection is done: .* removed/).nth(1).waitFor();
  await page.getByRole("button", { name: "Verify and repair" }).click();
  await page.waitForFunction(() => [...document.querySelectorAll(".job")].filter((j) => /Verification.*Done/.test(j.textContent)).length === 2);
  await shot(page, "storage-jobs");
  await go(page, "#/prefetch");
  await page.getByRole("button", { name: "Run now: base" }).click();
  await page.getByText("The run of base has begun.").waitFor();
  await page.locator(".pill-room").getByText("Done").waitFor();
  await shot(page, "prefetch-run");
  await accessible(page, "prefetch with a run");
});

await step("a prefetch of which a part failed is not called done", {}, async (page) => {
  await open(page, world.data, "#/storage");
  await page.evaluate(async () => (await import(new URL("api.js", document.querySelector("script[type=module]").src).href)).send("POST", "/prefetch", { images: [{ ref: "docker.io/library/alpine:3.20" }, { ref: "docker.io/library/not-there:1" }], platforms: ["linux/amd64"] }));
  const job = page.locator(".job", { hasText: "with faults" }).first();
  await job.waitFor({ timeout: 30000 });
  must(/Partial/.test(await job.textContent()), "the job says " + (await job.textContent()));
});

await step("an outage is rehearsed, and what fails for whom is told", {}, async (page) => {
  await open(page, world.data, "#/drill");
  await page.getByRole("button", { name: "1 min", exact: true }).click(); // should a step fail
  await page.getByRole("button", { name: "Begin" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Begin" }).click();
  await page.getByRole("button", { name: "End it now" }).waitFor();
  await page.getByText("An outage is rehearsed: no registry is asked").waitFor();
  await control("missing");
  await page.locator("#failures tbody").getByText("no-such-tag").waitFor();
  await page.locator("#failures tbody").getByText("127.0.1.15").waitFor();
  await shot(page, "drill");
  await accessible(page, "the rehearsal");
  await page.getByRole("button", { name: "End it now" }).click();
  await page.getByText(/The last one ran from/).waitFor();
  await page.getByText("An outage is rehearsed: no registry is asked").waitFor({ state: "detached" });
});

await step("values are shown at the cursor, in all plots at once", {}, async (page) => {
  await open(page, world.data, "#/overview?span=day");
  await page.waitForFunction(() => document.querySelectorAll(".plot canvas").length >= 4);
  const plot = page.locator(".plot").first();
  await plot.hover({ position: { x: 300, y: 80 } });
  await page.waitForFunction(() => [...document.querySelectorAll(".plot-tip")].filter((t) => !t.hidden).length >= 3);
  const tips = await page.locator(".plot-tip:not([hidden]) p:first-child").allTextContents();
  must(new Set(tips).size === 1, "the plots show different times: " + tips);
  await shot(page, "cursor", { fullPage: false });
});

await step("whether a signature verifies is told, where a rule wants one", {}, async (page) => {
  await open(page, world.data, "#/image?ref=" + encodeURIComponent("docker.io/library/postgres:17"));
  await page.getByText("Not verified").waitFor();
  await page.getByText("rule signed: no signature was found").waitFor();
  await accessible(page, "an image that nobody signed");
  await shot(page, "signature");
});

await step("what an action is refused for is told", { excuse: (c) => c.includes("409 (Conflict)") }, async (page) => {
  await open(page, world.data, "#/image?ref=" + encodeURIComponent("docker.io/library/postgres:17"));
  await page.getByRole("button", { name: "Purge" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Purge" }).click();
  await page.locator(".toast.bad").waitFor();
  await page.locator(".toast.bad").getByRole("button", { name: "Dismiss" }).click();
  must((await page.locator(".toast").count()) === 0, "the toast stays");
});

await step("hostile names are text", { excuse: (c) => c.includes("400 (Bad Request)") }, async (page) => {
  await open(page, world.data, "#/events");
  await page.getByText("<script>window.pwned=1</script>").first().waitFor();
  await go(page, "#/clients");
  await page.getByText('<img src=x onerror="window.pwned=1">').first().waitFor();
  await page.getByRole("button", { name: "127.0.1.15" }).click();
  await page.getByText("Last error").first().waitFor();
  await accessible(page, "clients with details");
  await shot(page, "clients-details");
  await go(page, "#/image?ref=" + encodeURIComponent('<img src=x onerror="window.pwned=1">'));
  await page.locator("main h1", { hasText: "<img" }).waitFor().catch(() => {});
  must((await page.locator("main img, main script").count()) === 0, "a text has become an element");
});

await step("an upstream that fails is told, and what is kept is served on", {}, async (page) => {
  await open(page, world.data, "#/overview");
  await control("fail");
  await page.locator("#troubles").getByText("ghcr.io refuses connections").waitFor();
  must(/^\(\d+\) Overview/.test(await page.title()), "title " + (await page.title()));
  await page.locator("#troubles .expand").first().click();
  await page.locator("#troubles").getByText("What is kept is served").waitFor();
  await shot(page, "overview-trouble");
  await accessible(page, "overview with a failing upstream");
  await page.locator("#troubles").getByRole("link", { name: "Look closer" }).first().click();
  await settled(page);
  await page.locator("#up-ghcr-io").getByText("Failing").waitFor();
  await shot(page, "upstreams-failing");
  await control("mend");
});

await step("tables sort, filter, stay as they are opened, and keep that in the address", {}, async (page) => {
  await open(page, world.data, "#/clients");
  const table = page.locator("#clients");
  await table.locator("th", { hasText: "Requests" }).getByRole("button").click();
  await page.waitForFunction(() => location.hash.includes("sort=-requests"));
  const column = () => table.locator("tbody tr:not(.inner)").evaluateAll((rows) => rows.map((r) => Number(r.children[2].textContent.replaceAll(",", ""))));
  const down = await column();
  must(down.length > 2 && down.every((n, i) => i === 0 || n <= down[i - 1]), "not sorted: " + down);
  await table.getByRole("button", { name: "More of 127.0.1.12" }).click();
  await table.locator(".inner").waitFor();
  const before = await table.locator("tr", { hasText: "127.0.1.12" }).first().locator("td").nth(2).textContent();
  await control("traffic"); // figures go on while a row is open and the focus is in it
  await page.waitForFunction((was) => [...document.querySelectorAll("#clients tbody tr")].find((r) => r.textContent.includes("127.0.1.12")).children[2].textContent !== was, before);
  must(await table.locator(".inner").isVisible(), "the row has closed");
  must(await page.evaluate(() => document.activeElement.getAttribute("aria-label")?.includes("127.0.1.12")), "the focus is lost");
  await table.getByLabel("Address, name or program").fill("127.0.1.13");
  await page.waitForFunction(() => document.querySelectorAll("#clients tbody tr").length === 1);
  must(/1 that match, of \d+/.test(await table.locator(".counted").textContent()), "count: " + (await table.locator(".counted").textContent()));
  await page.reload();
  await page.waitForFunction(() => document.querySelectorAll("#clients tbody tr").length === 1);
  const [download] = await Promise.all([page.waitForEvent("download"), table.getByRole("button", { name: "Export CSV" }).click()]);
  const csv = readFileSync(await download.path(), "utf8").split("\n");
  must(csv[0].startsWith("Client,Program,Requests") && csv[1].startsWith("127.0.1.13,") && csv.length === 3, "export: " + csv);
  await go(page, "#/repository?name=" + encodeURIComponent("docker.io/library/nginx"));
  await page.locator("#tags").getByRole("link", { name: "1.27" }).waitFor();
  await page.locator("#pullers tbody tr").first().waitFor();
  await accessible(page, "a repository");
  await shot(page, "repository");
});

await step("what was spent adds up to what the registry counts", {}, async (page) => {
  await open(page, world.data, "#/upstreams?name=docker.io");
  await page.getByRole("heading", { name: "Spent by" }).waitFor();
  const sums = await page.evaluate(() => [...document.querySelectorAll("#up-docker-io .grid.two table")].map((t) => [...t.querySelectorAll("tbody tr")].reduce((n, r) => n + Number(r.children[1].textContent.replaceAll(",", "")), 0)));
  const status = await (await fetch(world.data + "/api/v1/status", { headers: { Authorization: "Bearer " + world.dataToken } })).json();
  const b = status.upstreams.find((u) => u.name === "docker.io").budgets[0];
  must(sums.length === 2 && sums[0] === sums[1] && sums[0] === b.limit - b.remaining, "spent by and for: " + sums + ", the registry counts " + (b.limit - b.remaining));
});

await step("what could not be served without its registry is completed and pinned", {}, async (page) => {
  await fetch(world.data + "/api/v1/purge", { method: "POST", headers: { Authorization: "Bearer " + world.dataToken, "Content-Type": "application/json", "Forebay-Request": "1" }, body: JSON.stringify({ target: "docker.io/library/cassandra:5.0" }) });
  await control("part");
  await open(page, world.data, "#/images");
  const drill = page.locator(".drill");
  const said = await drill.textContent();
  const [, whole, all] = said.match(/now, (\d+) of (\d+) images? used/);
  if (whole === all) return must(false, "the world has nothing incomplete: " + said);
  await accessible(page, "images with what is lacking");
  await drill.getByRole("button", { name: /Complete and pin/ }).click();
  await page.getByText(/Prefetch of .* is done/).waitFor();
  await page.waitForFunction((n) => new RegExp("now, " + n + " of " + n + " images").test(document.querySelector(".drill").textContent), all);
});

await step("keys and palette", {}, async (page) => {
  await open(page, world.data, "#/overview");
  await page.bringToFront();
  await page.keyboard.press("g");
  await page.keyboard.press("i");
  await page.locator("#search").waitFor();
  await settled(page);
  await page.keyboard.press("/");
  await page.waitForFunction(() => document.activeElement.id === "search");
  await page.keyboard.press("Escape");
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keyboard" }).waitFor();
  await accessible(page, "the help of the keyboard");
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await page.keyboard.press("Control+k");
  await page.getByRole("dialog", { name: "Go to" }).waitFor();
  await page.keyboard.type("grafana");
  await page.getByRole("option", { name: /grafana/ }).waitFor();
  await accessible(page, "the palette");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "grafana/grafana:11.3.0" }).waitFor();
  await page.evaluate(() => (location.hash = "#/nosuchview"));
  await page.getByRole("heading", { name: "There is no such page" }).waitFor();
});

await step("an empty mirror says how to point clients at it", {}, async (page) => {
  await open(page, world.empty, "#/overview");
  await page.getByText("Waiting for the first pull").waitFor();
  for (const client of ["dockerd", "containerd", "podman", "k3s"]) await page.locator("#setup h3", { hasText: client }).waitFor();
  must((await page.locator("#setup pre").first().textContent()).includes(world.emptyRegistry), "the address is not there: " + (await page.locator("#setup pre").first().textContent()));
  await page.getByRole("button", { name: "Copy the lines for dockerd" }).click();
  await page.getByText("Copied.").waitFor();
  must((await page.evaluate(() => navigator.clipboard.readText())).includes("registry-mirrors"), "nothing is copied");
  await accessible(page, "the first run");
  await fits(page, "the first run");
  await shot(page, "first-run");
  await control("firstPull");
  await page.getByText("It works: the first pull has come").waitFor();
});

await step("keyboard", {}, async (page) => {
  await open(page, world.data, "#/overview");
  await page.bringToFront(); // else the key may come before the page has the focus
  await page.keyboard.press("Tab");
  await focused(page, "Skip to content", "the first stop is not the skip link");
  await page.keyboard.press("Enter");
  must((await page.evaluate(() => document.activeElement.id)) === "main", "the skip link does not lead to the content");
  await page.keyboard.press("Tab");
  await focused(page, "1 hour", "the next stop is not in the content");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  must((await page.evaluate(() => document.activeElement.getAttribute("aria-pressed"))) === "true" && page.url().endsWith("span=day"), "the keyboard does not choose");
  await page.locator("#nav a").nth(1).focus();
  await page.keyboard.press("Enter");
  await page.locator("#search").waitFor();
  must((await page.evaluate(() => document.activeElement.id)) === "main", "the focus does not move to the new view");
  await settled(page);
  await page.keyboard.press("Tab");
  must((await page.evaluate(() => document.activeElement.id)) === "search", "the search is not the next stop");
  await page.keyboard.type("*grafana*");
  await page.waitForFunction(() => document.querySelectorAll("tbody tr").length === 1);
  await page.locator(".image-name").focus();
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "grafana/grafana:11.3.0" }).waitFor();
  await page.locator("summary").first().focus();
  await page.keyboard.press("Space");
  must(await page.locator("details").first().evaluate((d) => d.open), "the keyboard does not open the parts");
});

if (world.screenshots) {
  await step("pictures", { colorScheme: "dark", viewport: { width: 1280, height: 860 } }, async (page) => {
    await open(page, world.data, "#/upstreams?span=day");
    await page.waitForTimeout(300);
    await shot(page, "readme-upstreams", { fullPage: false });
    await page.emulateMedia({ colorScheme: "light" });
    await go(page, "#/images");
    await page.waitForTimeout(300);
    await shot(page, "readme-images", { fullPage: false });
  });
}

await step("the theme is chosen and kept", { colorScheme: "light" }, async (page) => {
  await open(page, world.data, "#/overview");
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  await page.getByRole("button", { name: "Switch between light and dark" }).press("Enter");
  const dark = await ground();
  must(light !== dark, "nothing changes");
  await page.reload();
  must((await ground()) === dark, "the choice is forgotten");
});

await step("a server that restarts is found again", { excuse: (c) => c.includes("ERR_") }, async (page) => {
  await open(page, world.data, "#/overview");
  await control("stop");
  await page.locator(".conn.lost").waitFor();
  await shot(page, "overview-lost");
  await control("start");
  await page.locator(".conn.live").waitFor();
  await go(page, "#/events");
  await page.getByText("Purged").first().waitFor(); // the log outlives the restart
});

await step("sign-in", { excuse: (c) => c.includes("401 (Unauthorized)") }, async (page, context) => {
  const asked = [];
  page.on("request", (r) => r.url().includes("/api/") && asked.push(r));
  await page.goto(world.guarded + "/#/images");
  const secret = page.getByLabel("Password or token");
  await secret.waitFor();
  await accessible(page, "sign-in");
  await shot(page, "sign-in", { fullPage: false });
  await secret.fill("wrong-wrong-wrong-wrong");
  await page.keyboard.press("Enter");
  await page.getByText("that is no user, password or token").waitFor();
  await accessible(page, "sign-in that failed");
  await secret.fill(world.token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("Nothing is kept yet").waitFor();
  await page.reload();
  await page.getByText("Nothing is kept yet").waitFor();
  await page.locator(".conn.live").waitFor();
  await page.getByText("admin_token", { exact: true }).waitFor();
  await accessible(page, "signed in");
  const mine = (await context.cookies(world.guarded + "/api/v1/")).filter((c) => c.path === "/api/v1/");
  must(mine.length === 3 && mine.every((c) => c.httpOnly && c.sameSite === "Strict" && !c.value.includes(world.token)), "cookies: " + JSON.stringify(mine)); // one of each mirror
  const kept = await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }) + document.cookie);
  must(!kept.includes(world.token), "the token is kept where scripts read it");
  const requests = await Promise.all(asked.map((r) => r.allHeaders()));
  must(asked.every((r) => !r.url().includes(world.token)) && requests.every((h) => !h.authorization), "the token is in an address or a header");
  const other = await context.newPage();
  await other.goto(world.guarded + "/");
  await other.locator(".conn.live").waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  await secret.waitFor();
  must((await context.cookies(world.guarded + "/api/v1/")).filter((c) => c.path === "/api/v1/").length === 2, "the cookie outlives the session");
  await other.reload();
  await other.getByLabel("Password or token").waitFor();
});

await step("the mirrors of a fleet, and one that is gone", { fleet: true }, async (page) => {
  await open(page, world.fleet, "#/overview");
  await page.getByRole("link", { name: "Replicas" }).click();
  await settled(page);
  const rows = page.locator("#view-replicas tbody tr");
  await page.waitForFunction(() => document.querySelectorAll("#view-replicas tbody tr .pill.good").length === 2);
  for (const zone of ["zone-fleet", "zone-second"]) must((await rows.filter({ hasText: zone }).count()) === 1, "no row of " + zone);
  await accessible(page, "replicas");
  await shot(page, "replicas");
  await page.setViewportSize(phone);
  must(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "the replicas are wider than a phone");
  await page.setViewportSize(wide);
  await control("killSecond");
  await rows.filter({ hasText: "zone-second" }).getByText("Away").waitFor();
  await page.locator("#troubles").getByText("A mirror of the fleet is gone").first().waitFor();
  await accessible(page, "a mirror that is gone");
  await open(page, world.empty, "#/overview");
  must(!(await page.getByRole("link", { name: "Replicas" }).isVisible()), "a mirror that is alone shows replicas");
});

await step("another page cannot reach in", { excuse: () => true }, async (page) => {
  await page.goto(world.empty + "/healthz");
  const outcome = await page.evaluate(async (url) => {
    const tries = {};
    for (const [name, init] of Object.entries({
      read: {}, write: { method: "POST", headers: { "Content-Type": "application/json", "Forebay-Request": "1" }, body: "{}" },
    })) {
      tries[name] = await fetch(url + (name === "read" ? "/api/v1/status" : "/api/v1/gc"), init).then((r) => r.status, () => "refused");
    }
    tries.form = await fetch(url + "/api/v1/gc", { method: "POST", mode: "no-cors", body: "{}" }).then((r) => r.type, () => "refused");
    const frame = document.createElement("iframe");
    frame.src = url + "/";
    document.body.append(frame);
    await new Promise((resolve) => frame.addEventListener("load", resolve));
    try {
      tries.frame = frame.contentDocument ? "open" : "refused";
    } catch {
      tries.frame = "refused";
    }
    return tries;
  }, world.data);
  must(outcome.read === "refused" && outcome.write === "refused" && outcome.frame === "refused", JSON.stringify(outcome));
  const jobs = await (await fetch(world.data + "/api/v1/jobs", { headers: { Authorization: "Bearer " + world.dataToken } })).json();
  must(jobs.jobs.length === 0, "a foreign page has started a job");
});

await browser.close();
process.exit(failed ? 1 : 0);
