package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mirror is the real binary with a storage folder of its own.
type mirror struct {
	*process
	addr  string // host and port of the registry API
	admin string // base URL of the admin listener
	dir   string // storage folder
	file  string // configuration
	env   []string
}

// mirrorOptions configures a mirror of docker.io.
type mirrorOptions struct {
	endpoint string        // of docker.io
	tagTTL   time.Duration // 0 means an hour: nothing goes stale by itself
	more     string        // YAML on the top level
}

// startMirror starts forebay and waits until it is ready.
func startMirror(t testing.TB, o mirrorOptions) *mirror {
	t.Helper()
	if o.tagTTL == 0 {
		o.tagTTL = time.Hour
	}
	m := newMirror(t)
	m.file = writeFile(t, stateDir(t), "forebay.yaml", fmt.Sprintf(`listen: %s
admin_listen: %s
storage: {dir: %q}
log: {level: debug, format: json}
upstreams:
  docker.io:
    endpoints: [%q]
    tag_ttl: %s
%s`, m.addr, strings.TrimPrefix(m.admin, "http://"), m.dir, o.endpoint, o.tagTTL, o.more))
	m.start(t)
	return m
}

// newMirror chooses addresses and a folder, and starts nothing.
func newMirror(t testing.TB) *mirror {
	t.Helper()
	return &mirror{addr: freeAddr(t), admin: "http://" + freeAddr(t), dir: filepath.Join(stateDir(t), "storage")}
}

// start starts the binary, for the first time or after stop or kill.
func (m *mirror) start(t testing.TB) {
	t.Helper()
	args := []string{"serve"}
	if m.file != "" {
		args = append(args, "--config", m.file)
	}
	cmd := exec.Command(forebay(), args...)
	cmd.Env = append(os.Environ(), m.env...)
	m.process = startProcess(t, "forebay", cmd, func() error { return answersOK(m.admin + "/readyz") })
}

// assertLogClean fails the test if the log has something that gives access (M45 of
// docs/clients.md).
func (m *mirror) assertLogClean(t testing.TB) {
	t.Helper()
	said := m.log(t)
	for _, secret := range []string{"X-Amz-Signature", "verify=", "Signature=", "Bearer ", "eyJ"} {
		if i := strings.Index(said, secret); i >= 0 {
			t.Errorf("the mirror's log has a signed URL or a token: %q", said[max(0, i-100):min(len(said), i+len(secret))])
		}
	}
}

// assertStoreClean sums every committed blob: whatever happened, none is partial.
func (m *mirror) assertStoreClean(t testing.TB) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(m.dir, "blobs", "sha256"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if got := newBlob(b).digest.Hex; got != e.Name() {
			t.Errorf("committed blob %s has the sum %s", e.Name(), got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
