//go:build linux

package soak

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"forebay/test/hubtest"
)

// mirror is the real program, which can be started again on its folder.
type mirror struct {
	program, config, storage string
	url, admin               string
	cmd                      *exec.Cmd
	log                      string
}

func newMirror(t *testing.T, hub *hubtest.Hub, maxSize int) *mirror {
	t.Helper()
	dir := t.TempDir()
	m := &mirror{program: filepath.Join(dir, "forebay"), config: filepath.Join(dir, "forebay.yaml"), storage: filepath.Join(dir, "storage"), log: filepath.Join(dir, "log")}
	build := exec.Command("go", "build", "-trimpath", "-o", m.program, "forebay/cmd/forebay")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	listen, admin := freeAddr(t), freeAddr(t)
	m.url, m.admin = "http://"+listen, "http://"+admin
	text := fmt.Sprintf(`listen: %s
admin_listen: %s
storage: {dir: %q, max_size: %d, min_free: 1MiB}
negative_ttl: 1s
log: {level: warn, access: false, format: json}
limits: {new_per_minute: 0, pulls: 0, fills: 0}
upstreams:
  docker.io: {endpoints: [%q], tag_ttl: 1s, stall_timeout: 2s}
`, listen, admin, m.storage, maxSize, hub.RegistryURL())
	text = strings.Replace(text, fmt.Sprint("max_size: ", maxSize), fmt.Sprintf("max_size: %dMiB", maxSize>>20), 1)
	if err := os.WriteFile(m.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.stop(t)
		if log, err := os.ReadFile(m.log); err == nil && t.Failed() {
			t.Logf("end of the mirror's log:\n%s", log[max(0, len(log)-4000):])
		}
	})
	m.start(t)
	return m
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (m *mirror) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	m.cmd = exec.Command(m.program, "serve", "--config", m.config)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	m.cmd.Env = []string{"HOME=" + filepath.Dir(m.config)} // FOREBAY_SOAK is no setting of the mirror
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		response, err := http.Get(m.admin + "/readyz")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the mirror is not ready: %v", err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (m *mirror) stop(t *testing.T) {
	t.Helper()
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Signal(syscall.SIGTERM) // it is still ours
	if err := m.cmd.Wait(); err != nil {
		t.Errorf("the mirror ends with %v", err)
	}
	m.cmd = nil
}

func (m *mirror) kill(t *testing.T) {
	t.Helper()
	if err := m.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = m.cmd.Wait() // says that it was killed
	m.cmd = nil
}

// usage is what the program takes.
type usage struct {
	goroutines, descriptors int
	resident, disk          int64 // bytes
}

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors, %d MiB of memory, %d MiB on the disk", u.goroutines, u.descriptors, u.resident>>20, u.disk>>20)
}

func (m *mirror) usage(t *testing.T) usage {
	t.Helper()
	u := usage{goroutines: int(m.metric(t, "go_goroutines"))}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	u.descriptors, u.resident = len(open), int64(m.metric(t, "process_resident_memory_bytes"))
	err = filepath.WalkDir(m.storage, func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // since it was listed
		}
		if err != nil || e.IsDir() {
			return err
		}
		if info, err := e.Info(); err == nil {
			u.disk += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// metric is the sum of all series of a name.
func (m *mirror) metric(t *testing.T, name string) (sum float64) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := c.Get(m.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		series, value, ok := strings.Cut(lines.Text(), " ")
		if i := strings.LastIndexByte(lines.Text(), ' '); i > 0 {
			series, value = lines.Text()[:i], lines.Text()[i+1:]
		}
		base, _, _ := strings.Cut(series, "{")
		if !ok || base != name {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += v
	}
	return sum
}

// assertSettles waits until the program takes hardly more than it did when nothing had happened.
func (m *mirror) assertSettles(t *testing.T, idle usage, maxSize int64) {
	t.Helper()
	const (
		spare      = 48        // goroutines and descriptors: connections to the registry that are kept, files of the index
		memoryMost = 400 << 20 // with the index's 147 MiB of mapped files, at the most
	)
	var u usage
	for deadline := time.Now().Add(90 * time.Second); ; {
		u = m.usage(t)
		if u.goroutines <= idle.goroutines+spare && u.descriptors <= idle.descriptors+spare && u.disk <= maxSize*11/10 && u.resident <= memoryMost {
			t.Logf("at rest: %s; when it was new: %s", u, idle)
			return
		}
		if time.Now().After(deadline) {
			kept, err := exec.Command("du", "-ak", "--exclude=blobs/*/*", m.storage).Output()
			t.Errorf("it does not settle: %s; when it was new: %s\n%s (%v)", u, idle, kept, err)
			return
		}
		<-time.After(200 * time.Millisecond)
	}
}
