package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/internal/manifest"
	"forebay/internal/pull"
	"forebay/internal/sums"
	"forebay/internal/wire"
)

const (
	// reachMost is how long it may take to connect to another mirror, which is near.
	reachMost = 250 * time.Millisecond
	// silentMost is how long another may send nothing before we look whether it is still the one to wait for,
	// every lookEvery; and deafMost the same while the engine cannot tell.
	silentMost = 2 * time.Second
	lookEvery  = 500 * time.Millisecond
	deafMost   = 6 * time.Second
	// answerMost bounds the text of an error.
	answerMost = 64 << 10

	blobsPath     = "/fleet/v1/blobs/"
	manifestsPath = "/fleet/v1/manifests/"
)

// errPassed means that another mirror did not say what a registry said: it is gone, or busy, or of another
// opinion of who is asked, and somebody else has to try.
var errPassed = errors.New("the other mirror did not answer")

// work is one thing that mirrors fetch once between them.
type work struct {
	key      string // of its lease
	path     string // by which a mirror is asked
	upstream string
	repo     string
	digest   v1.Hash
	life     time.Duration // how long the others know who has it
}

func (f *Fleet) work(id, kind, path, upstream, repo string, d v1.Hash, life time.Duration) work {
	// A blob is one for all repositories of an upstream: whom we ask finds out what each may have.
	of := repo
	if kind == "b" {
		of = ""
	}
	return work{key: "fb1:{" + kind + ":" + f.secret.code(id, kind, of, d.String()) + "}", path: path + d.String(), upstream: upstream, repo: repo, digest: d, life: life}
}

// request asks a mirror for what w names. Only what it has at hand counts with onlyKept. The answer is a
// success; its body watches over its silence, and is to be closed. The error is what a registry told the
// other mirror, or errPassed.
func (f *Fleet) request(ctx context.Context, w work, to Member, t turn, method, span string, onlyKept bool) (*http.Response, error) {
	ctx, cancel := context.WithCancel(ctx)
	q := url.Values{"upstream": {w.upstream}, "repository": {w.repo}, "identity": {f.secret.code("identity", f.identity(w.upstream))}}
	if onlyKept {
		q.Set("kept", "1")
	}
	u := url.URL{Scheme: "https", Host: to.Address, Path: w.path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("%w: %w", errPassed, err)
	}
	if span != "" {
		req.Header.Set("Range", span)
	}
	b := &watched{f: f, ctx: ctx, cancel: cancel, work: w, turn: t, from: to.ID}
	b.timer = time.AfterFunc(silentMost, b.look)
	b.begin()
	res, err := f.peers.client.Do(req)
	b.end()
	if err != nil {
		_ = b.Close()
		if req.Context().Err() == nil || b.gaveUp.Load() {
			f.shun(to.ID, b.gaveUp.Load())
		}
		return nil, fmt.Errorf("%w: %w", errPassed, err)
	}
	b.body = res.Body
	if res.StatusCode == http.StatusOK || res.StatusCode == http.StatusPartialContent {
		res.Body = b
		return res, nil
	}
	defer func() { _ = b.Close() }() // only read from
	return nil, readFault(res, b)
}

// watched is the body of another mirror's answer. One that says nothing for a while is left when it is no
// longer the one to wait for.
type watched struct {
	f      *Fleet
	ctx    context.Context
	cancel context.CancelFunc
	body   io.ReadCloser
	timer  *time.Timer
	work   work
	turn   turn
	from   string       // ID
	since  atomic.Int64 // Unix time in ns when the read that is under way began; 0 for none
	gaveUp atomic.Bool
	failed bool // set by Read
}

func (b *watched) begin() { b.since.Store(time.Now().UnixNano()) }
func (b *watched) end()   { b.since.Store(0) }

// look runs while the other may be silent, and cancels the request of one that is not to be waited for.
func (b *watched) look() {
	next := silentMost
	if since := b.since.Load(); since != 0 {
		silent := time.Since(time.Unix(0, since))
		switch {
		case silent < silentMost:
			next = silentMost - silent
		case b.lost(silent):
			b.gaveUp.Store(true)
			b.cancel()
			return
		default:
			next = lookEvery
		}
	}
	if b.ctx.Err() == nil {
		b.timer.Reset(next)
	}
}

// lost reports whether one that has been silent for so long is not to be waited for: it is not the owner;
// it has all and sends nothing; or it does not lead any more. A leader whose registry is slow is.
func (b *watched) lost(silent time.Duration) bool {
	same, kept, err := b.f.holds(b.ctx, b.work.key, b.turn)
	if err != nil {
		return silent > deafMost
	}
	return !same || kept || b.from != b.turn.owner
}

