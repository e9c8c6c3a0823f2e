package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/event"
	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/internal/pull"
	"forebay/internal/sums"
	"forebay/test/cachetest"
)

// Here are clients and registries that harm others, or try to.

// ghcr is a repository of another upstream.
var ghcr = Repo{Upstream: "ghcr.io", Name: "att/claim"}

// liar is a registry that says of every blob that it holds it, with this size.
type liar struct {
	*cachetest.Registry
	size int64
}

func (l liar) StatBlob(ctx context.Context, repo string, d v1.Hash) (int64, error) {
	_, _ = l.Registry.StatBlob(ctx, repo, d)
	return l.size, nil
}

func (l liar) Resolve(context.Context, string, string) (v1.Descriptor, error) {
	return v1.Descriptor{}, &pull.Error{Kind: pull.Unsupported}
}

// openTwo opens a cache of two upstreams, docker.io and ghcr.io.
func openTwo(t *testing.T, docker, other Upstream, o UpstreamOptions) *Cache {
	t.Helper()
	a, b := o, o
	a.Upstream, b.Upstream = docker, other
	return openOptions(t, Options{Store: store.Options{Dir: t.TempDir()}, Upstreams: map[string]UpstreamOptions{"docker.io": a, "ghcr.io": b}})
}

func TestReaderDoesNotGetTheVerdictOnAnotherRepository(t *testing.T) {
	for _, verdict := range []pull.Kind{pull.NotFound, pull.Denied, pull.Limited, pull.Unavailable} {
		for _, cut := range []int64{0, 3 << 20} { // before the first byte, and after some
			t.Run(fmt.Sprintf("%s after %d bytes", verdict, cut), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := cachetest.NewRegistry()
					r.Slow = 100 * time.Millisecond
					mine := &cachetest.Script{Pace: time.Millisecond}
					mine.Data, _ = cachetest.BlobOf(24<<20, 1)
					d := r.Put(hub.Name, mine)
					theirs := &cachetest.Script{Data: mine.Data, Pace: time.Millisecond}
					if cut > 0 {
						theirs.Faults = append(theirs.Faults, cachetest.Fault{Cut: cut})
					}
					for range 40 {
						theirs.Faults = append(theirs.Faults, cachetest.Fault{Err: &pull.Error{Kind: verdict, Upstream: "docker.io", Op: "theirs"}})
					}
					r.Put(other.Name, theirs)
					c := openWith(t, r, UpstreamOptions{Parallel: 1})
					defer closeCache(t, c)
					var all sync.WaitGroup
					all.Go(func() {
						if _, err := readBlob(t.Context(), c, other, d); cut == 0 && pull.KindOf(err) != verdict {
							t.Errorf("Blob(other) = %v, want its own verdict, %s", err, verdict)
						}
					})
					time.Sleep(150 * time.Millisecond) // its HEAD is answered, its GET is not
					all.Go(func() {
						got, err := readBlob(t.Context(), c, hub, d)
						if err != nil || !bytes.Equal(got, mine.Data) {
							t.Errorf("Blob(hub) = %d bytes, %v", len(got), err)
						}
					})
					all.Wait()
					if most := int64(len(mine.Data)); mine.Sent+theirs.Sent > most+1<<20 {
						t.Errorf("upstream sent %d bytes of %d", mine.Sent+theirs.Sent, most)
					}
				})
			})
		}
	}
}

func TestSlowRepositoryHoldsNobodyElseUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		s := &cachetest.Script{}
		s.Data, _ = cachetest.BlobOf(3<<20, 1)
		d := r.Put(hub.Name, s)
		r.Put(other.Name, s)
		c := openWith(t, hanging{r, other.Name}, UpstreamOptions{})
		defer closeCache(t, c)
		var all sync.WaitGroup
		defer all.Wait()
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		all.Go(func() { _, _ = readBlob(ctx, c, other, d) })
		synctest.Wait()
		begin := time.Now()
		if got, err := readBlob(t.Context(), c, hub, d); err != nil || !bytes.Equal(got, s.Data) {
			t.Errorf("Blob = %d bytes, %v", len(got), err)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("it took %s, behind a repository that does not answer", took)
		}
	})
}

