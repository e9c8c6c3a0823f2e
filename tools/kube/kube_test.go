// Package kube renders what deploy/ has for Kubernetes, as helm and kustomize do, and holds it
// against the types of Kubernetes and of the Prometheus operator: a field that they do not
// have, or of another type, is an error.
package kube

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	chartutil "helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
)

var update = flag.Bool("update", false, "rewrite deploy/kubernetes from the chart")

const chartDir = "../../deploy/helm/forebay"

// render does what "helm template" does. values is YAML.
func render(t *testing.T, values string) ([]map[string]any, error) {
	t.Helper()
	c, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	given, err := common.ReadValues([]byte(values))
	if err != nil {
		t.Fatal(err)
	}
	if err := util.ProcessDependencies(c, given); err != nil {
		t.Fatal(err)
	}
	all, err := chartutil.ToRenderValues(c, given, common.ReleaseOptions{Name: "forebay", Namespace: "forebay", IsInstall: true}, common.DefaultCapabilities)
	if err != nil {
		return nil, err // the schema
	}
	files, err := engine.Engine{Strict: true}.Render(c, all)
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range files {
		if strings.HasSuffix(name, ".yaml") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var docs []map[string]any
	for _, name := range names {
		docs = append(docs, documents(t, files[name])...)
	}
	return docs, nil
}

func documents(t *testing.T, text string) []map[string]any {
	t.Helper()
	var docs []map[string]any
	for _, part := range regexp.MustCompile(`(?m)^---$`).Split(text, -1) {
		var doc map[string]any
		if err := yaml.UnmarshalStrict([]byte(part), &doc); err != nil {
			t.Fatalf("%v:\n%s", err, part)
		}
		if doc != nil {
			docs = append(docs, doc)
		}
	}
	return docs
}

// types are those of what is rendered.
func types() map[string]func() any {
	return map[string]func() any{
		"v1/Namespace":      func() any { return &corev1.Namespace{} },
		"v1/ConfigMap":      func() any { return &corev1.ConfigMap{} },
		"v1/Service":        func() any { return &corev1.Service{} },
		"v1/ServiceAccount": func() any { return &corev1.ServiceAccount{} },
		"rbac.authorization.k8s.io/v1/ClusterRole":        func() any { return &rbacv1.ClusterRole{} },
		"rbac.authorization.k8s.io/v1/ClusterRoleBinding": func() any { return &rbacv1.ClusterRoleBinding{} },
		"apps/v1/StatefulSet":                             func() any { return &appsv1.StatefulSet{} },
		"apps/v1/Deployment":                              func() any { return &appsv1.Deployment{} },
		"apps/v1/DaemonSet":                               func() any { return &appsv1.DaemonSet{} },
		"networking.k8s.io/v1/NetworkPolicy":              func() any { return &networkingv1.NetworkPolicy{} },
		"networking.k8s.io/v1/Ingress":                    func() any { return &networkingv1.Ingress{} },
		"policy/v1/PodDisruptionBudget":                   func() any { return &policyv1.PodDisruptionBudget{} },
		"monitoring.coreos.com/v1/ServiceMonitor":         func() any { return &monitoringv1.ServiceMonitor{} },
		"monitoring.coreos.com/v1/PrometheusRule":         func() any { return &monitoringv1.PrometheusRule{} },
	}
}

// typed reads a document into its type, strictly.
func typed(doc map[string]any) (any, error) {
	name := fmt.Sprintf("%v/%v", doc["apiVersion"], doc["kind"])
	make, ok := types()[name]
	if !ok {
		return nil, fmt.Errorf("%s is unknown", name)
	}
	text, err := yaml.Marshal(doc)
	if err != nil {
		return nil, err
	}
	out := make()
	return out, yaml.UnmarshalStrict(text, out)
}

// everything turns on all that the chart has.
const everything = `
kind: DaemonSet
image: {repository: registry.lan/forebay, digest: "sha256:0123456789012345678901234567890123456789012345678901234567890123", pullSecrets: [{name: pull}]}
secrets: [{name: hub, secretName: docker-hub}]
config: {upstreams: {docker.io: {username: u, password_file: /etc/forebay/secrets/hub/password}}}
extraCA: {configMap: our-ca}
tls: {secretName: mirror-tls}
service: {internalTrafficPolicy: Local, annotations: {a: b}}
networkPolicy: {nodes: [192.0.2.0/24], registries: [10.1.0.0/16]}
ingress: {enabled: true, host: mirror.lan, tlsSecretName: x, className: nginx, annotations: {a: b}}
nodeSetup: {enabled: true}
monitoring: {serviceMonitor: true, prometheusRule: true, dashboard: true, labels: {release: p}}
nodeSelector: {a: b}
tolerations: [{operator: Exists}]
podAnnotations: {a: b}
`

// fleet is three replicas that share what they fetch.
const fleet = `
replicas: 3
fleet: {engine: "valkey://valkey:6379", secretName: forebay-fleet, password: true}
`

func variants() map[string]string {
	return map[string]string{
		"default":                      "",
		"three":                        "replicas: 3\nstorage: {size: 1Ti, className: fast}\n",
		"fleet":                        fleet,
		"fleet, with what it may need": fleet + "podDisruptionBudget: {enabled: false}\nextraCA: {configMap: our-ca}\n",
		"daemonset":                    "kind: DaemonSet\nstorage: {hostPath: /var/lib/forebay}\n",
		"words that YAML takes for others": "ingress: {enabled: true, host: '*.mirror.lan', tlsSecretName: '1', className: 'on'}\nstorage: {className: '2'}\ntls: {secretName: 'true'}\nextraCA: {configMap: 'null'}\n" +
			"secrets: [{name: hub, secretName: '3'}]\nnetworkPolicy: {monitoringNamespace: '4'}\npodAnnotations: {prometheus.io/scrape: 'false'}\nmonitoring: {dashboard: true, labels: {grafana_dashboard: '5', app.kubernetes.io/name: a}}\n",
		"everything": everything,
		"everything, statefulset": strings.Replace(strings.Replace(everything, "kind: DaemonSet", "kind: StatefulSet\nreplicas: 3", 1),
			"nodeSetup: {enabled: true}", "nodeSetup: {enabled: true, mirror: 'http://10.96.0.9:5000'}", 1) + "affinity: {nodeAffinity: {}}\nnodes: {list: true, apiServer: [10.0.0.0/24]}\n",
	}
}

func TestChartRendersWhatKubernetesTakes(t *testing.T) {
	seen := map[string]bool{}
	for name, values := range variants() {
		t.Run(name, func(t *testing.T) {
			docs, err := render(t, values)
			if err != nil {
				t.Fatal(err)
			}
			names := map[string]bool{}
			for _, doc := range docs {
				if _, err := typed(doc); err != nil {
					t.Errorf("%v: %v", doc["kind"], err)
				}
				id := fmt.Sprint(doc["kind"], doc["metadata"].(map[string]any)["name"])
				if names[id] {
					t.Errorf("%s is there twice", id)
				}
				names[id] = true
				seen[fmt.Sprintf("%v/%v", doc["apiVersion"], doc["kind"])] = true
			}
		})
	}
	for name := range types() {
		if name != "v1/Namespace" && name != "apps/v1/Deployment" && !seen[name] {
			t.Errorf("no variant has %s", name)
		}
	}
	// What is not a field is found.
	docs, err := render(t, "")
	if err != nil {
		t.Fatal(err)
	}
	docs[0]["specs"] = 1
	if _, err := typed(docs[0]); err == nil {
		t.Error("a field that there is not passes")
	}
}

func TestChartRefusesValuesThatDoNotFit(t *testing.T) {
	for _, values := range []string{
		"replica: 1", "replicas: 0", "kind: Deployment", "image: {repository: ''}", "image: {digest: 'sha256:1'}",
		"networkPolicy: {nodes: [0.0.0.0/0]}", "networkPolicy: {nodes: [everybody]}", "config: {listen: ':80'}", "config: {storage: {dir: /x}}",
		"ingress: {enabled: true}", "nodeSetup: {enabled: true}", "secrets: [{name: hub, value: hunter2}]", "service: {type: LoadBalancer}",
		"kind: DaemonSet\nnodes: {list: true}", "fleet: {engine: 'valkey://x:1'}", "fleet: {engine: 'http://x', secretName: s}", "kind: DaemonSet\nfleet: {engine: 'valkey://x:1', secretName: s}", "config: {fleet: {}}",
		"fleet: {engine: 'valkey://x:1', secretName: s, engineAt: [{}]}", "nodes: {apiServer: [everybody]}",
	} {
		if _, err := render(t, values); err == nil {
			t.Errorf("values %s are taken", values)
		}
	}
}

// Replicas of a fleet have a name and a port for each other, which nobody else reaches, a disk each, and know
// where they are; their service sends clients to any of them.
func TestReplicasOfAFleetReachEachOther(t *testing.T) {
	docs, err := render(t, fleet)
	if err != nil {
		t.Fatal(err)
	}
	var set *appsv1.StatefulSet
	var policy *networkingv1.NetworkPolicy
	services := map[string]*corev1.Service{}
	for _, doc := range docs {
		one, err := typed(doc)
		if err != nil {
			t.Fatal(err)
		}
		switch one := one.(type) {
		case *appsv1.StatefulSet:
			set = one
		case *networkingv1.NetworkPolicy:
			policy = one
		case *corev1.Service:
			services[one.Name] = one
		}
	}
	peers := services["forebay-peers"]
	if peers == nil || peers.Spec.ClusterIP != "None" || !peers.Spec.PublishNotReadyAddresses || peers.Spec.Ports[0].Port != 5002 || set.Spec.ServiceName != peers.Name {
		t.Errorf("headless service %+v of %q", peers, set.Spec.ServiceName)
	}
	if services["forebay"].Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		t.Error("a client stays with one replica, although any serves it")
	}
	if *set.Spec.Replicas != 3 || len(set.Spec.VolumeClaimTemplates) != 1 || len(set.Spec.Template.Spec.TopologySpreadConstraints) != 2 {
		t.Errorf("%d replicas with %d disks each, spread by %v", *set.Spec.Replicas, len(set.Spec.VolumeClaimTemplates), set.Spec.Template.Spec.TopologySpreadConstraints)
	}
	from := map[string]string{}
	for _, e := range set.Spec.Template.Spec.Containers[0].Env {
		if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil {
			from[e.Name] = e.ValueFrom.FieldRef.FieldPath
		}
	}
	if from["FOREBAY_FLEET_ADVERTISE"] != "status.podIP" || from["FOREBAY_FLEET_ZONE"] != "metadata.labels['topology.kubernetes.io/zone']" {
		t.Errorf("of the downward API come %v", from)
	}
	in, out := false, false
	for _, r := range policy.Spec.Ingress {
		if r.Ports[0].Port.StrVal == "peers" {
			in = len(r.From) == 1 && reflect.DeepEqual(r.From[0].PodSelector.MatchLabels, policy.Spec.PodSelector.MatchLabels) && r.From[0].NamespaceSelector == nil
		}
	}
	for _, r := range policy.Spec.Egress {
		if r.Ports[0].Port.IntVal == 5002 {
			out = len(r.To) == 1 && reflect.DeepEqual(r.To[0].PodSelector.MatchLabels, policy.Spec.PodSelector.MatchLabels)
		}
	}
	if !in || !out {
		t.Errorf("the network policy lets replicas in: %t, out: %t", in, out)
	}
}

