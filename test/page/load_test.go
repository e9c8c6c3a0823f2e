package page

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"forebay/test/hubtest"
)

// The views hold what a busy mirror has to tell, at all widths and in both themes: 300 tags of 60
// repositories, with the longest of names, 25 clients, evictions, a registry that fails, a repository
// that is broken and a spent limit.
func TestPageUnderLoad(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, root)
	w.other.Set(func(o *hubtest.Options) { o.Anonymous = hubtest.Unlimited() })
	var all []*hubtest.Image
	for i := range 300 {
		repo := fmt.Sprintf("team-%d/service-%d", i%7, i%60)
		if i%60 == 0 {
			repo = strings.Repeat("a-very-long-name-of-a-group/", 4) + "and-of-its-service"
		}
		all = append(all, w.other.PushImage(repo, fmt.Sprintf("v1.%d.0", i), hubtest.ImageSpec{Seed: uint64(i + 1), LayerSize: 1200 << 10, Layers: 3}))
	}
	if err := w.fail(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	for c := range 25 {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(uint64(c), 1))
			for n := 0; ctx.Err() == nil; n++ {
				image := all[random.IntN(len(all))]
				_ = w.pullFrom("registry.k8s.io", fmt.Sprint(20+c), "containerd/v2.0.0", image, true) // some fail, which is wanted
				if n%9 == 0 {
					_ = w.missing(fmt.Sprint(20 + c))
				}
				select {
				case <-ctx.Done():
				case <-time.After(time.Duration(50+random.IntN(100)) * time.Millisecond):
				}
			}
		})
	}
	if err := eventually(2*time.Minute, func() error {
		var s struct {
			Evicted int64 `json:"evicted_blobs"`
		}
		w.data.fetch(t, "/api/v1/stats", &s)
		if s.Evicted < 20 {
			return fmt.Errorf("%d files were evicted", s.Evicted)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PAGE_ONLY", cmp.Or(os.Getenv("PAGE_ONLY"), "every view with data"))
	if shots := os.Getenv("PAGE_SCREENSHOTS"); shots != "" {
		t.Setenv("PAGE_SCREENSHOTS", filepath.Join(shots, "load"))
	}
	w.browse(t, root)
}
