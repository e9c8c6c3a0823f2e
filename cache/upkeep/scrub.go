package upkeep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"forebay/cache/disk"
	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/internal/logkey"
	"forebay/internal/sums"
	"forebay/internal/wire"
)

const (
	// scrubShare of the interval is what a round is planned to take, so that a machine
	// that is off at night still makes it in time.
	scrubShare = 0.8
	// scrubRate bounds how fast the background reads, in bytes per second, when
	// nothing else is said: a tenth of what a single disk gives.
	scrubRate = 16 << 20
	// readBlock is what is read of a file at a time.
	readBlock = 256 << 10
	// scrubPage is how many blobs are listed at a time.
	scrubPage = 256
	// scrubSaveEvery is how often the position is written.
	scrubSaveEvery = time.Minute
	// oftenWithin of its last use a blob is taken to be in the page cache for a reason.
	oftenWithin = 24 * time.Hour
)

// Verified says what a verification found.
type Verified struct {
	Blobs   int64     `json:"blobs"` // read
	Bytes   int64     `json:"bytes"`
	Damaged []BadBlob `json:"damaged"` // at most 100
	Faults  int64     `json:"faults"`  // damaged or unreadable, all of them
	Fetched int64     `json:"fetched"` // of those, fetched again
}

// BadBlob is a blob that does not have its digest any more, or cannot be read.
type BadBlob struct {
	Digest     wire.Digest `json:"digest"`
	Error      string      `json:"error"`
	Quarantine string      `json:"quarantine,omitempty"` // file below the storage folder, if it was kept
	Fetched    bool        `json:"fetched"`              // a good one has taken its place
}

// verdict is how the check of one blob went.
type verdict struct {
	bytes int64 // read
	bad   *BadBlob
}

// Verify reads everything that is kept and compares it with its digest. A damaged blob is
// taken out of the store, and with repair fetched again from a repository that holds it.
// tell, if not nil, is called now and then.
func (k *Keeper) Verify(ctx context.Context, repair bool, tell func(Progress)) (*Verified, error) {
	var count progress
	totals := k.Store.Index.Totals()
	count.itemsTotal.Store(totals.Blobs)
	count.bytesTotal.Store(totals.Bytes)
	done := count.report(tell)
	defer done()
	result := &Verified{Damaged: []BadBlob{}}
	err := k.Store.Walk(func(d v1.Hash, _ int64, _ time.Time) error {
		v := k.check(ctx, d, nil, func(n int) { count.bytes.Add(int64(n)) })
		if err := ctx.Err(); err != nil {
			return err
		}
		count.items.Add(1)
		if v.bad == nil {
			return nil
		}
		count.faults.Add(1)
		if repair {
			v.bad.Fetched = k.refetch(ctx, d)
		}
		if v.bad.Fetched {
			result.Fetched++
		}
		if len(result.Damaged) < failuresMost {
			result.Damaged = append(result.Damaged, *v.bad)
		}
		return nil
	})
	result.Blobs, result.Bytes, result.Faults = count.items.Load(), count.bytes.Load(), count.faults.Load()
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	k.log.Info("store verified", zap.Int64("blobs", result.Blobs), logkey.Bytes(result.Bytes), zap.Int64("damaged", result.Faults))
	return result, nil
}

// check reads one blob and compares it with its digest. A damaged one is taken out. limit
// may be nil; read, if not nil, is told of every piece.
func (k *Keeper) check(ctx context.Context, d v1.Hash, limit *rate.Limiter, read func(n int)) (v verdict) {
	f, _, err := k.Store.Disk.Blob(d)
	if errors.Is(err, fs.ErrNotExist) {
		return v // removed meanwhile
	}
	if err != nil {
		k.log.Warn("blob not checked", logkey.Digest(d), logkey.Err(err))
		v.bad = &BadBlob{Digest: wire.Digest{Hash: d}, Error: err.Error()}
		return v
	}
	defer f.Close()
	found := store.StampOf(f)
	sum, err := sums.Hash(d.Algorithm)
	if err != nil {
		v.bad = &BadBlob{Digest: wire.Digest{Hash: d}, Error: err.Error()}
		return v
	}
	used, _, _ := k.Store.Index.Used(d) // unknown is long ago
	often := time.Since(used) < oftenWithin
	if !often {
		_ = disk.Uncache(f) // so that the disk is read, and not what memory remembers of it
	}
	buf := make([]byte, readBlock)
	for {
		n, err := f.Read(buf)
		sum.Write(buf[:n])
		v.bytes += int64(n)
		if read != nil {
			read(n)
		}
		if limit != nil && n > 0 && limit.WaitN(ctx, n) != nil || ctx.Err() != nil {
			return v
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			v.bad = k.condemn(d, f, fmt.Errorf("read at %d: %w", v.bytes, err))
			return v
		}
	}
	if !often {
		_ = disk.Uncache(f) // nor does it push out what clients want
	}
	if err := sums.CheckHash(d, sum); err != nil {
		v.bad = k.condemn(d, f, err)
		return v
	}
	k.Store.SetVerified(d, found)
	return v
}

