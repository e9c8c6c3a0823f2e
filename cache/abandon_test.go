package cache

import (
	"fmt"
	"io"
	"testing"
)

func TestFillWaitsForTheReaderWhoStartedIt(t *testing.T) {
	// Not in virtual time: the fill must be able to outrun the one who starts it.
	r := newRegistry()
	c, err := Open(Options{Dir: t.TempDir(), CancelAbandoned: true, Upstreams: map[string]UpstreamOptions{"docker.io": {Upstream: r, TagTTL: ttl}}})
	if err != nil {
		t.Fatal(err)
	}
	defer closeCache(t, c)
	for n := range 300 {
		d := r.put(hub.Name, &script{data: fmt.Appendf(nil, "blob %d", n)})
		b, err := c.Blob(t.Context(), hub, d)
		if err != nil {
			t.Fatalf("blob %d: %v", n, err)
		}
		if _, err := b.Send(t.Context(), io.Discard, 0, -1); err != nil {
			t.Fatalf("blob %d: send: %v", n, err)
		}
		b.Close()
	}
}
