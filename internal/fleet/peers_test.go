package fleet

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/redis/rueidis"

	"forebay/cache"
	"forebay/cache/disk"
	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/internal/pull"
	"forebay/test/cachetest"
)

const hub = "docker.io"

var app = cache.Repo{Upstream: hub, Name: "library/app"}

// replica is a cache with its fleet and its listener.
type replica struct {
	*Fleet
	cache *cache.Cache
	dir   string
	stop  func()
}

// join adds a mirror to the fleet of s, whose registry is r, and waits until it knows of all others.
func (s *server) join(r cache.Upstream, o Options, others ...*replica) *replica {
	s.t.Helper()
	return s.joinAs(r, o, s.t.TempDir(), others...)
}

func (s *server) joinAs(r cache.Upstream, o Options, dir string, others ...*replica) *replica {
	s.t.Helper()
	if o.Identity == nil {
		o.Identity = func(string) string { return "same" }
	}
	o.Engine, o.Password, o.Secret = "valkey://"+s.addr, "hunter2", []byte("one secret for all replicas")
	f, err := New(o)
	if err != nil {
		s.t.Fatal(err)
	}
	f.engine.most = s.call
	s.reach(f)
	m := &replica{Fleet: f, dir: dir}
	m.cache, err = cache.Open(cache.Options{Store: store.Options{Dir: dir, MaxBytes: s.most, Fault: s.disk.Fault}, Fleet: f, Upstreams: map[string]cache.UpstreamOptions{hub: {Upstream: f.Share(hub, r), TagTTL: time.Minute}}})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := f.Remember(dir); err != nil {
		s.t.Fatal(err)
	}
	listener := httptest.NewUnstartedServer(f.Handler(m.cache))
	listener.TLS = f.TLS()
	listener.StartTLS()
	ctx, cancel := context.WithCancel(s.t.Context())
	var work sync.WaitGroup
	work.Go(func() {
		if err := f.Run(ctx, listener.Listener.Addr().String()); err != nil {
			s.t.Error(err)
		}
	})
	m.stop = sync.OnceFunc(func() {
		listener.CloseClientConnections()
		listener.Close()
		cancel()
		work.Wait()
		if err := m.cache.Close(); err != nil {
			s.t.Error(err)
		}
		f.Close()
	})
	s.t.Cleanup(m.stop)
	for _, one := range append(others, m) {
		await(s.t, "the mirrors to find each other", func() bool {
			for _, other := range append(others, m) {
				if _, ok := one.peer(other.me); !ok && other != one {
					_, _ = one.restarted(s.t.Context(), Member{ID: other.me}) // at once, in place of the next beat
					return false
				}
			}
			return true
		})
	}
	return m
}

// trio is three mirrors of one registry.
func (s *server) trio(r cache.Upstream) []*replica {
	a := s.join(r, Options{})
	b := s.join(r, Options{}, a)
	return []*replica{a, b, s.join(r, Options{}, a, b)}
}

// blob reads a blob whole.
func (m *replica) blob(ctx context.Context, d v1.Hash) ([]byte, error) {
	b, err := m.cache.Blob(ctx, app, d)
	if err != nil {
		return nil, err
	}
	defer func() { _ = b.Close() }() // only read from
	var got bytes.Buffer
	_, err = b.Send(ctx, &got, 0, -1)
	return got.Bytes(), err
}

