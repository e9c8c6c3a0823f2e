package fleet

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/redis/rueidis"
)

// leaseInput is what a mirror does with a lease.
type leaseInput struct {
	key, op, me, epoch string // epoch: of "begin" the dead one, of "end" its own
}

// leaseOutput is what it hears. Of a call that took too long nobody knows what became of it.
type leaseOutput struct {
	unknown, ours bool
	owner, epoch  string
}

// leaseState is who owns a lease; "?" is an epoch that nobody has heard of yet.
type leaseState struct{ owner, epoch string }

func (s leaseState) is(owner, epoch string) (bool, any) {
	return s.owner == owner && (s.epoch == epoch || s.epoch == "?"), leaseState{owner, epoch}
}

var leaseModel = porcupine.Model{
	Init: func() any { return leaseState{} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(leaseState), input.(leaseInput), output.(leaseOutput)
		switch in.op {
		case "begin":
			if s.owner == "" || in.epoch != "" && s.epoch == in.epoch {
				s = leaseState{in.me, "?"}
				if !out.unknown {
					return out.owner == in.me && out.ours, leaseState{in.me, out.epoch}
				}
			}
			if out.unknown {
				return true, s
			}
			ok, after := s.is(out.owner, out.epoch)
			return ok && out.ours == (s.owner == in.me), after
		case "end":
			held := s == leaseState{in.me, in.epoch}
			if held {
				s = leaseState{}
			}
			return out.unknown || out.ours == held, s
		default: // "look"
			if out.unknown || out.owner == "" && s.owner == "" {
				return true, s
			}
			return s.is(out.owner, out.epoch)
		}
	},
	Partition: func(all []porcupine.Operation) (parts [][]porcupine.Operation) {
		of := map[string]int{}
		for _, one := range all {
			key := one.Input.(leaseInput).key
			i, ok := of[key]
			if !ok {
				i, of[key] = len(parts), len(parts)
				parts = append(parts, nil)
			}
			parts[i] = append(parts[i], one)
		}
		return parts
	},
}

// Mirrors take leases, give them up, look at them and replace owners that they say are dead, all at once, while
// the engine is paused so that calls are lost whose effect is not: what each hears is as if they had come one after
// the other, with one owner at a time.
func TestLeasesAreLinearizable(t *testing.T) {
	const keys, each = 6, 30
	s := newServer(t)
	all := s.replicas(5)
	for _, f := range all {
		f.engine.most = 100 * time.Millisecond
	}
	var mu sync.Mutex
	var history []porcupine.Operation
	var work sync.WaitGroup
	began := time.Now()
	for i, f := range all {
		work.Go(func() {
			chance, seen := rand.New(rand.NewPCG(7, uint64(i))), map[string]turn{}
			for range each * keys {
				in := leaseInput{key: fmt.Sprintf("fb1:{b:%d}", chance.IntN(keys)), me: f.me}
				out := leaseOutput{}
				was, call := seen[in.key], time.Now()
				var err error
				switch n := chance.IntN(8); {
				case n == 0 && was.leads:
					in.op, in.epoch = "end", was.epoch
					out.ours, err = s.end(f, in.key, in.epoch)
				case n == 1:
					in.op = "look"
					out.owner, out.epoch, err = s.look(f, in.key)
				default:
					in.op = "begin"
					if n == 2 && !was.leads {
						in.epoch = was.epoch
					}
					was, err = f.begin(t.Context(), in.key, in.epoch)
					out.ours, out.owner, out.epoch, seen[in.key] = was.leads, was.owner, was.epoch, was
				}
				until := time.Since(began).Nanoseconds()
				if errors.Is(err, errAway) {
					continue // it was not made
				}
				if err != nil {
					out, until = leaseOutput{unknown: true}, math.MaxInt64
				}
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: i, Input: in, Output: out, Call: call.Sub(began).Nanoseconds(), Return: until})
				mu.Unlock()
			}
		})
	}
	for range 2 {
		<-time.After(20 * time.Millisecond)
		s.signal(syscall.SIGSTOP)
		<-time.After(150 * time.Millisecond)
		s.signal(syscall.SIGCONT)
	}
	work.Wait()
	if took := time.Since(began); took > leadFor-time.Second {
		t.Logf("the machine took %s, so that leases have ended by themselves", took)
		return
	}
	unknown := 0
	for _, one := range history {
		if one.Output.(leaseOutput).unknown {
			unknown++
		}
	}
	result := porcupine.CheckOperationsTimeout(leaseModel, history, 30*time.Second)
	t.Logf("%d calls, of which %d were lost, in %s: %s", len(history), unknown, time.Since(began).Round(time.Millisecond), result)
	if result == porcupine.Illegal {
		t.Error("leases had two owners at once, or one that nobody made")
	}
}

// end gives up a lease, and reports whether it was held.
func (s *server) end(f *Fleet, key, epoch string) (ours bool, err error) {
	err = f.engine.call(s.t.Context(), func(ctx context.Context, c rueidis.Client) error {
		n, err := f.scripts.renew.Exec(ctx, c, []string{key}, []string{f.me, epoch, "6000", "gone"}).AsInt64()
		ours = n == 1
		return err
	})
	return ours, err
}

// look returns who owns a lease.
func (s *server) look(f *Fleet, key string) (owner, epoch string, err error) {
	err = f.engine.call(s.t.Context(), func(ctx context.Context, c rueidis.Client) error {
		v, err := c.Do(ctx, c.B().Hmget().Key(key).Field("o", "e").Build()).ToArray()
		if err == nil && len(v) == 2 && !v[0].IsNil() {
			owner, _ = v[0].ToString()
			epoch, _ = v[1].ToString()
		}
		return err
	})
	return owner, epoch, err
}
