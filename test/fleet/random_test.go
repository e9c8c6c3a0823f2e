//go:build linux

package fleet

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Ways break and mend at random, mirrors are killed and start again, the engine is emptied, while clients
// pull what is new and what is not: every pull of a mirror that runs is right. When all is well again the
// registry is asked once, and no mirror has more descriptors open than at the start.
//
// FOREBAY_FLEET_SOAK is how long it takes, FOREBAY_FLEET_SEED what is made of it.
func TestRandomFaults(t *testing.T) {
	lasts, seed := 15*time.Second, uint64(20261129)
	if s := os.Getenv("FOREBAY_FLEET_SOAK"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		lasts, seed = d, rand.Uint64()
	}
	if s := os.Getenv("FOREBAY_FLEET_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("FOREBAY_FLEET_SEED=%d", seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	const size = 1<<20 + 7
	w := newWorldOn(t, func() *edge { return newEdge(t) })
	w.gather()
	type content struct{ tag, digest string }
	var all []content
	made := 0
	add := func() content {
		tag, digest := w.layer(size+int64(made%5)<<18, uint64(1000+made))
		made++
		if all = append(all, content{tag, digest}); len(all) > 200 { // of which the bytes are in memory, to compare with
			w.bytes.Delete(all[0].digest)
			all = all[1:]
		}
		return all[len(all)-1]
	}
	pull := func(m *mirror, c content) {
		var come atomic.Int64
		w.touch(m, c.tag)
		w.pull(m, c.digest, &come)
	}
	round := func() {
		want := add()
		if len(all) > 3 && chance.IntN(3) == 0 {
			want = all[chance.IntN(len(all))]
		}
		var clients sync.WaitGroup
		for i := range 6 {
			if m := w.mirrors[i%3]; m.cmd != nil {
				clients.Go(func() { pull(m, want) })
			}
		}
		clients.Wait()
	}
	round()
	open := make([]float64, len(w.mirrors))
	for i, m := range w.mirrors {
		open[i] = w.metric(m, "process_open_fds")
	}
	states, rounds := []string{"", "", "cut", "hung", "slow"}, 0
	for end := time.Now().Add(lasts); time.Now().Before(end) && !t.Failed(); rounds++ {
		switch m := w.mirrors[chance.IntN(3)]; chance.IntN(8) {
		case 0, 1:
			m.engine.set(states[chance.IntN(len(states))])
		case 2, 3:
			m.peers.set(states[chance.IntN(len(states))])
		case 4:
			w.flush()
		case 5:
			if m.cmd != nil && w.mirrors[0].cmd != nil && w.mirrors[1].cmd != nil && w.mirrors[2].cmd != nil {
				m.kill()
			}
		default:
			for _, m := range w.mirrors {
				if m.cmd == nil {
					w.start(m)
				}
			}
		}
		round()
	}
	for _, m := range w.mirrors {
		m.engine.set("")
		m.peers.set("")
		if m.cmd == nil {
			w.start(m)
		}
	}
	t.Logf("%d rounds, %d blobs", rounds, made)
	w.gather()
	w.await("all to be well", func() bool {
		one := add()
		for _, m := range w.mirrors {
			pull(m, one)
		}
		return w.hub.BlobGets(one.digest) == 1
	})
	for i, m := range w.mirrors {
		w.await("descriptors to be closed", func() bool { return w.metric(m, "process_open_fds") <= open[i]+30 }) // connections that are kept, files of the index
	}
}
