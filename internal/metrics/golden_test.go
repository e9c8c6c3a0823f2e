package metrics_test

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"go.uber.org/goleak"

	"forebay/internal/metrics"
)

var update = flag.Bool("update", false, "write testdata and the documentation anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// golden compares text with a file, or writes it.
func golden(t *testing.T, file, text string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("%s is not what the program has (-file +program); if that is meant, run go test ./internal/metrics -update\n%s", file, diff)
	}
}

// What dashboards and alerts of others rely on changes only knowingly.
func TestNamesTypesAndLabelsAreGolden(t *testing.T) {
	var b strings.Builder
	for _, f := range metrics.Families() {
		fmt.Fprintf(&b, "%s %s {%s}\n", f.Name, f.Type, strings.Join(f.Labels, ","))
	}
	golden(t, filepath.Join("testdata", "metrics.txt"), b.String())
}

const (
	tableBegins = "<!-- metrics: written by go test ./internal/metrics -update -->\n"
	tableEnds   = "<!-- end of metrics -->\n"
)

func TestDocumentationListsEveryMetric(t *testing.T) {
	file := filepath.Join("..", "..", "docs", "metrics.md")
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(doc), tableBegins)
	_, after, ended := strings.Cut(rest, tableEnds)
	if !ok || !ended {
		t.Fatalf("%s has no place for the table: it begins with %q and ends with %q", file, tableBegins, tableEnds)
	}
	var b strings.Builder
	b.WriteString("| name | type | labels | what it says |\n|---|---|---|---|\n")
	for _, f := range metrics.Families() {
		labels := strings.Join(f.Labels, ", ")
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Name, f.Type, labels, f.Help)
	}
	golden(t, file, before+tableBegins+b.String()+tableEnds+after)
}

func TestLabelsAreBounded(t *testing.T) {
	known := map[string]string{
		"upstream": "configured", "endpoint": "configured", "target": "configured", "host": "configured", "credential": "configured",
		"version": "of the build", "revision": "of the build", "go_version": "of the build",
		"kind": "fixed", "result": "fixed", "outcome": "fixed", "limit": "fixed", "cause": "fixed", "source": "fixed",
		"tag": "fixed: release or floating", "access": "fixed", "severity": "fixed", "state": "fixed", "operation": "fixed", "role": "fixed", "direction": "fixed",
	}
	for _, f := range metrics.Families() {
		for _, label := range f.Labels {
			if known[label] == "" {
				t.Errorf("%s has the label %s: say here what bounds its values", f.Name, label)
			}
		}
	}
}

// tool returns Prometheus's own checker.
func tool(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool is missing: apt-get install --no-install-recommends prometheus (make deps does)")
	}
	return path
}

// lint has promtool look at metrics as text.
func lint(t *testing.T, families []*dto.MetricFamily) {
	t.Helper()
	var text bytes.Buffer
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "forebay_") {
			continue // Go's own
		}
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), tool(t), "check", "metrics")
	cmd.Stdin = &text
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func names(families []*dto.MetricFamily) map[string]*dto.MetricFamily {
	all := map[string]*dto.MetricFamily{}
	for _, f := range families {
		all[f.GetName()] = f
	}
	return all
}

// conforms holds what was gathered against what is said of it: nothing may come that is
// not listed, and nothing with other labels.
func conforms(t *testing.T, families []*dto.MetricFamily) {
	t.Helper()
	said := map[string]metrics.Family{}
	for _, f := range metrics.Families() {
		said[f.Name] = f
	}
	for name, f := range names(families) {
		if !strings.HasPrefix(name, "forebay_") {
			continue
		}
		want, ok := said[name]
		if !ok {
			t.Errorf("%s is not in the list of metrics", name)
			continue
		}
		if kind := strings.ToLower(f.GetType().String()); kind != want.Type {
			t.Errorf("%s is a %s, the list says %s", name, kind, want.Type)
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName())
			}
			if len(labels) != len(want.Labels) {
				t.Errorf("%s has labels %v, the list says %v", name, labels, want.Labels)
			}
		}
	}
}

func scrape(t *testing.T, h http.Handler, accept string) (status int, kind, body string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Header().Get("Content-Type"), w.Body.String()
}
