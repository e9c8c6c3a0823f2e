package s3test_test

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/goleak"

	"forebay/cache"
	"forebay/cache/s3"
	"forebay/cache/tier"
	"forebay/test/hubtest"
	"forebay/test/mirrortest"
	"forebay/test/s3test"
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		child()
		return
	}
	goleak.VerifyTestMain(m)
}

func sha256(b []byte) v1.Hash {
	d, _, _ := v1.SHA256(bytes.NewReader(b)) // memory never fails
	return d
}

// bucketOptions reach the server through its proxy. Requests are repeated at once, and
// time out early.
func bucketOptions(url string) s3.Options {
	return s3.Options{
		Name: s3test.Bucket, Region: s3test.Region, Endpoint: url, PathStyle: true,
		AccessKeyID: s3test.AccessKey, SecretAccessKey: s3test.SecretKey, PartSize: 5 << 20,
		Timeouts: s3.Timeouts{Connect: 10 * time.Second, Answer: 5 * time.Second, Stall: 5 * time.Second, Backoff: 10 * time.Millisecond},
	}
}

func openBucket(t testing.TB, s *s3test.Server) *s3.Bucket {
	t.Helper()
	b, err := s3.New(t.Context(), bucketOptions(s.URL))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// world is a registry, a mirror, a bucket.
type world struct {
	t   *testing.T
	hub *hubtest.Hub
	s3  *s3test.Server
	m   *mirrortest.Mirror
	c   *http.Client
}

func newWorld(t *testing.T, change func(*tier.Options, *cache.Options)) *world {
	t.Helper()
	w := &world{t: t, hub: hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited()}), s3: s3test.New(t)}
	w.m = w.mirror(change)
	w.c = client(t)
	return w
}

func client(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// mirror starts a mirror with a folder of its own in front of the bucket.
func (w *world) mirror(change func(*tier.Options, *cache.Options)) *mirrortest.Mirror {
	w.t.Helper()
	to := tier.Options{Bucket: openBucket(w.t, w.s3)}
	co := cache.Options{}
	if change != nil {
		change(&to, &co)
	}
	co.Store.Bucket = &to
	return mirrortest.New(w.t, mirrortest.Options{Hub: w.hub, Cache: co, Grace: time.Second})
}

func noise(seed uint64, size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(b) // never fails
	return b
}

// ask sends a request and returns status and body; what ends early is an error.
func (w *world) ask(m *mirrortest.Mirror, path, span string) (int, []byte, error) {
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, m.URL+path, nil)
	if err != nil {
		return 0, nil, err
	}
	if span != "" {
		r.Header.Set("Range", span)
	}
	res, err := w.c.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, b, err
}

// pull fails the test unless the mirror gives exactly want.
func (w *world) pull(m *mirrortest.Mirror, path, span string, want []byte) {
	w.t.Helper()
	status, got, err := w.ask(m, path, span)
	if err != nil || status >= 300 || !bytes.Equal(got, want) {
		w.t.Fatalf("GET %s %s = %d with %d bytes, %v; want %d bytes", path, span, status, len(got), err, len(want))
	}
}

func blobPath(repo, digest string) string { return "/v2/" + repo + "/blobs/" + digest }

