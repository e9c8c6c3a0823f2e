package metrics_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"forebay/internal/metrics"
)

// deployed names a file that is shipped for operators.
func deployed(parts ...string) string {
	return filepath.Join(append([]string{"..", "..", "deploy"}, parts...)...)
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tool(t), args...)
	cmd.Dir = deployed("prometheus")
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "FAILED") {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestRulesAndAlertsDoWhatTheirTestsSay(t *testing.T) {
	promtool(t, "check", "rules", "forebay.rules.yml", "forebay.alerts.yml")
	promtool(t, "test", "rules", "tests.yml")
}

// Every alert has a test, so that it is seen to fire.
func TestEveryAlertIsTested(t *testing.T) {
	tests := readFile(t, deployed("prometheus", "tests.yml"))
	for _, m := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(readFile(t, deployed("prometheus", "forebay.alerts.yml")), -1) {
		fires := regexp.MustCompile(`- alertname: ` + m[1] + `\n\s+eval_time: \S+\n\s+exp_alerts:\n`)
		if !fires.MatchString(tests) {
			t.Errorf("no test in which the alert %s fires", m[1])
		}
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// vocabulary is what expressions may be made of: our metrics, with the labels of each, and
// what the rules record.
type vocabulary struct {
	labels   map[string][]string // by name of a metric or of one of its series
	recorded map[string]bool
}

func words(t *testing.T) vocabulary {
	t.Helper()
	v := vocabulary{labels: map[string][]string{}, recorded: map[string]bool{}}
	for _, f := range metrics.Families() {
		v.labels[f.Name] = f.Labels
		if f.Type == "histogram" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				v.labels[f.Name+suffix] = append(slices.Clone(f.Labels), "le")
			}
		}
	}
	for _, m := range regexp.MustCompile(`- record: (\S+)`).FindAllStringSubmatch(readFile(t, deployed("prometheus", "forebay.rules.yml")), -1) {
		v.recorded[m[1]] = true
	}
	if len(v.recorded) == 0 {
		t.Fatal("the rules record nothing")
	}
	return v
}

var (
	namePattern     = regexp.MustCompile(`\bforebay[_:][a-z0-9_:]+`)
	selectorPattern = regexp.MustCompile(`\b(forebay_[a-z0-9_]+)\{([^}]*)\}`)
	matcherPattern  = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)\s*"`)
)

// check finds names and labels in an expression that do not exist.
func (v vocabulary) check(expr string) (faults []string) {
	for _, name := range namePattern.FindAllString(expr, -1) {
		if v.labels[name] == nil && !v.recorded[name] {
			if _, known := v.labels[name]; !known {
				faults = append(faults, "no metric has the name "+name)
			}
		}
	}
	for _, m := range selectorPattern.FindAllStringSubmatch(expr, -1) {
		for _, label := range matcherPattern.FindAllStringSubmatch(m[2], -1) {
			if l := label[1]; l != "job" && l != "instance" && !slices.Contains(v.labels[m[1]], l) {
				faults = append(faults, m[1]+" has no label "+l)
			}
		}
	}
	return faults
}

func TestVocabularyFindsWhatDoesNotExist(t *testing.T) {
	v := words(t)
	for expr, want := range map[string]int{
		`sum(rate(forebay_requests_total{job="x",result="hit"}[5m]))`: 0,
		`forebay_request_total`:                           1,
		`forebay_requests_total{repository="x"}`:          1,
		`forebay:hit_ratio:rate1h`:                        0,
		`forebay:hit_ratio:rate2h`:                        1,
		`forebay_request_duration_seconds_bucket{le="1"}`: 0,
		`forebay_requests_total_bucket`:                   1,
		`forebay_store_bytes`:                             0,
	} {
		if got := v.check(expr); len(got) != want {
			t.Errorf("check(%s) = %q, want %d faults", expr, got, want)
		}
	}
}

func TestRulesUseOnlyWhatThereIs(t *testing.T) {
	v := words(t)
	for _, name := range []string{"forebay.rules.yml", "forebay.alerts.yml", "tests.yml"} {
		for i, line := range strings.Split(readFile(t, deployed("prometheus", name)), "\n") {
			if strings.HasPrefix(strings.TrimSpace(line), "#") || strings.Contains(line, "rule_files") {
				continue
			}
			for _, fault := range v.check(line) {
				t.Errorf("%s:%d: %s", name, i+1, fault)
			}
		}
	}
}

