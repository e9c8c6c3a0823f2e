package fleet

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/cache/index"
	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/internal/recent"
	"forebay/internal/statefile"
	"forebay/internal/wire"
)

const (
	fanoutUsual = 4
	// fromMost blobs are known to have come from other mirrors, for fromFor: as long as they may turn out
	// to be wrong.
	fromMost = 8192
	fromFor  = time.Hour
	// idleMost connections to one mirror are kept.
	idleMost = 32
)

// peers are the other mirrors, and what we are to them.
type peers struct {
	self    Member // guarded by Run, which alone changes it, once it runs
	fanout  int
	trust   *tls.Config
	client  *http.Client
	members members
	from    *recent.Map[v1.Hash, bool] // blobs that others sent; true: they were wrong
	last    *recent.Map[string, turn]  // whom we asked, by key of the lease: without the engine nobody else knows
}

func (p *peers) init(f *Fleet, o Options) (err error) {
	p.self, p.fanout = Member{Name: o.Name, Start: time.Now().UnixNano(), Zone: o.Zone, Version: o.Version, Protocol: protocol}, cmp.Or(o.Fanout, fanoutUsual)
	p.members.all, p.members.avoid = map[string]*Member{}, map[string]shunned{}
	p.last = recent.New[string, turn](fromMost, fromFor)
	p.from = recent.New[v1.Hash, bool](fromMost, fromFor)
	if p.trust, err = f.secret.tls(); err != nil {
		return err
	}
	dialer := net.Dialer{Timeout: reachMost}
	p.client = &http.Client{Transport: &http.Transport{
		TLSClientConfig: p.trust, DialContext: dialer.DialContext, TLSHandshakeTimeout: silentMost,
		MaxIdleConnsPerHost: idleMost, IdleConnTimeout: time.Minute, DisableCompression: true,
	}}
	return nil
}

// TLS returns how the listener for other mirrors knows them.
func (f *Fleet) TLS() *tls.Config { return f.peers.trust }

// nameFile is where a mirror keeps its name, by which others know what it has, over a restart.
const nameFile = "fleet.json"

// Run takes part in the fleet until ctx is done: others find us at address, host:port, whose port is that of
// our listener for them. An empty host is the address from which the engine is reached.
func (f *Fleet) Run(ctx context.Context, address string) error {
	beat, renew := time.NewTicker(beatEvery), time.NewTicker(renewEvery)
	defer beat.Stop()
	defer renew.Stop()
	f.peers.self.ID, f.peers.self.Address = f.me, address
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("address for the other mirrors: %w", err)
	}
	for {
		if host == "" {
			f.peers.self.Address = f.outward(ctx, port)
		}
		if f.peers.self.Address != "" {
			f.failed(f.beat(ctx, false))
		}
	renewing:
		for {
			select {
			case <-ctx.Done():
				f.leave()
				return nil
			case <-beat.C:
				break renewing
			case <-renew.C:
				f.renew(ctx, false)
				f.exchangeAll(ctx, "")
			}
		}
	}
}

// Remember makes the name that we had before a restart ours, or keeps the one that we have. It must be
// called before anything else, by who has the storage folder dir to itself.
func (f *Fleet) Remember(dir string) error {
	type kept struct {
		Name string `json:"name"`
	}
	path := filepath.Join(dir, nameFile)
	var was kept
	if err := statefile.Read(path, answerMost, &was); err == nil && was.Name != "" {
		f.me = was.Name
		return nil
	}
	return statefile.Write(path, kept{f.me})
}

// outward returns our address on the way to the engine, "" while that is not known.
func (f *Fleet) outward(ctx context.Context, port string) string {
	c, err := (&net.Dialer{Timeout: reachMost}).DialContext(ctx, "udp", f.engine.options.InitAddress[0])
	if err != nil {
		f.log.Debug("no address to the engine", logkey.Err(err))
		return ""
	}
	defer c.Close()
	host, _, _ := net.SplitHostPort(c.LocalAddr().String()) // it has a port
	return net.JoinHostPort(host, port)
}

// leave says that we go, and lets others take over what we fetch.
func (f *Fleet) leave() {
	ctx := context.Background() // each call ends by itself
	f.renew(ctx, true)
	if f.peers.self.Address != "" {
		f.failed(f.beat(ctx, true))
	}
}

// Handler answers the other mirrors from c. What they ask for is on nobody's account: whoever asks them
// has been let in there, and they prove the right to it by us, as one does for its own clients.
func (f *Fleet) Handler(c *cache.Cache) http.Handler {
	mux := http.NewServeMux()
	for path, send := range map[string]func(http.ResponseWriter, *http.Request, *asked) error{blobsPath: f.sendBlob, manifestsPath: f.sendManifest, tagsPath: f.sendTags, referrersPath: f.sendReferrers} {
		mux.HandleFunc("GET "+path+"{digest}", func(w http.ResponseWriter, r *http.Request) { f.answer(w, r, c, send) })
	}
	return mux
}

// asked is a request of another mirror.
type asked struct {
	cache    *cache.Cache
	repo     cache.Repo
	digest   v1.Hash
	onlyKept bool
	began    bool // something was sent
}

// errOther is the answer to one who asks somebody else of that name, or for what is not at hand.
var errOther = errors.New("not from this mirror")

