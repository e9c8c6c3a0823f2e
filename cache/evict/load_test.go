package evict

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// lived is a policy with a past.
func lived(w *watch, capacity int64) *Policy {
	p := w.policy(capacity)
	for i := range 3000 {
		size, k := int64(i%7)*mib, Blob
		if i%11 == 0 {
			size, k = 2000, Manifest
		}
		p.Add(digest(i), size, k)
		p.Touch(digest(i/2), digest(i/3))
		p.Victims(p.Bytes()-capacity, func(d v1.Hash) bool { return d.Hex[63] == '5' })
		if i%10 == 0 {
			w.pass(1)
		}
	}
	p.Add(v1.Hash{Algorithm: "sha512", Hex: strings.Repeat("1", 128)}, 5*mib, Blob)
	p.Add(v1.Hash{Algorithm: "sha512", Hex: strings.Repeat("2", 128)}, 5*mib, Blob)
	return p
}

func itemsOf(p *Policy) map[v1.Hash]Item {
	all := map[v1.Hash]Item{}
	for it := range p.All() {
		all[it.Digest] = it
	}
	return all
}

func TestLoadRestoresWhatAllSays(t *testing.T) {
	w := newWatch()
	old := lived(w, 900*mib)
	p := w.policy(900 * mib)
	p.Load(old.All())
	if diff := cmp.Diff(itemsOf(old), itemsOf(p)); diff != "" {
		t.Errorf("after Load (-was +is):\n%s", diff)
	}
	if p.Bytes() != old.Bytes() || p.Len() != old.Len() {
		t.Errorf("%d entries, %d bytes, want %d, %d", p.Len(), p.Bytes(), old.Len(), old.Bytes())
	}
	if err := p.sound(); err != nil {
		t.Error(err)
	}
	for d, want := range itemsOf(old) {
		if got, ok := p.State(d); !ok || got != want {
			t.Errorf("State(%s) = %+v, %t, want %+v", d, got, ok, want)
		}
	}
}

func TestLoadDoesNotDependOnTheOrder(t *testing.T) {
	w := newWatch()
	items := slices.Collect(maps.Values(itemsOf(lived(w, 900*mib))))
	var want []v1.Hash
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 3))
		rng.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
		p := w.policy(900 * mib)
		p.Load(slices.Values(items))
		got := digestsOf(p.Victims(1<<40, nil))
		if want == nil {
			want = got
		}
		if !slices.Equal(got, want) {
			t.Fatalf("order %d: other victims than before", seed)
		}
	}
	if len(want) != len(items) {
		t.Errorf("%d victims of %d items", len(want), len(items))
	}
}

func TestWithoutHintsTheOldestGoFirst(t *testing.T) {
	w := newWatch()
	p := w.policy(1000 * mib)
	var items []Item
	for i := range 100 {
		items = append(items, Item{Digest: digest(i), Size: 10 * mib, Used: w.at.Add(-time.Duration(i*37%100) * time.Hour)})
	}
	p.Load(slices.Values(items))
	var last time.Time
	for _, v := range p.Victims(1<<40, nil) {
		if v.Used.Before(last) {
			t.Errorf("%s, used %s, goes after what was used %s", v.Digest, v.Used, last)
		}
		last = v.Used
	}
}

func TestLoadedContentIsOlderThanWhatWasAddedMeanwhile(t *testing.T) {
	w := newWatch()
	p := w.policy(0)
	p.Add(digest(0), 10*mib, Blob)
	p.Add(digest(1), 20*mib, Blob)
	p.Remove(digest(1))
	w.pass(100)
	p.Load(func(yield func(Item) bool) {
		_ = yield(Item{Digest: digest(0), Size: 99 * mib, Used: w.at}) &&
			yield(Item{Digest: digest(2), Size: 10 * mib, Used: w.at}) &&
			yield(Item{Digest: digest(3), Size: 10 * mib, Used: w.at.Add(-time.Hour)}) &&
			yield(Item{Digest: digest(3), Size: 10 * mib, Used: w.at}) &&
			yield(Item{Digest: digest(4), Size: -1, Kind: Manifest, Used: time.Unix(-1, 0)}) &&
			yield(Item{Digest: digest(5), Size: 10 * mib, Used: w.at.Add(1e6 * time.Hour), Hint: 0xff})
	})
	if p.Len() != 5 || p.Bytes() != 40*mib {
		t.Errorf("%d entries, %d bytes, want 5 and 40 MiB", p.Len(), p.Bytes())
	}
	if it, _ := p.State(digest(5)); it.Used.After(w.at) {
		t.Errorf("what is said to be used in the future was used %s, want now", it.Used)
	}
	got := digestsOf(p.Victims(1<<40, nil))
	want := []v1.Hash{digest(3), digest(2), digest(0), digest(5), digest(4)}
	if !slices.Equal(got, want) {
		t.Errorf("Victims = %v, want %v", got, want)
	}
}

func TestAllStopsWhenAsked(t *testing.T) {
	p := lived(newWatch(), 900*mib)
	n := 0
	for it := range p.All() {
		p.Remove(it.Digest) // the loop may use the policy
		if n++; n == 10 {
			break
		}
	}
	if n != 10 {
		t.Errorf("the loop ran %d times, want 10", n)
	}
	if err := p.sound(); err != nil {
		t.Error(err)
	}
}
