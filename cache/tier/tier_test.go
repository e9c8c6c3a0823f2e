package tier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/goleak"

	"forebay/cache/disk"
	"forebay/cache/index"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func hashOf(text string) v1.Hash {
	d, _, _ := v1.SHA256(strings.NewReader(text)) // memory never fails
	return d
}

// memory is a bucket in memory. Real ones are tested in test/s3test.
type memory struct {
	mu      sync.Mutex
	objects map[v1.Hash]Object
	err     error // of everything
	puts    int
	running int
	most    int
	slow    time.Duration
}

func newMemory() *memory { return &memory{objects: map[v1.Hash]Object{}} }

func (m *memory) PutFile(context.Context, string, io.ReaderAt, int64, Condition) error { return nil }

func (m *memory) OpenFile(context.Context, string, int64, int64) (*pull.Body, string, error) {
	return nil, "", &pull.Error{Kind: pull.NotFound, Upstream: "bucket"}
}

func (m *memory) ListFiles(context.Context, string, func(File) error) error { return nil }

func (m *memory) RemoveFiles(context.Context, []string) error { return nil }

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

func (m *memory) Put(ctx context.Context, d v1.Hash, size int64, _ io.ReaderAt, _ PutOptions) error {
	m.mu.Lock()
	m.puts++
	m.running++
	m.most = max(m.most, m.running)
	m.mu.Unlock()
	select {
	case <-time.After(m.slow):
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running--
	if m.err != nil || ctx.Err() != nil {
		return errors.Join(m.err, ctx.Err())
	}
	m.objects[d] = Object{Digest: d, Size: size, Stamp: time.Now()}
	return nil
}

func (m *memory) Open(context.Context, v1.Hash, int64, int64) (*pull.Body, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &pull.Body{ReadCloser: io.NopCloser(strings.NewReader("")), Ranged: true}, m.err
}

func (m *memory) Stat(_ context.Context, d v1.Hash) (Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[d]
	if m.err == nil && !ok {
		return o, &pull.Error{Kind: pull.NotFound, Status: 404}
	}
	return o, m.err
}

func (m *memory) Remove(_ context.Context, all []v1.Hash) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range all {
		delete(m.objects, d)
	}
	return m.err
}

func (m *memory) List(_ context.Context, shard string, fn func(Object) error) error {
	m.mu.Lock()
	var all []Object
	for _, o := range m.objects {
		if inShard(o.Digest, shard) {
			all = append(all, o)
		}
	}
	err := m.err
	m.mu.Unlock()
	slices.SortFunc(all, func(a, b Object) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	for _, o := range all {
		if err := fn(o); err != nil {
			return err
		}
	}
	return err
}

func (m *memory) Touch(_ context.Context, o Object) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	o.Stamp = time.Now()
	m.objects[o.Digest] = o
	return m.err
}

func (m *memory) AbortUploads(context.Context, time.Time) (int, error) { return 0, nil }

func (m *memory) Presign(context.Context, v1.Hash, time.Duration) (string, error) { return "", nil }

func (m *memory) Calls() []Calls { return nil }

// nobody pins or waits.
type nobody struct{}

func (nobody) Pinned(v1.Hash) bool   { return false }
func (nobody) Busy() bool            { return false }
func (nobody) Damaged(v1.Hash)       {}
func (nobody) Changed(string, error) {}

// behind is a tier on a disk of its own.
type behind struct {
	*Tier
	t *testing.T
}

