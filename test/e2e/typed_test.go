package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forebay/test/hubtest"
)

// typed is a client that knows no mirrors, as crane: the mirror and the registry are in the name
// that it is given. It copies images to OCI layouts.
type typed struct {
	program string
	dir     string
	addr    string
	setUp   []string // nil for none
	copy    func(from, to string) []string
	digest  func(ref string) []string
}

func openRegctl(t testing.TB, addr string) store {
	t.Helper()
	return openTyped(t, &typed{
		program: "regctl", addr: addr, setUp: []string{"registry", "set", "--tls", "disabled", addr},
		copy:   func(from, to string) []string { return []string{"image", "copy", from, "ocidir://" + to + ":latest"} },
		digest: func(ref string) []string { return []string{"image", "digest", ref} },
	})
}

func openOras(t testing.TB, addr string) store {
	t.Helper()
	return openTyped(t, &typed{
		program: "oras", addr: addr,
		copy: func(from, to string) []string {
			return []string{"copy", "--no-tty", "--from-plain-http", "--to-oci-layout", from, to + ":latest"}
		},
		digest: func(ref string) []string { return []string{"resolve", "--plain-http", ref} },
	})
}

func openTyped(t testing.TB, c *typed) *typed {
	t.Helper()
	c.dir = stateDir(t)
	if c.setUp != nil {
		if _, err := c.run(t.Context(), c.setUp...); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *typed) run(ctx context.Context, args ...string) (string, error) {
	return run(ctx, []string{"HOME=" + c.dir, "DOCKER_CONFIG=" + c.dir, "REGCTL_CONFIG=" + filepath.Join(c.dir, "regctl.json")},
		builtProgram(c.program), args...)
}

func (c *typed) ref(name string) string { return c.addr + "/docker.io/" + name }

func (c *typed) pull(ctx context.Context, name string) ([]string, error) {
	out, err := os.MkdirTemp(c.dir, "image")
	if err != nil {
		return nil, err
	}
	if _, err := c.run(ctx, c.copy(c.ref(name), out)...); err != nil {
		return nil, err
	}
	if err := checkLayout(out); err != nil {
		return nil, err
	}
	digest, err := c.run(ctx, c.digest(c.ref(name))...)
	return []string{strings.TrimSpace(digest)}, err
}

// What lists and asks never GETs the image that it is about. It is told the same with the hub
// switched off, of what it was told before.
func TestListsAndDigestsOutliveHub(t *testing.T) {
	w := newWorld(t, worldOptions{mirror: mirrorOptions{tagTTL: stale}})
	subject := w.images[manyOCI].digest.String()
	raw := []byte(`{"schemaVersion":2,"mediaType":"` + hubtest.OCIManifest + `","artifactType":"application/vnd.example.signature","config":` +
		`{"mediaType":"application/vnd.oci.empty.v1+json","digest":"` + w.hub.PutBlob(manyOCI, []byte("{}")) + `","size":2},"layers":[],` +
		`"subject":{"mediaType":"` + hubtest.OCIIndex + `","digest":"` + subject + `","size":1}}`)
	referrer := w.hub.AddReferrer(manyOCI, subject, "application/vnd.example.signature", hubtest.OCIManifest, raw)
	regctl, oras := openRegctl(t, w.mirror.addr).(*typed), openOras(t, w.mirror.addr).(*typed)
	ref := regctl.ref(manyOCI + ":" + catalogueTag)
	rows := []struct {
		client *typed
		args   []string
		want   string
	}{
		{regctl, []string{"image", "digest", ref}, subject},
		{regctl, []string{"manifest", "head", ref}, subject},
		{regctl, []string{"tag", "ls", regctl.ref(manyOCI)}, catalogueTag},
		{regctl, []string{"artifact", "list", ref, "--format", "{{jsonPretty .}}"}, referrer},
		{oras, []string{"resolve", "--plain-http", ref}, subject},
		{oras, []string{"repo", "tags", "--plain-http", regctl.ref(manyOCI)}, catalogueTag},
		{oras, []string{"discover", "--plain-http", "--format", "json", ref}, referrer},
	}
	for _, when := range []string{"cold", "warm", "with the hub off"} {
		for _, row := range rows {
			got, err := row.client.run(t.Context(), row.args...)
			if err != nil || !strings.Contains(got, row.want) {
				t.Errorf("%s: %s %q: %v, %q; want %s in it", when, row.client.program, row.args, err, got, row.want)
			}
		}
		if when == "warm" {
			w.hub.SwitchOff()
		}
	}
	w.assertClean(t)
}
