// Package tier keeps a bucket behind the disk: everything on the disk is uploaded, and what
// the disk has dropped is read from the bucket.
//
// It promises that no client waits for an upload, that the index never says that the bucket
// has content that was not put there whole, but for [Tier.Expect], and that a bucket that fails is left alone until
// it answers again. It does not promise that an object has its digest: its reader must check
// that, and call [Tier.Distrust] if it has not.
//
// The index says for each digest whether the bucket has it. What is on the disk and not
// in the bucket is what is still to be uploaded, so that a crash loses no upload.
//
// Lock order: Tier.recording, then the index's. None is held across I/O to the bucket.
package tier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"

	"forebay/cache/disk"
	"forebay/cache/index"
	"forebay/internal/logkey"
	"forebay/internal/pull"
)

// Bucket is where objects are. Its errors are or wrap a [pull.Error]; methods return when
// ctx is done and may be called concurrently. None takes longer than its own timeouts.
type Bucket interface {
	Objects
	Upkeep
	Files
}

// Objects is the part of a bucket that content goes through.
type Objects interface {
	// Put makes an object of content, which has the digest d. It is visible only when it is
	// whole, and nil means that it is. [ErrDamaged] means that content does not have its digest.
	Put(ctx context.Context, d v1.Hash, size int64, content io.ReaderAt, o PutOptions) error
	// Open opens the bytes [off, end), end -1 being the object's end, with one request.
	Open(ctx context.Context, d v1.Hash, off, end int64) (*pull.Body, error)
	// Stat returns what is known of an object without its bytes.
	Stat(ctx context.Context, d v1.Hash) (Object, error)
	// Remove removes objects, in batches. What is not there is no error.
	Remove(ctx context.Context, all []v1.Hash) error
	// List calls fn for every object of a shard ("sha256/ab", "sha512", "blake3", or "" for all) in the
	// order of their names, and stops at its first error.
	List(ctx context.Context, shard string, fn func(Object) error) error
}

// Upkeep is the part of a bucket that is not about content.
type Upkeep interface {
	// Touch makes an object as young as if it were put now.
	Touch(ctx context.Context, o Object) error
	// AbortUploads ends uploads that began before a time and never ended, and returns how many.
	AbortUploads(ctx context.Context, before time.Time) (int, error)
	// Presign returns a URL under which anybody may GET the object for a while. It must not be
	// logged. No request is made.
	Presign(ctx context.Context, d v1.Hash, ttl time.Duration) (string, error)
	// Calls returns how many requests were made since the start, by operation.
	Calls() []Calls
}

// Files is the part of a bucket that is no content: files under names that say nothing of what is in
// them. Names have no slash at their ends.
type Files interface {
	// PutFile makes a file, whole or not at all. [ErrCondition] means that another is there than c says.
	PutFile(ctx context.Context, name string, content io.ReaderAt, size int64, c Condition) error
	// OpenFile opens the bytes [off, end) of a file, end -1 being its end, and names its version.
	OpenFile(ctx context.Context, name string, off, end int64) (body *pull.Body, version string, err error)
	// ListFiles calls fn for every file below a folder, in the order of their names, and stops at its
	// first error.
	ListFiles(ctx context.Context, folder string, fn func(File) error) error
	// RemoveFiles removes files. What is not there is no error.
	RemoveFiles(ctx context.Context, names []string) error
}

// File is a file as the bucket tells of it.
type File struct {
	Name  string
	Size  int64
	Stamp time.Time // when it was put
}

// Condition says what must be there for a file to be put. The zero value asks for nothing.
type Condition struct {
	Absent  bool   // there is none
	Version string // it is this one
}

// ErrCondition means that a file was not put, since the condition does not hold.
var ErrCondition = errors.New("another is there")

// ErrUnconditional means that the server puts no file under a condition.
var ErrUnconditional = errors.New("server has no conditional writes")

// ErrDamaged means that the bytes to be put do not have their digest.
var ErrDamaged = errors.New("content does not have its digest")

// Object is an object as the bucket tells of it.
type Object struct {
	Digest v1.Hash
	Size   int64
	Stamp  time.Time // when it was put, or touched
}

// PutOptions says how an object is put.
type PutOptions struct {
	// Replace puts it whatever is there. Else an object of the right size stays.
	Replace bool
	// Resume is an upload in parts that was begun before; zero when there is none.
	Resume index.Upload
	// Begun is told of an upload in parts before its first part, so that it can be resumed.
	Begun func(index.Upload) error
}

