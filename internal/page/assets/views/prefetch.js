import { get } from "../api.js";
import { fill, h } from "../dom.js";
import * as p from "../parts.js";

export function prefetch(place) {
  let ended = false;
  const body = h("div", { class: "stack" }, h("section", { class: "panel" }, p.skeleton(4, 28)));
  fill(place, p.pageHead("Prefetch"), body);
  get("/openapi.json").then(() => {
    if (!ended) fill(body, h("section", { class: "panel" }, p.empty("No prefetch set is configured", "Sets of images that are fetched ahead, by a schedule, are listed here.")));
  }).catch((fault) => !ended && fill(body, p.failure(fault)));
  return () => {
    ended = true;
  };
}
