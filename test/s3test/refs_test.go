package s3test_test

import (
	"bytes"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/cache/tier"
	"forebay/cache/upkeep"
	"forebay/test/hubtest"
	"forebay/test/mirrortest"
	"forebay/test/s3test"
)

// soon has links and tags in the bucket without delay.
func soon(o *tier.Options, _ *cache.Options) { o.RefsEvery = 20 * time.Millisecond }

// told waits until all that the mirror knows of links and tags is in the bucket, and its content, too.
func (w *world) told(m *mirrortest.Mirror) {
	w.t.Helper()
	w.settled(m)
	s3test.Await(w.t, time.Minute, "links and tags to be in the bucket", m.Cache().Store().Index.AllShipped)
}

// after starts a mirror with an empty folder.
func (w *world) after(change func(*tier.Options, *cache.Options)) *mirrortest.Mirror {
	w.t.Helper()
	return w.mirror(func(o *tier.Options, c *cache.Options) {
		o.RefsEvery = time.Hour // what it has, it has from its start
		if change != nil {
			change(o, c)
		}
	})
}

// lose stops a mirror and removes its folder.
func (w *world) lose(m *mirrortest.Mirror) {
	w.t.Helper()
	m.Stop()
	if err := os.RemoveAll(m.Dir); err != nil {
		w.t.Fatal(err)
	}
}

// whole pulls an image by its tag, and all of it.
func (w *world) whole(m *mirrortest.Mirror, img *hubtest.Image) {
	w.t.Helper()
	w.pull(m, "/v2/"+img.Repo+"/manifests/"+img.Tag, "", w.hub.Bytes(img.Digest))
	for _, d := range img.Manifests() {
		w.pull(m, "/v2/"+img.Repo+"/manifests/"+d.Digest, "", w.hub.Bytes(d.Digest))
	}
	for _, b := range img.Blobs() {
		w.pull(m, blobPath(img.Repo, b.Digest), "", w.hub.Bytes(b.Digest))
	}
}

// nothing fails the test if the mirror gives anything of an image.
func (w *world) nothing(m *mirrortest.Mirror, img *hubtest.Image) {
	w.t.Helper()
	paths := []string{"/v2/" + img.Repo + "/manifests/" + img.Tag}
	for _, d := range img.Manifests() {
		paths = append(paths, "/v2/"+img.Repo+"/manifests/"+d.Digest)
	}
	for _, b := range img.Blobs() {
		paths = append(paths, blobPath(img.Repo, b.Digest))
	}
	for _, path := range paths {
		if status, _, err := w.ask(m, path, ""); err != nil || status < 400 {
			w.t.Errorf("GET %s = %d, %v; want none", path, status, err)
		}
	}
}

func repoOf(img *hubtest.Image) cache.Repo { return cache.Repo{Upstream: "docker.io", Name: img.Repo} }

// The registry is gone and so is the folder: the bucket alone is enough, with tags, their histories
// and pins.
func TestBucketAloneIsEnough(t *testing.T) {
	w := newWorld(t, soon)
	old := w.hub.PushImage("library/app", "v1", hubtest.ImageSpec{Layers: 1, Seed: 1})
	w.whole(w.m, old)
	w.m.RestartWith(func(o *mirrortest.Options) { o.TagTTL = -1 })
	img := w.hub.PushImage("library/app", "v1", hubtest.ImageSpec{Layers: 3, Seed: 2, Platforms: []string{"linux/amd64", "linux/arm64"}})
	w.whole(w.m, img)
	other := w.hub.PushImage("someone/tool", "2", hubtest.ImageSpec{Layers: 1})
	w.whole(w.m, other)
	if _, err := w.m.Keeper().Pin(t.Context(), repoOf(img), "v1", v1.Hash{}, []string{"linux/amd64"}); err != nil {
		t.Fatal(err)
	}
	w.told(w.m)
	w.lose(w.m)
	w.hub.SwitchOff()
	w.s3.Forget()
	m := w.after(nil)
	w.whole(m, img)
	w.whole(m, other)
	if n := w.s3.Count("PutObject"); n != 0 {
		t.Errorf("%d objects were put again, want none", n)
	}
	tag, ok, err := m.Cache().Store().Index.Tag(repoOf(img), "v1")
	if err != nil || !ok || tag.Desc.Digest.String() != img.Digest || string(tag.Desc.MediaType) != img.MediaType {
		t.Errorf("tag = %+v, %t, %v; want %s of type %s", tag, ok, err, img.Digest, img.MediaType)
	}
	if len(tag.History) != 1 || tag.History[0].Digest.String() != old.Digest || tag.History[0].FirstSeen.IsZero() {
		t.Errorf("history = %+v, want %s", tag.History, old.Digest)
	}
	pins := m.Keeper().Images.Pins.List()
	if len(pins) != 1 || pins[0].Ref != "docker.io/library/app:v1" || len(pins[0].Platforms) != 1 || !pins[0].Held {
		t.Errorf("pins = %+v, want the one of library/app:v1", pins)
	}
	if stats := m.Cache().Store().Refs.Stats(); stats.Due || stats.Restored == 0 {
		t.Errorf("stats = %+v, want all restored", stats)
	}
	// It goes on from here as any mirror does.
	m.Restart()
	w.whole(m, img)
}