// dashboard is what matters of a Grafana dashboard.
type dashboard struct {
	UID           string `json:"uid"`
	Title         string `json:"title"`
	SchemaVersion int    `json:"schemaVersion"`
	Panels        []struct {
		ID      int    `json:"id"`
		Type    string `json:"type"`
		Title   string `json:"title"`
		GridPos struct{ H, W, X, Y int }
		// Datasource of a row is not there.
		Datasource *struct{ Type, UID string } `json:"datasource"`
		Targets    []struct {
			RefID      string                      `json:"refId"`
			Expr       string                      `json:"expr"`
			Datasource *struct{ Type, UID string } `json:"datasource"`
		} `json:"targets"`
	} `json:"panels"`
	Templating struct {
		List []struct {
			Name, Type, Definition string
		} `json:"list"`
	} `json:"templating"`
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal([]byte(readFile(t, deployed("grafana", "forebay.json"))), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// plain puts values in the place of Grafana's variables.
func plain(expr string) string {
	return strings.NewReplacer("$__rate_interval", "5m", "$__range", "6h", "$__interval", "1m",
		"$job", ".*", "$instance", ".*", "$upstream", ".*").Replace(expr)
}

func TestDashboardShowsEveryMetricAndNothingElse(t *testing.T) {
	d, v := readDashboard(t), words(t)
	var all strings.Builder
	rules := "groups:\n  - name: dashboard\n    rules:\n"
	n := 0
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			n++
			expr := plain(target.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("%s: a variable that is not known in %s", p.Title, target.Expr)
			}
			for _, fault := range v.check(expr) {
				t.Errorf("%s: %s", p.Title, fault)
			}
			if target.Datasource == nil || target.Datasource.UID != "${datasource}" {
				t.Errorf("%s: query %s is not for the data source that is chosen", p.Title, target.RefID)
			}
			all.WriteString(expr + "\n")
			quoted, err := json.Marshal(expr) // which YAML reads too
			if err != nil {
				t.Fatal(err)
			}
			rules += fmt.Sprintf("      - record: panel:%d\n        expr: %s\n", n, quoted)
		}
	}
	if n < 50 {
		t.Errorf("only %d queries", n)
	}
	for _, f := range metrics.Families() {
		if !regexp.MustCompile(`\b`+f.Name+`(_bucket|_sum|_count)?\b`).MatchString(all.String()) && !shownOtherwise(t, f.Name) {
			t.Errorf("no panel shows %s", f.Name)
		}
	}
	// That they are PromQL is for Prometheus itself to say.
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}

// shownOtherwise reports whether a rule that is on the dashboard is made of a metric.
func shownOtherwise(t *testing.T, name string) bool {
	t.Helper()
	return strings.Contains(readFile(t, deployed("prometheus", "forebay.rules.yml")), name)
}

func TestDashboardIsWellFormed(t *testing.T) {
	d := readDashboard(t)
	if d.SchemaVersion < 39 || d.UID == "" || d.Title == "" {
		t.Errorf("dashboard %q (%q) has schema %d", d.Title, d.UID, d.SchemaVersion)
	}
	known := map[string]bool{}
	for _, v := range d.Templating.List {
		known[v.Name] = true
		for _, fault := range words(t).check(plain(v.Definition)) {
			t.Errorf("variable %s: %s", v.Name, fault)
		}
	}
	for _, name := range []string{"datasource", "job", "instance", "upstream"} {
		if !known[name] {
			t.Errorf("no variable %s", name)
		}
	}
	ids := map[int]string{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if other, twice := ids[p.ID]; twice || p.ID == 0 {
			t.Errorf("panel %q has the ID %d of %q", p.Title, p.ID, other)
		}
		ids[p.ID] = p.Title
		if p.Type != "row" && (p.Datasource == nil || p.Datasource.Type != "prometheus" || len(p.Targets) == 0) {
			t.Errorf("panel %q has no query", p.Title)
		}
		g := p.GridPos
		if g.W < 1 || g.H < 1 || g.X < 0 || g.X+g.W > 24 {
			t.Errorf("panel %q is at %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("panels %q and %q overlap", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}