// hanging is a registry that never sends the blobs of one repository.
type hanging struct {
	*cachetest.Registry
	repo string
}

func (h hanging) OpenBlob(ctx context.Context, repo string, d v1.Hash, off, end int64) (*pull.Body, error) {
	if repo == h.repo {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return h.Registry.OpenBlob(ctx, repo, d, off, end)
}

// Whoever has no right to what arrives must not come to it between the look at his right and
// the look at the fill.
func TestNobodyJoinsAFillWithoutProof(t *testing.T) {
	r := cachetest.NewRegistry()
	c := openWith(t, r, UpstreamOptions{})
	defer closeCache(t, c)
	stranger := Repo{Upstream: "docker.io", Name: "att/none"}
	for round := range 300 {
		s := &cachetest.Script{Pace: time.Microsecond}
		s.Data, _ = cachetest.BlobOf(1<<20+round, uint64(round))
		d := r.Put(hub.Name, s)
		var all sync.WaitGroup
		all.Go(func() {
			if got, err := readBlob(t.Context(), c, hub, d); err != nil || !bytes.Equal(got, s.Data) {
				t.Errorf("Blob(hub) = %d bytes, %v", len(got), err)
			}
		})
		for range 6 {
			all.Go(func() {
				time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
				if got, err := readBlob(t.Context(), c, stranger, d); err == nil || len(got) > 0 {
					t.Errorf("round %d: %d bytes went to a repository that does not hold them (%v)", round, len(got), err)
				}
			})
		}
		all.Wait()
	}
}

func TestWordOfOneRegistryIsNoProofForBytesOfAnother(t *testing.T) {
	data, d := cachetest.BlobOf(3000, 1)
	for _, size := range []int64{3000, 3300, -1} {
		t.Run(strconv.FormatInt(size, 10), func(t *testing.T) {
			r := cachetest.NewRegistry()
			r.Put(hub.Name, &cachetest.Script{Data: data})
			m := r.Push(hub.Name, "latest", cachetest.ManifestOf("private"))
			evil := cachetest.NewRegistry()
			c := openTwo(t, r, liar{evil, size}, UpstreamOptions{})
			if _, err := readBlob(t.Context(), c, hub, d); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Manifest(t.Context(), hub, "latest", false); err != nil {
				t.Fatal(err)
			}
			_, _, _ = c.StatBlob(t.Context(), ghcr, d)
			if got, err := readBlob(t.Context(), c, ghcr, d); err == nil || len(got) > 0 {
				t.Errorf("%d bytes of docker.io went out by the word of ghcr.io (%v)", len(got), err)
			}
			if _, err := c.Manifest(t.Context(), ghcr, m.String(), false); err == nil {
				t.Error("a manifest of docker.io went out by the word of ghcr.io")
			}
			// With the bytes it is as good as any other, and they are kept once.
			s := &cachetest.Script{Data: data}
			evil.Put(ghcr.Name, s)
			c.ForgetFailures(ghcr)
			for range 2 {
				if got, err := readBlob(t.Context(), c, ghcr, d); err != nil || !bytes.Equal(got, data) {
					t.Errorf("Blob(ghcr) = %d bytes, %v", len(got), err)
				}
			}
			if s.Sent != int64(len(data)) {
				t.Errorf("ghcr.io sent %d bytes, want the %d once", s.Sent, len(data))
			}
		})
	}
}

func TestFillOfOneDomainIsNotSharedWithAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		s := &cachetest.Script{Pace: time.Millisecond}
		s.Data, _ = cachetest.BlobOf(24<<20, 1)
		d := r.Put(hub.Name, s)
		// Within a domain the word must at least be right about the size.
		for domain, size := range map[string]int64{"": int64(len(s.Data)), "shared": int64(len(s.Data)) + 1} {
			c := openTwo(t, r, liar{cachetest.NewRegistry(), size}, UpstreamOptions{Trust: domain})
			var all sync.WaitGroup
			all.Go(func() {
				if _, err := readBlob(t.Context(), c, hub, d); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
			if got, err := readBlob(t.Context(), c, ghcr, d); err == nil || len(got) > 0 {
				t.Errorf("%d bytes of a fill of docker.io went out by the word of ghcr.io (%v)", len(got), err)
			}
			all.Wait()
			closeCache(t, c)
		}
	})
}