func newBehind(t *testing.T, o Options) *behind {
	t.Helper()
	dir := t.TempDir()
	store, err := disk.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	ix, err := index.Open(index.Options{Dir: filepath.Join(dir, "index"), Journal: filepath.Join(dir, "journal")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(ix.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	return &behind{New(o, nobody{}, store, ix, nil), t}
}

// keep puts content on the disk and records it.
func (b *behind) keep(text string) v1.Hash {
	b.t.Helper()
	d := hashOf(text)
	err := errors.Join(b.disk.Put(d, []byte(text)), b.index.Update(func(x *index.Batch) error {
		return x.PutBlob(d, index.BlobInfo{Size: int64(len(text)), Added: time.Now()})
	}))
	if err != nil {
		b.t.Fatal(err)
	}
	return d
}

// run runs the tier until the test ends.
func (b *behind) run() {
	ctx, stop := context.WithCancel(b.t.Context())
	var all sync.WaitGroup
	all.Go(func() { b.Run(ctx) })
	b.t.Cleanup(func() {
		stop()
		all.Wait()
	})
}

func (b *behind) await(what string, ok func() bool) {
	b.t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("waited for %s", what)
		}
	}
}

// What is on the disk and not in the bucket is uploaded, in memory of bounded size however
// much it is, and no more at once than is allowed.
func TestEverythingOnTheDiskIsUploaded(t *testing.T) {
	m := newMemory()
	m.slow = time.Millisecond
	b := newBehind(t, Options{Bucket: m, Uploads: 3})
	const count = 530 // more than a page of the index
	for i := range count {
		b.keep(fmt.Sprint("blob ", i))
	}
	first := b.keep("blob 0")
	if !b.Pending(first) {
		t.Error("a blob is not pending before anything was compared")
	}
	b.run()
	b.await("uploads to end", func() bool { n, _ := b.queue.length(); return b.uploaded.Load() == count && n == 0 })
	b.await("the comparison to end", func() bool { return !b.Stats().More })
	if b.Pending(first) {
		t.Error("an uploaded blob is pending")
	}
	s := b.Stats()
	if s.Objects != count || s.Uploaded != count || s.QueuedBytes != 0 || m.most > 3 {
		t.Errorf("Stats = %+v with %d uploads at once, want %d objects and at most 3 at once", s, m.most, count)
	}
	if size, ok := b.Has(first); !ok || size != 6 {
		t.Errorf("Has = %d, %t; want 6", size, ok)
	}
	b.Added(first, 6)
	if n, _ := b.queue.length(); n != 0 {
		t.Error("what the bucket has is queued again")
	}
}

// A queue that is full forgets, and what it forgot is found again.
// A mirror that is stopped before disk and bucket were compared ends all the same.
func TestRunEndsBeforeItComparedAnything(t *testing.T) {
	b := newBehind(t, Options{Bucket: newMemory()})
	b.keep("blob")
	done, stop := context.WithCancel(t.Context())
	stop()
	b.Run(done)
}

func TestQueueIsBounded(t *testing.T) {
	q := newQueue()
	q.complete()
	for i := range queueMost {
		if !q.add(hashOf(fmt.Sprint(i)), 1, time.Now()) {
			t.Fatalf("no room for entry %d", i)
		}
	}
	if q.add(hashOf("one more"), 1, time.Now()) {
		t.Error("there is room for more than the bound")
	}
	if _, missed := q.has(hashOf("x")); !missed {
		t.Error("the queue does not know that it missed some")
	}
	if n, bytes := q.length(); n != queueMost || bytes != queueMost {
		t.Errorf("length = %d, %d bytes; want %d", n, bytes, queueMost)
	}
	ctx, stop := context.WithCancel(t.Context())
	for range queueMost {
		q.done(q.next(ctx))
	}
	if !q.lacks(ctx) {
		t.Error("an empty queue that missed some lacks nothing")
	}
	stop()
	if u := q.next(ctx); u != nil {
		t.Errorf("next of an empty queue = %v", u)
	}
}

func TestQueueIsInTheOrderOfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		now := time.Now()
		q.add(hashOf("late"), 1, now.Add(time.Hour))
		q.add(hashOf("soon"), 1, now.Add(time.Minute))
		q.add(hashOf("now"), 1, now)
		for _, want := range []struct {
			text  string
			after time.Duration
		}{{"now", 0}, {"soon", time.Minute}, {"late", time.Hour}} {
			u := q.next(t.Context())
			if u.digest != hashOf(want.text) || time.Since(now) != want.after {
				t.Errorf("next = %s after %s, want %s after %s", u.digest, time.Since(now), want.text, want.after)
			}
		}
		q.again(&upload{digest: hashOf("failed")}, time.Now().Add(time.Hour))
		q.hurry(time.Now())
		before := time.Now()
		if u := q.next(t.Context()); u.tries != 1 || time.Since(before) != 0 {
			t.Errorf("next after hurry = %+v after %s, want it at once", u, time.Since(before))
		}
	})
}

// Three failures in a row and the bucket is left alone, then asked less and less often; one
// success and all is well.
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker()
		bad := errors.New("bad")
		for i := range failuresMost {
			if b.open() || !b.allow() {
				t.Fatalf("closed after %d failures", i)
			}
			want := same
			if i == failuresMost-1 {
				want = opened
			}
			if got := b.told(bad, time.Now()); got != want {
				t.Errorf("told of failure %d = %d, want %d", i+1, got, want)
			}
		}
		start := time.Now()
		for i, pause := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute} {
			if b.allow() {
				t.Fatalf("asked at once after pause %d", i)
			}
			before := time.Now()
			if !b.wait(t.Context()) {
				t.Fatal("wait ended without leave")
			}
			if waited := time.Since(before); waited < pause || waited > pause+2*probeTick {
				t.Errorf("asked again after %s, want %s", waited, pause)
			}
			if b.allow() {
				t.Error("two are let through at once")
			}
			b.told(bad, time.Now())
		}
		_, since, err := b.failure()
		if !since.Equal(start) || !errors.Is(err, bad) {
			t.Errorf("failure = since %s, %v; want since %s, %v", since, err, start, bad)
		}
		if got := b.told(nil, time.Now()); got != closed || b.open() {
			t.Errorf("told of success = %d, open %t; want %d", got, b.open(), closed)
		}
		if _, since, _ := b.failure(); !since.IsZero() {
			t.Error("it is still left alone")
		}
	})
}

