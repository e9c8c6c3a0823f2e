package upkeep

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/cache/event"
	"forebay/cache/store"
	"forebay/internal/pull"
	"forebay/test/cachetest"
)

// goneRig is a mirror whose keeper works, in front of a registry from which something vanishes.
func goneRig(t *testing.T, r cache.Upstream, o cache.UpstreamOptions, so store.Options) (c *rig, told *[]event.Event) {
	t.Helper()
	told = &[]event.Event{}
	so.Dir = t.TempDir()
	so.OnEvent = func(e event.Event) {
		if e.Kind == event.Vanished || e.Kind == event.Returned {
			*told = append(*told, e)
		}
	}
	o.Upstream, o.TagTTL = r, ttl
	c = open(t, cache.Options{Store: so, Upstreams: map[string]cache.UpstreamOptions{"docker.io": o}}, Options{})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.Keeper.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return c, told
}

// after lets time pass in which clients pull another image of the registry now and then.
func after(t *testing.T, c *rig, d time.Duration, repo Repo, tag string) {
	t.Helper()
	for range 10 {
		time.Sleep(d / 10)
		if _, err := c.Manifest(t.Context(), repo, tag, false); err != nil {
			t.Fatalf("manifest of %s:%s: %v", repo, tag, err)
		}
	}
	synctest.Wait()
}

func pinNames(c *rig) (all []string) {
	for _, p := range c.Pins.List() {
		all = append(all, p.Ref)
	}
	return all
}

// A tag that is gone is served, listed with who asks for it, and pinned, until it is back; all that at the
// cost of HEADs.
func TestWhatIsGoneIsKeptUntilItIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		d := r.Push(hub.Name, "1.27", cachetest.ManifestOf("a"))
		r.Push(other.Name, "1", cachetest.ManifestOf("b"))
		c, told := goneRig(t, r, cache.UpstreamOptions{}, store.Options{})
		read(t, c, hub, "1.27")
		read(t, c, other, "1")
		r.Unbind(hub.Name, "1.27")
		time.Sleep(2 * ttl)
		ctx := pull.WithClient(t.Context(), "10.0.0.7")
		if m, err := c.Manifest(ctx, hub, "1.27", false); err != nil || m.Desc.Digest != d {
			t.Fatalf("after it is gone: %v, %v", m, err)
		}
		gets := r.Count("Manifest")
		after(t, c, 20*time.Minute, other, "1") // nobody asks for it
		if len(*told) != 1 || (*told)[0].Kind != event.Vanished || (*told)[0].Tag != "1.27" {
			t.Fatalf("told %+v, want that it has vanished", *told)
		}
		if m, err := c.Manifest(ctx, hub, "1.27", false); err != nil || m.Desc.Digest != d {
			t.Errorf("when it has vanished: %v, %v", m, err)
		}
		all := c.Gone().All()
		if len(all) != 1 || all[0].Asked != 1 || !slices.Equal(all[0].Clients, []string{"10.0.0.7"}) || !slices.Equal(all[0].Pinned, []string{"1.27"}) {
			t.Errorf("list %+v", all)
		}
		if got := pinNames(c); !slices.Equal(got, []string{"docker.io/library/app:1.27"}) {
			t.Errorf("pinned %v", got)
		}
		if n := r.Count("Manifest"); n != gets {
			t.Errorf("%d manifests were fetched, want %d", n, gets)
		}
		r.Bind(hub.Name, "1.27", d)
		after(t, c, 7*time.Hour, other, "1")
		if len(*told) != 2 || (*told)[1].Kind != event.Returned {
			t.Errorf("told %+v, want that it returned", *told)
		}
		if got := append(pinNames(c), namesOf(c)...); len(got) != 0 {
			t.Errorf("after it is back: %v", got)
		}
	})
}

func namesOf(c *rig) (all []string) {
	for _, v := range c.Gone().All() {
		all = append(all, v.Name())
	}
	return all
}

// denies refuses a repository as Docker Hub does one that is not there.
type denies struct {
	*cachetest.Registry
	repo string
}

