package cache

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/disk"
	"forebay/cache/event"
	"forebay/cache/store"
	"forebay/internal/pull"
	"forebay/test/cachetest"
)

// events gathers what a cache tells.
type events struct {
	mu  sync.Mutex
	all []event.Event
}

func (e *events) add(one event.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, one)
}

// take returns and forgets what was told.
func (e *events) take() []event.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.all
	e.all = nil
	return all
}

// kinds is take for tests that look at nothing else.
func (e *events) kinds() (all []event.Kind) {
	for _, one := range e.take() {
		all = append(all, one.Kind)
	}
	return all
}

func openTelling(t *testing.T, r Upstream, o store.Options) (*Cache, *events) {
	t.Helper()
	told := &events{}
	o.OnEvent = told.add
	return openBounded(t, r, t.TempDir(), o), told
}

func wantKinds(t *testing.T, told *events, when string, want ...event.Kind) {
	t.Helper()
	if diff := cmp.Diff(want, told.kinds()); diff != "" {
		t.Errorf("events %s (-want +got):\n%s", when, diff)
	}
}

func TestMovedTagsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c, told := openTelling(t, r, store.Options{})
		defer closeCache(t, c)
		for tag, kind := range map[string]event.Kind{"latest": event.TagMoved, "1.27.3": event.ReleaseMoved} {
			was := r.Push(hub.Name, tag, cachetest.ManifestOf(tag+" one"))
			if _, err := c.Manifest(t.Context(), hub, tag, false); err != nil {
				t.Fatal(err)
			}
			now := r.Push(hub.Name, tag, cachetest.ManifestOf(tag+" two"))
			time.Sleep(ttl + time.Second)
			if _, err := c.Manifest(t.Context(), hub, tag, false); err != nil {
				t.Fatal(err)
			}
			want := []event.Event{{At: time.Now(), Kind: kind, Upstream: "docker.io", Repository: hub.Name, Tag: tag, Digest: now, Was: was}}
			if diff := cmp.Diff(want, told.take()); diff != "" {
				t.Errorf("tag %s moved: events (-want +got):\n%s", tag, diff)
			}
		}
	})
}

func TestUpstreamTroubleIsToldInPairsAndNotOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c, told := openTelling(t, r, store.Options{})
		defer closeCache(t, c)
		ask := func() { _, _ = c.Manifest(t.Context(), hub, fmt.Sprint("t", time.Now().UnixNano()), false) }
		for range 5 {
			r.Fail(&pull.Error{Kind: pull.Unavailable})
			for range 4 {
				ask()
				time.Sleep(time.Second)
			}
			r.Fail(nil)
			ask()
			time.Sleep(time.Second)
		}
		wantKinds(t, told, "of an upstream that wavers", event.UpstreamFailing)
		time.Sleep(10 * time.Second)
		ask()
		wantKinds(t, told, "of one that wavers no more", event.UpstreamBack)
		time.Sleep(time.Minute)
		r.Fail(&pull.Error{Kind: pull.Limited})
		for range 5 {
			ask()
			time.Sleep(time.Second)
		}
		wantKinds(t, told, "of an upstream that limits", event.Limited)
		time.Sleep(time.Minute)
		r.Fail(&pull.Error{Kind: pull.Timeout})
		for range 4 {
			ask()
			time.Sleep(30 * time.Second)
		}
		r.Fail(nil)
		ask()
		wantKinds(t, told, "of an upstream that is away for long", event.UpstreamFailing, event.UpstreamBack)
	})
}

func TestStaleServingIsToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		d := r.Push(hub.Name, "latest", cachetest.ManifestOf("one"))
		c, told := openTelling(t, r, store.Options{})
		defer closeCache(t, c)
		if _, err := c.Manifest(t.Context(), hub, "latest", false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * ttl)
		r.Fail(&pull.Error{Kind: pull.NotFound})
		for range 10 {
			if _, err := c.Manifest(t.Context(), hub, "latest", false); err != nil {
				t.Fatal(err)
			}
		}
		got := told.take()
		if len(got) != 1 || got[0].Kind != event.ServedStale || got[0].Tag != "latest" || got[0].Digest != d || got[0].Detail == "" {
			t.Errorf("events of a tag served stale ten times: %+v, want one", got)
		}
	})
}

func TestFillsAreToldWhenLargeOrFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c, told := openTelling(t, r, store.Options{})
		defer closeCache(t, c)
		put := func(size int, faults ...cachetest.Fault) v1.Hash {
			s := &cachetest.Script{Faults: faults}
			s.Data, _ = cachetest.BlobOf(size, uint64(size))
			return r.Put(hub.Name, s)
		}
		large := put(fillDoneLeast + 5)
		for _, d := range []v1.Hash{put(2 << 20), large} {
			if _, err := readBlob(t.Context(), c, hub, d); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		got := told.take()
		if len(got) != 1 || got[0].Kind != event.FillDone || got[0].Digest != large || got[0].Bytes != fillDoneLeast+5 {
			t.Errorf("events of a small and a large fill: %+v, want one of the large", got)
		}
		opened := r.Count("OpenBlob")
		wrong := put(3<<20, cachetest.Fault{Flip: true}, cachetest.Fault{Flip: true})
		if _, err := readBlob(t.Context(), c, hub, wrong); err == nil {
			t.Error("wrong content was served whole")
		}
		synctest.Wait()
		// A reader that was sent nothing yet tries once more, so there may be two fills.
		want := []event.Kind{event.VerificationFailed, event.FillFailed}
		if r.Count("OpenBlob")-opened > 1 {
			want = append(want, want...)
		}
		wantKinds(t, told, "of a blob that came wrong", want...)
	})
}

func TestStoreThatRefusesIsToldAsDegradedUntilItTakesAgain(t *testing.T) {
	r := cachetest.NewRegistry()
	c, told := openTelling(t, r, store.Options{MaxBytes: 16 << 20})
	defer closeCache(t, c)
	<-c.store.Room.Loaded()
	serve := func(tag string) {
		t.Helper()
		r.Push(hub.Name, tag, cachetest.ManifestOf(tag))
		if _, err := c.Manifest(t.Context(), hub, tag, false); err != nil {
			t.Fatal(err)
		}
	}
	large := &cachetest.Script{}
	large.Data, _ = cachetest.BlobOf(17<<20, 3)
	if _, err := readBlob(t.Context(), c, hub, r.Put(hub.Name, large)); err != nil {
		t.Fatal(err)
	}
	wantKinds(t, told, "of a blob that never fits")
	c.store.Disk.SetFault(func(at disk.Step, _ string) error {
		if at == disk.StepWrite {
			return syscall.ENOSPC
		}
		return nil
	})
	for _, tag := range []string{"a", "b", "c"} {
		serve(tag)
	}
	got := told.take()
	if len(got) != 1 || got[0].Kind != event.Degraded || !strings.Contains(got[0].Detail, "writing to the store: ") || !strings.Contains(got[0].Detail, "no space left") {
		t.Errorf("events of a full disk: %+v", got)
	}
	if list := c.store.Troubles(); len(list) != 1 || list[0].Since.IsZero() || !strings.Contains(list[0].Why, "no space left") {
		t.Errorf("Troubles = %+v", list)
	}
	c.store.Disk.SetFault(nil)
	serve("d")
	settle(t, c)
	wantKinds(t, told, "of a disk with room again", event.Recovered)
	if list := c.store.Troubles(); len(list) != 0 {
		t.Errorf("Troubles = %+v after it took something, want none", list)
	}
}

func TestRoomThatIsMadeIsToldOnceWithWhatItTook(t *testing.T) {
	r := cachetest.NewRegistry()
	c, told := openTelling(t, r, store.Options{MaxBytes: 24 << 20})
	defer closeCache(t, c)
	for i := range uint64(16) {
		s := &cachetest.Script{}
		s.Data, _ = cachetest.BlobOf(3<<20, i)
		if _, err := readBlob(t.Context(), c, hub, r.Put(hub.Name, s)); err != nil {
			t.Fatal(err)
		}
	}
	var count, bytes int64
	got := told.take()
	for _, e := range got {
		if e.Kind != event.Evicted || e.Count == 0 || e.Bytes == 0 {
			t.Errorf("event %+v, want an eviction", e)
		}
		count, bytes = count+e.Count, bytes+e.Bytes
	}
	f := c.store.Figures()
	if count == 0 || count != f.EvictedBlobs || bytes != f.EvictedBytes {
		t.Errorf("events tell of %d files and %d bytes, want %d and %d", count, bytes, f.EvictedBlobs, f.EvictedBytes)
	}
	if aged := f.EvictedAges.Count; aged != uint64(count) {
		t.Errorf("%d ages of %d evicted files", aged, count)
	}
}
