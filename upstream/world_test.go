package upstream

import (
	"context"
	"net"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"forebay/test/hubtest"
)

// world is a hub and other registries without sockets, for a synctest bubble.
type world struct {
	t      *testing.T
	hub    *hubtest.Hub
	others map[string]*hubtest.Hub // by host name; without authentication, at port 80
	logged *observer.ObservedLogs
}

func newWorld(t *testing.T, o hubtest.Options, others ...string) *world {
	t.Helper()
	o.InMemory = true
	w := &world{t: t, hub: hubtest.New(t, o), others: map[string]*hubtest.Hub{}}
	for _, host := range others {
		w.others[host] = hubtest.New(t, hubtest.Options{InMemory: true, Profile: hubtest.Plain})
	}
	return w
}

// dial connects to the hub by its addresses and to the others by their names. All hubs
// without sockets have the same addresses.
func (w *world) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if other := w.others[host]; other != nil {
		return other.DialContext(ctx, network, strings.TrimPrefix(other.RegistryURL(), "http://"))
	}
	return w.hub.DialContext(ctx, network, addr)
}

// registry returns a registry of the hub with the real pauses.
func (w *world) registry(change func(*Options)) *Registry {
	w.t.Helper()
	o := hubOptions(w.hub)
	o.Retry, o.Dial = Retry{}, w.dial
	core, logged := observer.New(zap.InfoLevel)
	o.Log, w.logged = zap.New(core), logged
	if change != nil {
		change(&o)
	}
	return newRegistry(w.t, o)
}

// push puts the same image into the hub and into all others.
func (w *world) push(repo, tag string) *hubtest.Image {
	w.t.Helper()
	spec := hubtest.ImageSpec{Seed: uint64(len(repo)*1000 + len(tag))}
	img := w.hub.PushImage(repo, tag, spec)
	for _, other := range w.others {
		if got := other.PushImage(repo, tag, spec); got.Digest != img.Digest {
			w.t.Fatalf("images of two hubs differ")
		}
	}
	return img
}
