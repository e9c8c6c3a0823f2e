//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// buildForebay builds the program as "make build" does, but with its symbols, which cost
// nothing at run time and let a profiler name what it sees.
func buildForebay(ctx context.Context, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", to, "forebay/cmd/forebay")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build forebay: %w: %s", err, text)
	}
	return nil
}

// mirror is the real program with an empty storage folder in front of the hub.
type mirror struct {
	*process
	url   string // without a slash at the end
	dir   string
	shows string // Authorization of who warms it

	answered time.Time // when it first did
}

// mirrorOptions are what figures vary. All else is as in a run without any settings.
type mirrorOptions struct {
	noAccessLog bool
	on          cpus
	more        string // lines of the configuration
	shows       string // Authorization of who warms it
}

func (b *bench) startMirror(ctx context.Context, o mirrorOptions) (_ *mirror, err error) {
	b.mirrors++
	name := fmt.Sprintf("forebay-%d", b.mirrors)
	m := &mirror{dir: filepath.Join(b.dir, name), shows: o.shows}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	m.url = "http://" + addr
	file := filepath.Join(b.dir, name+".yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, `listen: %s
admin_listen: "off"
storage: {dir: %q}
log: {access: %t, format: json}
upstreams:
  docker.io:
    endpoints: [%q]
%s`, addr, m.dir, !o.noAccessLog, b.hub.url, o.more), 0o600); err != nil {
		return nil, err
	}
	cmd := command(ctx, b.forebay, "serve", "--config", file)
	if m.process, err = startProcess(ctx, name, b.dir, cmd, o.on); err != nil {
		return nil, err
	}
	if err := m.ready(ctx, func() error { return answersOK(m.url + "/v2/") }); err != nil {
		return nil, errors.Join(err, m.stop())
	}
	m.answered = time.Now()
	return m, nil
}

// warm makes the mirror fetch a manifest, as every pull begins: with the token that this
// takes it is where a client with a token is.
func (m *mirror) warm(ctx context.Context) error {
	return answersTo(ctx, m.url+"/v2/"+repository+"/manifests/warm", m.shows)
}

// stop ends the mirror and removes what it stored.
func (m *mirror) stop() error {
	return errors.Join(m.process.stop(), os.RemoveAll(m.dir))
}

// get is a download of the blob through the mirror.
func (m *mirror) get(d blob) download { return download{URL: m.url + blobPath(d), Size: d.Size} }

// file returns where the mirror keeps a blob.
func (m *mirror) file(d blob) string {
	hex := strings.TrimPrefix(d.Digest, "sha256:")
	return filepath.Join(m.dir, "blobs", "sha256", hex[:2], hex)
}

// settle waits until the mirror does nothing more, so that what it does after its answer
// is counted to it: content settles a fifth of a second later.
func (m *mirror) settle(ctx context.Context) error {
	const still = 300 * time.Millisecond
	tick := time.NewTicker(still)
	defer tick.Stop()
	for before := time.Duration(0); ; {
		now, err := cpuTime(m.pid())
		if err != nil || now-before < still/50 {
			return err
		}
		before = now
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// freeAddr returns a loopback address with a port that nobody listens on.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// answersOK says whether a GET of url is answered with 200.
func answersOK(url string) error {
	client := &http.Client{Timeout: startWithin, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, response.Status)
	}
	return nil
}
