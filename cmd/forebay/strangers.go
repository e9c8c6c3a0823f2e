package main

import (
	"path"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"forebay/config"
	"forebay/internal/logkey"
	"forebay/internal/registries"
)

const (
	// strangersMost bounds the registries that clients may name at a time; one more takes the
	// place of the one that was named first.
	strangersMost = 256
	// strangersPerSecond bounds how often one is taken up, since that makes all of the front anew;
	// strangersAtOnce are taken up before that counts.
	strangersPerSecond = 4
	strangersAtOnce    = 32
)

// stranger returns the settings of a registry that a client names by its host, and that is not
// among the upstreams of c; false when it may not be asked.
func stranger(c *config.Config, host string) (u config.Upstream, ok bool) {
	if c.Others == nil {
		return u, false
	}
	known := registries.Find(host)
	if !slices.ContainsFunc(c.Others.Allow, func(pattern string) bool {
		ok, err := path.Match(strings.ToLower(pattern), known.Name)
		return ok && err == nil
	}) {
		return u, false
	}
	u = *c.Others
	u.Name, u.Endpoints, u.Aliases, u.Allow, u.Stranger = known.Name, []config.Endpoint{{URL: known.Endpoint}}, known.Aliases, nil, true
	return u, true
}

// meet takes up a registry that a client names, if it may be asked, and returns its name. It is
// an upstream from then on, as if it were configured, and until the next start.
func (m *mirror) meet(host string) (string, bool) {
	if _, ok := stranger(m.front.Load().settings, host); !ok {
		return "", false
	}
	m.reloading.Lock()
	defer m.reloading.Unlock()
	was := m.front.Load().settings // of now
	u, ok := stranger(was, host)
	if !ok || was.Upstream(u.Name) != nil { // somebody else was quicker
		return u.Name, ok
	}
	if !m.strangers.Allow() {
		return "", false
	}
	if err := m.takeUp(with(was, u), false); err != nil {
		m.Log.Warn("registry that a client named not taken up", logkey.Upstream(u.Name), logkey.Err(err))
		return "", false
	}
	m.Log.Info("registry that a client named is mirrored from now on", logkey.Upstream(u.Name), zap.Int("of", strangersMost))
	return u.Name, true
}

// with returns c with one registry more that a client named.
func with(c *config.Config, u config.Upstream) *config.Config {
	next := *c
	next.Upstreams = slices.Clone(c.Upstreams)
	isStranger := func(u config.Upstream) bool { return u.Stranger }
	if first := slices.IndexFunc(next.Upstreams, isStranger); first >= 0 && len(next.Upstreams)-first >= strangersMost {
		next.Upstreams = slices.Delete(next.Upstreams, first, first+1) // they stand behind all others
	}
	next.Upstreams = append(next.Upstreams, u)
	return &next
}

func newStrangers() *rate.Limiter {
	return rate.NewLimiter(rate.Every(time.Second/strangersPerSecond), strangersAtOnce)
}
