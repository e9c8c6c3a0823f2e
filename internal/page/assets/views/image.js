import * as actions from "../actions.js";
import { get } from "../api.js";
import { fill, h, icon } from "../dom.js";
import * as f from "../format.js";
import { live } from "../live.js";
import * as p from "../parts.js";

export function image(place, query) {
  const ref = query.ref || "";
  let ended = false;
  const body = h("div", { class: "stack" }, p.skeleton(10, 28));
  fill(place,
    p.crumbs("#/images", "Images"),
    body);

  async function load() {
    try {
      const one = await get("/image", { ref });
      const [past, all] = await Promise.all([one.tag ? get("/history", { ref }) : { bindings: [] }, get("/contents", { ref, referrers: true }).catch(() => ({}))]);
      if (!ended) show(one, past.bindings, all.referrers || []);
    } catch (fault) {
      if (ended) return;
      fill(body, p.pageHead(f.short(ref) || "No image"),
        fault.code === "not_kept"
          ? h("section", { class: "panel" }, p.empty("Nothing is kept under this name", "It was never pulled through here, or was evicted or purged.", h("a", { class: "button", href: "#/images", text: "All images" })))
          : h("section", { class: "panel" }, p.failure(fault, load)));
    }
  }

  function act(label, tone, work) {
    const button = h("button", { class: "button " + tone, type: "button", data: { acts: "" }, text: label, on: { click: () => actions.run(button, work) } });
    return button;
  }

  function show(i, bindings, referrers) {
    const name = f.familiar(i.upstream, i.repository);
    fill(body,
      h("div", { class: "page-head" },
        h("h1", { class: "image-title" }, i.upstream === "docker.io" && h("span", { class: "soft", text: "docker.io/" }), h("span", { text: name }), h("span", { class: "tag", text: i.tag ? ":" + i.tag : "@" + f.digest(i.digest) })),
        h("div", { class: "buttons" },
          i.tag && act("Refresh", "", async () => {
            await actions.refresh(ref);
            await load();
          }),
          i.pinned
            ? act("Unpin", "", async () => {
                await actions.unpin(ref);
                await load();
              })
            : act("Pin", "", async () => {
                await actions.pin(ref, i);
                await load();
              }),
          act("Copy pull command", "", () => actions.copy("docker pull " + ((live.status && live.status.address) || location.hostname + ":5000").replace(/^https?:\/\//, "") + "/" + ref)),
          i.state !== "complete" && act("Repair", "", async () => {
            await actions.job("/repair", { ref }, "The repair has begun.");
            await load();
          }),
          act("Purge", "danger", async () => {
            if (await actions.purge([ref], { upstream: i.upstream, pinned: i.pinned, used: i.used_at })) location.hash = "#/images";
          }))),
      h("section", { class: "panel", "aria-label": "Facts" }, h("dl", { class: "facts" },
        p.fact("State", p.imagePill(i.state), i.pinned && h("span", { class: "pinned" }, icon("pin"), h("span", { text: "Pinned" }))),
        p.fact("Kept", f.bytes(i.kept_bytes)),
        p.fact("Missing", i.missing_bytes || i.missing_more ? f.bytes(i.missing_bytes) + (i.missing_more ? " and more" : "") : "nothing"),
        p.fact("Upstream", h("a", { href: "#/upstreams?name=" + encodeURIComponent(i.upstream), text: i.upstream })),
        p.fact("Repository", h("a", { href: "#/repository?name=" + encodeURIComponent(i.upstream + "/" + i.repository), text: "Its tags, and who pulled it" })),
        (i.signatures || []).map((s) => p.fact("Signature", p.pill({ verified: "good", refused: "bad" }[s.state] || "idle", { verified: "Verified", refused: "Not verified" }[s.state] || "Not known"), h("span", { class: "soft break", text: "rule " + s.rule + ": " + s.why }))),
        i.tag && p.fact("Confirmed", p.when(i.checked_at)),
        i.tag && p.fact("Points here since", p.when(i.changed_at)),
        p.fact("Last use", p.when(i.used_at)),
        p.fact("Digest", p.shortDigest(i.digest)),
        p.fact("Type", h("span", { class: "break", text: kindOf(i.media_type) })))),
      p.panel("Platforms", {}, h("div", { class: "platforms" }, platforms(i))),
      referrers.length > 0 && p.panel("Signatures and what else refers to it", { id: "referrers", note: "As far as they are kept" }, h("ul", { class: "mini" },
        referrers.map((r) => h("li", {}, h("span", { text: referrerKind(r) }), h("span", { class: "soft" }, p.shortDigest(r.digest), " " + f.bytes(r.size)))))),
      madeOf(i),
      i.tag && p.panel("History of the tag", { id: "history", note: "What it pointed to, the latest first" }, timeline(bindings)));
  }

  load();
  return () => {
    ended = true;
  };
}


function kindOf(mediaType) {
  if (/index|manifest\.list/.test(mediaType)) return "Index of several platforms";
  if (/schema1|v1\+/.test(mediaType) && !/oci/.test(mediaType)) return "Old manifest (schema 1)";
  return mediaType ? "Single platform" : "unknown";
}

// referrerKind says what a referrer is, by its name or by its type.
function referrerKind(r) {
  const [, named] = (r.tag || "").match(/\.(sig|att|sbom)$/) || [];
  const type = r.artifact_type || "";
  if (named === "sig" || /cosign.*sig|simplesigning/.test(type)) return "Signature, by cosign";
  if (/notary/.test(type)) return "Signature, by notation";
  if (named === "att" || /in-toto/.test(type)) return "Attestation";
  if (/sigstore\.bundle/.test(type)) return "Signature or attestation, by cosign";
  if (named === "sbom" || /spdx|cyclonedx|syft/.test(type)) return "SBOM";
  return type || (r.tag ? "List of referrers" : r.media_type);
}

// platforms lists those that were pulled with their parts, and names the others.
function platforms(i) {
  const pulled = i.platforms.filter((x) => x.state !== "absent");
  const others = i.platforms.filter((x) => x.state === "absent" && x.platform !== "attestation");
  return [
    pulled.length === 0 && p.empty("No platform was pulled yet", "Only the index is kept."),
    pulled.map((x) => h("details", { class: "platform" },
      h("summary", {}, icon("chevron"), h("span", { class: "strong", text: x.platform || "unknown platform" }), p.imagePill(x.state),
        h("span", { class: "soft num", text: x.size >= 0 ? f.bytes(x.size) : "size unknown" })),
      p.table("Parts of " + (x.platform || "this platform"), [{ title: "Part" }, { title: "Digest", class: "wide" }, { title: "State" }, { title: "Size", class: "num" }],
        (x.parts || []).map((part) => h("tr", {}, h("td", { text: part.role }), h("td", { class: "wide" }, p.shortDigest(part.digest)),
          h("td", {}, p.pill(part.state === "kept" ? "good" : part.state === "unlinked" ? "idle" : "warn", { kept: "Kept", unlinked: "To be proven", missing: "Missing" }[part.state] || part.state)),
          h("td", { class: "num", text: part.size >= 0 ? f.bytes(part.size) : "–" })))).element)),
    others.length > 0 && h("p", { class: "soft", text: "Not pulled: " + others.map((x) => x.platform || "unknown").join(", ") }),
  ];
}

// madeOf says what the configuration of the first platform that is kept tells: when it was made, how
// it is labelled and what made its layers. It is read once somebody opens it.
function madeOf(i) {
  const [digest, platform] = i.platforms.flatMap((x) => (x.parts || []).filter((part) => part.role === "config" && part.state === "kept").map((part) => [part.digest, x.platform]))[0] || [];
  if (!digest) return null;
  const room = h("div", { class: "stack" });
  let read = false;
  return p.panel("What it was made of", { id: "made" }, h("details", { class: "platform", on: { toggle: async () => {
    if (read) return;
    read = true;
    try {
      const c = await get("/content/" + digest);
      const labels = Object.entries((c.config && c.config.Labels) || {}).slice(0, 100);
      fill(room, h("dl", { class: "facts" }, p.fact("Made", c.created ? p.when(c.created) : "not told"), p.fact("Runs", h("code", { class: "break", text: [...((c.config && c.config.Entrypoint) || []), ...((c.config && c.config.Cmd) || [])].join(" ") || "–" }))),
        labels.length > 0 && h("div", {}, h("h3", { text: "Labels" }), h("ul", { class: "mini" }, labels.map(([k, v]) => h("li", {}, h("span", { class: "break", text: k }), h("span", { class: "soft break", text: String(v) }))))),
        c.history && h("div", {}, h("h3", { text: "Steps that made it" }), h("ol", { class: "mini" }, c.history.slice(0, 200).map((s) => h("li", {}, h("code", { class: "break", text: String(s.created_by || s.comment || "not told") }))))));
    } catch (fault) {
      fill(room, p.failure(fault));
    }
  } } }, h("summary", {}, icon("chevron"), h("span", { class: "strong", text: platform || "its configuration" }), h("span", { class: "soft", text: "when, how it is labelled, and by which steps" })), room));
}

function timeline(bindings) {
  return h("ol", { class: "timeline" }, bindings.map((b, n) => h("li", {},
    h("span", { class: "row-top" }, p.shortDigest(b.digest), n === 0 ? p.pill("good", "Now") : b.kept ? p.pill("idle", "Still kept") : p.pill("idle", "Gone")),
    h("span", { class: "soft", text: (f.known(b.first_seen) ? "first seen " + f.fullTime(b.first_seen) : "first seen before this was kept") +
      (f.known(b.last_seen) ? ", last confirmed " + f.fullTime(b.last_seen) : "") }))));
}
