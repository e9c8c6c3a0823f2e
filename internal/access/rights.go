package access

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	lru "github.com/hashicorp/golang-lru/v2"

	"forebay/internal/authn"
	"forebay/internal/flight"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

// Asked says how a registry is asked what each client may have.
type Asked struct {
	TTL         time.Duration // how long its word holds; 0: as long as there is memory for it
	PassThrough bool          // what it lets a client have is fetched in the client's name too
}

const (
	// rightsMost bounds what is remembered, at some 200 bytes each.
	rightsMost = 32768
	// refusedFor is how long a refusal is remembered: as a client asks for one thing in several ways.
	refusedFor = 10 * time.Second
	// wrongFor is how long a wrong user name and password are remembered, as by package auth.
	wrongFor = time.Minute
	// rightAgain is when a right is proven anew that an outage has kept from it.
	rightAgain = time.Minute
)

// Rights are what registries said of the rights of clients. What a client shows for a registry is
// known again by a hash under a key that is nowhere but in memory, and kept no longer than the
// registry is asked.
type Rights struct {
	of     func(ctx context.Context, upstream, repository string) (Registry, error)
	key    [32]byte
	proven *lru.Cache[sum, time.Time] // until when, by login and repository
	denied *lru.Cache[sum, denial]    // by login and what was asked for, or the registry
	asking flight.Group[sum, struct{}]
	work   sync.WaitGroup
}

type sum [sha256.Size]byte

// denial is that a registry does not give something.
type denial struct {
	err   error
	until time.Time
}

// Begin reports whether credentials may be tried. Then end is to be called with whether they were
// right.
type Begin func(ctx context.Context) (end func(right bool), ok bool)

// Registry is what rights are asked of: in the name of [pull.LoginOf], by package upstream.
type Registry interface {
	Resolve(ctx context.Context, repo, ref string) (v1.Descriptor, error)
	Manifest(ctx context.Context, repo, ref string) (v1.Descriptor, []byte, error)
	StatBlob(ctx context.Context, repo string, d v1.Hash) (int64, error)
	TagsPage(ctx context.Context, repo, query string) (tags []string, next string, err error)
}

// NewRights returns the rights of nobody. of returns the registry to ask for the client of ctx, or why
// it may not be asked. Nothing is asked once life ends; the owner must call Wait then.
func NewRights(life context.Context, of func(ctx context.Context, upstream, repository string) (Registry, error)) (*Rights, error) {
	r := &Rights{of: of}
	if _, err := rand.Read(r.key[:]); err != nil {
		return nil, err
	}
	var err error
	if r.proven, err = lru.New[sum, time.Time](rightsMost); err != nil {
		return nil, err
	}
	if r.denied, err = lru.New[sum, denial](rightsMost); err != nil {
		return nil, err
	}
	r.asking = flight.Group[sum, struct{}]{Life: life, Work: &r.work, Carry: func(life, caller context.Context, _ <-chan struct{}) context.Context {
		return pull.AskerOf(caller).In(pull.WithAccept(pull.WithClient(life, pull.Client(caller)), pull.Accept(caller)))
	}}
	return r, nil
}

// Wait returns when nothing is asked any more.
func (r *Rights) Wait() {
	r.asking.Close()
	r.work.Wait()
}

// Forget forgets everything: registries are others now.
func (r *Rights) Forget() {
	r.proven.Purge()
	r.denied.Purge()
}

// login makes a login of what a client shows.
func (r *Rights) login(user, password string) *pull.Login {
	sum := r.hash(user, password)
	return &pull.Login{ID: fmt.Sprintf("%x", sum[:16]), User: user, Password: password}
}

func (r *Rights) hash(parts ...string) (s sum) {
	mac := hmac.New(sha256.New, r.key[:])
	_, _ = fmt.Fprintf(mac, "%q", parts) // a hash takes everything
	mac.Sum(s[:0])
	return s
}

// Known reports whether a login has proved its right to a repository, and that still holds.
func (r *Rights) Known(l *pull.Login, upstream, repository string) bool {
	until, ok := r.proven.Get(r.hash(l.ID, upstream, repository))
	return ok && (until.IsZero() || time.Now().Before(until))
}

// Prove returns nil when a login has the right to the repository of to, by the word of its registry,
// which is asked once for all who wait and then believed for ttl. Neither a right nor its lack
// is ever found in an outage, which leaves to a login what it had. begin may be nil.
func (r *Rights) Prove(ctx context.Context, l *pull.Login, ttl time.Duration, to *wire.Route, begin Begin) error {
	if r.Known(l, to.Upstream, to.Repository) {
		return nil
	}
	right, one := r.hash(l.ID, to.Upstream, to.Repository), r.hash(l.ID, to.Upstream, to.Repository, to.Resource.String(), to.Reference)
	wrong := r.hash(l.ID, to.Upstream)
	for _, known := range []sum{one, wrong} {
		if was, ok := r.denied.Get(known); ok && time.Now().Before(was.until) {
			return was.err
		}
	}
	_, _, err := r.asking.Do(pull.WithLogin(ctx, l), one, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, r.tried(ctx, to, begin)
	})
	kind := pull.KindOf(err)
	switch {
	case errors.Is(err, pull.ErrLogin):
		// So that a wrong password in a machine's settings is one guess, whatever is pulled with it.
		r.proven.Remove(right)
		r.denied.Add(wrong, denial{err, time.Now().Add(wrongFor)})
	case err == nil:
		var until time.Time
		if ttl > 0 {
			until = time.Now().Add(ttl)
		}
		r.proven.Add(right, until)
	case kind == pull.Denied, kind == pull.NotFound:
		r.proven.Remove(right)
		r.denied.Add(one, denial{err, time.Now().Add(refusedFor)})
	case (kind == pull.Unavailable || kind == pull.Timeout) && !errors.Is(err, authn.ErrTooMany) && r.proven.Contains(right) && ctx.Err() == nil:
		// It is no bound of ours, which who has lost the right could run into on purpose.
		r.proven.Add(right, time.Now().Add(rightAgain))
		return nil
	}
	return err
}

// ask asks the registry for what a request means. It counts no pull unless its HEADs are of no use.
func (r *Rights) ask(ctx context.Context, to *wire.Route) error {
	from, err := r.of(ctx, to.Upstream, to.Repository)
	if err != nil {
		return err
	}
	switch to.Resource {
	case wire.Blobs:
		_, err = from.StatBlob(ctx, to.Repository, to.Digest)
	case wire.Tags:
		_, _, err = from.TagsPage(ctx, to.Repository, "n=1")
	default:
		_, err = from.Resolve(ctx, to.Repository, to.Reference)
		if pull.KindOf(err) == pull.Unsupported || pull.DetailOf(err) == pull.HeadOnly {
			_, _, err = from.Manifest(ctx, to.Repository, to.Reference)
		}
	}
	return err
}

// tried asks within bounds.
func (r *Rights) tried(ctx context.Context, to *wire.Route, begin Begin) error {
	if begin == nil {
		return r.ask(ctx, to)
	}
	end, ok := begin(ctx)
	if !ok {
		return authn.ErrTooMany
	}
	err := r.ask(ctx, to)
	end(!errors.Is(err, pull.ErrLogin))
	return err
}
