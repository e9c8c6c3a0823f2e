package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Deadlines are generous: they end a hang, they measure nothing.
const (
	startWithin = 60 * time.Second
	stopWithin  = 30 * time.Second
	pullWithin  = 3 * time.Minute
	pollEvery   = 20 * time.Millisecond
)

// process is one daemon that a test started.
type process struct {
	name    string
	cmd     *exec.Cmd
	logPath string
	exited  chan struct{} // closed when it has ended
	err     error         // why it ended; valid after exited
}

// startProcess starts cmd and waits until ready returns nil. The test stops it
// at its end, and prints the end of its log if it has failed.
func startProcess(t testing.TB, name string, cmd *exec.Cmd, ready func() error) *process {
	t.Helper()
	p := &process{
		name: name, cmd: cmd, exited: make(chan struct{}),
		logPath: filepath.Join(stateDir(t), name+".log"),
	}
	log, err := os.Create(p.logPath)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", name, tail(p.logPath, 30))
		}
	})
	err = eventually(startWithin, func() error {
		select {
		case <-p.exited:
			return permanent{fmt.Errorf("ended: %s", p.cmd.ProcessState)}
		default:
			return ready()
		}
	})
	if err != nil {
		t.Fatalf("start %s: %v\n%s", name, err, tail(p.logPath, 30))
	}
	return p
}

// stop asks the process to end and waits until it has. It may be called again.
func (p *process) stop(t testing.TB) {
	t.Helper()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(stopWithin):
		p.signal(syscall.SIGKILL)
		<-p.exited
		t.Errorf("%s did not end within %s of SIGTERM", p.name, stopWithin)
	}
}

// kill ends the process without warning.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.exited
}

func (p *process) signal(s syscall.Signal) {
	select {
	case <-p.exited: // its number may be another's by now
	default:
		p.cmd.Process.Signal(s)
	}
}

// log returns all that the process has written.
func (p *process) log(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(p.logPath)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// permanent is an error that waiting does not mend.
type permanent struct{ error }

// eventually calls try until it returns nil, or returns its last error.
func eventually(within time.Duration, try func() error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for deadline := time.Now().Add(within); ; <-tick.C {
		err := try()
		if err == nil || errors.As(err, &permanent{}) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("still after %s: %w", within, err)
		}
	}
}

// run runs a program to its end and returns what it printed on standard output.
// Its error has what it printed on standard error.
func run(ctx context.Context, env []string, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, pullWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = stopWithin
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// tail returns the last lines of a file.
func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// answersOK says whether a GET of url is answered with 200.
func answersOK(url string) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return nil
}

// stateDir returns a folder for a daemon: with a short name, since a socket's path
// has at most 107 bytes, and removed at the end with all that is mounted in it.
func stateDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unmountBelow(dir), os.RemoveAll(dir)); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return dir
}

// unmountBelow undoes what a daemon leaves mounted when it stops. dockerd leaves
// the network namespace of its host-network containers.
func unmountBelow(dir string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	slices.Reverse(lines) // the last one mounted first
	for _, line := range lines {
		if point := strings.Fields(line)[4]; strings.HasPrefix(point, dir+"/") {
			if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
				return fmt.Errorf("unmount %q: %w", point, err)
			}
		}
	}
	return nil
}

// nextPort is the number of the next port that a process of ours gets.
var nextPort atomic.Int32

// freeAddr returns an address with a port that nobody listens on. The network of the
// sandbox has only our own processes, and those that let the kernel choose a port get one
// from 32768 on, so nobody takes it in between. crane speaks HTTP to 127.0.0.1 only.
func freeAddr(t testing.TB) string {
	t.Helper()
	addr := fmt.Sprintf("127.0.0.1:%d", 20_000+nextPort.Add(1))
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return addr
}

// writeFile makes a file below a temporary folder of the test.
func writeFile(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
