package cache

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"forebay/test/cachetest"
)

// Who asks for a manifest or a blob as it arrives asks its registry for nothing, whenever that is.
func TestNoHeadForWhatArrives(t *testing.T) {
	r := cachetest.NewRegistry()
	c := openCache(t, r, t.TempDir())
	for i := range 150 {
		img := r.Image(t, hub.Name, fmt.Sprint("v", i), fmt.Sprint("layer ", i))
		var work sync.WaitGroup
		for range 6 {
			work.Go(func() {
				for range 3 {
					if _, err := c.Manifest(t.Context(), hub, img.Digest.String(), false); err != nil {
						t.Error(err)
						return
					}
				}
				for range 6 {
					b, err := c.Blob(t.Context(), hub, img.Blobs[1])
					if err != nil {
						t.Error(err)
						return
					}
					var got bytes.Buffer
					if _, err := b.Send(t.Context(), &got, 0, -1); err != nil || got.String() != fmt.Sprint("layer ", i) {
						t.Errorf("got %q, %v", got.String(), err)
					}
					_ = b.Close()
				}
			})
		}
		work.Wait()
	}
	if heads, gets := r.Count("StatBlob"), r.Count("OpenBlob"); heads != 0 || gets != 150 {
		t.Errorf("%d HEADs and %d GETs of 150 blobs, want 0 and 150", heads, gets)
	}
	if heads, gets := r.Count("Resolve"), r.Count("Manifest"); heads != 0 || gets != 150 {
		t.Errorf("%d HEADs and %d GETs of 150 manifests, want 0 and 150", heads, gets)
	}
}