// The pods have no more than they need; the one that writes on nodes is the only exception.
func TestPodsHaveNoMoreThanTheyNeed(t *testing.T) {
	for name, values := range variants() {
		docs, err := render(t, values)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range docs {
			one, err := typed(doc)
			if err != nil {
				t.Fatal(err)
			}
			var pod corev1.PodSpec
			setup := false
			switch one := one.(type) {
			case *appsv1.StatefulSet:
				pod = one.Spec.Template.Spec
			case *appsv1.DaemonSet:
				pod, setup = one.Spec.Template.Spec, strings.HasSuffix(one.Name, "node-setup")
			case *rbacv1.ClusterRole:
				if want := []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"list"}}}; !reflect.DeepEqual(one.Rules, want) {
					t.Errorf("%s: the mirror may %v, want to list nodes", name, one.Rules)
				}
				continue
			default:
				continue
			}
			c := pod.Containers[0]
			if pod.HostNetwork || pod.HostPID || *pod.AutomountServiceAccountToken != (!setup && strings.Contains(values, "nodes: {list: true")) || *c.SecurityContext.AllowPrivilegeEscalation ||
				!*c.SecurityContext.ReadOnlyRootFilesystem || !slices.Equal(c.SecurityContext.Capabilities.Drop, []corev1.Capability{"ALL"}) ||
				pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
				t.Errorf("%s: a pod has more than it needs", name)
			}
			if !setup && (pod.SecurityContext.RunAsNonRoot == nil || !*pod.SecurityContext.RunAsNonRoot) {
				t.Errorf("%s: the mirror runs as root", name)
			}
			for _, port := range c.Ports {
				if port.HostPort != 0 && port.HostIP != "127.0.0.1" {
					t.Errorf("%s: port %d is on all addresses of a node", name, port.HostPort)
				}
			}
		}
	}
}