func TestBlobsAndManifestsAreFetchedOnce(t *testing.T) {
	s := newServer(t)
	r := cachetest.NewRegistry()
	all := s.trio(r)
	for _, size := range []int{0, 1, 20 << 10, 3 << 20, 20 << 20} {
		data := bytes.Repeat([]byte{byte(size >> 12), 7}, size/2+1)[:size]
		source := &cachetest.Script{Data: data, Pace: time.Millisecond}
		d := r.Put(app.Name, source)
		m := r.Push(app.Name, fmt.Sprint("v", size), cachetest.JSONOf(t, map[string]any{
			"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
			"config": cachetest.DescOf("application/vnd.oci.image.config.v1+json", []byte("{}")),
			"layers": []any{cachetest.DescOf("application/vnd.oci.image.layer.v1.tar", data)},
		}))
		before := r.Count("Manifest")
		var work sync.WaitGroup
		for i := range 12 {
			work.Go(func() {
				one := all[i%len(all)]
				if _, err := one.cache.Manifest(t.Context(), app, m.String(), false); err != nil {
					t.Errorf("manifest: %v", err)
				}
				got, err := one.blob(t.Context(), d)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("blob of %d = %d bytes, %v", size, len(got), err)
				}
			})
		}
		work.Wait()
		if n := r.Count("Manifest") - before; n != 1 {
			t.Errorf("%d requests for a manifest, want 1", n)
		}
		source.Lock()
		if source.Sent != int64(size) {
			t.Errorf("the registry sent %d bytes of a blob of %d", source.Sent, size)
		}
		source.Unlock()
	}
	led, followed := int64(0), int64(0)
	for _, m := range all {
		n := m.Figures()
		led, followed = led+n.Led, followed+n.Followed
		if n.ByItself != 0 || n.Takeovers != 0 || n.Members != 3 {
			t.Errorf("%+v: want 3 members, nothing by itself and nothing taken over", n)
		}
	}
	if led < 10 || followed < 20 {
		t.Errorf("%d led, %d followed, want 10 and 20 at least", led, followed)
	}
}

// Lists of tags and of referrers are asked for once by mirrors that want them at the same time. One that is old, since
// the registry fails, is given to nobody as a new one.
func TestListsAreAskedForOnce(t *testing.T) {
	s := newServer(t)
	r := cachetest.NewRegistry()
	all := s.trio(r)
	d := r.Put(app.Name, &cachetest.Script{Data: []byte("subject")})
	var work sync.WaitGroup
	for i := range 12 {
		m := all[i%3]
		work.Go(func() {
			if list, err := m.cache.Tags(t.Context(), app); err != nil || fmt.Sprint(list.Tags) != "[a b]" {
				t.Errorf("tags = %+v, %v", list, err)
			}
			if list, err := m.cache.Referrers(t.Context(), app, d); err != nil || len(list.Manifests) != 1 || string(list.Manifests[0]) != `{"digest":"x"}` {
				t.Errorf("referrers = %+v, %v", list, err)
			}
		})
	}
	work.Wait()
	if tags, referrers := r.Count("Tags"), r.Count("Referrers"); tags != 1 || referrers != 1 {
		t.Errorf("%d requests for tags and %d for referrers, want 1 of each", tags, referrers)
	}
	res := httptest.NewRecorder()
	if err := sendList(res, cache.Stale, []string{"old"}); err == nil || res.Body.Len() > 0 {
		t.Errorf("an old list is sent: %s", res.Body)
	}
}

