package cache

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/google/go-cmp/cmp"

	"forebay/cache/disk"
	"forebay/internal/pull"
)

// events gathers what a cache tells.
type events struct {
	mu  sync.Mutex
	all []Event
}

func (e *events) add(one Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, one)
}

// take returns and forgets what was told.
func (e *events) take() []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.all
	e.all = nil
	return all
}

// kinds is take for tests that look at nothing else.
func (e *events) kinds() (all []EventKind) {
	for _, one := range e.take() {
		all = append(all, one.Kind)
	}
	return all
}

func openTelling(t *testing.T, r Upstream, o Options) (*Cache, *events) {
	t.Helper()
	told := &events{}
	o.OnEvent = told.add
	return openBounded(t, r, t.TempDir(), o), told
}

func wantKinds(t *testing.T, told *events, when string, want ...EventKind) {
	t.Helper()
	if diff := cmp.Diff(want, told.kinds()); diff != "" {
		t.Errorf("events %s (-want +got):\n%s", when, diff)
	}
}

func TestMovedTagsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		c, told := openTelling(t, r, Options{})
		defer closeCache(t, c)
		for tag, kind := range map[string]EventKind{"latest": EventTagMoved, "1.27.3": EventReleaseMoved} {
			was := r.push(hub.Name, tag, manifestOf(tag+" one"))
			if _, err := c.Manifest(t.Context(), hub, tag, false); err != nil {
				t.Fatal(err)
			}
			now := r.push(hub.Name, tag, manifestOf(tag+" two"))
			time.Sleep(ttl + time.Second)
			if _, err := c.Manifest(t.Context(), hub, tag, false); err != nil {
				t.Fatal(err)
			}
			want := []Event{{At: time.Now(), Kind: kind, Upstream: "docker.io", Repository: hub.Name, Tag: tag, Digest: now, Was: was}}
			if diff := cmp.Diff(want, told.take()); diff != "" {
				t.Errorf("tag %s moved: events (-want +got):\n%s", tag, diff)
			}
		}
	})
}

func TestUpstreamTroubleIsToldInPairsAndNotOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		c, told := openTelling(t, r, Options{})
		defer closeCache(t, c)
		ask := func() { _, _ = c.Manifest(t.Context(), hub, fmt.Sprint("t", time.Now().UnixNano()), false) }
		for range 5 {
			r.fail(&pull.Error{Kind: pull.Unavailable})
			ask()
			time.Sleep(time.Second)
			r.fail(nil)
			ask()
			time.Sleep(time.Second)
		}
		wantKinds(t, told, "of an upstream that flaps", EventUpstreamFailing, EventUpstreamBack)
		time.Sleep(time.Minute)
		r.fail(&pull.Error{Kind: pull.Limited})
		for range 5 {
			ask()
			time.Sleep(time.Second)
		}
		wantKinds(t, told, "of an upstream that limits", EventLimited)
		r.fail(&pull.Error{Kind: pull.Timeout})
		ask()
		time.Sleep(time.Hour)
		ask()
		r.fail(nil)
		ask()
		wantKinds(t, told, "of an upstream that is away for long", EventUpstreamFailing, EventUpstreamBack)
	})
}

func TestStaleServingIsToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		d := r.push(hub.Name, "latest", manifestOf("one"))
		c, told := openTelling(t, r, Options{})
		defer closeCache(t, c)
		if _, err := c.Manifest(t.Context(), hub, "latest", false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * ttl)
		r.fail(&pull.Error{Kind: pull.NotFound})
		for range 10 {
			if _, err := c.Manifest(t.Context(), hub, "latest", false); err != nil {
				t.Fatal(err)
			}
		}
		got := told.take()
		if len(got) != 1 || got[0].Kind != EventServedStale || got[0].Tag != "latest" || got[0].Digest != d || got[0].Detail == "" {
			t.Errorf("events of a tag served stale ten times: %+v, want one", got)
		}
	})
}

func TestFillsAreToldWhenLargeOrFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		c, told := openTelling(t, r, Options{})
		defer closeCache(t, c)
		put := func(size int, faults ...fault) v1.Hash {
			s := &script{faults: faults}
			s.data, _ = blobOf(size, uint64(size))
			return r.put(hub.Name, s)
		}
		large := put(fillDoneLeast + 5)
		for _, d := range []v1.Hash{put(2 << 20), large} {
			if _, err := readBlob(t.Context(), c, hub, d); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		got := told.take()
		if len(got) != 1 || got[0].Kind != EventFillDone || got[0].Digest != large || got[0].Bytes != fillDoneLeast+5 {
			t.Errorf("events of a small and a large fill: %+v, want one of the large", got)
		}
		opened := r.count("OpenBlob")
		wrong := put(3<<20, fault{flip: true}, fault{flip: true})
		if _, err := readBlob(t.Context(), c, hub, wrong); err == nil {
			t.Error("wrong content was served whole")
		}
		synctest.Wait()
		// A reader that was sent nothing yet tries once more, so there may be two fills.
		want := []EventKind{EventVerificationFailed, EventFillFailed}
		if r.count("OpenBlob")-opened > 1 {
			want = append(want, want...)
		}
		wantKinds(t, told, "of a blob that came wrong", want...)
	})
}

func TestStoreThatRefusesIsToldAsDegradedUntilItTakesAgain(t *testing.T) {
	r := newRegistry()
	c, told := openTelling(t, r, Options{MaxBytes: 16 << 20})
	defer closeCache(t, c)
	<-c.space.loaded
	serve := func(tag string) {
		t.Helper()
		r.push(hub.Name, tag, manifestOf(tag))
		if _, err := c.Manifest(t.Context(), hub, tag, false); err != nil {
			t.Fatal(err)
		}
	}
	large := &script{}
	large.data, _ = blobOf(17<<20, 3)
	if _, err := readBlob(t.Context(), c, hub, r.put(hub.Name, large)); err != nil {
		t.Fatal(err)
	}
	wantKinds(t, told, "of a blob that never fits")
	c.disk.SetFault(func(at disk.Step, _ string) error {
		if at == disk.StepWrite {
			return syscall.ENOSPC
		}
		return nil
	})
	for _, tag := range []string{"a", "b", "c"} {
		serve(tag)
	}
	got := told.take()
	if len(got) != 1 || got[0].Kind != EventDegraded || !strings.Contains(got[0].Detail, "writing to the store: ") || !strings.Contains(got[0].Detail, "no space left") {
		t.Errorf("events of a full disk: %+v", got)
	}
	if list := c.Troubles(); len(list) != 1 || list[0].Since.IsZero() || !strings.Contains(list[0].Why, "no space left") {
		t.Errorf("Troubles = %+v", list)
	}
	c.disk.SetFault(nil)
	serve("d")
	wantKinds(t, told, "of a disk with room again", EventRecovered)
	if list := c.Troubles(); len(list) != 0 {
		t.Errorf("Troubles = %+v after it took something, want none", list)
	}
}

func TestRoomThatIsMadeIsToldOnceWithWhatItTook(t *testing.T) {
	r := newRegistry()
	c, told := openTelling(t, r, Options{MaxBytes: 24 << 20})
	defer closeCache(t, c)
	for i := range uint64(16) {
		s := &script{}
		s.data, _ = blobOf(3<<20, i)
		if _, err := readBlob(t.Context(), c, hub, r.put(hub.Name, s)); err != nil {
			t.Fatal(err)
		}
	}
	var count, bytes int64
	got := told.take()
	for _, e := range got {
		if e.Kind != EventEvicted || e.Count == 0 || e.Bytes == 0 {
			t.Errorf("event %+v, want an eviction", e)
		}
		count, bytes = count+e.Count, bytes+e.Bytes
	}
	if count == 0 || count != c.space.evicted.Load() || bytes != c.space.freed.Load() {
		t.Errorf("events tell of %d files and %d bytes, want %d and %d", count, bytes, c.space.evicted.Load(), c.space.freed.Load())
	}
	if aged := c.space.ages.Read().Count; aged != uint64(count) {
		t.Errorf("%d ages of %d evicted files", aged, count)
	}
}

func TestPinsAndPurgesAreTold(t *testing.T) {
	r := newRegistry()
	d := r.push(hub.Name, "latest", manifestOf("one"))
	c, told := openTelling(t, r, Options{})
	defer closeCache(t, c)
	if _, err := c.Pin(t.Context(), hub, "latest", v1.Hash{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Unpin(hub, "latest", v1.Hash{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PurgeImage(t.Context(), hub, "latest", v1.Hash{}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Manifest(t.Context(), hub, d.String(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PurgeDigest(t.Context(), d, false); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PurgeDigest(t.Context(), d, false); err == nil {
		t.Error("PurgeDigest of what is gone = nil")
	}
	wantKinds(t, told, "of pin, unpin and two purges", EventPinned, EventUnpinned, EventPurged, EventPurged)
}
