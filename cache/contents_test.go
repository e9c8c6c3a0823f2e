package cache

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/store"
	"forebay/test/cachetest"
)

// Who has pulled an image and asks at once what belongs to it is told of all of it, though its layer is
// still on its way to the disk.
func TestContentsOfWhatIsBeingKept(t *testing.T) {
	r := cachetest.NewRegistry()
	img := r.Image(t, "library/app", "v1", strings.Repeat("layer", 1<<19))
	layer := img.Blobs[len(img.Blobs)-1]
	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c := openOptions(t, Options{
		Store: store.Options{Dir: t.TempDir(), Fault: func(step, name string) error {
			if step == "rename" && strings.Contains(name, layer.Hex) {
				once.Do(func() { close(held) })
				<-release
			}
			return nil
		}},
		Upstreams: map[string]UpstreamOptions{"docker.io": {Upstream: r, TagTTL: time.Hour}},
	})
	repo := Repo{Upstream: "docker.io", Name: "library/app"}
	if _, err := c.Manifest(t.Context(), repo, "v1", false); err != nil {
		t.Fatal(err)
	}
	for _, d := range img.Blobs {
		b, err := c.Blob(t.Context(), repo, d)
		if err == nil {
			_, err = b.Send(t.Context(), io.Discard, 0, -1)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	<-held
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if all, err := c.Images().Contents(short, repo, "v1", v1.Hash{}, nil, false); err == nil {
		t.Errorf("asked while the layer is being kept: %+v, want to wait", all.Parts)
	}
	time.AfterFunc(10*time.Millisecond, func() { close(release) })
	all, err := c.Images().Contents(t.Context(), repo, "v1", v1.Hash{}, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if missing, _ := all.Missing(); len(missing) > 0 {
		t.Errorf("missing are %+v, want nothing", missing)
	}
}