// answer has send answer a request, and tells its error.
func (f *Fleet) answer(w http.ResponseWriter, r *http.Request, c *cache.Cache, send func(http.ResponseWriter, *http.Request, *asked) error) {
	q := r.URL.Query()
	a := &asked{cache: c, repo: cache.Repo{Upstream: q.Get("upstream"), Name: q.Get("repository")}, onlyKept: q.Get("kept") != ""}
	var err error
	if a.digest, err = wire.ParseDigest(r.PathValue("digest")); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id := f.identity(a.repo.Upstream)
	switch {
	case id == "" || f.secret.code("identity", id) != q.Get("identity"):
		err = errOther // here it is another registry, or asked as somebody else
	default:
		err = send(w, r, a)
	}
	switch {
	case err == nil:
	case a.began:
		panic(http.ErrAbortHandler) // a body that ends too early must not look whole
	default:
		tell(w, a.repo.Upstream, err)
	}
}

// tell answers with what a registry said, or with no answer.
func tell(w http.ResponseWriter, upstream string, err error) {
	var e *pull.Error
	passed := !errors.As(err, &e) || errors.Is(err, pull.ErrOffline) || e.Kind == pull.Overloaded || e.Detail == pull.ByPolicy || e.Detail == pull.ClientLimited
	if passed {
		http.Error(w, "ask another", http.StatusConflict)
		return
	}
	message := e.Message
	if message == "" && e.Err != nil {
		message = e.Err.Error()
	}
	w.Header().Set(faultHeader, cmp.Or(e.Upstream, upstream))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadGateway)
	_ = json.NewEncoder(w).Encode(fault{e.Kind, e.Detail, e.Op, e.Status, e.Code, message, e.RetryAfter}) // it may have gone
}

// has reports whether what is asked for is kept, and the repository's.
func (a *asked) has(ctx context.Context, k index.Kind) bool {
	a.cache.Store().AwaitKept(ctx, a.digest)
	_, ok := a.cache.Store().Size(a.digest)
	return ok && a.cache.Store().Linked(a.repo, k, a.digest)
}

func (f *Fleet) sendManifest(w http.ResponseWriter, r *http.Request, a *asked) error {
	if a.onlyKept && !a.has(r.Context(), index.Manifest) {
		return errOther
	}
	m, err := a.cache.Manifest(r.Context(), a.repo, a.digest.String(), r.Method == http.MethodHead)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", string(m.Desc.MediaType))
	h.Set("Content-Length", strconv.FormatInt(m.Desc.Size, 10))
	a.began = true
	if r.Method == http.MethodHead {
		return nil
	}
	n, err := w.Write(m.Bytes)
	f.counts.bytesOut.Add(int64(n))
	return err
}

func (f *Fleet) sendBlob(w http.ResponseWriter, r *http.Request, a *asked) error {
	if a.onlyKept && !a.has(r.Context(), index.Blob) {
		return errOther
	}
	if r.Method == http.MethodHead {
		size, _, err := a.cache.StatBlob(r.Context(), a.repo, a.digest)
		if err == nil && size < 0 {
			err = errOther
		}
		if err == nil {
			w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		}
		return err
	}
	ranges := wire.ParseRange(r.Header.Get("Range"))
	b, err := a.cache.Blob(r.Context(), a.repo, a.digest, ranges...)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }() // only read from
	out := &sending{w: w, a: a, status: http.StatusOK, length: b.Size}
	off, end := int64(0), int64(-1)
	switch {
	case len(ranges) != 1 || b.Size == 0:
	case b.Size < 0 && ranges[0].First > 0:
		return errOther // without its size there is no answer to a range
	case b.Size < 0:
	default:
		var ok bool
		if off, end, ok = ranges[0].Resolve(b.Size); !ok {
			return &pull.Error{Kind: pull.Invalid, Detail: pull.OutOfRange, Upstream: a.repo.Upstream, Op: "range of " + a.digest.String()}
		}
		out.status, out.length = http.StatusPartialContent, end-off
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, end-1, b.Size))
		if ranges[0].Last < 0 {
			end = -1
		}
	}
	n, err := b.Send(r.Context(), out, off, end)
	f.counts.bytesOut.Add(n)
	if err == nil && !a.began {
		out.begin() // there is nothing in it
	}
	return err
}

// sending sends its header with the first byte, so that what fails before can be told.
type sending struct {
	w      http.ResponseWriter
	a      *asked
	status int
	length int64 // -1 while unknown
}

func (s *sending) begin() {
	s.a.began = true
	if s.length >= 0 {
		s.w.Header().Set("Content-Length", strconv.FormatInt(s.length, 10))
	}
	s.w.WriteHeader(s.status)
}

func (s *sending) Write(p []byte) (int, error) {
	if !s.a.began {
		s.begin()
	}
	n, err := s.w.Write(p)
	if f, ok := s.w.(http.Flusher); ok && err == nil {
		f.Flush()
	}
	return n, err
}

// Advertised returns the address that others are told: what the configuration says, with the port of the
// listener where it gives none.
func Advertised(said string, listening net.Addr) string {
	host, port, _ := net.SplitHostPort(listening.String()) // it has a port
	if _, _, err := net.SplitHostPort(said); err == nil {
		return said
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = ""
	}
	return net.JoinHostPort(cmp.Or(strings.Trim(said, "[]"), host), port)
}
