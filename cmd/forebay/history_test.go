package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"forebay/test/hubtest"
)

// The history of a tag is what cgr.dev answers at /v2/NAME/_chainguard/history/TAG, by Chainguard's "Using the Tag
// History API" (edu.chainguard.dev): an object with a list, the earliest first, of two keys each, times in UTC.
func TestHistoryIsInTheFormOfChainguard(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited()})
	s := start(t, fmt.Sprintf("storage: {dir: %q}\nupstreams: {docker.io: {endpoints: [%q], tag_ttl: 0s}}\n", t.TempDir(), hub.RegistryURL()))
	var want []string
	for seed := range 3 {
		img := hub.PushImage("acme/app", "latest", hubtest.ImageSpec{Seed: uint64(seed + 1)})
		if status, body := get(t, s.registry+"/v2/acme/app/manifests/latest"); status != 200 || body != string(img.Raw) {
			t.Fatalf("GET = %d %s", status, body)
		}
		want = append(want, img.Digest)
	}
	status, body := get(t, s.registry+"/v2/acme/app/_forebay/history/latest")
	var got struct {
		History []struct {
			UpdateTimestamp string `json:"updateTimestamp"`
			Digest          string `json:"digest"`
		} `json:"history"`
	}
	d := json.NewDecoder(strings.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&got); status != 200 || err != nil || len(got.History) != len(want) {
		t.Fatalf("history = %d %s (%v), want %d entries", status, body, err, len(want))
	}
	var before time.Time
	for i, h := range got.History {
		at, err := time.Parse(time.RFC3339, h.UpdateTimestamp)
		if err != nil || h.Digest != want[i] || !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z$`).MatchString(h.UpdateTimestamp) || at.Before(before) {
			t.Errorf("entry %d of the history is %+v, want %s, later than %s", i, h, want[i], before)
		}
		before = at
	}
	if status, body := get(t, s.registry+"/v2/acme/app/_forebay/history/none"); status != 404 || !strings.Contains(body, "MANIFEST_UNKNOWN") {
		t.Errorf("history of a tag that is not known = %d %s", status, body)
	}
}
