package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"forebay/config"
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
	for _, name := range []string{"compose.yaml", "compose.replicas.yaml"} {
		t.Run(name, func(t *testing.T) { composePublishesOnLoopbackOnly(t, name) })
	}
}

func composePublishesOnLoopbackOnly(t *testing.T, file string) {
	services, _ := in(documents(t, "../../deploy/"+file)[0], "services").(map[string]any)
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

// Three mirrors of compose have a folder each, and settings that there are.
func TestReplicasOfComposeAreMirrors(t *testing.T) {
	services, _ := in(documents(t, "../../deploy/compose.replicas.yaml")[0], "services").(map[string]any)
	proxy, err := os.ReadFile("../../deploy/haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("s", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	folders := map[any]bool{}
	for name, s := range services {
		if !strings.HasPrefix(name, "forebay") {
			continue
		}
		if volumes, _ := in(s, "volumes").([]any); len(volumes) == 1 {
			folders[volumes[0]] = true
		}
		if !strings.Contains(string(proxy), "-"+name+":5000}") {
			t.Errorf("HAProxy does not know %s", name)
		}
		env := []string{"FOREBAY_STORAGE_DIR=/var/lib/forebay"} // the image has it
		settings, _ := in(s, "environment").(map[string]any)
		for key, value := range settings {
			if text := fmt.Sprint(value); key == "FOREBAY_FLEET_SECRET_FILE" {
				env = append(env, key+"="+secret)
			} else if !strings.HasPrefix(text, "${") {
				env = append(env, key+"="+text)
			}
		}
		c, err := config.Load(config.Sources{Env: env})
		if err != nil || c.Fleet.Engine != "valkey://valkey:6379" || services["valkey"] == nil {
			t.Errorf("%s with %v: %v", name, env, err)
		}
	}
	if len(folders) != 3 {
		t.Errorf("folders of the mirrors: %v, want three", folders)
	}
}

func TestKubernetesPublishesNothing(t *testing.T) {
	for _, dir := range []string{"../../deploy/kubernetes", "../../deploy/kubernetes/replicas"} {
		t.Run(path.Base(dir), func(t *testing.T) { kubernetesPublishesNothing(t, dir) })
	}
}

func kubernetesPublishesNothing(t *testing.T, dir string) {
	guarded, labelled := false, false
	all := append(documents(t, dir+"/namespace.yaml"), documents(t, dir+"/forebay.yaml")...)
	if more := dir + "/valkey.yaml"; path.Base(dir) == "replicas" {
		all = append(all, documents(t, more)...)
	}
	for _, doc := range all {
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
