package evict

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Everything is done to the policy and to the model, and the two are compared whole.
func TestPolicyDoesWhatTheModelDoes(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		ops := make([]byte, 1200)
		for i := range ops {
			ops[i] = byte(rng.Uint32())
		}
		if err := follow(ops); err != nil {
			t.Fatalf("seed %d: %s", seed, err)
		}
	}
}

func FuzzOperations(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})
	f.Add([]byte(strings.Repeat("\x00\x01\x40\x02\x03\x90\x04\x60\x10", 40)))
	f.Fuzz(func(t *testing.T, ops []byte) {
		if err := follow(ops[:min(len(ops), 3000)]); err != nil {
			t.Fatal(err)
		}
	})
}

// follow does what ops say, three bytes each.
func follow(ops []byte) error {
	const capacity = 200 * mib
	w := newWatch()
	p, m := w.policy(capacity), newModel(capacity, minutes(w.at))
	for i := 0; i+3 <= len(ops); i += 3 {
		if err := step(p, m, w, ops[i], ops[i+1], ops[i+2]); err != nil {
			return fmt.Errorf("operation %d (%d %d %d): %w", i/3, ops[i], ops[i+1], ops[i+2], err)
		}
		if err := m.check(p); err != nil {
			return fmt.Errorf("after operation %d (%d %d %d): %w", i/3, ops[i], ops[i+1], ops[i+2], err)
		}
	}
	return nil
}

func step(p *Policy, m *model, w *watch, what, a, b byte) error {
	d := digest(int(a % 48))
	if a%16 == 3 {
		d = v1.Hash{Algorithm: "sha512", Hex: strings.Repeat(fmt.Sprintf("%02x", a), 64)}
	}
	keep := func(d v1.Hash) bool { return d.Hex[len(d.Hex)-1]%4 == b%8 }
	switch what % 8 {
	case 0, 1, 2:
		size, k := int64(b)*mib/8, Blob
		if b%8 == 0 {
			size, k = int64(b)*1000, Manifest
		}
		p.Add(d, size, k)
		m.add(d, size, k)
	case 3:
		p.Touch(d, digest(int(b%48)))
		m.touch(d)
		m.touch(digest(int(b % 48)))
	case 4:
		p.TouchRefs(d, digest(int(b%48)))
		m.refer(d)
		m.refer(digest(int(b % 48)))
	case 5:
		if b%4 == 0 {
			p.Remove(d)
			m.remove(d)
		}
		w.pass(int(b%32)*(1+int(a%3)*20) - 2)
		m.now = minutes(w.at)
	case 6:
		need := p.Bytes() - m.capacity
		if b%4 == 0 {
			need = int64(a) * mib / 2
		}
		got, want := digestsOf(p.Victims(need, keep)), m.victims(need, keep)
		if !slices.Equal(got, want) {
			return fmt.Errorf("Victims(%d) = %v, want %v", need, got, want)
		}
	case 7:
		return stepRarely(p, m, w, a, b)
	}
	return nil
}

func stepRarely(p *Policy, m *model, w *watch, a, b byte) error {
	if a%4 != 0 {
		m.capacity = int64(100+int(b)) * mib
		p.Resize(m.capacity)
		m.trim()
		return nil
	}
	before := minutes(w.at) - uint32(b)*4
	want := m.oldest()
	if at, ok := p.Oldest(); ok != (want != 0) || ok && minutes(at) != want {
		return fmt.Errorf("Oldest() = %s, %t, want minute %d", at, ok, want)
	}
	got, all := digestsOf(p.Unused(fromMinutes(before), nothing)), m.unusedSince(before, nothing)
	byName := func(a, b v1.Hash) int { return strings.Compare(a.String(), b.String()) }
	slices.SortFunc(got, byName)
	slices.SortFunc(all, byName)
	if !slices.Equal(got, all) {
		return fmt.Errorf("Unused(%d) = %v, want %v", before, got, all)
	}
	return nil
}
