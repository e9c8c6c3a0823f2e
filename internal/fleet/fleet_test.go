package fleet

import (
	"context"
	"net"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/redis/rueidis"
	"go.uber.org/goleak"

	"forebay/internal/pull"
	"forebay/test/cachetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a real redis-server.
type server struct {
	t    *testing.T
	addr string
	cmd  *exec.Cmd
	most int64          // that the mirrors which join keep; 0 is no limit
	disk cachetest.Disk // of all of them
	call time.Duration  // that a call may take
}

func newServer(t *testing.T) *server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("redis-server is missing: install it with `make deps`")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, addr: l.Addr().String(), call: callLoaded}
	_ = l.Close()
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *server) start() {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(s.addr)
	s.cmd = exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--requirepass", "hunter2", "--dir", s.t.TempDir())
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	await(s.t, "redis-server to listen", func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait() // it was killed
		s.cmd = nil
	}
}

func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited for %s", what)
		}
	}
}

// replicas returns fleets of one secret, each of which has reached the engine.
func (s *server) replicas(n int) []*Fleet {
	s.t.Helper()
	all := make([]*Fleet, n)
	for i := range all {
		all[i] = s.replica("one secret for all replicas", "same")
	}
	return all
}

func (s *server) replica(secret, identity string) *Fleet {
	s.t.Helper()
	f, err := New(Options{Engine: "valkey://" + s.addr, Password: "hunter2", Secret: []byte(secret), Identity: func(string) string { return identity }})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(f.Close)
	f.engine.most = s.call
	s.reach(f)
	return f
}

// callLoaded is callMost for a machine that others load.
const callLoaded = 500 * time.Millisecond

// reach waits until a call of f succeeds.
func (s *server) reach(f *Fleet) {
	s.t.Helper()
	await(s.t, "the engine to answer", func() bool {
		return f.engine.call(s.t.Context(), func(ctx context.Context, c rueidis.Client) error { return c.Do(ctx, c.B().Ping().Build()).Error() }) == nil
	})
}

// registry is what is asked for a tag.
type registry struct {
	heads atomic.Int64
	desc  atomic.Pointer[v1.Descriptor]
	slow  time.Duration
	err   error
}

func newRegistry(c string) *registry {
	r := &registry{}
	r.move(c)
	return r
}

func (r *registry) move(c string) {
	r.desc.Store(&v1.Descriptor{Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat(c, 64)}, Size: 7, MediaType: "a/b; c=d"})
}

func (r *registry) head(ctx context.Context) (v1.Descriptor, error) {
	r.heads.Add(1)
	d := *r.desc.Load()
	select {
	case <-time.After(r.slow):
	case <-ctx.Done():
		return v1.Descriptor{}, ctx.Err()
	}
	return d, r.err
}

func confirm(t *testing.T, f *Fleet, since time.Time, ttl time.Duration, r *registry) (v1.Descriptor, time.Time) {
	t.Helper()
	d, at, err := f.Confirm(t.Context(), "docker.io", "library/nginx", "latest", since, ttl, r.head)
	if err != nil {
		t.Fatal(err)
	}
	return d, at
}

// A tag whose time is over costs one HEAD among all replicas, whoever comes when.
func TestOneHeadForAll(t *testing.T) {
	s := newServer(t)
	r := newRegistry("a")
	r.slow = 100 * time.Millisecond
	all := s.replicas(6)
	var work sync.WaitGroup
	for _, f := range all {
		work.Go(func() {
			d, at, err := f.Confirm(t.Context(), "docker.io", "library/nginx", "latest", time.Time{}, time.Minute, r.head)
			if err != nil || d.Digest != r.desc.Load().Digest || d.Size != 7 || d.MediaType != "a/b; c=d" || time.Since(at) > time.Minute {
				t.Errorf("Confirm = %+v at %s, %v", d, at, err)
			}
		})
	}
	work.Wait()
	if n := r.heads.Load(); n != 1 {
		t.Errorf("%d HEADs by six replicas, want 1", n)
	}
	// It holds as long as the time to live, and no longer than a hint wants.
	_, first := confirm(t, all[0], time.Time{}, time.Minute, r)
	if _, at := confirm(t, all[1], time.Time{}, time.Minute, r); !at.Equal(first) {
		t.Errorf("a fact became younger: %s, then %s", first, at)
	}
	r.move("b")
	if d, _ := confirm(t, all[2], time.Now(), time.Minute, r); d.Digest != r.desc.Load().Digest {
		t.Errorf("after a hint the tag is still %s", d.Digest)
	}
	if d, _ := confirm(t, all[3], first, time.Minute, r); d.Digest != r.desc.Load().Digest {
		t.Errorf("another replica still has %s", d.Digest)
	}
	if n := r.heads.Load(); n != 2 {
		t.Errorf("%d HEADs, want 2", n)
	}
	if d, _ := confirm(t, all[4], time.Time{}, time.Nanosecond, r); d.Digest != r.desc.Load().Digest || r.heads.Load() != 3 {
		t.Errorf("a fact outlived its time: %d HEADs, want 3", r.heads.Load())
	}
}

