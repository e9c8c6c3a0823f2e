//go:build linux

package fleet

import (
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"forebay/test/hubtest"
)

// Many tags, each of which clients of all mirrors ask for all the time: the registry is asked once for each
// tag and time to live, by whichever mirror.
func TestManyTagsAreAskedForOnceATime(t *testing.T) {
	tags, lasts := 60, 9*time.Second
	if os.Getenv("FOREBAY_FLEET_SOAK") != "" {
		tags, lasts = 1000, time.Minute
	}
	const ttl = 2 * time.Second // that of the mirrors
	w := newWorld(t)
	w.gather()
	img := w.hub.PushImage("library/app", "t0", hubtest.ImageSpec{Layers: 1})
	for i := range tags {
		w.hub.MoveTag("library/app", fmt.Sprint("t", i), img.Digest)
	}
	want := w.hub.Bytes(img.Digest)
	heads := func() int {
		return w.hub.Count(hubtest.Query{Route: hubtest.RouteManifest, Method: http.MethodHead, Status: http.StatusOK})
	}
	failed, began := w.failedCalls(), time.Now()
	var all sync.WaitGroup
	const clients = 12
	for c := range clients {
		all.Go(func() {
			// Each asks one mirror for all tags, two of them for each mirror at once from other ends.
			for i := c * tags / clients; time.Since(began) < lasts && !t.Failed(); i++ {
				w.get(w.mirrors[c%3], fmt.Sprint("t", i%tags), want)
			}
		})
	}
	all.Wait()
	// A tag that is asked for without a pause costs one HEAD at the beginning, and one whenever its time is over.
	most := tags * (int(time.Since(began)/ttl) + 1)
	n := heads()
	t.Logf("%d tags for %s: %d HEADs of %d", tags, time.Since(began).Round(time.Millisecond), n, most)
	if n < 2*tags {
		t.Errorf("%d HEADs for %d tags: they were not asked for again", n, tags)
	}
	if n > most*102/100 && w.failedCalls() == failed {
		t.Errorf("%d HEADs of three mirrors, want %d at most", n, most)
	}
	for _, m := range w.mirrors {
		if n := w.metric(m, "forebay_fleet_duplicates_total"); n != 0 && w.failedCalls() == failed {
			t.Errorf("%s counts %v duplicates, want none", m.url, n)
		}
	}
}