// Options configures a [Tier]. Bucket is required.
type Options struct {
	Bucket Bucket
	// Uploads is how many run at once. 0 means 4.
	Uploads int
	// MaxBytes is what the bucket may hold, whoever put it there: the oldest objects go. 0 means no limit.
	MaxBytes int64
	// MaxAge is how long an object stays that nobody needs. 0 means for ever.
	MaxAge time.Duration
	// Grace is how young an object must be to stay even if there are too many. 0 means a day.
	Grace time.Duration
	// SurveyEvery is how often the bucket is listed. 0 means what MaxAge, MaxBytes and Grace
	// need, at most a day.
	SurveyEvery time.Duration
	// Redirect sends clients to the bucket for blobs of at least RedirectLeast bytes.
	Redirect      bool
	RedirectLeast int64
	// Identity names what the rights of an upstream depend on: who is asked, in whose name, and whom
	// it believes. Links and tags in the bucket count for who asks the same. "" is that of no
	// upstream. nil gives all the same one.
	Identity func(upstream string) string
	// RefsEvery is how often links, tags and pins go to the bucket. 0 means 30 s.
	RefsEvery time.Duration
}

// Limited reports whether objects are ever removed because of age or room.
func (o Options) Limited() bool { return o.MaxBytes > 0 || o.MaxAge > 0 }

// Owner is what the tier asks of the owner of the disk.
type Owner interface {
	// Pinned reports whether content must be kept.
	Pinned(d v1.Hash) bool
	// Busy reports whether clients wait for downloads. Uploads then make way.
	Busy() bool
	// Changed is told that the bucket is left alone, err being why, or answers again.
	Changed(what string, err error)
	// Damaged is told of a file that does not have its digest any more.
	Damaged(d v1.Hash)
}

// Tier is a bucket behind a disk. Its methods may be called concurrently. Whoever made it
// calls Run once.
type Tier struct {
	opts   Options
	owner  Owner
	disk   *disk.Store
	index  *index.Index
	log    *zap.Logger
	reads  breaker
	writes breaker
	queue  queue

	objects   atomic.Int64 // as the index has it
	bytes     atomic.Int64
	survey    atomic.Pointer[Survey]
	uploaded  atomic.Int64 // since the start
	sent      atomic.Int64 // bytes
	failures  atomic.Int64
	dropped   atomic.Int64 // objects removed for age or room
	distrusts atomic.Int64
	fileWaits atomic.Bool // a file was not put, and will be tried again

	recording sync.Mutex // one change of what the index says of the bucket at a time

	mu      sync.Mutex
	replace map[v1.Hash]bool      // guarded by mu; objects that are wrong
	seen    map[v1.Hash]time.Time // guarded by mu; objects that were there when a client was sent to them
}

// New returns the tier of a disk and its index. log may be nil.
func New(o Options, owner Owner, store *disk.Store, ix *index.Index, log *zap.Logger) *Tier {
	if log == nil {
		log = zap.NewNop()
	}
	if o.Uploads <= 0 {
		o.Uploads = 4
	}
	if o.Grace <= 0 {
		o.Grace = 24 * time.Hour
	}
	return &Tier{opts: o, owner: owner, disk: store, index: ix, log: log, queue: newQueue(), reads: newBreaker(), writes: newBreaker(),
		replace: map[v1.Hash]bool{}, seen: map[v1.Hash]time.Time{}}
}

// Has returns the size of content that the bucket has, by the index. No request is made.
func (t *Tier) Has(d v1.Hash) (int64, bool) {
	r, ok, err := t.index.Remote(d)
	return r.Size, ok && err == nil
}

// Pending reports whether content is still to be uploaded, so that its file is the only copy.
func (t *Tier) Pending(d v1.Hash) bool {
	waits, missed := t.queue.has(d)
	if !waits && missed {
		_, ok := t.Has(d)
		return !ok
	}
	return waits
}

// Fault is a kind of requests that the bucket does not get at present, since they failed.
type Fault struct {
	What  string // "reading from the bucket", "uploading to the bucket"
	Err   error  // the last failure
	Since time.Time
}

// Faults returns the requests that the bucket does not get at present; none when all is well.
func (t *Tier) Faults() []Fault {
	var all []Fault
	for _, b := range []*breaker{&t.reads, &t.writes} {
		if _, since, err := b.failure(); !since.IsZero() {
			all = append(all, Fault{What: t.doing(b), Err: err, Since: since})
		}
	}
	return all
}

func (t *Tier) doing(b *breaker) string {
	if b == &t.writes {
		return "uploading to the bucket"
	}
	return "reading from the bucket"
}

// Added says that content is on the disk now. It is uploaded unless the bucket has it.
func (t *Tier) Added(d v1.Hash, size int64) {
	if _, ok := t.Has(d); ok && !t.wrong(d) {
		return
	}
	t.queue.add(d, size, time.Now())
}

