package fleet

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

// saidFor is how long the others know who asked whether a repository holds something.
const saidFor = 10 * time.Minute

// Share returns what a mirror asks in place of a registry: what is named by a digest it gets from the
// mirror that fetches it, or has, and else from the registry, on behalf of all. Two of one Fleet, name and
// registry are equal.
func (f *Fleet) Share(upstream string, registry cache.Upstream) cache.Upstream {
	return shared{registry, f, upstream}
}

// shared is an upstream between mirrors.
type shared struct {
	cache.Upstream
	fleet *Fleet
	name  string
}

// identity names what the answers depend on; "" for a request that is for us alone.
func (s shared) identity(ctx context.Context) string {
	if pull.LoginOf(ctx) != nil || len(pull.URLs(ctx)) > 0 {
		return ""
	}
	return s.fleet.identity(s.name)
}

// leadersMost is how many mirrors in a row may fail to answer before we ask the registry ourselves.
const leadersMost = 3

// either gets what w names: by own, as the one who fetches it for all until the returned function is
// called with how it went, or from another mirror by other, which is asked for nothing but what it has
// with onlyKept. Without the engine all who see the same members choose the same one.
func either[T any](ctx context.Context, f *Fleet, w work, own func() (T, error), other func(to Member, t turn, onlyKept bool) (T, error)) (v T, done func(ok bool), err error) {
	leave := func(bool) {}
	if since, _ := f.engine.away(); f.leads.led(w.key, !since.IsZero()) {
		v, err = own()
		return v, f.leaves(w.key), err
	}
	dead, heard := "", false
	for range leadersMost {
		asked := time.Now()
		t, away := f.begin(ctx, w.key, dead)
		if away != nil {
			t = f.guess(w.key)
		}
		if t.leads {
			f.leads.add(w.key, t.epoch, w.life, asked)
			if to, ok := f.peer(t.parent); ok {
				// We had it, and somebody got it from us.
				if v, err = other(to, t, true); err == nil {
					f.counts.followed.Add(1)
					return v, f.leaves(w.key), nil
				}
			}
			f.counts.led.Add(1)
			if dead != "" {
				f.counts.takeovers.Add(1)
			}
			v, err = own()
			return v, f.leaves(w.key), err
		}
		v, err = follow(ctx, f, t, other)
		switch passed := errors.Is(err, errPassed); {
		case err == nil:
			f.counts.followed.Add(1)
			f.peers.last.Add(w.key, t)
			return v, leave, nil
		case ctx.Err() != nil || final(err) || !passed && heard:
			return v, leave, err // where two lines to a registry are down, ours is no better
		default:
			heard = heard || !passed
		}
		if away != nil {
			break
		}
		dead = t.epoch
	}
	f.counts.byItself.Add(1)
	v, err = own()
	return v, leave, err
}

// guess returns whom to ask when the engine cannot say: who was asked last, or whom all choose who see the
// same members.
func (f *Fleet) guess(key string) turn {
	if t, ok := f.peers.last.Get(key); ok {
		if _, ok := f.peer(t.owner); ok {
			return t
		}
	}
	id := f.chosen(key)
	return turn{owner: id, parent: id}
}

// follow asks the parent, and in its place the owner. The error is errPassed when there is none to ask.
func follow[T any](ctx context.Context, f *Fleet, t turn, other func(to Member, t turn, onlyKept bool) (T, error)) (v T, err error) {
	err = errPassed
	for _, id := range slices.Compact([]string{t.parent, t.owner}) {
		to, ok := f.peer(id)
		if ok {
			v, err = other(to, t, false)
		}
		if errors.Is(err, errPassed) && id != f.me { // it may have started since we looked last
			to.ID = id
			if to, ok = f.restarted(ctx, to); ok {
				v, err = other(to, t, false)
			}
		}
		if !errors.Is(err, errPassed) {
			return v, err
		}
	}
	return v, err
}

func (f *Fleet) leaves(key string) func(bool) { return func(ok bool) { f.leads.leave(key, ok) } }

