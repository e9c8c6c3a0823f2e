// A table that sorts, filters, pages, says how many there are, is updated in place and can be
// taken along as CSV. What is chosen stands in the address.

import { fill, h, icon, keyed, setText } from "./dom.js";
import * as f from "./format.js";

const quote = (text) => (/[",\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text);

// save gives the browser a text as a file.
function save(name, text) {
  const link = h("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// grid makes one. columns: {id, title, class, value(item) → what is sorted by and exported,
// text(item) or cell(item) → what is shown}. details(item), if given, is what a row opens to. query
// is what the address says, and changed(params) writes it there. prefix keeps two on a page apart.
export function grid({ caption, columns, key, details, sort, query = {}, changed = () => {}, nothing, file, per = 50, placeholder = "Filter", prefix = "", search = true }) {
  const state = { q: query[prefix + "q"] || "", sort: query[prefix + "sort"] || sort, page: Number(query[prefix + "page"]) || 1 };
  const opened = new Set();
  let items = [];
  const input = h("input", { type: "search", class: "filter", placeholder, "aria-label": placeholder, value: state.q, autocomplete: "off", spellcheck: "false",
    on: { input: () => {
      state.q = input.value;
      state.page = 1;
      tell();
    } } });
  const counted = h("span", { class: "soft counted", role: "status" });
  const before = h("button", { class: "button small", type: "button", text: "Before", on: { click: () => turn(-1) } });
  const after = h("button", { class: "button small", type: "button", text: "Next", on: { click: () => turn(1) } });
  const heads = columns.map((c) => {
    if (!c.title) return h("td", { class: c.class });
    const arrow = h("span", { class: "arrow", "aria-hidden": "true" });
    return h("th", { scope: "col", class: c.class, data: { id: c.id } }, c.value
      ? h("button", { class: "sort", type: "button", on: { click: () => {
          state.sort = state.sort === "-" + c.id ? c.id : state.sort === c.id ? "-" + c.id : (c.class || "").includes("num") ? "-" + c.id : c.id;
          state.page = 1;
          tell();
        } } }, h("span", { text: c.title }), arrow)
      : h("span", { text: c.title }));
  });
  const body = h("tbody");
  const table = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", { class: "hidden", text: caption }), h("thead", {}, h("tr", {}, heads)), body));
  const none = h("div", { class: "empty", hidden: true }, h("p", { class: "empty-title", text: "Nothing matches" }));
  const bar = h("div", { class: "grid-bar" }, search && input, counted,
    h("span", { class: "buttons" }, before, after,
      file && h("button", { class: "button small", type: "button", text: "Export CSV", title: "All that matches, as a file", on: { click: () => {
        const shown = columns.filter((c) => c.value && c.title);
        save(file + ".csv", [shown.map((c) => c.title), ...found().map((item) => shown.map((c) => String(c.value(item) ?? "")))].map((row) => row.map(quote).join(",")).join("\n") + "\n");
      } } })));
  const element = h("div", { class: "grid-table" }, bar, table, none);

  function tell() {
    const params = {};
    if (state.q) params[prefix + "q"] = state.q;
    if (state.sort !== sort) params[prefix + "sort"] = state.sort;
    if (state.page > 1) params[prefix + "page"] = state.page;
    changed(params);
    draw();
  }

  function turn(by) {
    state.page += by;
    tell();
  }

  function found() {
    const words = state.q.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const list = items.filter((item) => {
      const text = columns.map((c) => (c.value ? c.value(item) : "")).join(" ").toLowerCase();
      return words.every((w) => text.includes(w));
    });
    const down = state.sort.startsWith("-");
    const by = columns.find((c) => c.id === state.sort.replace(/^-/, "")) || columns[0];
    return list.sort((a, b) => {
      const [x, y] = [by.value(a), by.value(b)];
      const order = typeof x === "number" ? x - y : String(x).localeCompare(String(y));
      return (down ? -order : order) || (key(a) < key(b) ? -1 : 1);
    });
  }

  function update(row, { item, more }) {
    if (more) {
      const text = JSON.stringify(item);
      if (row.dataset.s !== text) {
        row.dataset.s = text;
        fill(row, h("td", { colspan: columns.length }, details(item)));
      }
      return;
    }
    columns.forEach((c, i) => {
      const cell = row.children[i];
      const place = i === 0 && details ? cell.querySelector(".cell") : cell;
      if (c.text) {
        setText(place, c.text(item));
        return;
      }
      const text = JSON.stringify(c.signature ? c.signature(item) : c.value ? [c.value(item), key(item)] : key(item));
      if (place.dataset.s !== text) {
        place.dataset.s = text;
        fill(place, c.cell(item));
      }
    });
    const toggle = row.querySelector(".expand");
    if (toggle) toggle.setAttribute("aria-expanded", String(opened.has(key(item))));
  }

  function make({ item, more }) {
    if (more) return h("tr", { class: "inner" });
    const name = key(item);
    return h("tr", {}, columns.map((c, i) => h("td", { class: c.class }, i === 0 && details && [
      h("button", { class: "expand", type: "button", "aria-label": "More of " + name, "aria-expanded": "false", on: { click: () => {
        if (opened.has(name)) opened.delete(name);
        else opened.add(name);
        draw();
      } } }, icon("chevron")), h("span", { class: "cell" })])));
  }

  function draw() {
    const list = found();
    const pages = Math.max(1, Math.ceil(list.length / per));
    state.page = Math.min(Math.max(state.page, 1), pages);
    const from = (state.page - 1) * per;
    const shown = list.slice(from, from + per);
    setText(counted, list.length === 0 ? "none of " + f.count(items.length)
      : (pages > 1 ? f.count(from + 1) + "–" + f.count(from + shown.length) + " of " : "") + f.count(list.length) + (list.length < items.length ? " that match, of " + f.count(items.length) : ""));
    before.hidden = after.hidden = pages === 1;
    before.disabled = state.page === 1;
    after.disabled = state.page === pages;
    columns.forEach((c, i) => {
      const down = state.sort === "-" + c.id;
      const on = down || state.sort === c.id;
      if (on) heads[i].setAttribute("aria-sort", down ? "descending" : "ascending");
      else heads[i].removeAttribute("aria-sort");
      const arrow = heads[i].querySelector(".arrow");
      if (arrow) setText(arrow, on ? (down ? " ↓" : " ↑") : "");
    });
    keyed(body, shown.flatMap((item) => (details && opened.has(key(item)) ? [{ item }, { item, more: true }] : [{ item }])), (x) => key(x.item) + (x.more ? "\u0000more" : ""), make, update);
    none.hidden = list.length > 0;
    table.hidden = list.length === 0;
  }

  return {
    element,
    body,
    // show takes what there is now.
    show(list) {
      items = list;
      if (list.length === 0 && nothing) {
        fill(element, nothing());
        return;
      }
      if (!bar.isConnected || bar.parentNode !== element) fill(element, bar, table, none);
      draw();
    },
  };
}
