package main

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// What ships for systemd, compose and Kubernetes lets nobody reach the mirror from elsewhere until
// somebody writes that down.

// documents reads the YAML documents of a file.
func documents(t *testing.T, name string) []map[string]any {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	loader, err := yaml.NewLoader(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	var all []map[string]any
	for {
		doc := map[string]any{}
		if err := loader.Load(&doc); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, doc)
	}
}

// in returns what a path of keys leads to, nil for nothing.
func in(doc any, path ...string) any {
	for _, key := range path {
		m, _ := doc.(map[string]any)
		doc = m[key]
	}
	return doc
}

func TestComposePublishesOnLoopbackOnly(t *testing.T) {
	services, _ := in(documents(t, "../../deploy/compose.yaml")[0], "services").(map[string]any)
	published := 0
	for name, s := range services {
		ports, _ := in(s, "ports").([]any)
		for _, p := range ports {
			published++
			if text, ok := p.(string); !ok || !strings.HasPrefix(text, "127.0.0.1:") {
				t.Errorf("service %s publishes %v, want it on 127.0.0.1 only", name, p)
			}
		}
		if in(s, "network_mode") != nil {
			t.Errorf("service %s has the network %v", name, in(s, "network_mode"))
		}
	}
	if published == 0 {
		t.Error("no port is published: this machine cannot reach the mirror")
	}
}

func TestKubernetesPublishesNothing(t *testing.T) {
	guarded, labelled := false, false
	for _, doc := range append(documents(t, "../../deploy/kubernetes/namespace.yaml"), documents(t, "../../deploy/kubernetes/forebay.yaml")...) {
		spec := in(doc, "spec")
		switch doc["kind"] {
		case "Namespace":
			labelled = in(doc, "metadata", "labels", "pod-security.kubernetes.io/enforce") == "restricted"
		case "Service":
			if kind := in(spec, "type"); kind != nil && kind != "ClusterIP" || in(spec, "externalIPs") != nil {
				t.Errorf("a Service of type %v is reached from outside", kind)
			}
		case "Ingress", "Gateway", "HTTPRoute":
			t.Errorf("there is a way in from outside: %v", doc["kind"])
		case "NetworkPolicy":
			kinds, _ := in(spec, "policyTypes").([]any)
			guarded = slices.Contains(kinds, any("Ingress"))
			ingress, _ := in(spec, "ingress").([]any)
			for _, rule := range ingress {
				from, _ := in(rule, "from").([]any)
				if len(from) == 0 {
					t.Errorf("the NetworkPolicy lets everybody in: %v", rule)
				}
				for _, peer := range from {
					if cidr, _ := in(peer, "ipBlock", "cidr").(string); strings.HasSuffix(cidr, "/0") {
						t.Errorf("the NetworkPolicy lets everybody in: %v", rule)
					}
				}
			}
		case "StatefulSet", "Deployment", "DaemonSet":
			pod := in(spec, "template", "spec")
			if in(pod, "hostNetwork") != nil || in(pod, "securityContext", "runAsNonRoot") != true || in(pod, "securityContext", "seccompProfile", "type") != "RuntimeDefault" {
				t.Errorf("%v: the pod has more than it needs: %v", doc["kind"], pod)
			}
			containers, _ := in(pod, "containers").([]any)
			for _, c := range containers {
				drop, _ := in(c, "securityContext", "capabilities", "drop").([]any)
				if in(c, "securityContext", "allowPrivilegeEscalation") != false || in(c, "securityContext", "readOnlyRootFilesystem") != true || !slices.Contains(drop, any("ALL")) {
					t.Errorf("%v: the container has more than it needs: %v", doc["kind"], in(c, "securityContext"))
				}
				ports, _ := in(c, "ports").([]any)
				for _, p := range ports {
					if in(p, "hostPort") != nil && in(p, "hostIP") != "127.0.0.1" {
						t.Errorf("%v: port %v is on all addresses of a node", doc["kind"], p)
					}
				}
			}
		}
	}
	if !guarded || !labelled {
		t.Errorf("NetworkPolicy for what comes in: %t, pod security of the namespace: %t; want both", guarded, labelled)
	}
}

func TestSystemdUnitGivesNoMoreThanIsNeeded(t *testing.T) {
	text, err := os.ReadFile("../../deploy/forebay.service")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for _, want := range []string{
		"DynamicUser=yes", "StateDirectoryMode=0700", "UMask=0077", "ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes", "PrivateDevices=yes",
		"NoNewPrivileges=yes", "ProtectProc=invisible", "ProtectClock=yes", "ProtectHostname=yes", "ProtectKernelLogs=yes", "ProtectKernelTunables=yes",
		"ProtectKernelModules=yes", "ProtectControlGroups=yes", "RestrictNamespaces=yes", "RestrictRealtime=yes", "RestrictSUIDSGID=yes", "LockPersonality=yes",
		"MemoryDenyWriteExecute=yes", "SystemCallFilter=~@privileged @resources", "AmbientCapabilities=", "CapabilityBoundingSet=",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("the unit lacks %s", want)
		}
	}
}
