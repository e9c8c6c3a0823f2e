package upkeep

import (
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/event"
	"forebay/cache/store"
	"forebay/test/cachetest"
)

func TestPinsAndPurgesAreTold(t *testing.T) {
	r := cachetest.NewRegistry()
	d := r.Push(hub.Name, "latest", cachetest.ManifestOf("one"))
	var mu sync.Mutex
	var told []event.Kind
	c := openBounded(t, r, store.Options{Dir: t.TempDir(), OnEvent: func(e event.Event) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, e.Kind)
	}})
	if _, err := c.Pin(t.Context(), hub, "latest", v1.Hash{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Pins.Remove(t.Context(), hub, "latest", v1.Hash{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PurgeImage(t.Context(), hub, "latest", v1.Hash{}, PurgeOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Manifest(t.Context(), hub, d.String(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PurgeDigest(t.Context(), d, PurgeOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PurgeDigest(t.Context(), d, PurgeOptions{}); err == nil {
		t.Error("PurgeDigest of what is gone = nil")
	}
	mu.Lock()
	defer mu.Unlock()
	want := []event.Kind{event.Pinned, event.Unpinned, event.Purged, event.Purged}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("events of pin, unpin and two purges (-want +got):\n%s", diff)
	}
}