// A bucket that is away is told of, and comes back without anybody's doing.
func TestBucketHeals(t *testing.T) {
	m := newMemory()
	b := newBehind(t, Options{Bucket: m})
	m.fail(&pull.Error{Kind: pull.Unavailable, Upstream: "bucket", Op: "any"})
	d := b.keep("x")
	b.run()
	for range failuresMost {
		if _, err := b.Open(t.Context(), d, 0, -1); err == nil {
			t.Fatal("Open of a bucket that fails works")
		}
	}
	b.await("reading to be left alone", b.Unreadable)
	if _, err := b.Open(t.Context(), d, 0, -1); !errors.Is(err, errLeftAlone) {
		t.Errorf("Open while left alone: %v, want %v", err, errLeftAlone)
	}
	b.await("uploads to fail", func() bool { return len(b.Faults()) == 2 })
	m.fail(nil)
	b.await("all to be well", func() bool { return len(b.Faults()) == 0 && b.uploaded.Load() == 1 })
	if s := b.Stats(); s.Degraded || s.LastError == "" || s.Failures == 0 {
		t.Errorf("Stats = %+v, want it well and the last error kept", s)
	}
}

// What is not there any more is forgotten by a listing and uploaded again; what others put
// there is learned.
func TestSurveyAgrees(t *testing.T) {
	m := newMemory()
	b := newBehind(t, Options{Bucket: m})
	ours := b.keep("ours")
	if err := b.upload(t.Context(), ours); err != nil {
		t.Fatal(err)
	}
	theirs := hashOf("theirs")
	m.objects[theirs] = Object{Digest: theirs, Size: 6, Stamp: time.Now()}
	delete(m.objects, ours)
	s, err := b.Survey(t.Context())
	if err != nil || s.New != 1 || s.Gone != 1 || s.Objects != 1 || s.Bytes != 6 {
		t.Errorf("Survey = %+v, %v; want 1 new, 1 gone, 1 object of 6 bytes", s, err)
	}
	if _, ok := b.Has(ours); ok {
		t.Error("the index has what is gone")
	}
	if size, ok := b.Has(theirs); !ok || size != 6 {
		t.Errorf("Has = %d, %t of what others put there; want 6", size, ok)
	}
	if waits, _ := b.queue.has(ours); !waits {
		t.Error("what is gone is not queued")
	}
	if st := b.Stats(); st.Objects != 1 || st.ObjectBytes != 6 {
		t.Errorf("Stats = %d objects, %d bytes; want 1, 6", st.Objects, st.ObjectBytes)
	}
}

// An object of another size than the verified file is wrong.
func TestSurveyDistrustsAnotherSize(t *testing.T) {
	m := newMemory()
	b := newBehind(t, Options{Bucket: m})
	d := b.keep("right")
	m.objects[d] = Object{Digest: d, Size: 3, Stamp: time.Now()}
	if _, err := b.Survey(t.Context()); err != nil {
		t.Fatal(err)
	}
	waits, _ := b.queue.has(d)
	if _, known := b.Has(d); known || !b.wrong(d) || !waits || b.Stats().Damaged != 1 {
		t.Errorf("object is known: %t, distrusted: %t, to be replaced: %t; want it distrusted and to be replaced", known, b.wrong(d), waits)
	}
	if err := b.upload(t.Context(), d); err != nil || m.objects[d].Size != 5 || b.wrong(d) {
		t.Errorf("upload = %v, object of %d bytes, distrusted %t; want 5 bytes, trusted", err, m.objects[d].Size, b.wrong(d))
	}
}

// A wrong object that nothing takes the place of is removed.
func TestWrongObjectIsRemoved(t *testing.T) {
	m := newMemory()
	b := newBehind(t, Options{Bucket: m})
	d := hashOf("x")
	m.objects[d] = Object{Digest: d, Size: 3, Stamp: time.Now()}
	b.Distrust(d)
	if err := b.upload(t.Context(), d); err != nil || len(m.objects) != 0 || b.wrong(d) {
		t.Errorf("upload = %v, %d objects, distrusted %t; want none", err, len(m.objects), b.wrong(d))
	}
}