func hash(t testing.TB, digest string) v1.Hash {
	t.Helper()
	d, err := v1.NewHash(digest)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func bucketOf(t testing.TB, m *mirrortest.Mirror) *tier.Stats {
	t.Helper()
	s, err := m.Keeper().Stats()
	if err != nil {
		t.Fatal(err)
	}
	return s.Bucket
}

// settled waits until everything is uploaded.
func (w *world) settled(m *mirrortest.Mirror) {
	w.t.Helper()
	m.Settle() // what was served is queued a moment later
	s3test.Await(w.t, time.Minute, "uploads to end", func() bool {
		b := bucketOf(w.t, m)
		return b.Queued == 0 && !b.More
	})
}

// listed waits until the mirror has listed the bucket by itself, as it does once after its
// first start. A listing by the test would otherwise run beside it, and miss what it found.
func (w *world) listed(m *mirrortest.Mirror) {
	w.t.Helper()
	s3test.Await(w.t, time.Minute, "the first listing", func() bool { return bucketOf(w.t, m).Survey != nil })
}

// drop takes a blob's file from the mirror's folder, as an eviction does.
func drop(t testing.TB, m *mirrortest.Mirror, digest string) {
	t.Helper()
	m.Settle()
	d := hash(t, digest)
	if err := os.Remove(filepath.Join(m.Dir, "blobs", d.Algorithm, d.Hex[:2], d.Hex)); err != nil {
		t.Fatal(err)
	}
}

// Calls: a miss makes the upload alone, a hit on the disk none, a hit in the bucket one.
func TestCallsAreFew(t *testing.T) {
	w := newWorld(t, nil)
	for _, tt := range []struct {
		size   int
		upload map[string]int
	}{
		{100 << 10, map[string]int{"PutObject": 1}},
		{4 << 20, map[string]int{"PutObject": 1}},
		{23 << 20, map[string]int{"CreateMultipartUpload": 1, "UploadPart": 5, "CompleteMultipartUpload": 1}},
	} {
		raw := noise(uint64(tt.size), tt.size)
		digest := w.hub.PutBlob("library/app", raw)
		path := blobPath("library/app", digest)
		w.settled(w.m)
		s3test.Await(t, time.Minute, "the first listing", func() bool { return bucketOf(t, w.m).Survey != nil })
		w.s3.Forget()
		w.pull(w.m, path, "", raw)
		w.settled(w.m)
		total := 0
		for op, want := range tt.upload {
			total += want
			if got := w.s3.Count(op); got != want {
				t.Errorf("miss of %d bytes: %d %s, want %d", tt.size, got, op, want)
			}
		}
		if got := w.s3.Count(""); got != total {
			t.Errorf("miss of %d bytes: %d calls, want %d: %v", tt.size, got, total, w.s3.Requests())
		}
		t.Logf("miss of %d KiB: %d calls", tt.size>>10, total)
		w.s3.Forget()
		w.pull(w.m, path, "", raw)
		if got := w.s3.Count(""); got != 0 {
			t.Errorf("hit on the disk: %d calls, want none", got)
		}
		drop(t, w.m, digest)
		w.pull(w.m, path, "", raw)
		if got, gets := w.s3.Count(""), w.s3.Count("GetObject"); got != 1 || gets != 1 {
			t.Errorf("hit in the bucket: %d calls, %d of them GetObject, want 1: %v", got, gets, w.s3.Requests())
		}
		w.pull(w.m, path, "", raw)
		if got := w.s3.Count(""); got != 1 {
			t.Errorf("hit on the disk after that: %d calls more, want none", got-1)
		}
		if n := w.hub.BlobGets(digest); n != 1 && tt.size < 8<<20 {
			t.Errorf("hub saw %d transfers, want 1", n)
		}
		if n, most := w.hub.BlobBytes(digest), int64(len(raw)); n != most {
			t.Errorf("hub sent %d bytes, want %d: once", n, most)
		}
	}
}

// Ranges of what is only in the bucket are read there, while the whole returns to the disk.
func TestRangesFromTheBucket(t *testing.T) {
	w := newWorld(t, nil)
	raw := noise(1, 24<<20)
	digest := w.hub.PutBlob("library/app", raw)
	path := blobPath("library/app", digest)
	w.pull(w.m, path, "", raw)
	w.settled(w.m)
	sent := w.hub.BlobBytes(digest)
	for _, span := range [][2]int{{0, 10}, {20 << 20, 20<<20 + 1000}, {len(raw) - 70_000, len(raw)}, {5 << 20, 12 << 20}} {
		drop(t, w.m, digest)
		w.pull(w.m, path, fmt.Sprintf("bytes=%d-%d", span[0], span[1]-1), raw[span[0]:span[1]])
		s3test.Await(t, time.Minute, "the blob to be on the disk again", func() bool {
			_, err := os.Stat(filepath.Join(w.m.Dir, "blobs", "sha256", digest[7:9], digest[7:]))
			return err == nil && len(w.m.Cache().Fills().List()) == 0
		})
	}
	w.pull(w.m, path, "", raw)
	if n := w.hub.BlobBytes(digest); n != sent {
		t.Errorf("hub sent %d bytes more, want none", n-sent)
	}
}

// A new machine in front of a full bucket: rights are proven by HEADs, and no content
// comes from the registry, manifests neither.
func TestNewMachineInFrontOfAFullBucket(t *testing.T) {
	w := newWorld(t, nil)
	img := w.hub.PushImage("library/app", "v1", hubtest.ImageSpec{Layers: 3})
	get := func(m *mirrortest.Mirror) {
		status, _, err := w.ask(m, "/v2/library/app/manifests/v1", "")
		if err != nil || status != 200 {
			t.Fatalf("GET manifest = %d, %v", status, err)
		}
		for _, d := range img.Manifests() {
			w.pull(m, "/v2/library/app/manifests/"+d.Digest, "", w.hub.Bytes(d.Digest))
		}
		for _, b := range img.Blobs() {
			w.pull(m, blobPath("library/app", b.Digest), "", w.hub.Bytes(b.Digest))
		}
	}
	get(w.m)
	w.settled(w.m)
	second := w.mirror(nil)
	s3test.Await(t, time.Minute, "the bucket to be listed", func() bool { return bucketOf(t, second).Survey != nil })
	if b := bucketOf(t, second); b.Objects == 0 || b.Objects != bucketOf(t, w.m).Objects {
		t.Errorf("the new machine knows %d objects, want %d", b.Objects, bucketOf(t, w.m).Objects)
	}
	w.hub.ResetCounters()
	w.s3.Forget()
	get(second)
	for _, d := range img.Manifests() {
		if n := w.hub.ManifestGets(d.Digest); n != 0 {
			t.Errorf("hub saw %d GETs of the manifest %s, want none", n, d.Digest)
		}
	}
	for _, b := range img.Blobs() {
		if n := w.hub.BlobGets(b.Digest); n != 0 {
			t.Errorf("hub saw %d GETs of the blob %s, want none", n, b.Digest)
		}
	}
	w.settled(second)
	if n := w.s3.Count("PutObject"); n != 0 {
		t.Errorf("%d uploads of what the bucket has, want none", n)
	}
	// From now on it needs no registry.
	second.RestartWith(func(o *mirrortest.Options) { o.Upstreams = offline(w.hub) })
	get(second)
}

// offline is Docker Hub which must not be asked.
func offline(hub *hubtest.Hub) map[string]mirrortest.Upstream {
	return map[string]mirrortest.Upstream{"docker.io": {Hub: hub, Fetch: cache.UpstreamOptions{Offline: true}}}
}

// Possession is no right: a repository whose registry denies it gets nothing from the bucket.
func TestBucketServesByLink(t *testing.T) {
	w := newWorld(t, func(o *tier.Options, _ *cache.Options) { o.Redirect, o.RedirectLeast = true, 1 })
	raw := noise(2, 3<<20)
	digest := w.hub.PutBlob("library/private", raw)
	w.hub.PutBlob("library/other", []byte("something else"))
	w.pull(w.m, blobPath("library/private", digest), "", raw)
	w.settled(w.m)
	drop(t, w.m, digest)
	w.s3.Forget()
	status, body, _ := w.ask(w.m, blobPath("library/other", digest), "")
	if status < 400 || bytes.Contains(body, raw[:100]) {
		t.Errorf("GET through a repository that does not hold it = %d with %d bytes, want an error", status, len(body))
	}
	if n := w.s3.Count(""); n != 0 {
		t.Errorf("%d calls to the bucket for that, want none: %v", n, w.s3.Requests())
	}
}

// An object that is not what its name says reaches nobody and is replaced.
func TestDamagedObject(t *testing.T) {
	spoil := map[string]func(t *testing.T, name string){
		"flipped bit": func(t *testing.T, name string) {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			f, err := os.OpenFile(name, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(b[len(b)/2:len(b)/2+1], int64(len(b)/2)); err != nil {
				t.Fatal(err)
			}
		},
		"shorter": func(t *testing.T, name string) {
			if err := os.Truncate(name, 1000); err != nil {
				t.Fatal(err)
			}
		},
		"gone": func(t *testing.T, name string) {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, spoil := range spoil {
		for _, size := range []int{50_000, 9 << 20} {
			t.Run(fmt.Sprint(name, " of ", size), func(t *testing.T) {
				w := newWorld(t, nil)
				raw := noise(uint64(size), size)
				digest := w.hub.PutBlob("library/app", raw)
				path := blobPath("library/app", digest)
				w.pull(w.m, path, "", raw)
				w.settled(w.m)
				drop(t, w.m, digest)
				object := w.s3.Object("", hash(t, digest))
				spoil(t, object)
				// A body that began may end short; a whole one is right.
				for range 3 {
					status, got, err := w.ask(w.m, path, "")
					if err == nil && status == 200 {
						if !bytes.Equal(got, raw) {
							t.Fatalf("a whole body of %d bytes is wrong", len(got))
						}
						break
					}
				}
				w.pull(w.m, path, "", raw)
				s3test.Await(t, 30*time.Second, "the right object", func() bool {
					b, err := os.ReadFile(object)
					return err == nil && bytes.Equal(b, raw)
				})
				if n := w.hub.BlobBytes(digest); n != 2*int64(size) {
					t.Errorf("hub sent %d bytes, want %d: twice", n, 2*size)
				}
				if w.m.Cache().Troubled(cache.Repo{Upstream: "docker.io", Name: "library/app"}) {
					t.Error("the repository is in trouble for what the bucket did")
				}
			})
		}
	}
}

// What the bucket does wrong while a blob is read from it costs time and nothing else.
func TestBucketFaultsWhileReading(t *testing.T) {
	const size = 12 << 20
	for name, tt := range map[string]struct {
		fault s3test.Fault
		hub   bool // the registry is needed
	}{
		"cut once":      {s3test.Fault{Op: "GetObject", CutBody: 3 << 20, Times: 1}, false},
		"cut always":    {s3test.Fault{Op: "GetObject", CutBody: 100_000}, true},
		"reset":         {s3test.Fault{Op: "GetObject", Reset: true}, true},
		"slow down":     {s3test.Fault{Op: "GetObject", Status: 503}, true},
		"slow down 1":   {s3test.Fault{Op: "GetObject", Status: 503, Times: 1}, false},
		"server error":  {s3test.Fault{Op: "GetObject", Status: 500, Code: "InternalError"}, true},
		"denied":        {s3test.Fault{Op: "GetObject", Status: 403, Code: "AccessDenied"}, true},
		"hangs":         {s3test.Fault{Op: "GetObject", Hang: true}, true},
		"late":          {s3test.Fault{Op: "GetObject", Delay: 300 * time.Millisecond}, false},
		"flips in line": {s3test.Fault{Op: "GetObject", Flip: true, Times: 1}, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			raw := noise(3, size)
			digest := w.hub.PutBlob("library/app", raw)
			path := blobPath("library/app", digest)
			w.pull(w.m, path, "", raw)
			w.settled(w.m)
			drop(t, w.m, digest)
			before := w.hub.BlobBytes(digest)
			w.s3.Add(tt.fault)
			start := time.Now()
			status, got, err := w.ask(w.m, path, "")
			if err == nil && (status != 200 || !bytes.Equal(got, raw)) {
				t.Fatalf("GET = %d with %d bytes, want it right or cut off", status, len(got))
			}
			if err != nil && name != "flips in line" {
				t.Errorf("GET: %v, want it whole", err)
			}
			t.Logf("took %s", time.Since(start))
			w.pull(w.m, path, "", raw)
			if more := w.hub.BlobBytes(digest) - before; (more > 0) != tt.hub {
				t.Errorf("hub sent %d bytes more, want some: %t", more, tt.hub)
			}
		})
	}
}

// The bucket is out of reach: clients notice nothing, uploads wait, readiness tells, and
// it heals by itself.
func TestBucketOutOfReach(t *testing.T) {
	w := newWorld(t, nil)
	kept := noise(4, 2<<20)
	first := w.hub.PutBlob("library/app", kept)
	w.pull(w.m, blobPath("library/app", first), "", kept)
	w.settled(w.m)
	w.s3.Stop()
	var names []string
	for i := range 6 {
		raw := noise(uint64(100+i), 300_000)
		d := w.hub.PutBlob("library/app", raw)
		names = append(names, d)
		w.pull(w.m, blobPath("library/app", d), "", raw)
	}
	w.pull(w.m, blobPath("library/app", first), "", kept)
	w.m.Settle() // what was served is queued a moment later
	s3test.Await(t, 30*time.Second, "the mirror to say so", func() bool { return w.m.Cache().Store().Ailing() != nil })
	if err := w.m.Cache().Store().Ailing(); !strings.Contains(err.Error(), "bucket") {
		t.Errorf("Ailing = %v, want the bucket named", err)
	}
	if b := bucketOf(t, w.m); !b.Degraded || b.Queued != len(names) || b.QueuedBytes != int64(len(names)*300_000) || b.LastError == "" {
		t.Errorf("bucket = %+v, want it degraded with %d uploads queued", b, len(names))
	}
	// A restart forgets nothing of it.
	w.m.Restart()
	s3test.Await(t, 30*time.Second, "the uploads to be queued again", func() bool { return bucketOf(t, w.m).Queued == len(names) })
	w.s3.Start()
	w.settled(w.m)
	s3test.Await(t, 30*time.Second, "the mirror to be well", func() bool { return w.m.Cache().Store().Ailing() == nil })
	for _, d := range names {
		if _, err := os.Stat(w.s3.Object("", hash(t, d))); err != nil {
			t.Errorf("object: %v", err)
		}
	}
}

// With a cap the disk has what is hot, and the bucket everything.
func TestDiskAsHotTier(t *testing.T) {
	const cap = 24 << 20
	w := newWorld(t, func(_ *tier.Options, o *cache.Options) { o.Store.MaxBytes = cap })
	all := map[string][]byte{}
	for i := range 12 {
		raw := noise(uint64(200+i), 4<<20)
		d := w.hub.PutBlob("library/app", raw)
		all[d] = raw
		w.pull(w.m, blobPath("library/app", d), "", raw)
		w.settled(w.m)
	}
	w.m.Settle()
	onDisk := 0
	_ = filepath.WalkDir(filepath.Join(w.m.Dir, "blobs"), func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			onDisk++
		}
		return nil
	})
	if onDisk == 0 || onDisk*4<<20 > cap {
		t.Errorf("%d blobs of 4 MiB are on a disk of %d MiB", onDisk, cap>>20)
	}
	s, err := w.m.Keeper().Stats()
	if err != nil || s.Bucket.Objects != 12 || s.EvictedUnsaved != 0 || s.UsedBytes > cap {
		t.Errorf("Stats = %d objects, %d evicted before their upload, %d bytes used, %v; want 12, 0, at most %d", s.Bucket.Objects, s.EvictedUnsaved, s.UsedBytes, err, cap)
	}
	w.m.RestartWith(func(o *mirrortest.Options) { o.Upstreams = offline(w.hub) })
	for d, raw := range all {
		w.pull(w.m, blobPath("library/app", d), "", raw)
	}
}

// The cap of the disk is hard: while nothing can be uploaded, what is worth least goes.
func TestCapHoldsWhileTheBucketFails(t *testing.T) {
	const cap = 24 << 20
	w := newWorld(t, func(_ *tier.Options, o *cache.Options) { o.Store.MaxBytes = cap })
	w.s3.Add(s3test.Fault{Op: "PutObject", Status: 503})
	for i := range 10 {
		raw := noise(uint64(300+i), 4<<20)
		d := w.hub.PutBlob("library/app", raw)
		w.pull(w.m, blobPath("library/app", d), "", raw)
	}
	s, err := w.m.Keeper().Stats()
	if err != nil || s.EvictedUnsaved == 0 || s.UsedBytes > cap {
		t.Errorf("Stats = %d evicted before their upload, %d bytes used, %v; want some, at most %d", s.EvictedUnsaved, s.UsedBytes, err, cap)
	}
	w.s3.Clear()
	w.settled(w.m)
}

// A blob that is larger than the disk may be is streamed from a bucket that has it.
func TestLargerThanTheDisk(t *testing.T) {
	w := newWorld(t, nil)
	raw := noise(5, 24<<20)
	digest := w.hub.PutBlob("library/app", raw)
	path := blobPath("library/app", digest)
	w.pull(w.m, path, "", raw)
	w.settled(w.m)
	small := w.mirror(func(_ *tier.Options, o *cache.Options) { o.Store.MaxBytes = 16 << 20 })
	s3test.Await(t, time.Minute, "the bucket to be listed", func() bool { return bucketOf(t, small).Survey != nil })
	before := w.hub.BlobBytes(digest)
	w.pull(small, path, "", raw)
	w.pull(small, path, "bytes=20000000-20000999", raw[20000000:20001000])
	if n := w.hub.BlobBytes(digest); n != before {
		t.Errorf("hub sent %d bytes more, want none", n-before)
	}
}

func TestRedirect(t *testing.T) {
	w := newWorld(t, func(o *tier.Options, _ *cache.Options) { o.Redirect, o.RedirectLeast = true, 1<<20 })
	raw := noise(6, 3<<20)
	digest := w.hub.PutBlob("library/app", raw)
	path := blobPath("library/app", digest)
	smallRaw := noise(7, 1000)
	small := w.hub.PutBlob("library/app", smallRaw)
	w.pull(w.m, path, "", raw)
	w.pull(w.m, blobPath("library/app", small), "", smallRaw)
	w.settled(w.m)
	plain := &http.Client{Transport: w.c.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	look := func(method, path string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, w.m.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := plain.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, res.Body) // only the head matters
		return res.StatusCode, res.Header.Get("Location")
	}
	if status, _ := look("GET", path); status != 200 {
		t.Errorf("GET of what is on the disk = %d, want 200", status)
	}
	drop(t, w.m, digest)
	drop(t, w.m, small)
	if status, _ := look("HEAD", path); status != 200 {
		t.Errorf("HEAD = %d, want 200", status)
	}
	if status, _ := look("GET", blobPath("library/app", small)); status != 200 {
		t.Errorf("GET of a small blob = %d, want 200", status)
	}
	w.s3.Forget()
	status, location := look("GET", path)
	if status != 307 || !strings.Contains(location, "X-Amz-Signature=") {
		t.Fatalf("GET of a large blob = %d to %q, want 307 to a signed URL", status, location)
	}
	w.pull(w.m, path, "", raw) // follows
	w.pull(w.m, path, "bytes=100-199", raw[100:200])
	if heads, gets := w.s3.Count("HeadObject"), w.s3.Count("GetObject"); heads != 1 || gets != 2 {
		t.Errorf("%d HEADs and %d GETs for three answers of which two were followed, want 1 and 2", heads, gets)
	}
	_, after, _ := strings.Cut(location, "X-Amz-Signature=")
	signature, _, _ := strings.Cut(after, "&")
	// The bucket fails: served from here.
	w.s3.Add(s3test.Fault{Op: "GetObject", Status: 500, Code: "InternalError"})
	w.s3.Add(s3test.Fault{Op: "HeadObject", Status: 500, Code: "InternalError"})
	s3test.Await(t, 30*time.Second, "the mirror to send nobody there", func() bool {
		_ = w.m.Cache().Store().Ailing()
		drop2(w.m, small)
		_, _, _ = w.ask(w.m, blobPath("library/app", small), "")
		status, _ := look("GET", path)
		return status == 200
	})
	w.m.AssertNoSecret(t, s3test.SecretKey, "X-Amz-Signature", signature)
}