// Unreadable reports whether the bucket is not read from at present.
func (t *Tier) Unreadable() bool { return t.reads.open() }

// errLeftAlone means that the bucket was not asked.
var errLeftAlone = errors.New("left alone after failures")

func unavailable(op string, err error) error {
	return &pull.Error{Kind: pull.Unavailable, Upstream: "bucket", Op: op, Err: err}
}

// Open opens the bytes [off, end) of an object, end -1 being its end. A bucket that is left
// alone is not asked, so that the caller can ask the registry at once.
func (t *Tier) Open(ctx context.Context, d v1.Hash, off, end int64) (*pull.Body, error) {
	if t.reads.open() {
		return nil, unavailable("get "+d.String(), errLeftAlone)
	}
	body, err := t.opts.Bucket.Open(ctx, d, off, end)
	t.told(ctx, &t.reads, err)
	if pull.KindOf(err) == pull.NotFound && err != nil {
		t.missing(d)
	}
	if err != nil {
		return nil, err
	}
	body.ReadCloser = &watched{ReadCloser: body.ReadCloser, ctx: ctx, t: t}
	return body, nil
}

// watched tells the breaker when a body breaks off.
type watched struct {
	io.ReadCloser
	ctx context.Context
	t   *Tier
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.ReadCloser.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		w.t.told(w.ctx, &w.t.reads, err)
	}
	return n, err
}

// told tells a breaker how a request ended, and the owner what that changed.
func (t *Tier) told(ctx context.Context, b *breaker, err error) {
	if ctx.Err() != nil {
		return
	}
	if err != nil && (pull.KindOf(err) == pull.NotFound || pull.DetailOf(err) == pull.OutOfRange) {
		err = nil // it answers
	}
	switch b.told(err, time.Now()) {
	case opened:
		t.log.Error("bucket is left alone", zap.String("what", t.doing(b)), logkey.Err(err))
		t.owner.Changed(t.doing(b), err)
	case closed:
		t.log.Info("bucket answers again", zap.String("what", t.doing(b)))
		t.owner.Changed(t.doing(b), nil)
		if b == &t.writes {
			t.queue.hurry(time.Now())
		}
	}
}

// Get returns the bytes of a small object. They are not checked.
func (t *Tier) Get(ctx context.Context, d v1.Hash, limit int64) ([]byte, error) {
	body, err := t.Open(ctx, d, 0, -1)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("object %s has more than %d bytes", d, limit)
	}
	return b, err
}

// missing notes that the bucket does not have an object after all.
func (t *Tier) missing(d v1.Hash) {
	gone, err := t.forget(d)
	if err != nil {
		t.log.Warn("object not forgotten", logkey.Digest(d), logkey.Err(err))
	}
	if gone == 0 {
		return
	}
	t.log.Warn("object is gone from the bucket", logkey.Digest(d))
	if size, err := t.disk.Stat(d); err == nil {
		t.queue.add(d, size, time.Now())
	}
}

