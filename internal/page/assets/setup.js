// How clients are pointed at this mirror, by its real address, to copy.

import { h, icon } from "./dom.js";
import { panel, toast } from "./parts.js";

function block(title, where, text) {
  return h("div", { class: "setup" }, h("h3", { text: title }), h("p", { class: "soft break", text: where }),
    h("div", { class: "code" }, h("pre", { tabindex: "0" }, h("code", { text })), h("button", { class: "icon-button", type: "button", "aria-label": "Copy the lines for " + title, title: "Copy", on: { click: async () => {
      try {
        await navigator.clipboard.writeText(text);
        toast("Copied.");
      } catch {
        toast("The browser does not let it be copied.", "bad");
      }
    } } }, icon("copy"))));
}

// setup is the panel of a mirror that nothing was pulled through yet.
export function setup(status) {
  const url = status.address || location.protocol + "//" + location.hostname + ":5000";
  const host = url.replace(/^https?:\/\//, "");
  const plain = url.startsWith("http://");
  const first = status.upstreams[0] ? status.upstreams[0].name : "docker.io";
  const hub = status.upstreams.some((u) => u.name === "docker.io");
  const sample = host + "/" + (hub ? "docker.io/library/busybox:latest" : first + "/NAME:TAG");
  return panel("Point clients at this mirror", { id: "setup", note: "It mirrors " + status.upstreams.map((u) => u.name).join(", ") + " at " + url },
    h("p", { class: "waiting" }, h("span", { class: "dot", "aria-hidden": "true" }), h("span", { role: "status", text: "Waiting for the first pull…" })),
    h("div", { class: "setups" },
      hub && block("dockerd", "/etc/docker/daemon.json, then: systemctl reload docker. For Docker Hub.", JSON.stringify({ "registry-mirrors": [url] }, null, 2)),
      block("containerd", "/etc/containerd/certs.d/_default/hosts.toml, with config_path = \"/etc/containerd/certs.d\" in config.toml. For all registries.", '[host."' + url + '"]\n  capabilities = ["pull", "resolve"]'),
      block("podman", "/etc/containers/registries.conf.d/forebay.conf, for " + first, '[[registry]]\nlocation = "' + first + '"\n[[registry.mirror]]\nlocation = "' + host + '"\ninsecure = ' + plain),
      block("k3s", "/etc/rancher/k3s/registries.yaml, then: systemctl restart k3s", "mirrors:\n  \"*\":\n    endpoint:\n      - " + url),
      block("Any client, by name", "Without any setting" + (plain ? "; docker wants it among insecure-registries" : ""), "docker pull " + sample)));
}
