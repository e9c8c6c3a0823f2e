package cache

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"forebay/cache/store"
	"forebay/internal/allowance"
	"forebay/internal/pull"
	"forebay/test/cachetest"
)

// openLimited opens a cache with limits.
func openLimited(t *testing.T, r Upstream, l allowance.Limits) *Cache {
	t.Helper()
	return openOptions(t, Options{
		Store: store.Options{Dir: t.TempDir()}, Limits: l,
		Upstreams: map[string]UpstreamOptions{"docker.io": {Upstream: r, TagTTL: Forever}},
	})
}

func wantClientLimited(t *testing.T, what string, err error) {
	t.Helper()
	var e *pull.Error
	if !errors.As(err, &e) || e.Kind != pull.Limited || e.Detail != pull.ClientLimited || e.RetryAfter <= 0 {
		t.Errorf("%s: %v, want the limit of a client, and when to ask again", what, err)
	}
}

func TestOneClientAsksForSoMuchThatIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		r.Push(hub.Name, "kept", cachetest.ManifestOf("kept"))
		c := openLimited(t, r, allowance.Limits{NewPerMinute: 60})
		defer closeCache(t, c)
		crawler, node := pull.WithClient(t.Context(), "10.0.0.66"), pull.WithClient(t.Context(), "10.0.0.7")
		if _, err := c.Manifest(node, hub, "kept", false); err != nil {
			t.Fatal(err)
		}
		ask := map[string]func(ctx context.Context, i int) error{
			"tags": func(ctx context.Context, i int) error {
				_, err := c.Manifest(ctx, hub, "t"+strconv.Itoa(i), true)
				return err
			},
			"manifests": func(ctx context.Context, i int) error {
				_, err := c.Manifest(ctx, hub, cachetest.DigestOf([]byte{byte(i)}).String(), false)
				return err
			},
			"blobs": func(ctx context.Context, i int) error {
				_, err := c.Blob(ctx, hub, cachetest.DigestOf([]byte{1, byte(i)}))
				return err
			},
			"HEADs of blobs": func(ctx context.Context, i int) error {
				_, _, err := c.StatBlob(ctx, hub, cachetest.DigestOf([]byte{2, byte(i)}))
				return err
			},
		}
		for what, ask := range ask {
			for i := range 60 {
				if err := ask(crawler, i); pull.KindOf(err) != pull.NotFound {
					t.Fatalf("%s %d: %v, want not found", what, i, err)
				}
			}
			wantClientLimited(t, what, ask(crawler, 100))
			if err := ask(node, 101); pull.KindOf(err) != pull.NotFound {
				t.Errorf("%s of another client: %v", what, err)
			}
			if err := ask(t.Context(), 102); pull.KindOf(err) != pull.NotFound {
				t.Errorf("%s of the mirror itself: %v", what, err)
			}
			if _, err := c.Manifest(crawler, hub, "kept", false); err != nil {
				t.Errorf("what is kept: %v", err)
			}
			time.Sleep(time.Minute)
		}
	})
}

func TestOneClientSpendsSoManyPulls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		for i := range 12 {
			r.Push(hub.Name, strconv.Itoa(i), cachetest.ManifestOf(strconv.Itoa(i)))
		}
		c := openLimited(t, r, allowance.Limits{Pulls: 10})
		defer closeCache(t, c)
		ctx := pull.WithClient(t.Context(), "10.0.0.66")
		for i := range 10 {
			for range 3 { // which is one pull
				if _, err := c.Manifest(ctx, hub, strconv.Itoa(i), false); err != nil {
					t.Fatal(err)
				}
			}
		}
		_, err := c.Manifest(ctx, hub, "10", false)
		wantClientLimited(t, "an eleventh", err)
		if _, err := c.Manifest(ctx, hub, "9", false); err != nil {
			t.Errorf("what is kept: %v", err)
		}
		if _, err := c.Manifest(pull.WithClient(t.Context(), "10.0.0.7"), hub, "11", false); err != nil {
			t.Errorf("another client: %v", err)
		}
		time.Sleep(allowance.Window / 10)
		if _, err := c.Manifest(ctx, hub, "10", false); err != nil {
			t.Errorf("after its time: %v", err)
		}
		if got := r.Count("Manifest"); got != 12 {
			t.Errorf("%d pulls, want 12", got)
		}
	})
}

func TestOneClientHasSoManyDownloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openLimited(t, hanging{r, hub.Name}, allowance.Limits{Fills: 3})
		defer closeCache(t, c)
		ctx, leave := context.WithCancel(pull.WithClient(t.Context(), "10.0.0.66"))
		defer leave()
		var all sync.WaitGroup
		for i := range 4 {
			d := r.Put(hub.Name, &cachetest.Script{Data: []byte{byte(i)}})
			if i == 3 {
				_, err := c.Blob(ctx, hub, d)
				wantClientLimited(t, "a fourth", err)
				break
			}
			all.Go(func() { _, _ = c.Blob(ctx, hub, d) })
			synctest.Wait()
		}
		leave()
		all.Wait()
		synctest.Wait()
		if n := c.limits.Running(ctx); n != 0 {
			t.Errorf("%d downloads are counted when all have ended", n)
		}
	})
}

// spent is a registry of whose limit the last share is left.
type spent struct{ *cachetest.Registry }

func (spent) AtLastShare() bool { return true }

func TestLastPullsAreForRepositoriesThatAreKnown(t *testing.T) {
	r := cachetest.NewRegistry()
	r.Push(hub.Name, "1", cachetest.ManifestOf("1"))
	r.Push(hub.Name, "2", cachetest.ManifestOf("2"))
	r.Push(other.Name, "1", cachetest.ManifestOf("3"))
	dir := t.TempDir()
	c := openCache(t, r, dir)
	if _, err := c.Manifest(t.Context(), hub, "1", false); err != nil {
		t.Fatal(err)
	}
	closeCache(t, c)
	c = openOptions(t, Options{Store: store.Options{Dir: dir}, Upstreams: map[string]UpstreamOptions{"docker.io": {Upstream: spent{r}}}})
	ctx := pull.WithClient(t.Context(), "10.0.0.7")
	if _, err := c.Manifest(ctx, hub, "2", false); err != nil {
		t.Errorf("a new tag of a repository that is known: %v", err)
	}
	_, err := c.Manifest(ctx, other, "1", false)
	wantClientLimited(t, "a repository that nobody has pulled", err)
}
