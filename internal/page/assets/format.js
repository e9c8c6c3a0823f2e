// Writes figures for people.

const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(n) {
  if (n < 0) return "unknown";
  let unit = 0;
  while (n >= 1000 && unit < units.length - 1) {
    n /= 1024;
    unit++;
  }
  const digits = unit === 0 || n >= 100 ? 0 : n >= 10 ? 1 : 2;
  return n.toFixed(digits) + "\u00a0" + units[unit];
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const count = (n) => whole.format(n);

export function compact(n) {
  if (n >= 1e6) return (n / 1e6).toFixed(n >= 1e7 ? 0 : 1) + "M";
  if (n >= 1e4) return (n / 1e3).toFixed(0) + "k";
  if (n > 0 && n < 10) return String(Number(n.toFixed(n < 1 ? 2 : 1)));
  return whole.format(n);
}

export const plural = (n, one, many) => count(n) + " " + (n === 1 ? one : many || one + "s");

export function percent(share) {
  if (!(share >= 0)) return "–";
  const p = share * 100;
  // What is nearly all is not all, and what is nearly nothing is not nothing.
  if (p > 99.9 && p < 100) return ">99.9%";
  if (p > 0 && p < 0.1) return "<0.1%";
  return (p === 0 || p === 100 ? p.toFixed(0) : p.toFixed(1)) + "%";
}

export function money(amount, currency) {
  try {
    return new Intl.NumberFormat("en", { style: "currency", currency }).format(amount);
  } catch {
    return amount.toFixed(2) + " " + currency;
  }
}

export function duration(seconds) {
  seconds = Math.max(0, Math.round(seconds));
  if (seconds < 60) return seconds + " s";
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return minutes + " min";
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return hours + " h" + (minutes % 60 && hours < 10 ? " " + (minutes % 60) + " min" : "");
  return Math.round(hours / 24) + " days";
}

// micros writes a short time that is given in microseconds.
export function micros(us) {
  if (us < 1000) return (us / 1000).toFixed(1) + " ms";
  if (us < 1e6) return (us / 1000).toFixed(us < 1e4 ? 1 : 0) + " ms";
  return (us / 1e6).toFixed(us < 1e7 ? 1 : 0) + " s";
}

// known reports whether the server has told a time.
export const known = (time) => Boolean(time) && !time.startsWith("0001-");

export function ago(time) {
  if (!known(time)) return "never";
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  if (seconds < 5) return "just now";
  return duration(seconds) + " ago";
}

export const until = (time) => {
  const seconds = (Date.parse(time) - Date.now()) / 1000;
  return seconds < 1 ? "now" : "in " + duration(seconds);
};

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const whenFull = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

export const utc = (time) => (known(time) ? new Date(time).toISOString().replace("T", " ").replace(/\.\d+Z/, " UTC") : "");

// fullTime is the local time, with that of Greenwich, which logs have.
export const fullTime = (time) => (known(time) ? whenFull.format(new Date(time)) + " (" + utc(time) + ")" : "");

export function timeOfDay(time) {
  const date = new Date(time);
  const today = new Date().toDateString() === date.toDateString();
  return (today ? "" : day.format(date) + ", ") + clock.format(date);
}

export function digest(d) {
  const [algorithm, hex] = d.split(":");
  return hex ? (algorithm === "sha256" ? "" : algorithm + ":") + hex.slice(0, 12) : d;
}

// familiar shortens names of Docker Hub as docker does.
export function familiar(upstream, repository) {
  if (upstream !== "docker.io") return upstream ? upstream + "/" + repository : repository;
  return repository.startsWith("library/") ? repository.slice(8) : repository;
}

// short is the name of an image as docker shows it.
export const short = (ref) => ref.replace(/^docker\.io\/(library\/)?/, "");

export function imageRef(image) {
  const name = image.upstream + "/" + image.repository;
  return image.tag ? name + ":" + image.tag : name + "@" + image.digest;
}
