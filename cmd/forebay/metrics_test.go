package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"forebay/test/hubtest"
)

// What the parts are tested for, once through the shipped program.
func TestServedMetricsAreThoseOfTheMirror(t *testing.T) {
	o := newOperated(t, "")
	img := o.hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
	o.pull("library/app", "latest", img.Blobs()...)
	o.pull("library/app", "latest")
	want := []string{
		`forebay_requests_total{kind="manifest",result="miss",upstream="docker.io"} 1`,
		`forebay_requests_total{kind="manifest",result="hit",upstream="docker.io"} 1`,
		`forebay_upstream_pulls_total{upstream="docker.io"} 1`,
		`forebay_saved_pulls_total{upstream="docker.io"} 1`,
		`forebay_fills_total{outcome="done"} 3`,
		`forebay_budget_reserve_ratio{upstream="docker.io"} 0.2`,
		`forebay_upstream_up{upstream="docker.io"} 1`,
		`forebay_ready 1`,
		`forebay_store_degraded{access="write"} 0`,
	}
	// Requests and fills are counted when they end, which may be after the client has all.
	var body string
	var lacks []string
	defer func() {
		if len(lacks) > 0 {
			t.Logf("/metrics lacks %q", lacks)
		}
	}()
	eventually(t, "the figures of two pulls", func() bool {
		_, body = get(t, o.admin+"/metrics")
		lacks = slices.DeleteFunc(slices.Clone(want), func(line string) bool { return strings.Contains(body, line+"\n") })
		return len(lacks) == 0
	})
	if found := regexp.MustCompile(`(?m)^[a-z_]*\{[^}]*(library/|sha256:)`).FindString(body); found != "" {
		t.Errorf("/metrics names what is pulled: %s", found)
	}
	if status, _ := o.asks("/debug/pprof/"); status != 404 {
		t.Errorf("/debug/pprof/ = %d without admin_pprof, want 404", status)
	}
}

func TestReadinessIsOfTheStoreAndNotOfTheUpstream(t *testing.T) {
	o := newOperated(t, "admin_pprof: true\n")
	if status, body := o.asks("/debug/pprof/goroutine?debug=1"); status != 200 || !strings.Contains(body, "goroutine profile:") {
		t.Errorf("/debug/pprof/goroutine = %d %.100s", status, body)
	}
	o.hub.SwitchOff()
	if status, _ := get(t, o.registry+"/v2/library/app/manifests/latest"); status < 500 {
		t.Errorf("manifest without an upstream = %d, want 5xx", status)
	}
	if status, body := get(t, o.admin+"/readyz"); status != 200 {
		t.Errorf("/readyz without an upstream = %d %s, want 200", status, body)
	}
	away := o.dir + ".away"
	if err := os.Rename(o.dir, away); err != nil {
		t.Fatal(err)
	}
	var body string
	eventually(t, "unready mirror", func() bool {
		var status int
		status, body = get(t, o.admin+"/readyz")
		return status == 503
	})
	if body != "the store cannot be read\n" {
		t.Errorf("/readyz says %q, want what is wrong and no path", body)
	}
	if !strings.Contains(o.stderr.String(), o.dir+`\": the folder was removed`) {
		t.Errorf("the log does not say what is wrong with the store:\n%s", o.stderr)
	}
	if _, body := get(t, o.admin+"/metrics"); !strings.Contains(body, "forebay_ready 0\n") {
		t.Error("forebay_ready is not 0")
	}
	if status, _ := get(t, o.admin+"/healthz"); status != 200 {
		t.Errorf("/healthz = %d, want 200: a restart would not help", status)
	}
	if err := os.Rename(away, o.dir); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ready mirror", func() bool {
		status, _ := get(t, o.admin+"/readyz")
		return status == 200
	})
}
