package main

import (
	"fmt"
	"strings"
	"testing"

	"forebay/test/hubtest"
)

// What an export has found is there until it is written, though the store is too small for all that clients
// pull meanwhile. Without the export it would not be.
func TestAnExportHoldsWhatItFound(t *testing.T) {
	o := newOperated(t, "")
	o.stop()
	o.started = start(t, fmt.Sprintf("storage: {dir: %q, max_size: 48MiB, min_free: 1MiB}\nupstreams: {docker.io: {endpoints: [%q]}}\n", o.dir, o.hub.RegistryURL()))
	n := 0
	pull := func(name string) {
		n++
		img := o.hub.PushImage(name, "1", hubtest.ImageSpec{Seed: uint64(100 * n), LayerSize: 7 << 20})
		o.pull(name, "1", img.Blobs()...)
	}
	pull("team/held")
	pull("team/free")
	if status, body := o.asks("/api/v1/contents?ref=team/held:1&hold=true"); status != 200 || strings.Contains(body, `"missing"`) {
		t.Fatalf("contents = %d %s", status, body)
	}
	for i := range 12 {
		pull(fmt.Sprintf("team/next%d", i))
	}
	for name, want := range map[string]bool{"held": true, "free": false} {
		status, body := o.asks("/api/v1/contents?ref=team/" + name + ":1")
		if whole := status == 200 && !strings.Contains(body, `"missing"`); whole != want {
			t.Errorf("%s is whole: %t, want %t: %d %s", name, whole, want, status, body)
		}
	}
}
