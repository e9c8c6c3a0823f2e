// Makes elements. Text is only ever set as text: nothing here reads markup, so that what
// registries and clients call themselves cannot become any.

const SVG = "http://www.w3.org/2000/svg";

// h makes an element. props: class, text, style (an object), data (an object), on (an
// object of listeners), and attributes; false and null leave an attribute out.
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  set(element, props || {});
  add(element, children);
  return element;
}

function set(element, props) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else if (name === "style") for (const [k, v] of Object.entries(value)) element.style.setProperty(k, v);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "on") for (const [k, v] of Object.entries(value)) element.addEventListener(k, v);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
}

function add(parent, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : String(child));
  }
}

export function fill(parent, ...children) {
  const fresh = document.createDocumentFragment();
  add(fresh, children);
  parent.replaceChildren(fresh);
  return parent;
}

// setText changes a text only if it differs, so that nothing is laid out or read anew.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// keyed keeps the children of parent in step with items: those that stay are updated in
// place, so that focus and animations survive.
export function keyed(parent, items, key, make, update) {
  const old = new Map();
  for (const child of [...parent.children]) {
    if (child.dataset.key === undefined) child.remove();
    else old.set(child.dataset.key, child);
  }
  let before = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = old.get(name);
    if (child) {
      old.delete(name);
    } else {
      child = make(item);
      child.dataset.key = name;
    }
    if (child === before) before = before.nextElementSibling;
    else parent.insertBefore(child, before);
    if (update) update(child, item);
  }
  for (const child of old.values()) child.remove();
}

const paths = {
  overview: "M3 12h4v6H3zM10 7h4v11h-4zM17 3h-1v15h4V3z",
  images: "M10.500 2 18 6v8l-7.500 4L3 14V6zM3 6l7.500 4L18 6M10.500 10v8",
  upstreams: "M6.500 16H5.800a3.800 3.800 0 0 1-.4-7.600 5.200 5.200 0 0 1 10-1.100A4.400 4.400 0 0 1 15 16h-.6M10.500 10.500V18M8 15.500l2.500 2.500 2.500-2.500",
  clients: "M3 4h15v10H3zM7.500 18h6M10.500 14v4",
  storage: "M3 5.500C3 4 6.400 3 10.500 3S18 4 18 5.500v10c0 1.500-3.400 2.500-7.500 2.500S3 17 3 15.500zM3 5.500C3 7 6.400 8 10.500 8S18 7 18 5.500M3 10.500c0 1.500 3.400 2.500 7.500 2.500s7.500-1 7.500-2.500",
  prefetch: "M10.500 3a7.500 7.500 0 1 0 7.500 7.500M10.500 6.500v4l2.800 1.800M14 3h4v4M18 3l-4 4",
  held: "M7.500 3h6l-.8 5 2.300 3H6l2.300-3zM10.500 11v7",
  replicas: "M5 4h6v6H5zM13 4h6v6h-6zM9 14h6v6H9zM8 10v2h8v-2M12 12v2",
  events: "M3 5h2M8 5h10M3 10.500h2M8 10.500h10M3 16h2M8 16h10",
  pin: "M7.500 3h6l-.8 5 2.300 3H6l2.300-3zM10.500 11v7",
  theme: "M10.500 3a7.500 7.500 0 1 0 0 15zM10.500 3a7.500 7.500 0 0 1 0 15",
  copy: "M7 7h10v10H7zM4 13V4h9",
  chevron: "M8 5l5 5.500L8 16",
  search: "M9 15A6 6 0 1 0 9 3a6 6 0 0 0 0 12zM13.500 13.500 18 18",
};

// icon makes a picture that says nothing beside the text next to it.
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 21 21");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", paths[name]);
  svg.append(path);
  return svg;
}
