package conformance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/cache/store"
	"forebay/cache/upkeep"
	"forebay/internal/imageset"
	"forebay/internal/prefetch"
	onbehalf "forebay/internal/pull"
	"forebay/internal/wire"
	"forebay/test/hubtest"
)

func hubNames() *wire.Registries {
	return &wire.Registries{Default: wire.Hub, Names: map[string]string{"docker.io": wire.Hub}}
}

// wantedOf asks for images by name.
func wantedOf(t *testing.T, names ...string) prefetch.Request {
	t.Helper()
	list, err := imageset.Names("test", names, hubNames())
	if err != nil {
		t.Fatal(err)
	}
	return prefetch.Request{Images: list, Platforms: []string{"linux/amd64"}}
}

func (b *bubble) prefetch(q prefetch.Request) *prefetch.Report {
	b.t.Helper()
	r, err := prefetch.Run(b.t.Context(), b.keeper, q, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func TestPrefetchKeepsOffTheReserveAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, reserve = 10, 2
		b := newBubble(t, bubbleOptions{hub: hubtest.Options{Anonymous: hubtest.Plan{Limit: limit, Window: time.Hour}}})
		var names []string
		for i := range 25 {
			name := fmt.Sprintf("library/app%d", i)
			b.hub.PushImage(name, "1", hubtest.ImageSpec{Seed: uint64(i + 1)})
			names = append(names, name+":1")
		}
		q := wantedOf(t, names...)
		q.AtOnce = 8
		first := b.prefetch(q)
		if first.Outcome != prefetch.OutcomeLimited || first.Pulls != int64(b.hub.ChargedTotal()) || b.hub.ChargedTotal() > limit-reserve || b.hub.ChargedTotal() < limit-reserve-1 {
			t.Errorf("without waiting it ends %s after %d pulls, and the hub charged %d", first.Outcome, first.Pulls, b.hub.ChargedTotal())
		}
		q.Wait = true
		began := time.Now()
		done := b.prefetch(q)
		if done.Outcome != prefetch.OutcomeDone || b.hub.ChargedTotal() != len(names) || first.Pulls+done.Pulls != int64(len(names)) {
			t.Errorf("waiting it ends %s after %d pulls, and the hub charged %d of %d: %+v", done.Outcome, done.Pulls, b.hub.ChargedTotal(), len(names), done)
		}
		if took := time.Since(began); took < 2*time.Hour || took > 4*time.Hour {
			t.Errorf("25 pulls, 8 an hour, took %s", took)
		}
		if n := b.hub.Count(hubtest.Query{Status: http.StatusTooManyRequests}); n != 0 {
			t.Errorf("the hub refused %d requests", n)
		}
	})
}

func TestInterruptedPrefetchGoesOn(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { interrupted(t, rand.New(rand.NewPCG(seed, 7))) })
		})
	}
}

