//go:build controlplane

package kube

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// The programs are built by "make test-kube", which says where they are.
var programs = os.Getenv("FOREBAY_CONTROLPLANE")

const token = "of-the-test"

// controlPlane is a real etcd and a real API server. No controller and no kubelet runs: what is
// applied is taken or refused, and stays as it was given.
type controlPlane struct {
	url, kubeconfig string
	client          *http.Client
}

func program(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(programs, name)
	if _, err := os.Stat(path); programs == "" || err != nil {
		t.Fatalf("no %s (%v): run make test-kube, which builds it", name, err)
	}
	return path
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// daemon runs a program until the end of the test.
func daemon(t *testing.T, name string, args ...string) {
	t.Helper()
	var log bytes.Buffer // read after its end only
	cmd := exec.Command(program(t, name), args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			said := log.Bytes()
			t.Logf("%s: %s", name, said[max(0, len(said)-4000):])
		}
	})
}

func startControlPlane(t *testing.T) *controlPlane {
	t.Helper()
	dir := t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	private := filepath.Join(dir, "sa.key")
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	tokens := filepath.Join(dir, "tokens.csv")
	for file, content := range map[string][]byte{private: text, tokens: []byte(token + `,admin,1,"system:masters"` + "\n")} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	etcd := "http://127.0.0.1:" + freePort(t)
	peers := "http://127.0.0.1:" + freePort(t)
	daemon(t, "etcd", "--data-dir", filepath.Join(dir, "etcd"), "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
		"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "default="+peers)
	port := freePort(t)
	daemon(t, "kube-apiserver", "--etcd-servers", etcd, "--secure-port", port, "--bind-address", "127.0.0.1",
		"--advertise-address", "127.0.0.1", "--cert-dir", filepath.Join(dir, "certs"), "--service-cluster-ip-range", "10.96.0.0/16",
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", private,
		"--service-account-signing-key-file", private, "--token-auth-file", tokens, "--authorization-mode", "RBAC",
		"--allow-privileged", "--disable-admission-plugins", "ServiceAccount") // no controller makes accounts
	c := &controlPlane{url: "https://127.0.0.1:" + port, kubeconfig: filepath.Join(dir, "kubeconfig"),
		client: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, Timeout: time.Minute}}
	config := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: t, contexts: [{name: t, context: {cluster: t, user: t}}],
clusters: [{name: t, cluster: {server: %q, insecure-skip-tls-verify: true}}], users: [{name: t, user: {token: %s}}]}`, c.url, token)
	if err := os.WriteFile(c.kubeconfig, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(3 * time.Minute)
	for {
		status, _, body, err := c.try("GET", "/readyz", "", nil)
		if err == nil && status == http.StatusOK {
			return c
		}
		if time.Now().After(end) {
			t.Fatalf("the API server is not ready: %d %s %v", status, body, err)
		}
		time.Sleep(100 * time.Millisecond) // nothing tells when it is
	}
}

func (c *controlPlane) try(method, path, kind string, body []byte) (int, http.Header, []byte, error) {
	req, err := http.NewRequest(method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, text, err
}

// plurals are the last parts of paths.
var plurals = map[string]string{
	"Namespace": "namespaces", "ConfigMap": "configmaps", "Service": "services", "StatefulSet": "statefulsets", "DaemonSet": "daemonsets",
	"NetworkPolicy": "networkpolicies", "Ingress": "ingresses", "PodDisruptionBudget": "poddisruptionbudgets", "Pod": "pods",
	"ServiceAccount": "serviceaccounts", "ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings",
	"ServiceMonitor": "servicemonitors", "PrometheusRule": "prometheusrules", "CustomResourceDefinition": "customresourcedefinitions",
}

func pathOf(doc map[string]any) string {
	version, kind := doc["apiVersion"].(string), doc["kind"].(string)
	meta := doc["metadata"].(map[string]any)
	path := "/apis/" + version
	if version == "v1" {
		path = "/api/v1"
	}
	if kind != "Namespace" && kind != "CustomResourceDefinition" && !strings.HasPrefix(kind, "ClusterRole") {
		path += fmt.Sprintf("/namespaces/%v", meta["namespace"])
	}
	return fmt.Sprintf("%s/%s/%v", path, plurals[kind], meta["name"])
}

// apply is "kubectl apply --server-side", strictly: unknown and double fields are refused. It returns
// what the server warns of.
func (c *controlPlane) apply(t *testing.T, doc map[string]any) []string {
	t.Helper()
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	status, header, body, err := c.try("PATCH", pathOf(doc)+"?fieldManager=test&fieldValidation=Strict", "application/apply-patch+yaml", text)
	if err != nil || status/100 != 2 {
		t.Errorf("%v %v: %d %s %v", doc["kind"], pathOf(doc), status, body, err)
	}
	return header.Values("Warning")
}

func (c *controlPlane) get(t *testing.T, path string) (map[string]any, int) {
	t.Helper()
	status, _, body, err := c.try("GET", path, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(body, &doc); err != nil && status != http.StatusNotFound { // which may come as text
		t.Fatalf("%s: %d %s, %v", path, status, body, err)
	}
	return doc, status
}

func (c *controlPlane) helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t, "helm"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig, "HELM_CACHE_HOME="+t.TempDir(), "HELM_CONFIG_HOME="+t.TempDir(), "HELM_DATA_HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// installMonitoring makes the kinds of the Prometheus operator known. Whether their fields are right is
// held against the operator's own types in kube_test.go.
func (c *controlPlane) installMonitoring(t *testing.T) {
	t.Helper()
	for plural, kind := range map[string]string{"servicemonitors": "ServiceMonitor", "prometheusrules": "PrometheusRule"} {
		c.apply(t, map[string]any{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
			"metadata": map[string]any{"name": plural + ".monitoring.coreos.com"},
			"spec": map[string]any{"group": "monitoring.coreos.com", "scope": "Namespaced",
				"names": map[string]any{"plural": plural, "singular": strings.ToLower(kind), "kind": kind, "listKind": kind + "List"},
				"versions": []any{map[string]any{"name": "v1", "served": true, "storage": true, "schema": map[string]any{
					"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}})
		path := "/apis/monitoring.coreos.com/v1/" + plural
		for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) { // nothing tells when it is served
			if _, status := c.get(t, path); status == http.StatusOK {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s is not served", path)
			}
		}
	}
}

// admitted makes a pod of the template of a workload, which is what its controller would do.
func (c *controlPlane) admitted(t *testing.T, workload map[string]any) {
	t.Helper()
	spec := workload["spec"].(map[string]any)
	template := spec["template"].(map[string]any)
	meta := workload["metadata"].(map[string]any)
	pod := map[string]any{"apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
		"metadata": map[string]any{"name": fmt.Sprintf("%v-0", meta["name"]), "namespace": meta["namespace"], "labels": template["metadata"].(map[string]any)["labels"]}}
	if claims, ok := spec["volumeClaimTemplates"].([]any); ok { // the controller adds them
		podSpec := template["spec"].(map[string]any)
		volumes, _ := podSpec["volumes"].([]any)
		for _, claim := range claims {
			name := claim.(map[string]any)["metadata"].(map[string]any)["name"]
			volumes = append(volumes, map[string]any{"name": name, "persistentVolumeClaim": map[string]any{"claimName": name}})
		}
		podSpec["volumes"] = volumes
	}
	if warned := c.apply(t, pod); len(warned) > 0 {
		t.Errorf("pod of %v: %v", meta["name"], warned)
	}
	if status, _, body, err := c.try("DELETE", pathOf(pod)+"?gracePeriodSeconds=0", "", nil); err != nil || status/100 != 2 {
		t.Errorf("delete: %d %s %v", status, body, err)
	}
}

// What is rendered is installed, changed and removed by the real helm on a real API server. In a
// namespace that takes restricted pods only it warns of nothing, and such pods are admitted; what
// has to write on nodes is told apart.
func TestChartIsInstalledChangedAndRemoved(t *testing.T) {
	c := startControlPlane(t)
	c.installMonitoring(t)
	file := filepath.Join(t.TempDir(), "values.yaml")
	for i, name := range slices.Sorted(maps.Keys(variants())) {
		t.Run(name, func(t *testing.T) {
			values := variants()[name]
			namespace := fmt.Sprintf("forebay-%d", i)
			level := "restricted"
			if strings.Contains(values, "DaemonSet") || strings.Contains(values, "nodeSetup") {
				level = "privileged" // a port, and folders, of the node
			}
			c.apply(t, map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": namespace,
				"labels": map[string]any{"pod-security.kubernetes.io/enforce": level, "pod-security.kubernetes.io/warn": level}}})
			if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := c.helm(t, "install", "forebay", chartDir, "--namespace", namespace, "-f", file)
			if err != nil || strings.Contains(out, "would violate") || strings.Contains(out, "unknown field") {
				t.Fatalf("helm install: %s, %v", out, err)
			}
			docs, err := render(t, values)
			if err != nil {
				t.Fatal(err)
			}
			for _, doc := range docs {
				meta := doc["metadata"].(map[string]any)
				meta["namespace"] = namespace
				if strings.HasPrefix(doc["kind"].(string), "ClusterRole") { // named by the namespace that was rendered for
					meta["name"] = namespace + strings.TrimPrefix(meta["name"].(string), "forebay")
				}
				kept, status := c.get(t, pathOf(doc))
				if status != http.StatusOK {
					t.Errorf("%s is not there: %d", pathOf(doc), status)
					continue
				}
				if kind := doc["kind"]; kind == "StatefulSet" || kind == "DaemonSet" {
					c.admitted(t, kept)
				}
			}
			before, _ := c.get(t, "/apis/apps/v1/namespaces/"+namespace+"/statefulsets/forebay")
			out, err = c.helm(t, "upgrade", "forebay", chartDir, "--namespace", namespace, "-f", file, "--set", "config.log_level=debug")
			if err != nil || strings.Contains(out, "would violate") {
				t.Fatalf("helm upgrade: %s, %v", out, err)
			}
			after, _ := c.get(t, "/apis/apps/v1/namespaces/"+namespace+"/statefulsets/forebay")
			if strings.Contains(values, "DaemonSet") == (before["kind"] == "StatefulSet") {
				t.Errorf("a StatefulSet: %v", before["kind"])
			}
			if before["kind"] == "StatefulSet" && fmt.Sprint(before["spec"].(map[string]any)["template"]) == fmt.Sprint(after["spec"].(map[string]any)["template"]) {
				t.Error("a changed configuration starts no pod anew")
			}
			if out, err := c.helm(t, "uninstall", "forebay", "--namespace", namespace); err != nil {
				t.Fatalf("helm uninstall: %s, %v", out, err)
			}
			for _, doc := range docs {
				if kept, status := c.get(t, pathOf(doc)); status != http.StatusNotFound && kept["metadata"].(map[string]any)["deletionTimestamp"] == nil {
					t.Errorf("%s is still there: %d", pathOf(doc), status)
				}
			}
		})
	}
}

// kubectl apply --server-side -k deploy/kubernetes, twice: the second time nothing changes.
func TestKustomizeBaseIsTaken(t *testing.T) {
	c := startControlPlane(t)
	for _, dir := range []string{"../../deploy/kubernetes", "../../deploy/kubernetes/daemonset"} {
		built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
		if err != nil {
			t.Fatal(err)
		}
		versions := map[string]any{}
		for round := range 2 {
			for _, r := range built.Resources() {
				doc, err := r.Map()
				if err != nil {
					t.Fatal(err)
				}
				if warned := c.apply(t, doc); len(warned) > 0 {
					t.Errorf("%s: %v", pathOf(doc), warned)
				}
				kept, _ := c.get(t, pathOf(doc))
				version := kept["metadata"].(map[string]any)["resourceVersion"]
				if round == 1 && versions[pathOf(doc)] != version {
					t.Errorf("%s changed", pathOf(doc))
				}
				versions[pathOf(doc)] = version
				if kind := r.GetKind(); round == 1 && (kind == "StatefulSet" || kind == "DaemonSet") {
					c.admitted(t, kept)
				}
			}
		}
	}
}
