// Follows what happens on the server, and tells whoever listens. One stream serves the
// whole page; a page that nobody looks at has none.

import { Fault, isRefusal, stream } from "./api.js";

// silentFor is how long the server may say nothing: it gives a sign of life every 15 s, and on a
// connection that was cut without a word nothing ever ends.
const silentFor = 40000;

const listeners = { status: new Set(), event: new Set(), state: new Set() };
let state = "connecting";
let lastStatus = null;
let lastID = "";
let control = null;
let retry = 0;
let timer = 0;
let heard = null;

export const live = {
  get state() {
    return state;
  },
  get status() {
    return lastStatus;
  },
  // heard is when the server last said anything.
  get heard() {
    return heard;
  },
  // on calls listener with each status, event, or state (connecting, live, lost, refused),
  // and returns what ends that.
  on(what, listener) {
    listeners[what].add(listener);
    return () => listeners[what].delete(listener);
  },
  start() {
    document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
    open();
  },
  // again connects anew, as after a sign-in.
  again() {
    close();
    retry = 0;
    open();
  },
};

function tell(what, value) {
  for (const listener of [...listeners[what]]) listener(value);
}

function become(next, fault) {
  if (state !== next || fault) {
    state = next;
    tell("state", { state, fault });
  }
}

function close() {
  clearTimeout(timer);
  if (control) control.abort();
  control = null;
}

async function open() {
  if (control || document.hidden) return;
  clearTimeout(timer);
  const mine = new AbortController();
  control = mine;
  const guard = setInterval(() => {
    if (heard && Date.now() - heard > silentFor) mine.abort(new Fault("silent", "The server says nothing.", 0));
  }, 5000);
  try {
    const body = await stream(lastID, mine.signal);
    retry = 0;
    heard = new Date();
    become("live");
    await read(body);
    throw new Fault("ended", "The stream has ended.", 0);
  } catch (error) {
    if (control !== mine) return; // closed on purpose
    control = null;
    if (error instanceof Fault && isRefusal(error)) {
      become("refused", error);
      return;
    }
    become("lost");
    retry = Math.min(retry + 1, 4);
    timer = setTimeout(open, 500 * 2 ** retry);
  } finally {
    clearInterval(guard);
  }
}

// read parses server-sent events as they arrive.
async function read(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard = new Date();
    rest += value;
    for (let end = rest.indexOf("\n\n"); end >= 0; end = rest.indexOf("\n\n")) {
      message(rest.slice(0, end));
      rest = rest.slice(end + 2);
    }
  }
}

function message(text) {
  const fields = { event: "", data: "", id: "" };
  for (const line of text.split("\n")) {
    const colon = line.indexOf(": ");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
  }
  if (fields.id) lastID = fields.id;
  if (fields.event === "status") {
    lastStatus = JSON.parse(fields.data);
    tell("status", lastStatus);
  } else if (fields.event === "event") {
    tell("event", JSON.parse(fields.data));
  }
}