// What another mirror has is had from it as long as it has it, and after a restart of it.
func TestWhatAnotherHasIsNotFetched(t *testing.T) {
	s := newServer(t)
	r := cachetest.NewRegistry()
	a := s.join(r, Options{})
	d := r.Put(app.Name, &cachetest.Script{Data: []byte("layer")})
	if _, err := a.blob(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	b := s.join(r, Options{}, a)
	if got, err := b.blob(t.Context(), d); err != nil || string(got) != "layer" {
		t.Errorf("blob = %q, %v", got, err)
	}
	// Its owner starts again, under its name, at another address.
	dir, name := a.dir, a.me
	a.stop()
	a = s.joinAs(r, Options{}, dir, b)
	if a.me != name {
		t.Errorf("after a restart the mirror is called %s, want %s", a.me, name)
	}
	c := s.join(r, Options{}, a, b)
	if got, err := c.blob(t.Context(), d); err != nil || string(got) != "layer" {
		t.Errorf("blob = %q, %v", got, err)
	}
	await(t, "who got it to keep it", func() bool {
		_, kept := c.cache.Store().Size(d)
		return kept && c.cache.Store().Linked(app, index.Blob, d)
	})
	// It loses what it had: those who got it from it have it still.
	if err := os.RemoveAll(filepath.Join(dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	if got, err := a.blob(t.Context(), d); err != nil || string(got) != "layer" {
		t.Errorf("blob of who lost it = %q, %v", got, err)
	}
	if n := r.Count("OpenBlob"); n != 1 {
		t.Errorf("the registry was asked %d times, want once", n)
	}
}

// One that has just started is known to the others by what it fetches, before they look again who is there.
func TestWhatANewMirrorHasIsNotFetched(t *testing.T) {
	s := newServer(t)
	r := cachetest.NewRegistry()
	a := s.join(r, Options{})
	b := s.join(r, Options{}) // of which a is not told
	d := r.Put(app.Name, &cachetest.Script{Data: []byte("layer")})
	for _, m := range []*replica{b, a} {
		if got, err := m.blob(t.Context(), d); err != nil || string(got) != "layer" {
			t.Errorf("blob = %q, %v", got, err)
		}
	}
	if n := r.Count("OpenBlob"); n != 1 {
		t.Errorf("the registry was asked %d times, want once", n)
	}
}

// What a registry says counts for all; one that cannot be reached is tried from one more mirror.
func TestErrorsOfTheRegistryAreTold(t *testing.T) {
	s := newServer(t)
	r := cachetest.NewRegistry()
	all := s.trio(r)
	for i, test := range []struct {
		err   *pull.Error
		asked int
	}{
		{&pull.Error{Kind: pull.NotFound, Upstream: hub, Op: "get blob", Status: 404, Code: "BLOB_UNKNOWN", Message: "not there"}, 1},
		{&pull.Error{Kind: pull.Limited, Upstream: hub, Op: "get blob", Status: 429, RetryAfter: 7 * time.Second}, 1},
		{&pull.Error{Kind: pull.Denied, Upstream: hub, Op: "get blob", Status: 403, Code: "DENIED"}, 1},
		{&pull.Error{Kind: pull.Unavailable, Upstream: hub, Op: "get blob", Message: "connection refused"}, 2},
	} {
		r.Fail(test.err)
		before := r.Count("Manifest")
		d := cachetest.DigestOf([]byte{byte(i)})
		// One leads, and the others come while it asks.
		r.Lock()
		r.Slow = 200 * time.Millisecond
		r.Unlock()
		var work sync.WaitGroup
		for _, m := range all {
			work.Go(func() {
				_, err := m.cache.Manifest(t.Context(), app, d.String(), false)
				var e *pull.Error
				if !errors.As(err, &e) || e.Kind != test.err.Kind || e.Status != test.err.Status || e.Code != test.err.Code || e.RetryAfter != test.err.RetryAfter || e.Message != test.err.Message {
					t.Errorf("Manifest = %v, want %v", err, test.err)
				}
			})
		}
		work.Wait()
		if n := r.Count("Manifest") - before; n > test.asked {
			t.Errorf("%v: the registry was asked %d times, want at most %d", test.err, n, test.asked)
		}
		r.Lock()
		r.Slow = 0
		r.Unlock()
	}
}

// What no disk takes goes past it to each client, from whoever has it: what is too large, and everything on
// a disk that is full.
func TestWhatNoDiskTakes(t *testing.T) {
	for name, break_ := range map[string]func(*server){
		"too large": func(s *server) { s.most = 2 << 20 },
		"full":      func(s *server) { s.disk.Fail(string(disk.StepWrite), syscall.ENOSPC) },
		"no files":  func(s *server) { s.disk.Fail(string(disk.StepCreate), syscall.ENOSPC) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			r := cachetest.NewRegistry()
			break_(s)
			all := s.trio(r)
			data := bytes.Repeat([]byte("abcdefg"), 1<<20)
			source := &cachetest.Script{Data: data, Pace: time.Millisecond}
			d := r.Put(app.Name, source)
			for range 2 {
				var work sync.WaitGroup
				for i := range 9 {
					work.Go(func() {
						if got, err := all[i%3].blob(t.Context(), d); err != nil || !bytes.Equal(got, data) {
							t.Errorf("blob = %d bytes of %d, %v", len(got), len(data), err)
						}
					})
				}
				work.Wait()
			}
			source.Lock()
			defer source.Unlock()
			t.Logf("%.1f of the blob for 18 clients of three mirrors", float64(source.Sent)/float64(len(data)))
		})
	}
}

// Wrong bytes of another mirror are thrown away, and the registry is asked.
func TestDamageOfAnotherMirror(t *testing.T) {
	s := newServer(t)
	r := cachetest.NewRegistry()
	data := bytes.Repeat([]byte("abcdefgh"), 1<<18)
	d := r.Put(app.Name, &cachetest.Script{Data: data})
	a := s.join(r, Options{})
	if _, err := a.blob(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(a.dir, "blobs", "sha256", d.Hex[:2], d.Hex)
	await(t, "the blob to be in its place", func() bool { _, err := os.Stat(file); return err == nil })
	b := s.join(r, Options{}, a)
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte("X"), 1<<20)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := b.blob(t.Context(), d)
	for tries := 0; err != nil && tries < 3; tries++ { // a body that is found to be wrong at its end breaks off; then clients ask again
		got, err = b.blob(t.Context(), d)
	}
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("blob = %d bytes, %v", len(got), err)
	}
}

// Mirrors with other settings of an upstream, or without the secret, get nothing and give nothing.
func TestStrangers(t *testing.T) {
	s := newServer(t)
	r := cachetest.NewRegistry()
	a := s.join(r, Options{})
	d := r.Put(app.Name, &cachetest.Script{Data: []byte("layer")})
	if _, err := a.blob(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	b := s.join(r, Options{Identity: func(string) string { return "another account" }}, a)
	if _, err := b.blob(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if n := r.Count("OpenBlob"); n != 2 || b.Figures().Followed != 0 {
		t.Errorf("as another account the registry was asked %d times in all, and %d times a mirror, want 2 and 0", n, b.Figures().Followed)
	}
	to, _ := b.peer(a.me)
	w := b.work("same", "b", blobsPath, hub, app.Name, d, time.Minute)
	if _, err := b.askBlob(t.Context(), w, to, turn{}, 0, -1, false); !errors.Is(err, errPassed) {
		t.Errorf("asked as another account: %v, want nothing", err)
	}
	// Without the secret there is no connection, in either direction.
	stranger, err := secret("another secret").tls()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: stranger, DisableKeepAlives: true}}).Get("https://" + to.Address + blobsPath + d.String()); err == nil {
		t.Error("a client without the secret was answered")
	}
	if _, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}).Get("https://" + to.Address + blobsPath + d.String()); err == nil {
		t.Error("a client without a certificate was answered")
	}
	fake := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "layer") }))
	fake.Config.ErrorLog = nil
	fake.TLS = stranger
	fake.StartTLS()
	defer fake.Close()
	to.Address = fake.Listener.Addr().String()
	if _, err := b.askBlob(t.Context(), w, to, turn{}, 0, -1, false); !errors.Is(err, errPassed) {
		t.Errorf("asked one without the secret: %v, want nothing", err)
	}
}