func interrupted(t *testing.T, random *rand.Rand) {
	b := newBubble(t, bubbleOptions{hub: hubtest.Options{LineBytesPerSecond: 8 << 20}})
	img := b.hub.PushImage("library/app", "1", hubtest.ImageSpec{Layers: 3, LayerSize: 12 << 20})
	dir := filepath.Join(t.TempDir(), "store")
	q := wantedOf(t, "app:1")
	var report *prefetch.Report
	for tries := 1; report == nil; tries++ {
		c, err := cache.Open(cache.Options{Store: store.Options{Dir: dir}, Upstreams: map[string]cache.UpstreamOptions{"docker.io": {Upstream: b.registry, TagTTL: time.Minute}}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(200+random.IntN(1500))*time.Millisecond)
		if tries > 20 {
			t.Fatal("it never ends")
		}
		report, _ = prefetch.Run(ctx, upkeep.New(c, upkeep.Options{}), q, nil) // its error is that of ctx
		cancel()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if report.Outcome != prefetch.OutcomeDone {
		t.Fatalf("%+v", report)
	}
	for _, d := range img.Blobs() {
		size := int64(len(b.hub.Bytes(d.Digest)))
		// What is on its way when a connection is cut is sent and not received.
		if sent := b.hub.BlobBytes(d.Digest); sent > size+size/10+(1<<20) {
			t.Errorf("the hub sent %d bytes of a blob of %d", sent, size)
		}
	}
	if n := b.hub.ChargedTotal(); n != 1 {
		t.Errorf("%d pulls charged, want 1", n)
	}
}

func TestPrefetchTakesWhatRefersToAnImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, bubbleOptions{})
		img := b.hub.PushImage("library/app", "1", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}, Attestations: true})
		sbom := b.hub.AddReferrer("library/app", img.Digest, "application/spdx+json", "application/vnd.oci.image.manifest.v1+json",
			[]byte(`{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": "`+b.hub.PutBlob("library/app", []byte("{}"))+`"}, "layers": [], "subject": {"digest": "`+img.Digest+`"}}`))
		signed := b.hub.PushImage("library/app", strings.Replace(img.Children[0].Digest, ":", "-", 1)+".sig", hubtest.ImageSpec{Seed: 77})
		q := wantedOf(t, "app:1")
		q.Referrers = true
		if r := b.prefetch(q); r.Outcome != prefetch.OutcomeDone {
			t.Fatalf("%+v", r)
		}
		b.hub.SwitchOff()
		for _, d := range []string{img.Digest, img.Children[0].Digest, img.Others[0].Digest, sbom, signed.Digest} {
			if a := b.get("/v2/library/app/manifests/" + d + "?ns=docker.io"); a.Status != http.StatusOK {
				t.Errorf("%s: %d", d, a.Status)
			}
		}
		for _, d := range append(signed.Blobs(), img.Others[0].Layers...) {
			if a := b.get("/v2/library/app/blobs/" + d.Digest + "?ns=docker.io"); a.Status != http.StatusOK {
				t.Errorf("blob %s: %d", d.Digest, a.Status)
			}
		}
		if a := b.get("/v2/library/app/manifests/" + img.Children[1].Digest + "?ns=docker.io"); a.Status == http.StatusOK {
			t.Error("the other platform was fetched too")
		}
	})
}

// runSets runs the sets until stop is called.
func runSets(t *testing.T, b *bubble, file string, sets ...prefetch.Set) (s *prefetch.Sets, stop func()) {
	t.Helper()
	s, err := prefetch.NewSets(prefetch.SetsOptions{Keeper: b.keeper, Registries: hubNames, Sets: sets, File: file})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) }) // ends with ctx
	return s, func() { cancel(); running.Wait() }
}

func TestSetsRunOnScheduleAndAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, bubbleOptions{})
		b.hub.PushImage("library/app", "1", hubtest.ImageSpec{Seed: 1})
		b.hub.PushImage("library/other", "1", hubtest.ImageSpec{Seed: 2})
		file := filepath.Join(t.TempDir(), "prefetch.json")
		set := prefetch.Set{Name: "base", Images: []string{"app:1", "other:1"}, Platforms: []string{"linux/amd64"}, Pin: true,
			Schedule: "0 */6 * * *", TimeZone: "Europe/Berlin", Jitter: 10 * time.Minute}
		s, stop := runSets(t, b, file, set)
		synctest.Wait()
		due := time.Date(2000, 1, 1, 5, 0, 0, 0, time.UTC) // 6 o'clock in winter
		if next := s.List()[0].Next; next.Before(due) || next.After(due.Add(10*time.Minute)) {
			t.Errorf("next at %s, want between %s and ten minutes later", next, due)
		}
		time.Sleep(13 * time.Hour)
		stop()
		if st := s.List()[0]; len(st.Runs) != 2 || st.Last.Outcome != prefetch.OutcomeDone || st.Last.By != "schedule" || st.Last.Images != 2 {
			t.Errorf("after 13 hours: %+v", st)
		}
		if n := b.hub.ChargedTotal(); n != 2 {
			t.Errorf("two runs cost %d pulls, want 2", n)
		}
		if pins := b.keeper.Images.Pins.List(); len(pins) != 2 {
			t.Errorf("pins: %+v", pins)
		}

		// A start that missed a run makes up for it, and an image that left is let go.
		time.Sleep(7 * time.Hour)
		set.Images = []string{"app:1"}
		s, stop = runSets(t, b, file, set)
		time.Sleep(11 * time.Minute)
		stop()
		if st := s.List()[0]; len(st.Runs) != 3 || st.Last.Outcome != prefetch.OutcomeDone {
			t.Errorf("after a start: %+v", st)
		}
		if pins := b.keeper.Images.Pins.List(); len(pins) != 1 || pins[0].Ref != "docker.io/library/app:1" {
			t.Errorf("pins: %+v", pins)
		}
	})
}

