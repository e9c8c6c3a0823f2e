// Asks the admin API. The token, if there is one, is kept for this tab only, and goes into
// a header: no cookie is ever set, so that no other page can make the browser send it.

const base = "/api/v1";
const place = "forebay-token";
let memory = "";

export function token() {
  try {
    return sessionStorage.getItem(place) || memory;
  } catch {
    return memory;
  }
}

export function setToken(value) {
  memory = value;
  try {
    if (value) sessionStorage.setItem(place, value);
    else sessionStorage.removeItem(place);
  } catch {
    // Without storage it lasts until the page is left.
  }
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

export function headers(more) {
  const all = { ...more };
  if (token()) all.Authorization = "Bearer " + token();
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
    response = await fetch(base + path, { cache: "no-store", credentials: "omit", ...init });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault("offline", "The server does not answer.", 0);
  }
  if (!response.ok) {
    const fault = await faultOf(response);
    if (isRefusal(fault)) onRefused(fault);
    throw fault;
  }
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

// isRefusal reports whether somebody has to sign in first.
export const isRefusal = (fault) => fault.status === 401 || ["no_token", "foreign_host", "forwarded"].includes(fault.code);

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

// stream opens the stream of events. EventSource could not send the token.
export async function stream(lastID, signal) {
  const more = { Accept: "text/event-stream" };
  if (lastID) more["Last-Event-ID"] = lastID;
  const response = await fetch(base + "/events", { headers: headers(more), cache: "no-store", credentials: "omit", signal });
  if (!response.ok) throw await faultOf(response);
  return response.body;
}
