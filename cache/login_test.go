package cache

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/store"
	"forebay/internal/pull"
	"forebay/test/cachetest"
)

// losing is a registry that refuses one login, once it has been asked by it and is let go.
type losing struct {
	*cachetest.Registry
	login string
	let   chan struct{}
}

func (r *losing) check(ctx context.Context) error {
	if l := pull.LoginOf(ctx); l == nil || l.ID != r.login {
		return nil
	}
	<-r.let
	return &pull.Error{Kind: pull.Denied, Detail: pull.OfLogin, Upstream: hub.Upstream, Op: "ask"}
}

func (r *losing) Manifest(ctx context.Context, repo, ref string) (v1.Descriptor, []byte, error) {
	if err := r.check(ctx); err != nil {
		return v1.Descriptor{}, nil, err
	}
	return r.Registry.Manifest(ctx, repo, ref)
}

func (r *losing) OpenBlob(ctx context.Context, repo string, d v1.Hash, off, end int64) (*pull.Body, error) {
	if err := r.check(ctx); err != nil {
		return nil, err
	}
	return r.Registry.OpenBlob(ctx, repo, d, off, end)
}

// What is fetched for a login is fetched in its name. What is said to it is said to nobody else who
// waits for the same, and remembered of nobody.
func TestAVerdictIsOfItsLogin(t *testing.T) {
	for _, what := range []string{"manifest", "blob"} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &losing{cachetest.NewRegistry(), "lost", make(chan struct{})}
				s := &cachetest.Script{}
				s.Data, _ = cachetest.BlobOf(3<<20, 1)
				layer := r.Put(hub.Name, s)
				manifest := cachetest.ManifestOf("of two")
				d := r.Push(hub.Name, "1", manifest)
				c := openOptions(t, Options{Store: store.Options{Dir: t.TempDir()}, Upstreams: map[string]UpstreamOptions{hub.Upstream: {Upstream: r}}})
				defer closeCache(t, c)
				ask := func(login string) ([]byte, error) {
					ctx := pull.WithLogin(t.Context(), &pull.Login{ID: login})
					if what == "blob" {
						return readBlob(ctx, c, hub, layer)
					}
					m, err := c.Manifest(ctx, hub, d.String(), false)
					if err != nil {
						return nil, err
					}
					return m.Bytes, nil
				}
				want := map[string][]byte{"blob": s.Data, "manifest": manifest}[what]
				first := make(chan error)
				go func() {
					_, err := ask("lost")
					first <- err
				}()
				synctest.Wait()
				second := make(chan error)
				go func() {
					got, err := ask("good")
					if err == nil && !bytes.Equal(got, want) {
						t.Errorf("%d bytes, want %d others", len(got), len(want))
					}
					second <- err
				}()
				synctest.Wait()
				close(r.let)
				if err := <-first; pull.KindOf(err) != pull.Denied {
					t.Errorf("who lost its right: %v", err)
				}
				if err := <-second; err != nil {
					t.Errorf("who has it, and waited for the same: %v", err)
				}
			})
		})
	}
}