func TestSetsRunWhenAskedAndTellWhatIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, bubbleOptions{hub: hubtest.Options{LineBytesPerSecond: 1 << 20}})
		b.hub.PushImage("library/app", "1", hubtest.ImageSpec{LayerSize: 30 << 20})
		s, stop := runSets(t, b, filepath.Join(t.TempDir(), "prefetch.json"),
			prefetch.Set{Name: "slow", Images: []string{"app:1"}, Platforms: []string{"linux/amd64"}},
			prefetch.Set{Name: "lost", Files: []string{"/none/images.txt"}, Platforms: []string{"linux/amd64"}})
		defer stop()
		if err := s.Start("none"); err == nil {
			t.Error("a set that is not there starts")
		}
		for _, name := range []string{"slow", "lost"} {
			if err := s.Start(name); err != nil {
				t.Errorf("%s: %s", name, err)
			}
		}
		time.Sleep(10 * time.Second)
		list := s.List()
		if !list[0].Running || list[0].Progress == nil || list[0].Progress.Total.Bytes == 0 || len(list[0].Progress.Active) != 1 {
			t.Errorf("while it runs: %+v", list[0])
		}
		if err := s.Start("slow"); err == nil {
			t.Error("a set that runs starts again")
		}
		if last := list[1].Last; last == nil || last.Outcome != prefetch.OutcomeFailed || !strings.Contains(last.Error, "/none/images.txt") {
			t.Errorf("a file that is not there: %+v", last)
		}
		time.Sleep(2 * time.Minute)
		if last := s.List()[0].Last; last == nil || last.Outcome != prefetch.OutcomeDone || last.By != "operator" {
			t.Errorf("after it: %+v", last)
		}
	})
}

func TestWantedListIsBoundedAndSurvives(t *testing.T) {
	dir := t.TempDir()
	open := func() *cache.Cache {
		c, err := cache.Open(cache.Options{Store: store.Options{Dir: dir}, Upstreams: map[string]cache.UpstreamOptions{"docker.io": {Offline: true}}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := open()
	ctx := onbehalf.WithClient(t.Context(), "10.0.0.1")
	for i := range 10_050 {
		ctx := onbehalf.WithClient(t.Context(), fmt.Sprintf("10.0.1.%d", i%20)) // one alone adds a tenth
		name := fmt.Sprintf("library/%s-%d", strings.Repeat("x", 200), i)
		if _, err := c.Manifest(ctx, cache.Repo{Upstream: "docker.io", Name: name}, "1", i%2 == 0); err == nil {
			t.Fatal("it is served")
		}
	}
	if _, err := c.Manifest(t.Context(), cache.Repo{Upstream: "docker.io", Name: "library/ours"}, "1", false); err == nil {
		t.Fatal("it is served")
	}
	d := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("a", 64)}
	for range 3 {
		_, _ = c.Blob(ctx, cache.Repo{Upstream: "docker.io", Name: "library/app"}, d) // is not there
	}
	list := upkeep.New(c, upkeep.Options{}).Wanted()
	if len(list) != 10_000 {
		t.Errorf("the list has %d entries, want 10000", len(list))
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open()
	k := upkeep.New(c, upkeep.Options{})
	again := k.Wanted()
	if len(again) != len(list) || again[0].Ref != list[0].Ref || !again[0].First.Equal(list[0].First) {
		t.Errorf("after a restart: %d entries", len(again))
	}
	for _, w := range again {
		if w.Blob && w.Count != 3 || strings.Contains(w.Ref, "ours") {
			t.Errorf("%+v", w)
		}
	}
	if n, err := c.Wanted().Clear(); n != len(again) || err != nil || len(k.Wanted()) != 0 {
		t.Errorf("cleared %d, %v", n, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}