// Who can write to the engine adds no member and changes no address.
func TestForgedMembers(t *testing.T) {
	s := newServer(t)
	r := cachetest.NewRegistry()
	a := s.join(r, Options{})
	b := s.join(r, Options{}, a)
	forged, _ := json.Marshal(Member{ID: a.me, Address: "192.0.2.1:1", Protocol: protocol, Start: 1, Beat: 1}) // it is made of plain fields
	write := func(id, text string) {
		t.Helper()
		err := b.engine.call(t.Context(), func(ctx context.Context, c rueidis.Client) error {
			return c.Do(ctx, c.B().Hset().Key(membersKey).FieldValue().FieldValue(id, text).Build()).Error()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	was, _ := b.peer(a.me)
	before := b.Figures().Forged
	for _, id := range []string{a.me, "nobody"} {
		write(id, map[string]string{a.me: secret("another secret").sign("member "+a.me, string(forged)), "nobody": b.secret.sign("member "+a.me, string(forged))}[id])
		if _, ok := b.restarted(t.Context(), Member{ID: id, Start: was.Start}); ok {
			t.Errorf("%s is believed", id)
		}
	}
	if n := b.Figures().Forged - before; n != 2 {
		t.Errorf("%d records were not believed, want 2", n)
	}
	if now, ok := b.peer(a.me); !ok || now.Address != was.Address || len(b.Members()) != 2 {
		t.Errorf("after a forgery %s is at %s of %d members, want %s of 2", a.me, now.Address, len(b.Members()), was.Address)
	}
}

// A tree: each mirror gives to so many of its zone at most, and what comes from another zone comes once.
func TestWhoAsksWhom(t *testing.T) {
	s := newServer(t)
	type place struct{ zone, parent string }
	places := map[string]place{}
	for i := range 40 {
		zone := []string{"a", "b", "c"}[i%3]
		f, err := New(Options{Engine: "valkey://" + s.addr, Password: "hunter2", Secret: []byte("x"), Zone: zone})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		f.engine.most = callLoaded
		s.reach(f)
		for range 2 { // asked again, it is the same
			got, err := f.begin(t.Context(), "fb1:{b:x}", "")
			if err != nil || got.leads != (i == 0) {
				t.Fatalf("begin of %d = %+v, %v", i, got, err)
			}
			places[f.me] = place{zone, got.parent}
		}
	}
	children, crossing := map[string]int{}, 0
	for id, at := range places {
		if at.parent == "" {
			continue
		}
		parent, ok := places[at.parent]
		if !ok || at.parent == id {
			t.Fatalf("%s asks %s", id, at.parent)
		}
		if parent.zone == at.zone {
			children[at.parent]++
		} else {
			crossing++
		}
		depth := 0
		for up := id; up != ""; up = places[up].parent {
			if depth++; depth > 5 {
				t.Fatalf("%s is %d deep", id, depth)
			}
		}
	}
	for id, n := range children {
		if n > fanoutUsual {
			t.Errorf("%s gives to %d, want at most %d", id, n, fanoutUsual)
		}
	}
	if crossing != 2 {
		t.Errorf("%d get it from another zone, want one in each of two", crossing)
	}
}

// Whoever finds an owner dead replaces it; who comes a moment later with the same finding does not replace
// the new one; and one that has slept finds that it does not lead.
func TestTakeover(t *testing.T) {
	s := newServer(t)
	all := s.replicas(3)
	const key = "fb1:{b:x}"
	first, err := all[0].begin(t.Context(), key, "")
	if err != nil || !first.leads {
		t.Fatalf("begin = %+v, %v", first, err)
	}
	all[0].leads.add(key, first.epoch, time.Minute, time.Now())
	if next, err := all[1].begin(t.Context(), key, first.epoch); err != nil || !next.leads {
		t.Errorf("begin after a death = %+v, %v, want to lead", next, err)
	}
	if late, err := all[2].begin(t.Context(), key, first.epoch); err != nil || late.leads || late.owner != all[1].me {
		t.Errorf("a late begin = %+v, %v, want to follow", late, err)
	}
	all[0].renew(t.Context(), false)
	if all[0].leads.led(key, false) {
		t.Error("who was replaced still leads")
	}
	if same, _, err := all[2].holds(t.Context(), key, first); err != nil || same {
		t.Errorf("the first owner still holds, %v", err)
	}
	// A lease that was renewed long ago may be another's, whatever we think.
	all[1].leads.add(key, "e", time.Minute, time.Now().Add(-time.Hour))
	if all[1].leads.led(key, false) || !all[1].leads.led(key, true) {
		t.Error("a lease of an hour ago counts, or does not while nobody can say otherwise")
	}
}

func TestAdvertised(t *testing.T) {
	at := func(s string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(s), Port: 5002} }
	for _, test := range []struct {
		said string
		addr net.Addr
		want string
	}{
		{"", at("0.0.0.0"), ":5002"}, {"", at("::"), ":5002"}, {"", at("10.0.0.1"), "10.0.0.1:5002"},
		{"pod-0.forebay", at("::"), "pod-0.forebay:5002"}, {"pod-0:7", at("::"), "pod-0:7"}, {"fd00::1", at("::"), "[fd00::1]:5002"}, {"[fd00::1]:9", at("::"), "[fd00::1]:9"},
	} {
		if got := Advertised(test.said, test.addr); got != test.want {
			t.Errorf("Advertised(%q, %s) = %s, want %s", test.said, test.addr, got, test.want)
		}
	}
}
