// Drives Chromium over the dashboard. internal/e2e/page starts it, with the addresses of
// three mirrors (with data, empty, with a token) and of what changes the world around them.
// Each step prints "ok NAME" or "not ok NAME: WHY"; figures begin with "# ".

import { readFileSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { chromium } from "playwright-core";

const world = JSON.parse(process.env.PAGE_WORLD);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const views = ["overview", "images", "upstreams", "clients", "storage", "prefetch", "events"];
const wide = { width: 1440, height: 900 };
const phone = { width: 390, height: 844 };
const image = "docker.io/library/nginx:1.27";
const imageHash = "#/image?ref=" + encodeURIComponent(image);
const only = process.env.PAGE_ONLY; // a regular expression of steps, while working on one
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
  const page = await context.newPage();
  page.setDefaultTimeout(15000);
  page.on("console", (m) => {
    if (["error", "warning"].includes(m.type())) complaints.push("console: " + m.text() + " " + m.location().url);
  });
  page.on("pageerror", (e) => complaints.push("uncaught: " + e));
  page.on("request", (r) => {
    if (![world.data, world.empty, world.guarded].includes(new URL(r.url()).origin)) complaints.push("asks elsewhere: " + r.url());
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
  const [content, room] = await page.evaluate(() => [document.scrollingElement.scrollWidth, innerWidth]);
  must(content <= room, what + " is " + content + " px wide in " + room + " px");
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
  must(weight > 1000 && weight < 200 * 1024, "the first view weighs " + weight + " bytes");
  must(moved < 0.05, "things moved: " + moved);
  must(times.data < 5000, "the first figures came after " + times.data + " ms");
});

for (const theme of ["light", "dark"]) {
  for (const [name, viewport] of Object.entries({ wide, phone })) {
    await step("every view with data, " + theme + ", " + name, { colorScheme: theme, viewport }, async (page) => {
      await open(page, world.data, "#/overview");
      for (const view of [...views, "image"]) {
        await go(page, view === "image" ? imageHash : "#/" + view + (view === "overview" ? "?span=day" : ""));
        await page.waitForTimeout(250);
        await fits(page, view);
        await shot(page, view + "-" + name + "-" + theme);
        if (name === "wide" || theme === "light") await accessible(page, view);
      }
    });
  }
}
// more steps follow

await browser.close();
process.exit(failed ? 1 : 0);
