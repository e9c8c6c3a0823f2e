// The frame: navigation, sign-in, and which view is shown. A view is a function that
// takes its place, what the address asks for, and returns what ends it.

import { watchPurges } from "./actions.js";
import { get, loggedIn, logIn, logOut, whenRefused } from "./api.js";
import { fill, h, icon, setText } from "./dom.js";
import * as f from "./format.js";
import { keys } from "./keys.js";
import { live } from "./live.js";
import { troubleCount, watchTroubles } from "./troubles.js";
import { failure, skeleton } from "./parts.js";
import { overview } from "./views/overview.js";

// later is a view whose file is fetched when it is shown for the first time: the first view is to weigh little.
const later = (file, name = file) => (place, query) => {
  let ended = false;
  let stop = null;
  fill(place, skeleton(8, 28));
  import("./views/" + file + ".js").then((m) => ended || (stop = m[name](place, query)),
    () => ended || fill(place, h("h1", { text: heading }), failure({ message: "The server does not answer." }, show)));
  return () => {
    ended = true;
    if (stop) stop();
  };
};

const views = {
  overview: ["Overview", overview],
  images: ["Images", later("images")],
  upstreams: ["Upstreams", later("upstreams")],
  clients: ["Clients", later("clients")],
  storage: ["Storage", later("storage")],
  prefetch: ["Prefetch", later("prefetch")],
  held: ["Pinned, wanted", later("held")],
  events: ["Events", later("events")],
  replicas: ["Replicas", later("replicas")],
};
const details = { image: ["Image", later("image"), "images"], repository: ["Repository", later("repository"), "images"], bypass: ["Past the mirror", later("clients", "bypass"), "clients"], drill: ["Rehearsal", later("drill"), "upstreams"], vanished: ["Vanished", later("vanished"), "held"] };

const main = document.getElementById("main");
const nav = document.getElementById("nav");
let end = null;
let shown = "";
let signingIn = false;
let heading = "";

// retitle writes the title of the tab: how many troubles there are, which view, which mirror.
function retitle() {
  const troubles = troubleCount();
  const name = live.status && live.status.name;
  document.title = (troubles ? "(" + troubles + ") " : "") + heading + " · " + (name || "Forebay");
}

// route reads the part of the address after #.
export function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const known = Object.hasOwn(views, path) || Object.hasOwn(details, path);
  const name = known || !path ? path || "overview" : "nowhere";
  return { name, query: Object.fromEntries(new URLSearchParams(query || "")) };
}

// homeOf returns the view of the navigation that an address belongs to.
function homeOf(address) {
  const name = (address || "").replace(/^#\//, "").split("?")[0];
  return details[name] ? details[name][2] : name;
}

// reveal scrolls the navigation, which is a row on a phone, to a link. By scrollIntoView the
// browser would take the link for where the Tab key goes on from, and pass over what is before it.
function reveal(link) {
  const at = link.getBoundingClientRect();
  const frame = nav.getBoundingClientRect();
  nav.scrollLeft += Math.min(at.left - frame.left, 0) + Math.max(at.right - frame.right, 0);
}

function nowhere(place) {
  fill(place, h("h1", { text: "There is no such page" }), h("p", {}, h("a", { href: "#/overview", text: "To the overview" })));
}

function show() {
  if (signingIn) return;
  const { name, query } = route();
  const [title, view, parent] = views[name] || details[name] || ["No such page", nowhere];
  const moved = shown !== name;
  if (end) end();
  end = null;
  for (const link of nav.querySelectorAll("a")) {
    if (link.dataset.view === (parent || name)) {
      link.setAttribute("aria-current", "page");
      reveal(link);
    } else {
      link.removeAttribute("aria-current");
    }
  }
  heading = query.ref || query.name ? f.short(query.ref || query.name) : title;
  retitle();
  const place = h("div", { class: "view", id: "view-" + name });
  fill(main, place);
  end = view(place, query) || null;
  if (moved && shown) {
    window.scrollTo(0, 0);
    main.focus({ preventScroll: true }); // so that a screen reader begins with the new view
  }
  shown = name;
}

// signIn asks who it is. It stays until somebody is let in.
function signIn(fault) {
  if (signingIn) return;
  signingIn = true;
  if (end) end();
  end = null;
  heading = "Sign in";
  retitle();
  known(null);
  if (fault.status !== 401 && fault.code !== "no_role") {
    fill(main, h("div", { class: "view sign-in" }, h("h1", { text: "Not open to this address" }), h("p", { text: fault.message }),
      h("button", { class: "button", type: "button", text: "Try again", on: { click: leave } })));
    return;
  }
  const user = h("input", { id: "user", autocomplete: "username", autocapitalize: "none", spellcheck: "false", "aria-describedby": "user-help" });
  const secret = h("input", { id: "secret", type: "password", autocomplete: "current-password", spellcheck: "false", required: true, "aria-describedby": "secret-help" });
  const wrong = h("p", { class: "wrong", id: "secret-wrong", role: "alert", hidden: true });
  const button = h("button", { class: "button primary", type: "submit", text: "Sign in" });
  const form = h("form", { on: { submit: async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      await logIn(user.value.trim() ? { user: user.value.trim(), password: secret.value } : { token: secret.value.trim() });
      leave();
    } catch (refusal) {
      wrong.hidden = false;
      setText(wrong, refusal.message);
      secret.setAttribute("aria-invalid", "true");
      secret.setAttribute("aria-describedby", "secret-help secret-wrong");
      secret.value = "";
      secret.focus();
    } finally {
      button.disabled = false;
    }
  } } },
    h("label", { for: "user", text: "User" }), user,
    h("p", { class: "soft", id: "user-help", text: "Empty for a token." }),
    h("label", { for: "secret", text: "Password or token" }), secret, wrong,
    h("p", { class: "soft", id: "secret-help", text: "The admin token is in the file that admin_token_file names, else in admin.token in the storage folder." }),
    button);
  fill(main, h("div", { class: "view sign-in" }, h("h1", { text: "Sign in" }), form));
  user.focus();
}