// Who needs an object marks it long before anybody may remove it.
func TestAgeOfObjects(t *testing.T) {
	const age = 100 * 24 * time.Hour
	for _, tt := range []struct {
		name             string
		stamp            time.Duration // before now
		used             time.Duration // before now; 0 means never
		removed, touched int64
	}{
		{"young and used", 10 * 24 * time.Hour, time.Hour, 0, 0},
		{"half as old and used", 60 * 24 * time.Hour, time.Hour, 0, 1},
		{"half as old and not used", 60 * 24 * time.Hour, 0, 0, 0},
		{"half as old, used before it was marked last", 60 * 24 * time.Hour, 61 * 24 * time.Hour, 0, 0},
		{"old and used", 101 * 24 * time.Hour, time.Hour, 0, 1},
		{"old and not used", 101 * 24 * time.Hour, 0, 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMemory()
			b := newBehind(t, Options{Bucket: m, MaxAge: age})
			d := hashOf("x")
			o := Object{Digest: d, Size: 1, Stamp: time.Now().Add(-tt.stamp)}
			m.objects[d] = o
			if err := b.known(o); err != nil {
				t.Fatal(err)
			}
			if tt.used > 0 {
				err := b.index.Update(func(x *index.Batch) error { return x.NoteUse(d, time.Now().Add(-tt.used)) })
				if err != nil {
					t.Fatal(err)
				}
			}
			s, err := b.Survey(t.Context())
			if err != nil || s.Removed != tt.removed || s.Touched != tt.touched {
				t.Errorf("Survey = %+v, %v; want %d removed, %d marked", s, err, tt.removed, tt.touched)
			}
			if _, ok := b.Has(d); ok != (tt.removed == 0) {
				t.Errorf("Has = %t after %d were removed", ok, tt.removed)
			}
		})
	}
}

// What was not used for so long that it would be removed at once is not uploaded.
func TestExpiredContentStaysOnTheDisk(t *testing.T) {
	m := newMemory()
	b := newBehind(t, Options{Bucket: m, MaxAge: 24 * time.Hour})
	d := hashOf("old")
	err := errors.Join(b.disk.Put(d, []byte("old")), b.index.Update(func(x *index.Batch) error {
		return x.PutBlob(d, index.BlobInfo{Size: 3, Added: time.Now().Add(-48 * time.Hour)})
	}))
	if err != nil {
		t.Fatal(err)
	}
	if n, all := b.enqueue(t.Context()); n != 0 || !all {
		t.Errorf("enqueue = %d, %t; want none", n, all)
	}
	b.queue.complete()
	if b.Pending(d) {
		t.Error("it is pending: nothing would ever evict it")
	}
}

// comes compares two digests in the order of the index.
func comes(a, b v1.Hash) int {
	return cmp.Or(slices.Index(wire.Algorithms, a.Algorithm)-slices.Index(wire.Algorithms, b.Algorithm), strings.Compare(a.Hex, b.Hex))
}

func TestShardsCoverEverything(t *testing.T) {
	all := shards()
	for _, d := range []v1.Hash{hashOf("a"), hashOf("b"), {Algorithm: "sha256", Hex: strings.Repeat("0", 64)},
		{Algorithm: "sha256", Hex: strings.Repeat("f", 64)}, {Algorithm: "sha512", Hex: strings.Repeat("a", 128)}, {Algorithm: "blake3", Hex: strings.Repeat("0", 64)}} {
		n := 0
		for _, shard := range all {
			if inShard(d, shard) {
				n++
				before := beforeShard(shard)
				if before != (v1.Hash{}) && comes(before, d) >= 0 {
					t.Errorf("beforeShard(%s) = %s, want what comes before %s", shard, before, d)
				}
			}
		}
		if n != 1 || !inShard(d, "") {
			t.Errorf("%s is in %d shards, want 1", d, n)
		}
	}
}

// The survey of many objects goes by shards, and forgets in each what is gone.
func TestSurveyByShards(t *testing.T) {
	m := newMemory()
	b := newBehind(t, Options{Bucket: m})
	for i := range fewObjects + 500 {
		d := hashOf(fmt.Sprint(i))
		m.objects[d] = Object{Digest: d, Size: 1, Stamp: time.Now()}
	}
	if s, err := b.Survey(t.Context()); err != nil || s.New != fewObjects+500 {
		t.Fatalf("Survey = %+v, %v; want %d new", s, err, fewObjects+500)
	}
	for i := range 300 {
		delete(m.objects, hashOf(fmt.Sprint(i)))
	}
	if s, err := b.Survey(t.Context()); err != nil || s.Gone != 300 || s.New != 0 {
		t.Errorf("Survey = %+v, %v; want 300 gone", s, err)
	}
	if n := b.Stats().Objects; n != fewObjects+200 {
		t.Errorf("%d objects, want %d", n, fewObjects+200)
	}
}