// What is kept is verified beside its first reading after a start, by a fill that sends it too.
func TestVerificationIsNotSharedWithAnotherDomain(t *testing.T) {
	r := cachetest.NewRegistry()
	s := &cachetest.Script{}
	s.Data, _ = cachetest.BlobOf(64<<20, 1)
	d := r.Put(hub.Name, s)
	dir := t.TempDir()
	open := func() *Cache {
		return openOptions(t, Options{Store: store.Options{Dir: dir}, Upstreams: map[string]UpstreamOptions{
			"docker.io": {Upstream: r}, "ghcr.io": {Upstream: liar{cachetest.NewRegistry(), int64(len(s.Data))}},
		}})
	}
	c := open()
	if _, err := readBlob(t.Context(), c, hub, d); err != nil {
		t.Fatal(err)
	}
	closeCache(t, c)
	c = open()
	defer closeCache(t, c)
	if _, _, err := c.StatBlob(t.Context(), ghcr, d); err != nil {
		t.Fatal(err) // it claims it
	}
	b, err := c.Blob(t.Context(), hub, d)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.File() != nil {
		t.Fatal("what is kept is not being verified: the test shows nothing")
	}
	if got, err := readBlob(t.Context(), c, ghcr, d); err == nil || len(got) > 0 {
		t.Errorf("%d bytes that are being verified for docker.io went out by the word of ghcr.io (%v)", len(got), err)
	}
}

func TestUpstreamsOfOneDomainBelieveEachOther(t *testing.T) {
	r, also := cachetest.NewRegistry(), cachetest.NewRegistry()
	data, d := cachetest.BlobOf(3000, 1)
	r.Put(hub.Name, &cachetest.Script{Data: data})
	also.Put(ghcr.Name, &cachetest.Script{Data: data})
	c := openTwo(t, r, also, UpstreamOptions{Trust: "public"})
	for _, repo := range []Repo{hub, ghcr} {
		if got, err := readBlob(t.Context(), c, repo, d); err != nil || !bytes.Equal(got, data) {
			t.Errorf("Blob(%s) = %d bytes, %v", repo, len(got), err)
		}
	}
	if n := also.Count("OpenBlob"); n != 0 {
		t.Errorf("ghcr.io was asked for the bytes %d times, want 0", n)
	}
	// But not with a size that is not that of the bytes.
	c = openTwo(t, r, liar{cachetest.NewRegistry(), 3300}, UpstreamOptions{Trust: "public"})
	if _, err := readBlob(t.Context(), c, hub, d); err != nil {
		t.Fatal(err)
	}
	if got, err := readBlob(t.Context(), c, ghcr, d); err == nil || len(got) > 0 {
		t.Errorf("%d bytes went out by the word of a registry that does not know their number (%v)", len(got), err)
	}
}

func TestWrongBytesAreTheFaultOfWhoSentThem(t *testing.T) {
	good, bad := cachetest.NewRegistry(), cachetest.NewRegistry()
	data, d := cachetest.BlobOf(100_000, 1)
	good.Put(hub.Name, &cachetest.Script{Data: data})
	s := &cachetest.Script{Data: data}
	for range 8 {
		s.Faults = append(s.Faults, cachetest.Fault{Flip: true})
	}
	bad.Put(ghcr.Name, s)
	c := openTwo(t, good, bad, UpstreamOptions{})
	for range 3 {
		if _, err := readBlob(t.Context(), c, ghcr, d); !errors.Is(err, sums.ErrMismatch) && pull.KindOf(err) != pull.Invalid {
			t.Errorf("Blob(ghcr) = %v, want wrong content", err)
		}
	}
	if got, err := readBlob(t.Context(), c, hub, d); err != nil || !bytes.Equal(got, data) {
		t.Errorf("Blob(hub) = %d bytes, %v", len(got), err)
	}
	if got := len(s.Opens); got != 2 {
		t.Errorf("ghcr.io was asked %d times for what it sends wrong, want 2", got)
	}
}

