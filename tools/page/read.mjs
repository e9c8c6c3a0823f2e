// Reads what the dashboard says is wrong. test/page starts it with the address and token of a
// mirror; for each line on standard input it answers with one of JSON: the title, the troubles as
// the bar shows them, and the badges of the navigation.

import { createInterface } from "node:readline";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

const world = JSON.parse(process.env.PAGE_WORLD);
const browser = await chromium.launch({ executablePath: world.chromium, args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"] });
const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
const key = await (await context.request.post(world.admin + "/api/v1/session", { headers: { "Forebay-Request": "1" }, data: { token: world.token } })).json();
await context.addInitScript((key) => localStorage.setItem("forebay-session", key), key.key);
const page = await context.newPage();
await page.goto(world.admin + "/" + (world.view || "#/events"));
await page.locator(".conn.live").waitFor();
console.log("ready");

for await (const line of createInterface({ input: process.stdin })) {
  if (line.startsWith("shot ")) {
    mkdirSync(world.screenshots, { recursive: true });
    for (const button of await page.locator(".trouble .expand[aria-expanded=false]").all()) await button.click();
    await page.screenshot({ path: join(world.screenshots, line.slice(5) + ".png") });
    console.log("{}");
    continue;
  }
  console.log(JSON.stringify(await page.evaluate(() => ({
    title: document.title,
    state: document.querySelector(".conn").className,
    badges: [...document.querySelectorAll("#nav .badge")].filter((b) => !b.hidden).map((b) => b.closest("a").dataset.view),
    troubles: [...document.querySelectorAll("#troubles .trouble")].map((t) => ({
      what: t.querySelector(".expand .strong").textContent,
      severity: t.classList.contains("critical") ? "critical" : "warning",
      details: [...t.querySelectorAll("dd")].map((d) => d.textContent),
      links: [...t.querySelectorAll("a")].map((a) => a.getAttribute("href")),
    })),
  }))));
}
await browser.close();