// What was purged and unpinned does not come back, neither with the journal rewritten meanwhile nor
// when all segments were merged.
func TestPurgedStaysPurged(t *testing.T) {
	for _, name := range []string{"at once", "while the bucket fails"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, soon)
			gone := w.hub.PushImage("library/gone", "v1", hubtest.ImageSpec{Layers: 2})
			kept := w.hub.PushImage("library/kept", "v1", hubtest.ImageSpec{Layers: 2})
			w.whole(w.m, gone)
			w.whole(w.m, kept)
			for _, img := range []*hubtest.Image{gone, kept} {
				if _, err := w.m.Keeper().Pin(t.Context(), repoOf(img), "v1", v1.Hash{}, nil); err != nil {
					t.Fatal(err)
				}
			}
			w.told(w.m)
			if name != "at once" {
				w.s3.Add(s3test.Fault{Op: "PutObject", Status: 503})
			}
			if err := w.m.Keeper().Images.Pins.Remove(t.Context(), repoOf(kept), "v1", v1.Hash{}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.m.Keeper().PurgeRepository(t.Context(), repoOf(gone), upkeep.PurgeOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
			w.m.Restart() // the journal is what is left
			w.s3.Clear()
			w.told(w.m)
			w.lose(w.m)
			w.hub.SwitchOff()
			m := w.after(nil)
			w.whole(m, kept)
			w.nothing(m, gone)
			for _, p := range m.Keeper().Images.Pins.List() {
				if p.Ref == "docker.io/library/kept:v1" {
					t.Errorf("pin %+v came back", p)
				}
			}
		})
	}
}

// Two mirrors write to one bucket, and merge what is there at the same time: nothing of either is lost.
func TestTwoMirrorsOneRecord(t *testing.T) {
	w := newWorld(t, soon)
	other := w.mirror(soon)
	var images []*hubtest.Image
	var all sync.WaitGroup
	for i := range 40 {
		repo := "library/app" + string(rune('a'+i%4))
		images = append(images, w.hub.PushImage(repo, "v"+string(rune('a'+i/4)), hubtest.ImageSpec{Layers: 1}))
	}
	for n, m := range []*mirrortest.Mirror{w.m, other} {
		all.Go(func() {
			for i, img := range images {
				if i%2 == n {
					w.whole(m, img)
					w.told(m) // a segment for each
				}
			}
		})
	}
	all.Wait()
	w.lose(w.m)
	w.lose(other)
	segments := len(w.s3.Segments())
	if segments == 0 || segments > 30 {
		t.Errorf("%d segments of 40 images, want fewer than 31: they are merged", segments)
	}
	w.hub.SwitchOff()
	m := w.after(nil)
	for _, img := range images {
		w.whole(m, img)
	}
}

// The bucket refuses, answers 412, loses answers and is slow: a client notices nothing, and the lines
// are there as soon as it takes them.
func TestRecordWhileTheBucketFails(t *testing.T) {
	for name, f := range map[string]s3test.Fault{
		"503":   {Op: "PutObject", Status: 503, Times: 9},
		"412":   {Op: "PutObject", Status: 412, Code: "PreconditionFailed", After: 2, Times: 4},
		"reset": {Op: "PutObject", Reset: true, Times: 9},
		"lost":  {Op: "PutObject", Lost: true, Times: 3},
		"slow":  {Op: "PutObject", Delay: 300 * time.Millisecond, Times: 6},
		"501":   {Op: "PutObject", Status: 501, Code: "NotImplemented", Times: 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, soon)
			img := w.hub.PushImage("library/app", "v1", hubtest.ImageSpec{Layers: 2})
			w.s3.Add(f)
			w.whole(w.m, img)
			w.told(w.m)
			w.lose(w.m)
			w.s3.Clear()
			w.hub.SwitchOff()
			w.whole(w.after(nil), img)
		})
	}
}