// Ten thousand clients ask for what does not exist and hang up.
func TestHungUpRequestsLeaveNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		r.Slow = 2 * time.Second
		kept, _ := cachetest.BlobOf(1000, 1)
		d := r.Put(hub.Name, &cachetest.Script{Data: kept})
		data, fresh := cachetest.BlobOf(1000, 2)
		r.Put(hub.Name, &cachetest.Script{Data: data})
		dir := t.TempDir()
		c := openCache(t, r, dir)
		if _, err := readBlob(t.Context(), c, hub, d); err != nil {
			t.Fatal(err)
		}
		settle(t, c)
		ctx, hangUp := context.WithCancel(pull.WithClient(t.Context(), "10.0.0.66"))
		var all sync.WaitGroup
		for i := range 10_000 {
			all.Go(func() { _, _ = c.Blob(ctx, other, cachetest.DigestOf([]byte(strconv.Itoa(i)))) })
		}
		synctest.Wait()
		if partials, err := filepath.Glob(filepath.Join(dir, "partial", "*")); len(partials) > 0 || err != nil {
			t.Errorf("%d files were made before anything came (%v)", len(partials), err)
		}
		hangUp()
		all.Wait()
		synctest.Wait()
		if n := len(c.fills.All()); n != 0 {
			t.Errorf("%d fills go on for nobody", n)
		}
		r.Slow = 0
		begin := time.Now()
		for _, d := range []v1.Hash{d, fresh} {
			if _, err := readBlob(pull.WithClient(t.Context(), "10.0.0.7"), c, hub, d); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("an honest client waited %s", took)
		}
	})
}

func TestFillThatBroughtNothingEndsWithItsLastReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		s := &cachetest.Script{}
		s.Data, _ = cachetest.BlobOf(1000, 1)
		d := r.Put(hub.Name, s)
		c := openWith(t, hanging{r, hub.Name}, UpstreamOptions{})
		defer closeCache(t, c)
		ctx, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { _, _ = c.Blob(ctx, hub, d) })
		synctest.Wait()
		if n := len(c.fills.All()); n != 1 {
			t.Fatalf("%d fills, want 1", n)
		}
		leave()
		all.Wait()
		synctest.Wait()
		if n := len(c.fills.All()); n != 0 {
			t.Errorf("%d fills go on for nobody", n)
		}
	})
}