func (b *watched) Read(p []byte) (int, error) {
	b.begin()
	n, err := b.body.Read(p)
	b.end()
	b.f.counts.bytesIn.Add(int64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		b.failed = true
		if b.gaveUp.Load() {
			b.f.shun(b.from, true)
		}
	}
	return n, err
}

func (b *watched) Close() error {
	b.timer.Stop()
	b.cancel()
	if b.body == nil {
		return nil
	}
	return b.body.Close()
}

// fault is how a mirror tells another what its registry said: a pull.Error without its cause.
type fault struct {
	Kind       pull.Kind     `json:"kind"`
	Detail     pull.Detail   `json:"detail,omitempty"`
	Op         string        `json:"op"`
	Status     int           `json:"status,omitempty"`
	Code       string        `json:"code,omitempty"`
	Message    string        `json:"message,omitempty"`
	RetryAfter time.Duration `json:"retry_after,omitempty"`
}

// faultHeader marks an answer that is a fault, and tells of which upstream.
const faultHeader = "Forebay-Fleet-Fault"

// readFault returns the error that an answer tells.
func readFault(res *http.Response, body io.Reader) error {
	var told fault
	if res.Header.Get(faultHeader) == "" || json.NewDecoder(io.LimitReader(body, answerMost)).Decode(&told) != nil || told.Kind > pull.Timeout {
		return fmt.Errorf("%w: status %d", errPassed, res.StatusCode)
	}
	return &pull.Error{Kind: told.Kind, Detail: told.Detail, Upstream: res.Header.Get(faultHeader), Op: told.Op, Status: told.Status,
		Code: told.Code, Message: told.Message, RetryAfter: told.RetryAfter}
}

// final reports whether err is what a registry said, which another mirror would hear too. One that could
// not be reached may have a better line elsewhere.
func final(err error) bool {
	var e *pull.Error
	return errors.As(err, &e) && !errors.Is(err, errPassed) && e.Kind != pull.Unavailable && e.Kind != pull.Timeout
}

// askBlob asks a mirror for the bytes [off, end) of a blob, see cache.Content.
func (f *Fleet) askBlob(ctx context.Context, w work, to Member, t turn, off, end int64, onlyKept bool) (*pull.Body, error) {
	span := ""
	switch {
	case end >= 0:
		span = fmt.Sprintf("bytes=%d-%d", off, end-1)
	case off > 0:
		span = fmt.Sprintf("bytes=%d-", off)
	}
	res, err := f.request(ctx, w, to, t, http.MethodGet, span, onlyKept)
	if err != nil {
		return nil, err
	}
	b := &pull.Body{ReadCloser: res.Body, End: res.ContentLength, Size: res.ContentLength}
	if res.StatusCode == http.StatusPartialContent {
		r, err := wire.ParseContentRange(res.Header.Get("Content-Range"))
		if err != nil || r.Start != off {
			_ = res.Body.Close()
			return nil, fmt.Errorf("%w: %w", errPassed, err)
		}
		b.Offset, b.End, b.Size, b.Ranged = r.Start, r.End, r.Size, true
	}
	return b, nil
}

// askManifest asks a mirror for a manifest, or with head only for what it is.
func (f *Fleet) askManifest(ctx context.Context, w work, to Member, t turn, head, onlyKept bool) (desc v1.Descriptor, b []byte, err error) {
	method := http.MethodGet
	if head {
		method = http.MethodHead
	}
	res, err := f.request(ctx, w, to, t, method, "", onlyKept)
	if err != nil {
		return desc, nil, err
	}
	defer res.Body.Close()
	desc = v1.Descriptor{Digest: w.digest, Size: res.ContentLength, MediaType: types.MediaType(res.Header.Get("Content-Type"))}
	if head {
		return desc, nil, nil
	}
	if b, err = io.ReadAll(io.LimitReader(res.Body, manifest.MaxBytes+1)); err == nil {
		err = sums.Check(w.digest, b)
	}
	if err != nil {
		return desc, nil, fmt.Errorf("%w: %w", errPassed, err)
	}
	desc.Size = int64(len(b))
	return desc, b, nil
}

// askSize asks a mirror how large a blob of a repository is.
func (f *Fleet) askSize(ctx context.Context, w work, to Member, t turn) (int64, error) {
	res, err := f.request(ctx, w, to, t, http.MethodHead, "", false)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if res.ContentLength < 0 {
		return 0, errPassed
	}
	return res.ContentLength, nil
}