func (d *denies) Resolve(ctx context.Context, repo, ref string) (v1.Descriptor, error) {
	if repo == d.repo {
		return v1.Descriptor{}, &pull.Error{Kind: pull.Denied, Upstream: "docker.io", Op: "head", Status: 401}
	}
	return d.Registry.Resolve(ctx, repo, ref)
}

// A repository that everybody could read and that is denied is gone, and served. What was read by
// credentials is not: they may be no good any more.
func TestADeniedRepositoryIsServedWhereItWasEverybodys(t *testing.T) {
	for _, credentialed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := &denies{Registry: cachetest.NewRegistry()}
			d := r.Push(hub.Name, "1.27", cachetest.ManifestOf("a"))
			r.Push(other.Name, "1", cachetest.ManifestOf("b"))
			c, told := goneRig(t, r, cache.UpstreamOptions{Credentialed: credentialed, AccessTTL: time.Hour}, store.Options{})
			read(t, c, hub, "1.27")
			read(t, c, other, "1")
			r.repo = hub.Name
			time.Sleep(2 * ttl)
			if _, err := c.Manifest(t.Context(), hub, "1.27", false); pull.KindOf(err) != pull.Denied {
				t.Errorf("credentialed %t, at first: %v", credentialed, err)
			}
			after(t, c, 20*time.Minute, other, "1")
			if len(*told) != 1 || (*told)[0].Repository != hub.Name || (*told)[0].Tag != "" {
				t.Fatalf("credentialed %t: told %+v", credentialed, *told)
			}
			for _, ref := range []string{"1.27", d.String()} {
				m, err := c.Manifest(t.Context(), hub, ref, false)
				if served := err == nil && m.Desc.Digest == d; served == credentialed {
					t.Errorf("credentialed %t, %s when it has vanished: %v", credentialed, ref, err)
				}
			}
			if got := pinNames(c); !slices.Equal(got, []string{"docker.io/library/app:1.27"}) {
				t.Errorf("credentialed %t: pinned %v", credentialed, got)
			}
			r.repo = ""
			after(t, c, 7*time.Hour, other, "1")
			if got := append(pinNames(c), namesOf(c)...); len(got) != 0 {
				t.Errorf("credentialed %t, after it is back: %v", credentialed, got)
			}
		})
	}
}

// What is pinned since it is gone has a bound, and an operator's pins and wishes stand.
func TestWhatIsGoneDoesNotFillTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		r.Push(other.Name, "1", cachetest.ManifestOf("b"))
		c, _ := goneRig(t, r, cache.UpstreamOptions{}, store.Options{MaxBytes: 64 << 20})
		small := r.Image(t, hub.Name, "small", "s")
		large := r.Image(t, hub.Name, "large", strings.Repeat("l", 8<<20))
		mine := r.Image(t, hub.Name, "mine", "m")
		for tag, b := range map[string]cachetest.Built{"small": small, "large": large, "mine": mine} {
			read(t, c, hub, tag, b.Blobs...)
		}
		read(t, c, other, "1")
		if _, err := c.Pin(t.Context(), hub, "mine", v1.Hash{}, nil); err != nil {
			t.Fatal(err)
		}
		for _, tag := range []string{"small", "large", "mine"} {
			r.Unbind(hub.Name, tag)
		}
		time.Sleep(2 * ttl)
		for _, tag := range []string{"small", "large", "mine"} {
			read(t, c, hub, tag)
		}
		after(t, c, 20*time.Minute, other, "1")
		for _, v := range c.Gone().All() {
			if want := map[string]bool{"small": true}[v.Tag]; len(v.Pinned) == 1 != want {
				t.Errorf("%s: pinned %v, %q", v.Name(), v.Pinned, v.NotPinned)
			}
		}
		if err := c.ForgetGone("docker.io/library/app:small"); err != nil {
			t.Error(err)
		}
		if err := c.ForgetGone("docker.io/library/app:none"); !errors.Is(err, store.ErrNotKept) {
			t.Errorf("forget what is not gone: %v", err)
		}
		if got := pinNames(c); !slices.Equal(got, []string{"docker.io/library/app:mine"}) {
			t.Errorf("pinned %v, want the operator's", got)
		}
	})
}