func (s shared) Manifest(ctx context.Context, repo, ref string) (v1.Descriptor, []byte, error) {
	type got struct {
		desc v1.Descriptor
		b    []byte
	}
	d, bad := wire.ParseDigest(ref)
	id := s.identity(ctx)
	if bad != nil || id == "" {
		return s.Upstream.Manifest(ctx, repo, ref)
	}
	w := s.fleet.work(id, "m", manifestsPath, s.name, repo, d, keptFor)
	v, done, err := either(ctx, s.fleet, w, func() (v got, err error) {
		v.desc, v.b, err = s.Upstream.Manifest(ctx, repo, ref)
		return v, err
	}, func(to Member, t turn, onlyKept bool) (v got, err error) {
		v.desc, v.b, err = s.fleet.askManifest(ctx, w, to, t, false, onlyKept)
		return v, err
	})
	done(err == nil)
	return v.desc, v.b, err
}

func (s shared) Resolve(ctx context.Context, repo, ref string) (v1.Descriptor, error) {
	d, bad := wire.ParseDigest(ref)
	id := s.identity(ctx)
	if bad != nil || id == "" {
		return s.Upstream.Resolve(ctx, repo, ref)
	}
	w := s.fleet.work(id, "h", manifestsPath, s.name, repo, d, saidFor)
	v, done, err := either(ctx, s.fleet, w, func() (v1.Descriptor, error) {
		return s.Upstream.Resolve(ctx, repo, ref)
	}, func(to Member, t turn, _ bool) (v1.Descriptor, error) {
		desc, _, err := s.fleet.askManifest(ctx, w, to, t, true, false)
		return desc, err
	})
	done(err == nil)
	return v, err
}

func (s shared) StatBlob(ctx context.Context, repo string, d v1.Hash) (int64, error) {
	id := s.identity(ctx)
	if id == "" {
		return s.Upstream.StatBlob(ctx, repo, d)
	}
	w := s.fleet.work(id, "s", blobsPath, s.name, repo, d, saidFor)
	v, done, err := either(ctx, s.fleet, w, func() (int64, error) {
		return s.Upstream.StatBlob(ctx, repo, d)
	}, func(to Member, t turn, _ bool) (int64, error) { return s.fleet.askSize(ctx, w, to, t) })
	done(err == nil)
	return v, err
}

func (s shared) OpenBlob(ctx context.Context, repo string, d v1.Hash, off, end int64) (*pull.Body, error) {
	id := s.identity(ctx)
	if id == "" || s.fleet.distrusts(d) {
		return s.Upstream.OpenBlob(ctx, repo, d, off, end)
	}
	w := s.fleet.work(id, "b", blobsPath, s.name, repo, d, keptFor)
	b, done, err := either(ctx, s.fleet, w, func() (*pull.Body, error) {
		return s.Upstream.OpenBlob(ctx, repo, d, off, end)
	}, func(to Member, t turn, onlyKept bool) (*pull.Body, error) {
		b, err := s.fleet.askBlob(ctx, w, to, t, off, end, onlyKept)
		if err == nil {
			s.fleet.got(d)
		}
		return b, err
	})
	if err != nil {
		done(false)
		return nil, err
	}
	b.ReadCloser = &led{ReadCloser: b.ReadCloser, done: done, ok: true}
	return b, nil
}

// led is a body that is a part of a lead.
type led struct {
	io.ReadCloser
	done func(ok bool) // nil once it was called
	ok   bool
}

func (l *led) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	l.ok = l.ok && (err == nil || errors.Is(err, io.EOF))
	return n, err
}

func (l *led) Close() error {
	if l.done != nil {
		l.done(l.ok)
		l.done = nil
	}
	return l.ReadCloser.Close()
}

// got notes that bytes of a blob came from another mirror.
func (f *Fleet) got(d v1.Hash) { f.peers.from.Add(d, false) }

// distrusts reports whether a blob is not to be had from other mirrors: what they sent was wrong.
func (f *Fleet) distrusts(d v1.Hash) bool {
	wrong, _ := f.peers.from.Get(d)
	return wrong
}

// Distrust learns that a blob was wrong. It reports whether another mirror sent some of it: then its
// registry may be right, and is asked from now on.
func (f *Fleet) Distrust(d v1.Hash) bool {
	wrong, from := f.peers.from.Get(d)
	if from {
		f.peers.from.Add(d, true)
	}
	return from && !wrong
}
