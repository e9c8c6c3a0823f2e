package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forebay/cache"
	"forebay/config"
	"forebay/upstream"
	"forebay/upstream/auth"
)

// loadUpstream returns docker.io as a file with the given keys below it has it.
func loadUpstream(t *testing.T, keys string) *config.Upstream {
	t.Helper()
	name := filepath.Join(t.TempDir(), "forebay.yaml")
	if err := os.WriteFile(name, []byte("upstreams:\n  docker.io:\n"+keys), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(config.Sources{File: name, Root: true})
	if err != nil {
		t.Fatal(err)
	}
	return c.Upstream("docker.io")
}

func TestKeysOfAnUpstreamReachTheCache(t *testing.T) {
	for _, test := range []struct {
		keys string
		want cache.UpstreamOptions
	}{
		{"    tag_ttl: 1m\n", cache.UpstreamOptions{TagTTL: time.Minute, RefreshAhead: 3, Trust: "*public"}},
		{"    tag_ttl: 1m\n    endpoints: [https://mirror.example.com]\n", cache.UpstreamOptions{TagTTL: time.Minute, RefreshAhead: 3, Trust: "docker.io"}},
		{"    tag_ttl: 1m\n    trust: corp\n", cache.UpstreamOptions{TagTTL: time.Minute, RefreshAhead: 3, Trust: "corp"}},
		{`    username: someone
    password: secret
    access_ttl: 2h
    tag_ttl: 0
    tag_rules: [{match: "*:v[0-9]*", ttl: forever}, "library/*:edge=0"]
    refresh_ahead: {min_pulls: 9}
    stale_if_error: 0
    on_gone: drop
    offline: true
`, cache.UpstreamOptions{
			TagRules:     []cache.TagRule{{Match: "*:v[0-9]*", TTL: cache.Forever}, {Match: "library/*:edge"}},
			RefreshAhead: 9, StaleIfError: time.Nanosecond, OnGone: cache.Drop, AccessTTL: 2 * time.Hour, Offline: true,
			Trust: "docker.io", Credentialed: true, Unlisted: true,
		}},
		{"    stale_if_error: 7d\n    access_ttl: 2h\n", cache.UpstreamOptions{TagTTL: time.Minute, RefreshAhead: 3, StaleIfError: 7 * 24 * time.Hour, Trust: "*public"}},
	} {
		got := upstreamOptions(loadUpstream(t, test.keys), nil, config.CatalogOwn)
		got.Upstream = nil
		test.want.Parallel, test.want.MaxConnections = got.Parallel, got.MaxConnections
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s(-want +got):\n%s", test.keys, diff)
		}
	}
}

func TestKeysOfAnUpstreamReachTheRegistry(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := registryOptions(loadUpstream(t, `    username: first
    password: one
    fallback_credentials: [{username: second, password_file: `+file+`}, anonymous, {match: teama/*, username: third, password: three}]
    budget: {reserve: 30%}
    limited: wait
    limited_wait: 5s
    endpoints:
      - https://registry-1.docker.io
      - {url: https://public.ecr.aws, rewrite: {from: library/, to: docker/library/}, tags: true, username: AWS, password: three}
`), "test", nil)
	if want := (auth.Credentials{Username: "first", Password: "one"}); o.Credentials != want {
		t.Errorf("Credentials = %v", o.Credentials)
	}
	if len(o.Fallback) != 3 || o.Fallback[2] != (auth.Credentials{Match: "teama/*", Username: "third", Password: "three"}) || o.Fallback[0] != (auth.Credentials{Username: "second", PasswordFile: file}) || o.Fallback[1] != (auth.Credentials{}) {
		t.Errorf("Fallback = %v, want the second with its file, then anonymous", o.Fallback)
	}
	if o.Reserve != 0.3 || o.LimitedWait != 5*time.Second {
		t.Errorf("Reserve = %v, LimitedWait = %v", o.Reserve, o.LimitedWait)
	}
	if len(o.Endpoints) != 2 || o.Endpoints[0] != (upstream.Endpoint{URL: "https://registry-1.docker.io"}) {
		t.Fatalf("Endpoints = %v", o.Endpoints)
	}
	want := upstream.StandIn{From: "library/", To: "docker/library/", Tags: true, Credentials: auth.Credentials{Username: "AWS", Password: "three"}}
	if e := o.Endpoints[1]; e.URL != "https://public.ecr.aws" || e.StandIn == nil || *e.StandIn != want {
		t.Errorf("stand-in = %v", e)
	}
	if o := registryOptions(loadUpstream(t, "    limited_wait: 5s\n"), "test", nil); o.LimitedWait != 0 || o.Reserve != 0.2 {
		t.Errorf("LimitedWait = %v, Reserve = %v; want none without limited: wait, and 20 %%", o.LimitedWait, o.Reserve)
	}
}
