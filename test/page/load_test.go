package page

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"forebay/internal/admin"
	"forebay/test/hubtest"
)

// The views hold what a busy mirror has to tell, at 1440, 1024 and 390 px and in both themes: 300
// tags of 60 repositories, one with the longest of names, 25 clients, evictions, a registry that does
// not answer, a repository that is broken and a limit that is spent.
func TestPageUnderLoad(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, root)
	w.other.Set(func(o *hubtest.Options) { o.Anonymous = hubtest.Unlimited() })
	var all []*hubtest.Image
	for i := range 300 {
		n := i % 60
		repo := fmt.Sprintf("team-%d/service-%d", n%7, n)
		if n == 0 {
			repo = strings.Repeat("a-very-long-name-of-a-group/", 4) + "and-of-its-service"
		}
		all = append(all, w.other.PushImage(repo, fmt.Sprintf("v1.%d.0", i), hubtest.ImageSpec{Seed: uint64(i + 1), LayerSize: 1200 << 10, Layers: 3}))
	}
	if err := w.fail(); err != nil {
		t.Fatal(err)
	}
	w.other.AddRule(hubtest.Rule{Repo: all[7].Repo, Route: hubtest.RouteBlob, Do: hubtest.Status(500)})
	for principal := range w.hub.Counters().Charged {
		w.hub.SpendAll(principal)
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
					_ = w.pull(fmt.Sprint(20+c), "containerd/v2.0.0", w.images["library/cassandra:5.0"]) // which is not kept
				}
				select {
				case <-ctx.Done():
				case <-time.After(time.Duration(700+random.IntN(1000)) * time.Millisecond): // the page is what is to be slow, not its machine
				}
			}
		})
	}
	if err := eventually(2*time.Minute, func() error {
		var s admin.Status
		w.data.fetch(t, "/api/v1/status", &s)
		var kinds []string
		for _, one := range s.Troubles {
			kinds = append(kinds, string(one.Kind)+" "+one.Upstream)
		}
		for _, want := range []string{"limit docker.io", "upstream ghcr.io", "repository registry.k8s.io"} {
			if !slices.Contains(kinds, want) {
				return fmt.Errorf("troubles %q, want %s", kinds, want)
			}
		}
		if s.Stats.EvictedBlobs < 20 {
			return fmt.Errorf("%d files were evicted", s.Stats.EvictedBlobs)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PAGE_ONLY", cmp.Or(os.Getenv("PAGE_ONLY"), "every view with data"))
	if shots := os.Getenv("PAGE_SCREENSHOTS"); shots != "" {
		t.Setenv("PAGE_SCREENSHOTS", filepath.Join(shots, "load"))
	}
	if steps := w.browse(t, root); steps != 6 {
		t.Errorf("the browser took %d steps, want three widths in two themes", steps)
	}
}