// condemn takes a damaged blob out of the store. f is the file that was read.
func (k *Keeper) condemn(d v1.Hash, f *os.File, why error) *BadBlob {
	return &BadBlob{Digest: wire.Digest{Hash: d}, Error: why.Error(), Quarantine: k.Store.Condemn(d, f, why)}
}

// refetch fetches content anew from one of the repositories that hold it, and reports
// whether it is kept then.
func (k *Keeper) refetch(ctx context.Context, d v1.Hash) bool {
	type holder struct {
		repo Repo
		kind index.Kind
	}
	var holders []holder
	err := k.Store.Index.Holders(d, func(r index.Repo, k index.Kind) error {
		holders = append(holders, holder{r, k})
		return ctx.Err()
	})
	for _, h := range holders {
		_, stored := k.Store.BucketSize(d)
		if k.Cache.Configured(h.repo) != nil || !k.Cache.MayAsk(h.repo) && !stored || ctx.Err() != nil {
			continue
		}
		if h.kind == index.Manifest {
			_, err = k.Cache.Manifest(ctx, h.repo, d.String(), false)
		} else {
			_, err = k.Cache.FetchBlob(ctx, h.repo, d, func(int64) {})
		}
		if _, kept := k.Store.DiskSize(d); kept && err == nil {
			k.log.Info("damaged blob fetched again", logkey.Upstream(h.repo.Upstream), logkey.Repository(h.repo.Name), logkey.Digest(d))
			return true
		}
	}
	k.log.Warn("damaged blob not fetched again", logkey.Digest(d), logkey.Err(err))
	return false
}

// Scrub says how far the reading in the background has come.
type Scrub struct {
	Enabled  bool          `json:"enabled"`
	Interval time.Duration `json:"interval_ns"`
	Began    time.Time     `json:"began,omitzero"` // of the round in progress, or of the last one
	Ended    time.Time     `json:"ended,omitzero"` // of the last round that came to its end
	Next     time.Time     `json:"next,omitzero"`  // between rounds: when the next one begins
	Done     float64       `json:"done"`           // share of the round, from 0 to 1
	Damaged  int64         `json:"damaged"`        // found since the start, however they were found
}

// scrubState is what is remembered of the scrub over a restart.
type scrubState struct {
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended"`
	After string    `json:"after"` // digest read last; empty before the first
	Next  time.Time `json:"next"`  // when the next round begins, between rounds
}

const scrubNote = "scrub"

// Scrub returns how far the reading in the background has come.
func (k *Keeper) Scrub() Scrub {
	s := Scrub{Enabled: k.opts.ScrubInterval > 0, Interval: k.opts.ScrubInterval, Damaged: k.Store.Figures().Damaged}
	if st := k.scrubbed.Load(); st != nil {
		s.Began, s.Ended, s.Next, s.Done = st.Began, st.Ended, st.Next, place(st.After)
		if st.After == "" && st.Ended.After(st.Began) {
			s.Done = 1
		}
	}
	return s
}

// place returns where in a round a digest is, from 0 to 1. The index is in the order of
// digests, sha256 first, and they are spread evenly, so that no counting is needed.
func place(digest string) float64 {
	hex, ok := strings.CutPrefix(digest, "sha256:")
	switch {
	case digest == "":
		return 0
	case !ok || len(hex) < 8:
		return 1
	}
	n, err := strconv.ParseUint(hex[:8], 16, 32)
	if err != nil {
		return 1
	}
	return float64(n) / (math.MaxUint32 + 1)
}