// forget takes objects out of the index, and returns how many it knew.
func (t *Tier) forget(all ...v1.Hash) (n int64, err error) {
	t.recording.Lock()
	defer t.recording.Unlock()
	var bytes int64
	for _, d := range all {
		r, ok, err := t.index.Remote(d)
		if err != nil {
			return 0, err
		}
		if ok {
			n++
			bytes += r.Size
		}
	}
	err = t.index.Update(func(b *index.Batch) error {
		var errs []error
		for _, d := range all {
			errs = append(errs, b.DeleteRemote(d))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return 0, err
	}
	t.objects.Add(-n)
	t.bytes.Add(-bytes)
	return n, nil
}

// Distrust notes that an object does not have its digest. It is not read any more. In the
// background it is replaced by what the disk has then, or removed.
func (t *Tier) Distrust(d v1.Hash) {
	t.distrusts.Add(1)
	t.mu.Lock()
	t.replace[d] = true
	t.mu.Unlock()
	t.log.Error("object in the bucket is damaged", logkey.Digest(d))
	if _, err := t.forget(d); err != nil {
		t.log.Warn("object not forgotten", logkey.Digest(d), logkey.Err(err))
	}
	size, _ := t.size(d)
	t.queue.add(d, size, time.Now())
}

func (t *Tier) wrong(d v1.Hash) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.replace[d]
}

// Remove takes an object out of the bucket, whoever needs it: an operator said so.
func (t *Tier) Remove(ctx context.Context, d v1.Hash) error {
	if _, ok := t.Has(d); !ok {
		return nil
	}
	err := t.opts.Bucket.Remove(ctx, []v1.Hash{d})
	t.told(ctx, &t.writes, err)
	if err == nil {
		_, err = t.forget(d)
	}
	return err
}

// Expect records content that the bucket should have, by the word of a link. What is not there is
// forgotten when somebody wants it, or at the next listing.
func (t *Tier) Expect(all []Object) error {
	var fresh []Object
	for _, o := range all {
		if _, ok := t.Has(o.Digest); !ok {
			fresh = append(fresh, o)
		}
	}
	return t.known(fresh...)
}

// known records what the bucket has.
func (t *Tier) known(all ...Object) error {
	t.recording.Lock()
	defer t.recording.Unlock()
	var fresh, bytes int64
	for _, o := range all {
		old, ok, err := t.index.Remote(o.Digest)
		if err != nil {
			return err
		}
		if !ok {
			fresh++
		}
		bytes += o.Size - old.Size
	}
	err := t.index.Update(func(b *index.Batch) error {
		for _, o := range all {
			if err := b.PutRemote(o.Digest, index.Remote{Size: o.Size, Stamp: o.Stamp}); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		t.objects.Add(fresh)
		t.bytes.Add(bytes)
	}
	return err
}

const (
	// presignFor is how long a client may take to begin what it was sent to. A transfer that
	// has begun goes on.
	presignFor = 15 * time.Minute
	// seenFor is how long an object is taken to be there that was there.
	seenFor  = 5 * time.Minute
	seenMost = 16384
)

// Redirect returns where a client gets an object itself, or "" when it is to be served
// from here. Before the first client is sent there, the bucket is asked whether the
// object is there and has its size.
func (t *Tier) Redirect(ctx context.Context, d v1.Hash, size int64) string {
	if !t.Redirects(size) || t.reads.open() {
		return ""
	}
	if !t.sawLately(d) {
		o, err := t.opts.Bucket.Stat(ctx, d)
		t.told(ctx, &t.reads, err)
		switch {
		case err != nil && pull.KindOf(err) == pull.NotFound:
			t.missing(d)
			return ""
		case err != nil:
			return ""
		case o.Size != size:
			t.Distrust(d)
			return ""
		}
		t.saw(d)
	}
	url, err := t.opts.Bucket.Presign(ctx, d, presignFor)
	if err != nil {
		t.log.Warn("client not sent to the bucket", logkey.Digest(d), logkey.Err(err))
		return ""
	}
	return url
}

// Redirecting reports whether clients are ever sent to the bucket.
func (t *Tier) Redirecting() bool { return t.opts.Redirect }

// Redirects reports whether clients may be sent to the bucket for a blob of that size.
func (t *Tier) Redirects(size int64) bool { return t.opts.Redirect && size >= t.opts.RedirectLeast }

func (t *Tier) sawLately(d v1.Hash) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Since(t.seen[d]) < seenFor
}

func (t *Tier) saw(d v1.Hash) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.seen) >= seenMost {
		clear(t.seen)
	}
	t.seen[d] = time.Now()
}

// Run uploads and looks after the bucket until ctx is done.
func (t *Tier) Run(ctx context.Context) {
	t.count(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	for range t.opts.Uploads {
		work.Go(func() { t.uploads(ctx) })
	}
	work.Go(func() { t.heal(ctx) })
	work.Go(func() { t.surveys(ctx) })
	work.Go(func() { t.refill(ctx) })
}

// page is how many records are read at a time.
const page = 512

// count learns what the index says that the bucket has.
func (t *Tier) count(ctx context.Context) {
	t.recording.Lock()
	defer t.recording.Unlock()
	var after v1.Hash
	var objects, bytes int64
	for ctx.Err() == nil {
		some, err := t.index.RemotesAfter(after, page)
		if err != nil {
			t.log.Warn("objects not counted", logkey.Err(err))
			break
		}
		for _, r := range some {
			after = r.Digest
			objects++
			bytes += r.Size
		}
		if len(some) < page {
			break
		}
	}
	t.objects.Store(objects)
	t.bytes.Store(bytes)
}

// heal asks a bucket that failed now and then whether it answers again.
func (t *Tier) heal(ctx context.Context) {
	nobody := v1.Hash{Algorithm: "sha256", Hex: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
	tick := time.NewTicker(probeTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if n, _ := t.queue.length(); n == 0 && t.writes.open() && !t.fileWaits.Load() {
			t.told(ctx, &t.writes, nil) // what failed is not wanted any more
		}
		if t.reads.open() && t.reads.allow() {
			_, err := t.opts.Bucket.Stat(ctx, nobody)
			t.told(ctx, &t.reads, err)
		}
	}
}
