// The keyboard: / searches, ? says what there is, g and a letter go to a view, and Ctrl+K or
// Cmd+K finds views and images by their names.

import { get } from "./api.js";
import { fill, h } from "./dom.js";
import * as f from "./format.js";

const typing = (e) => e.target.closest && e.target.closest("input, textarea, select, [contenteditable]");
const open = () => document.querySelector("dialog[open]");

function dialog(title, ...content) {
  const before = document.activeElement;
  const element = h("dialog", { class: "dialog", "aria-label": title }, content);
  element.addEventListener("close", () => {
    element.remove();
    if (before && before.isConnected) before.focus();
  });
  document.body.append(element);
  element.showModal();
  return element;
}

function help(views) {
  const lines = [["/", "Search in this view"], ["?", "This help"], ["Ctrl+K", "Go to a view or an image"], ["Esc", "Close what is open"], ...views.map((v) => ["g " + v.letter, v.title])];
  const element = dialog("Keyboard", h("h2", { text: "Keyboard" }), h("dl", { class: "keys" }, lines.map(([key, text]) => h("div", {}, h("dt", {}, h("kbd", { text: key })), h("dd", { text })))),
    h("div", { class: "dialog-buttons" }, h("button", { class: "button", type: "button", autofocus: true, text: "Close", on: { click: () => element.close() } })));
}

function palette(views) {
  let turn = 0;
  let chosen = 0;
  let rows = [];
  const list = h("ul", { class: "palette", role: "listbox", id: "palette" });
  const input = h("input", { type: "search", role: "combobox", "aria-expanded": "true", "aria-controls": "palette", "aria-label": "View or image", placeholder: "View or image", autocomplete: "off", spellcheck: "false", autofocus: true, on: {
    input: () => find(),
    keydown: (e) => {
      if (e.key === "ArrowDown" || e.key === "ArrowUp") {
        e.preventDefault();
        chosen = (chosen + (e.key === "ArrowDown" ? 1 : rows.length - 1)) % Math.max(rows.length, 1);
        draw();
      } else if (e.key === "Enter" && rows[chosen]) {
        e.preventDefault();
        go(rows[chosen]);
      }
    },
  } });
  const element = dialog("Go to", input, list);

  function go(row) {
    element.close();
    location.hash = row.href;
  }

  function draw() {
    fill(list, rows.map((row, i) => h("li", { role: "option", id: "palette-" + i, "aria-selected": String(i === chosen), on: { click: () => go(row) } }, h("span", { class: "break", text: row.text }), h("span", { class: "soft", text: row.kind }))));
    if (rows.length) input.setAttribute("aria-activedescendant", "palette-" + chosen);
    else input.removeAttribute("aria-activedescendant");
  }

  async function find() {
    const mine = ++turn;
    const text = input.value.trim().toLowerCase();
    chosen = 0;
    rows = views.filter((v) => v.title.toLowerCase().includes(text)).map((v) => ({ text: v.title, kind: "View", href: "#/" + v.name }));
    draw();
    if (!text) return;
    const found = await get("/images", { pattern: "*" + text.replace(/[*?[\]]/g, "") + "*", limit: 12 }).catch(() => ({ images: [] }));
    if (mine !== turn || !element.open) return;
    rows = [...rows, ...found.images.map((i) => ({ text: f.familiar(i.upstream, i.repository) + (i.tag ? ":" + i.tag : "@" + f.digest(i.digest)), kind: "Image", href: "#/image?ref=" + encodeURIComponent(f.imageRef(i)) }))];
    draw();
  }
  find();
}

// keys listens from now on. views: {name, title}.
export function keys(views) {
  const letters = { overview: "o", images: "i", upstreams: "u", clients: "c", storage: "s", prefetch: "p", held: "h", events: "e", replicas: "r" };
  const all = views.map((v) => ({ ...v, letter: letters[v.name] }));
  let going = 0;
  addEventListener("keydown", (e) => {
    if ((e.ctrlKey || e.metaKey) && e.key.toLowerCase() === "k") {
      e.preventDefault();
      if (!open()) palette(all);
      return;
    }
    if (e.ctrlKey || e.metaKey || e.altKey || typing(e) || open()) return;
    if (going && Date.now() - going < 1500) {
      going = 0;
      const view = all.find((v) => v.letter === e.key);
      if (view) {
        e.preventDefault();
        location.hash = "#/" + view.name;
      }
      return;
    }
    going = e.key === "g" ? Date.now() : 0;
    if (e.key === "/") {
      const input = document.querySelector("main input[type=search]");
      if (input) {
        e.preventDefault();
        input.focus();
      }
    } else if (e.key === "?") {
      e.preventDefault();
      help(all);
    }
  });
}