// scrub reads everything that is kept again and again, spread over the interval, until
// ctx is done. What is damaged is taken out and fetched again.
func (k *Keeper) scrub(ctx context.Context) {
	if k.opts.ScrubInterval <= 0 {
		return
	}
	// The priority is the thread's. It is never unlocked, so that the thread ends with us.
	runtime.LockOSThread()
	if err := disk.IdleIO(); err != nil {
		k.log.Debug("scrub without a low priority", logkey.Err(err))
	}
	st := k.readScrub()
	for ctx.Err() == nil {
		k.scrubRound(ctx, &st)
	}
}

// readScrub returns where the scrub was before the start.
func (k *Keeper) readScrub() scrubState {
	var st scrubState
	b, ok, err := k.Store.Index.Note(scrubNote)
	if err != nil || ok && json.Unmarshal(b, &st) != nil {
		k.log.Warn("place of the scrub is lost: it begins anew", logkey.Err(err))
		st = scrubState{}
	}
	if _, err := wire.ParseDigest(st.After); err != nil {
		st.After = ""
	}
	return st
}

func (k *Keeper) writeScrub(st scrubState) {
	k.scrubbed.Store(&st)
	b, err := json.Marshal(st)
	if err == nil {
		err = k.Store.Update(func(t *index.Batch) error { return t.PutNote(scrubNote, b) })
	}
	if err != nil {
		k.log.Warn("place of the scrub not written", logkey.Err(err))
	}
}

// scrubRound goes on with a round, or waits for the next one to begin, and ends it.
func (k *Keeper) scrubRound(ctx context.Context, st *scrubState) {
	if st.After == "" {
		if !st.Next.IsZero() {
			k.scrubbed.Store(&scrubState{Began: st.Began, Ended: st.Ended, Next: st.Next})
		}
		if !awaitTime(ctx, st.Next) {
			return
		}
		st.Began = time.Now()
	}
	k.writeScrub(*st)
	perSecond := k.opts.ScrubRate
	if perSecond <= 0 {
		perSecond = scrubRate
	}
	limit := rate.NewLimiter(rate.Limit(perSecond), readBlock)
	saved, read := time.Now(), 0
	for {
		after, _ := wire.ParseDigest(st.After) // zero at the beginning
		blobs, err := k.Store.Index.BlobsAfter(after, scrubPage)
		if err != nil {
			k.log.Warn("scrub cannot list blobs", logkey.Err(err))
			awaitTime(ctx, time.Now().Add(scrubSaveEvery))
			return
		}
		for _, b := range blobs {
			if !awaitTime(ctx, k.scrubDue(st.Began, b.Digest.String())) {
				k.writeScrub(*st)
				return
			}
			v := k.check(ctx, b.Digest, limit, nil)
			if ctx.Err() != nil {
				return
			}
			if v.bad != nil {
				k.refetch(ctx, b.Digest)
			}
			st.After = b.Digest.String()
			now := *st
			k.scrubbed.Store(&now)
			read++
			if time.Since(saved) > scrubSaveEvery {
				saved = time.Now()
				k.writeScrub(*st)
			}
		}
		if len(blobs) == 0 {
			break
		}
	}
	began := st.Began
	*st = scrubState{Began: began, Ended: time.Now(), Next: began.Add(k.opts.ScrubInterval)}
	if read == 0 && st.Ended.Sub(st.Began) < scrubSaveEvery {
		// There was nothing to read; what comes soon must not wait for a whole interval.
		*st = scrubState{Next: time.Now().Add(sweepEvery)}
	}
	k.writeScrub(*st)
	if read > 0 {
		k.log.Info("scrub round ended", logkey.Count(read), logkey.Took(time.Since(began)))
	}
}

// scrubDue returns when the round that began then is planned to read a digest.
func (k *Keeper) scrubDue(began time.Time, digest string) time.Time {
	return began.Add(time.Duration(place(digest) * scrubShare * float64(k.opts.ScrubInterval)))
}

// awaitTime waits until a time of the clock on the wall, and reports whether it came
// before ctx was done.
func awaitTime(ctx context.Context, until time.Time) bool {
	for {
		left := time.Until(until)
		if left <= 0 {
			return ctx.Err() == nil
		}
		// In pieces, since a machine that sleeps stops the timer and not the clock.
		select {
		case <-time.After(min(left, 10*time.Minute)):
		case <-ctx.Done():
			return false
		}
	}
}