func TestWhatClientsMakeFailIsNoEvent(t *testing.T) {
	r := cachetest.NewRegistry()
	var mu sync.Mutex
	told := map[event.Kind]int{}
	c, err := Open(Options{
		Store: store.Options{Dir: t.TempDir(), OnEvent: func(e event.Event) {
			mu.Lock()
			defer mu.Unlock()
			told[e.Kind]++
		}},
		Upstreams: map[string]UpstreamOptions{"docker.io": {Upstream: r}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer closeCache(t, c)
	for i := range 100 {
		_, err := c.Blob(t.Context(), hub, cachetest.DigestOf([]byte(strconv.Itoa(i))))
		if pull.KindOf(err) != pull.NotFound {
			t.Fatalf("Blob = %v, want not found", err)
		}
	}
	if told[event.FillFailed] != 0 {
		t.Errorf("%d events of blobs that do not exist, want none", told[event.FillFailed])
	}
}

func TestMaskedRefusalEndsAccess(t *testing.T) {
	for _, credentialed := range []bool{true, false} {
		t.Run(fmt.Sprintf("credentials %t", credentialed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := cachetest.NewRegistry()
				data, d := cachetest.BlobOf(1000, 1)
				r.Put(hub.Name, &cachetest.Script{Data: data})
				m := r.Push(hub.Name, "latest", cachetest.ManifestOf("private"))
				c := openWith(t, r, UpstreamOptions{AccessTTL: time.Minute, Credentialed: credentialed})
				defer closeCache(t, c)
				pullAll := func() (errs []error) {
					for _, ref := range []string{"latest", m.String()} {
						_, err := c.Manifest(t.Context(), hub, ref, false)
						errs = append(errs, err)
					}
					_, err := readBlob(t.Context(), c, hub, d)
					return append(errs, err)
				}
				if err := errors.Join(pullAll()...); err != nil {
					t.Fatal(err)
				}
				r.Fail(&pull.Error{Kind: pull.NotFound, Upstream: "docker.io"})
				for range 10 {
					time.Sleep(2 * time.Minute)
					pullAll()
				}
				for _, err := range pullAll() {
					if refused := err != nil; refused != credentialed {
						t.Errorf("after ten times \"not found\": %v, want it refused %t", err, credentialed)
					}
				}
				r.Fail(nil)
				time.Sleep(2 * time.Minute)
				if err := errors.Join(pullAll()...); err != nil {
					t.Errorf("when the registry shows it again: %v", err)
				}
			})
		})
	}
}

func TestTagsThatOnlyHeadsAskedForAreNotRecorded(t *testing.T) {
	r := cachetest.NewRegistry()
	for i := range 200 {
		r.Push(hub.Name, "t"+strconv.Itoa(i), cachetest.ManifestOf(strconv.Itoa(i)))
	}
	c := openWith(t, r, UpstreamOptions{TagTTL: Forever})
	defer closeCache(t, c)
	for range 2 {
		for i := range 200 {
			if _, err := c.Manifest(pull.WithClient(t.Context(), "10.0.0.66"), hub, "t"+strconv.Itoa(i), true); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := r.Count("Resolve"); n != 200 {
		t.Errorf("registry saw %d HEADs, want one for each tag", n)
	}
	recorded := func() (n int) {
		if err := c.store.Index.Tags(hub, func(string, index.Tag) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := recorded(); n != 0 {
		t.Errorf("%d tags are on the disk that only HEADs asked for", n)
	}
	// The client goes on by digest: then the tag is worth keeping.
	d := cachetest.DigestOf(cachetest.ManifestOf("7"))
	if _, err := c.Manifest(t.Context(), hub, d.String(), false); err != nil {
		t.Fatal(err)
	}
	if tag, ok, err := c.store.Index.Tag(hub, "t7"); !ok || err != nil || tag.Desc.Digest != d || recorded() != 1 {
		t.Errorf("tag of a manifest that came = %v, %t, %v; %d recorded, want it alone", tag, ok, err, recorded())
	}
}

func TestPagesOfAListAreNotEachDecodedAnew(t *testing.T) {
	r := cachetest.NewRegistry()
	c := openWith(t, r, UpstreamOptions{TagTTL: time.Hour})
	defer closeCache(t, c)
	var lists [3]*Listing
	for i := range lists {
		var err error
		if lists[i], err = c.Tags(t.Context(), hub); err != nil || len(lists[i].Tags) != 2 {
			t.Fatalf("Tags = %v, %v", lists[i], err)
		}
	}
	if &lists[1].Tags[0] != &lists[2].Tags[0] {
		t.Error("a list that is fresh was decoded again")
	}
	c.ForgetFailures(hub)
	if again, err := c.Tags(t.Context(), hub); err != nil || &again.Tags[0] == &lists[2].Tags[0] {
		t.Errorf("a list is served from memory after it was to be forgotten (%v)", err)
	}
	l := newTagLists()
	for i := range 20 {
		l.add(Repo{Name: strconv.Itoa(i)}, make([]string, tagListsMost/10), time.Now())
	}
	if l.tags > tagListsMost || l.lists.Len() != 10 {
		t.Errorf("%d tags of %d lists are in memory, want %d of 10", l.tags, l.lists.Len(), tagListsMost)
	}
}