// Stopped, killed, started empty: every question is answered, at once, and sharing goes on afterwards.
func TestEngineMayBeLost(t *testing.T) {
	s := newServer(t)
	r := newRegistry("a")
	f := s.replicas(1)[0]
	for _, fail := range []struct {
		name         string
		break_, mend func()
	}{
		{"stopped", func() { s.signal(syscall.SIGSTOP) }, func() { s.signal(syscall.SIGCONT) }},
		{"killed", s.kill, s.start},
	} {
		fail.break_()
		began := time.Now()
		for i := range 20 {
			confirm(t, f, time.Now(), time.Minute, r)
			if i == failuresMost && f.Figures().Since.IsZero() {
				t.Errorf("%s: the engine is not left alone after %d questions", fail.name, i)
			}
		}
		// Three calls of 50 ms, and perhaps one more after a pause; the machine may be slow.
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: 20 questions took %s", fail.name, took)
		}
		fail.mend()
		s.reach(f)
		if !f.Figures().Since.IsZero() {
			t.Errorf("%s: the engine answers and is left alone", fail.name)
		}
		before := r.heads.Load()
		confirm(t, f, time.Now(), time.Minute, r)
		confirm(t, s.replica("one secret for all replicas", "same"), time.Time{}, time.Minute, r)
		if n := r.heads.Load() - before; n != 1 {
			t.Errorf("%s: %d HEADs of two replicas afterwards, want 1: %+v", fail.name, n, f.Figures())
		}
	}
}

// A replica that asks and never answers is waited for no longer than that, and what another found out
// meanwhile is not taken back by what it says when it wakes up.
func TestAskerThatSleeps(t *testing.T) {
	s := newServer(t)
	all := s.replicas(2)
	r := newRegistry("a")
	asked, wake := make(chan struct{}), make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		_, _, _ = all[0].Confirm(t.Context(), "docker.io", "library/nginx", "latest", time.Time{}, time.Minute, func(context.Context) (v1.Descriptor, error) {
			d := *r.desc.Load()
			close(asked)
			<-wake
			return d, nil
		})
	})
	<-asked
	r.move("b")
	began := time.Now()
	if d, _ := confirm(t, all[1], time.Time{}, time.Minute, r); d.Digest != r.desc.Load().Digest {
		t.Errorf("Confirm = %s, want what the registry says now", d.Digest)
	}
	if took := time.Since(began); took < followMost {
		t.Errorf("waited %s for the other, want %s", took, followMost)
	}
	if n := all[1].Figures().Duplicates; n != 1 {
		t.Errorf("%d duplicates, want 1", n)
	}
	close(wake)
	work.Wait()
	if d, _ := confirm(t, s.replicas(1)[0], time.Time{}, time.Minute, r); d.Digest != r.desc.Load().Digest || r.heads.Load() != 1 {
		t.Errorf("the sleeper took it back to %s, after %d HEADs", d.Digest, r.heads.Load())
	}
}

// A registry that fails is asked by one replica after the other, and its error is each one's own.
func TestErrorsAreNotShared(t *testing.T) {
	s := newServer(t)
	r := newRegistry("a")
	r.err = &pull.Error{Kind: pull.NotFound, Upstream: "docker.io"}
	for _, f := range s.replicas(2) {
		if _, _, err := f.Confirm(t.Context(), "docker.io", "library/nginx", "latest", time.Time{}, time.Minute, r.head); pull.KindOf(err) != pull.NotFound {
			t.Errorf("Confirm = %v, want not found", err)
		}
	}
	if n := r.heads.Load(); n != 2 {
		t.Errorf("%d HEADs, want 2", n)
	}
}

// Who can write to the engine moves no tag: neither with a secret of his own, nor with a fact of another
// tag, another upstream's settings, or the future. What he wrote is replaced.
func TestForgedFacts(t *testing.T) {
	s := newServer(t)
	f := s.replicas(1)[0]
	r := newRegistry("a")
	evil := newRegistry("e")
	confirm(t, s.replica("another secret", "same"), time.Time{}, time.Minute, evil)
	if d, _ := confirm(t, f, time.Time{}, time.Minute, r); d.Digest != r.desc.Load().Digest {
		t.Errorf("Confirm = %s by another secret", d.Digest)
	}
	if n := f.Figures().Forged; n != 1 {
		t.Errorf("%d facts were not believed, want 1", n)
	}
	if d, _ := confirm(t, s.replicas(1)[0], time.Time{}, time.Minute, evil); d.Digest != r.desc.Load().Digest {
		t.Errorf("Confirm = %s, want what was put in place of the forged", d.Digest)
	}
	if d, _ := confirm(t, s.replica("one secret for all replicas", "other account"), time.Time{}, time.Minute, evil); d.Digest != evil.desc.Load().Digest {
		t.Errorf("Confirm = %s as another account, want what that is told", d.Digest)
	}
	// A fact of one tag, put in the place of another, in whatever form.
	one := &question{f: f, key: "fb1:{t:one}", ttl: time.Minute}
	fact := &said{*r.desc.Load(), time.Now()}
	text := one.text(fact)
	other := &question{f: f, key: "fb1:{t:other}", ttl: time.Minute}
	if one.believe(text, 0) == nil || other.believe(text, 0) != nil {
		t.Error("a fact is believed of another tag")
	}
	fact.at = time.Now().Add(time.Hour)
	if one.believe(one.text(fact), 0) != nil {
		t.Error("a fact of the future is believed")
	}
	for i := range text {
		if one.believe(text[:i]+"~"+text[i+1:], 0) != nil || one.believe(text[:i], 0) != nil {
			t.Errorf("%q is believed though changed at %d", text, i)
		}
	}
}

// A wrong password is an engine that does not answer.
func TestWrongPassword(t *testing.T) {
	s := newServer(t)
	f, err := New(Options{Engine: "redis://" + s.addr, Password: "wrong", Secret: []byte("x"), Identity: func(string) string { return "same" }})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := newRegistry("a")
	await(t, "the engine to refuse", func() bool {
		confirm(t, f, time.Time{}, time.Minute, r)
		return f.Figures().Err != nil
	})
	if err := f.Figures().Err; strings.Contains(err.Error(), "wrong") && !strings.Contains(err.Error(), "WRONGPASS") || f.Figures().Shared != 0 {
		t.Errorf("Err = %v", err)
	}
}
