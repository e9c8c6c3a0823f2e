package fleet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/redis/rueidis"

	"forebay/test/cachetest"
)

// pauses stops the engine for a moment, again and again, longer than a mirror waits for it, until it is called.
func (s *server) pauses() (end func()) {
	s.t.Helper()
	options, err := clientOptions("valkey://"+s.addr, "hunter2")
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := rueidis.NewClient(options)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	var work sync.WaitGroup
	work.Go(func() {
		chance := rand.New(rand.NewPCG(1, 0))
		for ctx.Err() == nil {
			_ = c.Do(ctx, c.B().ClientPause().Timeout(60).All().Build()).Error() // the next one is as good
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(100+chance.IntN(300)) * time.Millisecond):
			}
		}
	})
	return func() {
		cancel()
		work.Wait()
		c.Close()
	}
}

// unheard returns the leases that somebody has to fetch something, of which he has not heard, or has forgotten.
func (s *server) unheard(all []*replica) map[string]bool {
	s.t.Helper()
	keys := map[string]bool{}
	err := all[0].engine.call(s.t.Context(), func(ctx context.Context, c rueidis.Client) error {
		list, err := c.Do(ctx, c.B().Keys().Pattern("fb1:{b:*").Build()).AsStrSlice()
		for _, key := range list {
			v, err := c.Do(ctx, c.B().Hmget().Key(key).Field("o", "e", "s").Build()).ToArray()
			if err != nil || len(v) != 3 || v[0].IsNil() || !v[2].IsNil() {
				continue // it is gone by now, or kept
			}
			owner, _ := v[0].ToString()
			epoch, _ := v[1].ToString()
			for _, m := range all {
				m.leads.mu.Lock()
				if one := m.leads.all[key]; m.me == owner && (one == nil || one.epoch != epoch) {
					keys[key] = true
				}
				m.leads.mu.Unlock()
			}
		}
		return err
	})
	if err != nil {
		return nil // the next look is as good
	}
	return keys
}

// The engine stops for a moment, again and again, so that leases are given to mirrors that have not waited for the
// answer. Every read succeeds, no lease outlives its six seconds without somebody who fetches, and when all is well
// again the registry is asked once.
func TestLeasesThatNobodyHeardOf(t *testing.T) {
	blobs := 150 // of which three mirrors want each
	if os.Getenv("FOREBAY_FLEET_SOAK") != "" {
		blobs = 3334
	}
	s := newServer(t)
	s.call = callMost
	r := cachetest.NewRegistry()
	all := s.trio(r)
	var list []v1.Hash
	for i := range blobs + 1 {
		list = append(list, r.Put(app.Name, &cachetest.Script{Data: fmt.Append(nil, "blob ", i)}))
	}
	end := s.pauses()
	var readers sync.WaitGroup
	for i, m := range all {
		readers.Go(func() {
			for n, d := range list[:blobs] {
				if got, err := m.blob(t.Context(), d); err != nil || string(got) != fmt.Sprint("blob ", n) {
					t.Errorf("blob %d of mirror %d = %q, %v", n, i, got, err)
				}
			}
		})
	}
	readers.Wait()
	if n := r.Count("OpenBlob"); n < blobs || n > 3*blobs {
		t.Errorf("the registry was asked %d times for %d blobs by three mirrors", n, blobs)
	}
	failed := int64(0)
	for _, m := range all {
		failed += m.Figures().Failed
	}
	if failed == 0 {
		t.Error("no call to the engine took too long")
	}
	end()
	left := s.unheard(all)
	t.Logf("%d requests for %d blobs, %d calls failed, %d leases of nobody at the end", r.Count("OpenBlob"), blobs, failed, len(left))
	began := time.Now()
	await(t, "the leases of nobody to end", func() bool { left = s.unheard(all); return left != nil && len(left) == 0 })
	t.Logf("none left after %s", time.Since(began).Round(time.Millisecond))
	await(t, "the engine to be asked again", func() bool {
		for _, m := range all {
			if since, _ := m.engine.away(); !since.IsZero() {
				s.reach(m.Fleet)
			}
		}
		before := r.Count("OpenBlob")
		d := r.Put(app.Name, &cachetest.Script{Data: fmt.Append(nil, "later ", rand.Uint64())})
		for _, m := range all {
			if _, err := m.blob(t.Context(), d); err != nil {
				t.Error(err)
			}
		}
		return r.Count("OpenBlob") == before+1
	})
}
