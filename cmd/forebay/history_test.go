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
		for seen := time.Now(); time.Since(seen) < 2*time.Millisecond; { // times are told in milliseconds
		}
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
	at := func(i int) string { return got.History[i].UpdateTimestamp }
	for query, tt := range map[string]struct {
		status, from, to int
	}{
		"":                                     {200, 0, 3},
		"start=" + at(1):                       {200, 1, 3},
		"end=" + at(1):                         {200, 0, 1}, // what it got before
		"start=" + at(0) + "&end=" + at(2):     {200, 0, 2},
		"start=" + at(1) + "&end=" + at(1):     {200, 0, 0},
		"start=2000-01-01":                     {200, 0, 3},
		"end=3000-01-01T00%3A00%3A00.000Z":     {200, 0, 3},
		"start=2000-01-01T00:00:00%2B02:00":    {200, 0, 3},
		"start=3000-01-01T00:00:00Z":           {200, 0, 0},
		"end=2000-01-01T00:00:00Z":             {200, 0, 0},
		"start=yesterday":                      {400, 0, 0},
		"end=1767225600":                       {400, 0, 0},
		"end=2026-13-01":                       {400, 0, 0},
		"start=":                               {400, 0, 0},
		"start=2026-11-02&end=2026-11-01":      {400, 0, 0},
		"start=2026-11-01T00:00:00Z&end=never": {400, 0, 0},
	} {
		status, body := get(t, s.registry+"/v2/acme/app/_forebay/history/latest?"+query)
		var part struct {
			History []struct{ Digest string }
			Errors  []struct{ Message string }
		}
		if err := json.Unmarshal([]byte(body), &part); err != nil || status != tt.status || len(part.History) != tt.to-tt.from {
			t.Errorf("history?%s = %d %s (%v), want %d with %d entries", query, status, body, err, tt.status, tt.to-tt.from)
			continue
		}
		if tt.status == 400 && (len(part.Errors) != 1 || !strings.Contains(part.Errors[0].Message, " must ")) {
			t.Errorf("history?%s = %s, want what to change", query, body)
		}
		if tt.status == 200 && !strings.Contains(body, `"history":[`) {
			t.Errorf("history?%s = %s, want a list", query, body)
		}
		for i, h := range part.History {
			if h.Digest != want[tt.from+i] {
				t.Errorf("history?%s: entry %d is %s, want %s", query, i, h.Digest, want[tt.from+i])
			}
		}
	}
	if status, body := get(t, s.registry+"/v2/acme/app/_forebay/history/none"); status != 404 || !strings.Contains(body, "MANIFEST_UNKNOWN") {
		t.Errorf("history of a tag that is not known = %d %s", status, body)
	}
}
