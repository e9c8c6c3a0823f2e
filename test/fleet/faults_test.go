//go:build linux

package fleet

import (
	"bufio"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// flush empties the engine.
func (w *world) flush() {
	w.t.Helper()
	c, err := net.Dial("tcp", w.engine)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	for _, line := range []string{"AUTH hunter2", "FLUSHALL"} {
		if _, err := fmt.Fprintf(c, "%s\r\n", line); err != nil {
			w.t.Fatal(err)
		}
		if answer, err := r.ReadString('\n'); err != nil || answer != "+OK\r\n" {
			w.t.Fatalf("%s: %q, %v", line, answer, err)
		}
	}
}

// Each way between mirrors and engine is cut, hangs, is slow; the engine is emptied; one mirror is cut off
// from all but its clients and the registry. Every pull succeeds, no client waits for long, the registry
// sends a blob once for each mirror at most, and once for all when all is well again.
func TestEveryPullSucceeds(t *testing.T) {
	const size = 4 << 20
	w := newWorldOn(t, func() *edge { return newEdge(t) })
	seed := uint64(100)
	pullAll := func() (took time.Duration, times float64) {
		seed++
		tag, digest := w.layer(size, seed)
		began := time.Now()
		var all sync.WaitGroup
		var come atomic.Int64
		for i := range 9 {
			all.Go(func() {
				w.touch(w.mirrors[i%3], tag)
				w.pull(w.mirrors[i%3], digest, &come)
			})
		}
		all.Wait()
		return time.Since(began), float64(w.hub.BlobBytes(digest)) / size
	}
	engines := func(state string) func() {
		return func() {
			for _, m := range w.mirrors {
				m.engine.set(state)
			}
		}
	}
	peers := func(state string) func() {
		return func() {
			for _, m := range w.mirrors {
				m.peers.set(state)
			}
		}
	}
	one := func(state string) func() {
		return func() {
			w.mirrors[1].engine.set(state)
			w.mirrors[1].peers.set(state)
		}
	}
	for _, fault := range []struct {
		name         string
		break_, mend func()
		most         float64
	}{
		{"engine cut", engines("cut"), engines(""), 3},
		{"engine hangs", engines("hung"), engines(""), 3},
		{"engine slow", engines("slow"), engines(""), 3},
		{"engine emptied", w.flush, func() {}, 3},
		{"mirrors cut from each other", peers("cut"), peers(""), 3},
		{"ways between mirrors hang", peers("hung"), peers(""), 3},
		{"ways between mirrors are slow", peers("slow"), peers(""), 3},
		{"one cut off", one("cut"), one(""), 3},
		{"one hangs", one("hung"), one(""), 3},
	} {
		w.gather()
		fault.break_()
		for range 2 {
			took, times := pullAll()
			t.Logf("%s: %s, %.2f of the blob", fault.name, took.Round(time.Millisecond), times)
			if times > fault.most+0.02 {
				t.Errorf("%s: the registry sent %.2f of a blob, want %.2f at most", fault.name, times, fault.most)
			}
			if took > 30*time.Second {
				t.Errorf("%s: clients waited for %s", fault.name, took)
			}
		}
		fault.mend()
		well := 0 // in a row: another mirror leads each time, and each was left alone by some
		w.await(fault.name+" to be over", func() bool {
			failed := w.failedCalls()
			_, times := pullAll()
			well++
			if times > 1.02 && w.failedCalls() == failed {
				well = 0
			}
			return well == 5
		})
	}
}