// known shows who is signed in, and what that role cannot do no longer.
function known(session) {
  const foot = document.getElementById("who");
  document.body.dataset.role = session ? session.role : "";
  fill(foot, session && session.name && [h("span", { class: "break", title: "Role: " + session.role, text: session.name }),
    loggedIn() && h("button", { class: "icon-button", type: "button", text: "Sign out", on: { click: async () => {
      await logOut();
      live.again();
    } } })]);
}

function leave() {
  signingIn = false;
  shown = "";
  live.again();
  show();
}

function frame() {
  fill(nav, h("ul", {}, Object.entries(views).map(([name, [title]]) =>
    h("li", { hidden: name === "replicas" }, h("a", { href: "#/" + name, data: { view: name } }, icon(name), h("span", { text: title }))))));
  const state = h("span", { class: "conn", role: "status" }, h("span", { class: "dot", "aria-hidden": "true" }), h("span", { text: "Connecting" }));
  const version = h("span", { class: "version", text: "" });
  const theme = h("button", { class: "icon-button", type: "button", "aria-label": "Switch between light and dark", title: "Light or dark",
    on: { click: switchTheme } }, icon("theme"));
  fill(document.getElementById("foot"), state, version, h("span", { id: "who", class: "who" }), theme);
  const words = { connecting: "Connecting", live: "Live", lost: "Reconnecting", refused: "Signed out" };
  live.on("state", (now) => {
    state.className = "conn " + now.state;
    setText(state.lastChild, words[now.state]);
    if (now.state === "refused") signIn(now.fault);
    if (now.state === "live") {
      get("/session").then(known, () => {}); // the stream tells what is wrong
      get("/replicas").then((all) => (nav.querySelector("[data-view=replicas]").parentNode.hidden = all.replicas.length === 0), () => {});
    }
  });
  live.on("status", (status) => {
    setText(version, status.version + " · " + f.duration(status.uptime_seconds));
    version.title = "Version " + status.version + ", up since " + f.fullTime(status.started_at);
    setText(document.querySelector(".brand span"), status.name || "Forebay");
    retitle();
  });
  watchTroubles((list) => {
    retitle();
    // The badge stands at the view that a trouble is about.
    for (const link of nav.querySelectorAll("a")) {
      const mine = list.filter((t) => homeOf(t.view) === link.dataset.view);
      let badge = link.querySelector(".badge");
      if (!badge && mine.length) link.append((badge = h("span", { class: "badge" })));
      if (!badge) continue;
      badge.hidden = mine.length === 0;
      badge.className = "badge " + (mine.some((t) => t.severity === "critical") ? "critical" : "warning");
      fill(badge, String(mine.length), h("span", { class: "hidden", text: mine.length === 1 ? " trouble" : " troubles" }));
    }
  });
  watchPurges();
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the part after # is the view
    main.focus();
  });
}

function switchTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("theme", root.dataset.theme);
  } catch {
    // It lasts until the page is left.
  }
  document.dispatchEvent(new Event("theme"));
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("theme")));
whenRefused(signIn);
addEventListener("hashchange", show);
keys(Object.entries(views).map(([name, [title]]) => ({ name, title })));
frame();
show();
live.start();