// deploy/kubernetes is the chart with its default values, for those who take no chart.
func TestKustomizeBaseIsTheChart(t *testing.T) {
	for file, values := range map[string]string{"forebay.yaml": "", "daemonset/forebay.yaml": "kind: DaemonSet\n", "replicas/forebay.yaml": strings.Replace(fleet, ", password: true", "", 1)} {
		docs, err := render(t, values)
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		want.WriteString("# Rendered from deploy/helm/forebay: go test -C tools/kube -run Kustomize -update\n")
		for _, doc := range docs {
			text, err := yaml.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			want.WriteString("---\n")
			want.Write(text)
		}
		name := "../../deploy/kubernetes/" + file
		if *update {
			if err := os.WriteFile(name, want.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%s is not what the chart renders (%v): go test -C tools/kube -run Kustomize -update", name, err)
		}
	}
	for dir, kinds := range map[string][]string{
		"../../deploy/kubernetes":           {"Namespace", "ConfigMap", "Service", "PodDisruptionBudget", "StatefulSet", "NetworkPolicy"},
		"../../deploy/kubernetes/replicas":  {"Namespace", "ConfigMap", "Service", "Service", "Service", "PodDisruptionBudget", "StatefulSet", "NetworkPolicy", "NetworkPolicy", "Deployment"},
		"../../deploy/kubernetes/daemonset": {"Namespace", "ConfigMap", "Service", "PodDisruptionBudget", "DaemonSet", "NetworkPolicy"},
	} {
		built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range built.Resources() {
			got = append(got, r.GetKind())
			doc, err := r.Map()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := typed(doc); err != nil {
				t.Errorf("%s: %v", dir, err)
			}
			if r.GetKind() != "Namespace" && r.GetNamespace() != "forebay" {
				t.Errorf("%s: %s is in the namespace %q", dir, r.GetKind(), r.GetNamespace())
			}
		}
		slices.Sort(got)
		slices.Sort(kinds)
		if !slices.Equal(got, kinds) {
			t.Errorf("%s has %v, want %v", dir, got, kinds)
		}
	}
}
