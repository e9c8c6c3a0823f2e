// Asks the admin API. Who logs in gets a cookie that scripts cannot read, and a key that goes
// into a header: the cookie alone, which a page of another origin could make the browser send,
// opens nothing. The key is kept for this origin, until somebody logs out.

const base = "/api/v1";
const place = "forebay-session";
let memory = "";

function key() {
  try {
    return localStorage.getItem(place) || memory;
  } catch {
    return memory;
  }
}

function setKey(value) {
  memory = value;
  try {
    if (value) localStorage.setItem(place, value);
    else localStorage.removeItem(place);
  } catch {
    // Without storage it lasts until the page is left.
  }
}

// logIn begins a session by { token } or { user, password }.
export async function logIn(credential) {
  setKey("");
  const session = await send("POST", "/session", credential);
  setKey(session.key);
}

export const loggedIn = () => Boolean(key());

export async function logOut() {
  await send("DELETE", "/session");
  setKey("");
}

// Fault is an answer that is an error, or none at all.
export class Fault extends Error {
  constructor(code, message, status) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

let onRefused = () => {};
export function whenRefused(listener) {
  onRefused = listener;
}

function headers(more) {
  const all = { ...more };
  if (key()) all["Forebay-Session"] = key();
  return all;
}

export async function faultOf(response) {
  let detail = {};
  try {
    detail = (await response.json()).error || {};
  } catch {
    // Something between may answer with what is not ours.
  }
  return new Fault(detail.code || "http", detail.message || "The server answers " + response.status + ".", response.status);
}

async function ask(path, init) {
  let response;
  try {
    response = await fetch(base + path, { cache: "no-store", credentials: "same-origin", ...init });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault("offline", "The server does not answer.", 0);
  }
  if (!response.ok) {
    const fault = await faultOf(response);
    if (isRefusal(fault) && path !== "/session") onRefused(fault);
    throw fault;
  }
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

// isRefusal reports whether somebody has to sign in first.
export const isRefusal = (fault) => fault.status === 401 || ["no_token", "no_role", "foreign_host", "forwarded"].includes(fault.code);

export function get(path, query, signal) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query || {})) {
    if (value !== "" && value !== null && value !== undefined && value !== false) params.set(name, value);
  }
  const text = params.toString();
  return ask(path + (text ? "?" + text : ""), { headers: headers(), signal });
}

export function send(method, path, body) {
  return ask(path, {
    method,
    headers: headers({ "Content-Type": "application/json", "Forebay-Request": "1" }),
    body: JSON.stringify(body || {}),
  });
}

// stream opens the stream of events. EventSource could not send the key.
export async function stream(lastID, signal) {
  const more = { Accept: "text/event-stream" };
  if (lastID) more["Last-Event-ID"] = lastID;
  const response = await fetch(base + "/events", { headers: headers(more), cache: "no-store", credentials: "same-origin", signal });
  if (!response.ok) throw await faultOf(response);
  return response.body;
}
