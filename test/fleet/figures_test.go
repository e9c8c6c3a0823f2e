//go:build linux

package fleet

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"forebay/test/hubtest"
)

// change replaces a text in the configuration of a mirror, and starts that anew.
func (w *world) change(m *mirror, from, to string) {
	w.t.Helper()
	m.kill()
	text, err := os.ReadFile(m.config)
	if err != nil {
		w.t.Fatal(err)
	}
	if !bytes.Contains(text, []byte(from)) {
		w.t.Fatalf("%s does not say %q", m.config, from)
	}
	if err := os.WriteFile(m.config, bytes.Replace(text, []byte(from), []byte(to), 1), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.start(m)
}

// redis has redis-cli ask the engine.
func (w *world) redis(args ...string) string {
	w.t.Helper()
	_, port, _ := net.SplitHostPort(w.engine)
	out, err := exec.Command("redis-cli", append([]string{"-p", port, "-a", "hunter2", "--no-auth-warning"}, args...)...).Output()
	if err != nil {
		w.t.Fatalf("redis-cli %v: %v", args, err)
	}
	return string(out)
}

var commandLine = regexp.MustCompile(`cmdstat_(\S+?):calls=(\d+)`)

// commands returns how often the engine was asked for what.
func (w *world) commands() map[string]int {
	w.t.Helper()
	calls := map[string]int{}
	for _, m := range commandLine.FindAllStringSubmatch(w.redis("INFO", "commandstats"), -1) {
		calls[m[1]], _ = strconv.Atoi(m[2]) // it is digits
	}
	return calls
}

// A thousand pulls of what three mirrors have, each of a tag, its manifest and its blobs, make no call to the
// engine: all that it hears meanwhile is that the mirrors are there.
func TestWarmPullsAskTheEngineNothing(t *testing.T) {
	w := newWorld(t)
	for _, m := range w.mirrors {
		w.change(m, "tag_ttl: 2s", "tag_ttl: 1h")
	}
	w.gather()
	img := w.hub.PushImage("library/app", "v1", hubtest.ImageSpec{Layers: 2, LayerSize: 64 << 10})
	w.image(w.mirrors[0], img)
	pulls := func(n int) {
		var all sync.WaitGroup
		for i := range 9 {
			all.Go(func() {
				for range n / 9 {
					w.image(w.mirrors[i%3], img)
				}
			})
		}
		all.Wait()
	}
	pulls(9)
	// A lease ends some seconds after the last request.
	last, since := map[string]int{}, time.Now()
	w.await("leases to end", func() bool {
		if now := w.commands(); now["evalsha"] != last["evalsha"] {
			last, since = now, time.Now()
		}
		return time.Since(since) > 5*time.Second
	})
	before, failed, began := w.commands(), w.failedCalls(), time.Now()
	pulls(1000)
	after, took := w.commands(), time.Since(began)
	beats := 0
	for name, n := range after {
		switch n -= before[name]; name {
		case "ping", "hset", "hgetall", "zcard", "zrange", "info", "auth", "hello", "client|setinfo":
			beats += n
		default:
			if n != 0 && w.failedCalls() == failed {
				t.Errorf("%d calls of %s by a thousand pulls of what is kept, want none", n, name)
			}
		}
	}
	// Each mirror beats, looks for operations and pings, every few seconds, with at most two commands each.
	if most := 3 * 6 * (int(took/beatEvery) + 2); beats > most {
		t.Errorf("%d commands of heartbeats in %s, want %d at most", beats, took, most)
	}
	t.Logf("999 pulls of three mirrors in %s: %d commands, all of heartbeats", took.Round(time.Millisecond), beats)
}

// beatEvery is how often a mirror says that it is there.
const beatEvery = 5 * time.Second

// image pulls an image as clients do: its tag, its manifest and its blobs.
func (w *world) image(m *mirror, img *hubtest.Image) {
	w.get(m, img.Tag, img.Raw)
	w.get(m, img.Digest, img.Raw)
	var come atomic.Int64
	for _, b := range img.Blobs() {
		w.pull(m, b.Digest, &come)
	}
}

// firstByte asks a mirror for a blob, and returns how long its first byte took to come.
func (w *world) firstByte(m *mirror, digest string) time.Duration {
	began := time.Now()
	res, err := w.client.Get(m.url + "/v2/library/app/blobs/" + digest)
	if err != nil {
		w.t.Error(err)
		return 0
	}
	defer res.Body.Close()
	var one [1]byte
	if _, err := res.Body.Read(one[:]); err != nil || res.StatusCode != http.StatusOK {
		w.t.Errorf("GET %s of %s = %d, %v", digest, m.url, res.StatusCode, err)
	}
	return time.Since(began)
}

// Who follows gets the first byte of a cold blob at most 5 ms later than who joins the same download at one
// mirror, at the median.
func TestFirstByteOfFollowers(t *testing.T) {
	rounds := 15
	if os.Getenv("FOREBAY_FLEET_SOAK") != "" {
		rounds = 100
	}
	w := newWorld(t)
	w.gather()
	took := map[string][]time.Duration{}
	for i := range 2 * rounds {
		tag, digest := w.layer(2<<20, uint64(3000+i))
		how, second := "joins", w.mirrors[0]
		if i%2 == 1 {
			how, second = "follows", w.mirrors[1]
		}
		w.touch(w.mirrors[0], tag)
		w.touch(second, tag)
		var both sync.WaitGroup
		both.Go(func() { w.firstByte(w.mirrors[0], digest) })
		both.Go(func() { took[how] = append(took[how], w.firstByte(second, digest)) })
		both.Wait()
	}
	at := func(how string, part float64) time.Duration {
		all := slices.Sorted(slices.Values(took[how]))
		return all[int(part*float64(len(all)-1))].Round(10 * time.Microsecond)
	}
	for how := range took {
		t.Logf("who %s: %s at the median, %s at 0.99", how, at(how, 0.5), at(how, 0.99))
	}
	// A machine that others load makes all of it slower.
	if joins, follows := at("joins", 0.5), at("follows", 0.5); follows > joins+max(5*time.Millisecond, joins) {
		t.Errorf("who follows waits for %s, who joins for %s, want 5 ms more at most", follows, joins)
	}
}
