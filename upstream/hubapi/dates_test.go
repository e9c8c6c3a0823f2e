package hubapi

import (
	"fmt"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/pull"
	"forebay/test/hubtest"
)

func hashOf(t *testing.T, text string) v1.Hash {
	t.Helper()
	d, err := v1.NewHash(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A date is asked for once, counts for the digest that the API names alone, and is not made up.
func TestDatesAreOfTheDigestThatTheTagHas(t *testing.T) {
	hub, c := newHub(t, hubtest.Options{})
	d := NewDates(c)
	asked := func() int { return hub.Count(hubtest.Query{Role: hubtest.RoleHubAPI, Route: hubtest.RouteHubAPI}) }
	img := hub.PushImage("acme/app", "v2", hubtest.ImageSpec{Seed: 7})
	pushed := hub.Now()
	hub.Advance(40 * 24 * time.Hour)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			at, err := d.Updated(t.Context(), "acme/app", "v2", hashOf(t, img.Digest))
			if err != nil || pushed.Sub(at).Abs() > time.Minute {
				t.Errorf("Updated = %s, %v; want %s", at, err, pushed)
			}
		})
	}
	all.Wait()
	if n := asked(); n != 1 {
		t.Errorf("the API was asked %d times for one date, want once", n)
	}
	other := hub.PushImage("acme/app", "v2", hubtest.ImageSpec{Seed: 8})
	for name, tt := range map[string]struct{ tag, digest string }{"moved since": {"v2", hub.PushImage("acme/app", "v3", hubtest.ImageSpec{Seed: 9}).Digest}, "no such tag": {"none", other.Digest}} {
		for range 3 {
			if at, err := d.Updated(t.Context(), "acme/app", tt.tag, hashOf(t, tt.digest)); err != nil || !at.IsZero() {
				t.Errorf("%s: Updated = %s, %v; want that it does not say", name, at, err)
			}
		}
	}
	if n := asked(); n != 3 {
		t.Errorf("the API was asked %d times, want three", n)
	}
	if n := hub.ChargedTotal(); n != 0 {
		t.Errorf("%d pulls were counted, want none", n)
	}
}

// Who asks for many gets an error that says to ask later, and leaves the API's limit to others.
func TestDatesAreBounded(t *testing.T) {
	hub, c := newHub(t, hubtest.Options{})
	d := NewDates(c)
	limited := 0
	for i := range 3 * datesPerMinute {
		at, err := d.Updated(t.Context(), "acme/app", fmt.Sprintf("t%d", i), hashOf(t, "sha256:"+fmt.Sprintf("%064d", i)))
		if !at.IsZero() || err != nil && pull.KindOf(err) != pull.Limited {
			t.Fatalf("Updated = %s, %v", at, err)
		}
		if err != nil {
			limited++
		}
	}
	if n := hub.Count(hubtest.Query{Role: hubtest.RoleHubAPI, Route: hubtest.RouteHubAPI}); n+limited != 3*datesPerMinute || limited == 0 || n < datesPerMinute {
		t.Errorf("of %d requests the API saw %d, and %d were put off", 3*datesPerMinute, n, limited)
	}
}

// An API that cannot be had says nothing; one that limits says it later.
func TestDatesWhileTheAPIFails(t *testing.T) {
	hub, c := newHub(t, hubtest.Options{HubAPI: hubtest.HubAPIOptions{Limit: 2}})
	d := NewDates(c)
	digest := hashOf(t, hub.PushImage("acme/app", "v2", hubtest.ImageSpec{}).Digest)
	var err error
	for i := 0; i < 4 && err == nil; i++ {
		_, err = d.Updated(t.Context(), "acme/app", fmt.Sprintf("x%d", i), digest)
	}
	if pull.KindOf(err) != pull.Limited {
		t.Errorf("with the API's limit used up: %v, want %s", err, pull.Limited)
	}
	hub.Advance(2 * time.Minute)
	if at, err := d.Updated(t.Context(), "acme/app", "v2", digest); err != nil || at.IsZero() {
		t.Errorf("later: %s, %v", at, err)
	}
	hub.Advance(2 * time.Minute)
	hub.SwitchOff()
	if at, err := d.Updated(t.Context(), "acme/app", "v3", digest); err != nil || !at.IsZero() {
		t.Errorf("switched off: %s, %v; want that it does not say", at, err)
	}
}