// A bucket that does not answer when the mirror starts is read as soon as it does.
func TestRestoreAsSoonAsTheBucketAnswers(t *testing.T) {
	w := newWorld(t, soon)
	img := w.hub.PushImage("library/app", "v1", hubtest.ImageSpec{Layers: 2})
	w.whole(w.m, img)
	w.told(w.m)
	w.lose(w.m)
	w.hub.SwitchOff()
	w.s3.Add(s3test.Fault{Op: "ListObjectsV2", Status: 500, Code: "InternalError"})
	m := w.mirror(soon)
	w.nothing(m, img)
	if !m.Cache().Store().Refs.Stats().Due {
		t.Error("nothing is due, although nothing was read")
	}
	w.s3.Clear()
	s3test.Await(t, time.Minute, "the bucket to be read", func() bool { return !m.Cache().Store().Refs.Stats().Due })
	w.whole(m, img)
}

// A segment that is damaged is told of, costs the lines that are, and does not stop the others.
func TestDamagedSegment(t *testing.T) {
	w := newWorld(t, soon)
	first := w.hub.PushImage("library/first", "v1", hubtest.ImageSpec{Layers: 1})
	w.whole(w.m, first)
	w.told(w.m)
	before := w.s3.Segments()
	second := w.hub.PushImage("library/second", "v1", hubtest.ImageSpec{Layers: 1})
	w.whole(w.m, second)
	w.told(w.m)
	w.lose(w.m)
	for _, name := range w.s3.Segments() {
		if !slices.Contains(before, name) {
			w.s3.Damage(name, func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("+tag"), []byte("+taf")) })
		}
	}
	w.hub.SwitchOff()
	m := w.after(nil)
	w.whole(m, first)
	for _, b := range second.Blobs() {
		w.pull(m, blobPath("library/second", b.Digest), "", w.hub.Bytes(b.Digest))
	}
	if status, _, err := w.ask(m, "/v2/library/second/manifests/v1", ""); err != nil || status < 400 {
		t.Errorf("GET of the damaged tag = %d, %v; want none", status, err)
	}
	if n := len(m.Entries("lines of the bucket's record of links and tags are damaged")); n == 0 {
		t.Error("the log tells nothing of the damage")
	}
	if m.Cache().Store().Refs.Stats().Damaged == 0 {
		t.Error("the figures tell nothing of the damage")
	}
}

// A mirror that asks the upstream in another name, or another upstream under this name, gets none of
// the rights.
func TestRightsOfOthersAreNotRestored(t *testing.T) {
	same := func(o *tier.Options, c *cache.Options) {
		soon(o, c)
		o.Identity = func(string) string { return "alice" }
	}
	w := newWorld(t, same)
	img := w.hub.PushImage("library/app", "v1", hubtest.ImageSpec{Layers: 2})
	w.whole(w.m, img)
	w.told(w.m)
	w.lose(w.m)
	w.hub.SwitchOff()
	m := w.after(func(o *tier.Options, _ *cache.Options) { o.Identity = func(string) string { return "bob" } })
	s3test.Await(t, time.Minute, "the bucket to be listed", func() bool { return bucketOf(t, m).Survey != nil })
	w.nothing(m, img)
	w.whole(w.after(same), img)
}

// kill -9 at each moment of the way of the lines into the bucket: after the next start they are there.
func TestRecordSurvivesKills(t *testing.T) {
	w := newWorld(t, func(o *tier.Options, _ *cache.Options) { o.RefsEvery = time.Hour })
	img := w.hub.PushImage("library/app", "v1", hubtest.ImageSpec{Layers: 2})
	w.whole(w.m, img)
	w.settled(w.m)
	for n := range 4 {
		w.m.RestartWith(func(o *mirrortest.Options) { o.Cache.Store.Bucket.RefsEvery = 20 * time.Millisecond })
		stuck := make(chan struct{})
		w.s3.Add(s3test.Fault{Op: "PutObject", After: n, Reset: true, Gone: stuck})
		one := w.hub.PushImage("library/app", "w"+string(rune('a'+n)), hubtest.ImageSpec{Layers: 1})
		w.whole(w.m, one)
		select {
		case <-stuck:
		case <-time.After(5 * time.Second): // there was less to put
		}
		w.m.Crash()
		w.s3.Clear()
		w.told(w.m)
	}
	w.lose(w.m)
	w.hub.SwitchOff()
	m := w.after(nil)
	w.whole(m, img)
	for n := range 4 {
		if status, _, err := w.ask(m, "/v2/library/app/manifests/w"+string(rune('a'+n)), ""); err != nil || status != 200 {
			t.Errorf("GET of tag %d = %d, %v", n, status, err)
		}
	}
}
