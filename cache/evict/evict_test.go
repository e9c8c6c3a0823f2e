package evict

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mib = 1 << 20

func digest(i int) v1.Hash {
	// The halves of real digests are as different as can be.
	x := uint64(i) * 0x9e3779b97f4a7c15
	return v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%016x%048x", x, i)}
}

// watch is a clock that goes on by hand.
type watch struct{ at time.Time }

func newWatch() *watch                  { return &watch{time.Unix(1_800_000_000/60*60, 0)} }
func (w *watch) now() time.Time         { return w.at }
func (w *watch) pass(minutes int)       { w.at = w.at.Add(time.Duration(minutes) * time.Minute) }
func (w *watch) policy(c int64) *Policy { return New(Options{Capacity: c, Now: w.now}) }

func digestsOf(all []Victim) []v1.Hash {
	var ds []v1.Hash
	for _, v := range all {
		ds = append(ds, v.Digest)
	}
	return ds
}

func sizeOf(all []Victim) (n int64) {
	for _, v := range all {
		n += v.Size
	}
	return n
}

func nothing(v1.Hash) bool { return false }

func (m *model) oldest() (at uint32) {
	for q, all := range m.queues {
		for _, e := range all {
			if q != gone && (at == 0 || e.at < at) {
				at = e.at
			}
		}
	}
	return at
}

func TestVictimsFreeWhatIsNeededAndNoMore(t *testing.T) {
	w := newWatch()
	p := w.policy(1000 * mib)
	for i := range 200 {
		p.Add(digest(i), int64(2+i%17)*mib, Blob)
	}
	for _, need := range []int64{1, 5 * mib, 300 * mib} {
		before := p.Bytes()
		all := p.Victims(need, nil)
		freed, last := sizeOf(all), all[len(all)-1].Size
		if freed < need || freed-last >= need {
			t.Errorf("Victims(%d) frees %d, the last of them %d", need, freed, last)
		}
		if got := p.Bytes(); got != before-freed {
			t.Errorf("Bytes() = %d after Victims, want %d", got, before-freed)
		}
	}
	if all := p.Victims(0, nil); all != nil {
		t.Errorf("Victims(0) = %v, want none", all)
	}
	if all := p.Victims(-5, nil); all != nil {
		t.Errorf("Victims(-5) = %v, want none", all)
	}
	p.Victims(1<<60, nil)
	if p.Len() != 0 || p.Bytes() != 0 {
		t.Errorf("%d entries, %d bytes after everything was evicted", p.Len(), p.Bytes())
	}
}

func TestKeptContentIsNeverAVictim(t *testing.T) {
	w := newWatch()
	p := w.policy(100 * mib)
	pinned := func(d v1.Hash) bool { return d.Hex[63]%2 == 0 }
	for i := range 100 {
		p.Add(digest(i), 2*mib, Blob)
	}
	for _, v := range p.Victims(1<<40, pinned) {
		if pinned(v.Digest) {
			t.Errorf("Victims names %s, which is kept", v.Digest)
		}
	}
	for it := range p.All() {
		if !pinned(it.Digest) {
			t.Errorf("%s is left, and nothing keeps it", it.Digest)
		}
	}
	if s := p.Shares(); s.Kept.Len == 0 || s.Kept.Bytes != p.Bytes() {
		t.Errorf("Shares().Kept = %+v, want all %d bytes", s.Kept, p.Bytes())
	}
	// What was kept once and is not any more goes as soon as it is needed.
	if freed := sizeOf(p.Victims(1<<40, nil)); freed == 0 || p.Len() != 0 {
		t.Errorf("%d bytes freed and %d entries left after nothing was kept any more", freed, p.Len())
	}
}

// A mirror with many pins must not ask about all of them for every fill.
func TestPinsAreAskedAboutOnceInAWhile(t *testing.T) {
	w := newWatch()
	p := w.policy(10_000 * mib)
	const pins = 2000
	for i := range pins {
		p.Add(digest(i), 2*mib, Blob)
	}
	asked := 0
	pinned := map[v1.Hash]bool{}
	for i := range pins {
		pinned[digest(i)] = true
	}
	keep := func(d v1.Hash) bool { asked++; return pinned[d] }
	for i := range 500 {
		p.Add(digest(pins+i), 3*mib, Blob)
		if all := p.Victims(3*mib, keep); len(all) != 1 {
			t.Fatalf("Victims = %v, want the one that is not pinned", all)
		}
	}
	if most := pins + 500 + batch; asked > most {
		t.Errorf("keep was called %d times, want at most %d", asked, most)
	}
	asked = 0
	w.pass(recallEvery)
	p.Add(digest(pins+1000), 3*mib, Blob)
	p.Victims(3*mib, keep)
	if asked < 1 || asked > pins+1 {
		t.Errorf("keep was called %d times after a while, want 1 to %d", asked, pins+1)
	}
}

func TestWhatIsUsedRemovedOrAddedWhileJudgedIsNoVictim(t *testing.T) {
	for name, during := range map[string]func(*Policy, *watch, v1.Hash){
		"used":    func(p *Policy, w *watch, d v1.Hash) { w.pass(usesApart); p.Touch(d) },
		"removed": func(p *Policy, _ *watch, d v1.Hash) { p.Remove(d) },
		"added":   func(p *Policy, _ *watch, d v1.Hash) { p.Add(d, 2*mib, Blob) },
		"resized": func(p *Policy, _ *watch, d v1.Hash) { p.Add(d, 3*mib, Blob) },
		"replaced": func(p *Policy, _ *watch, d v1.Hash) {
			p.Remove(d)
			p.Add(digest(99), 2*mib, Blob) // takes the slot
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWatch()
			p := w.policy(100 * mib)
			p.Add(digest(0), 2*mib, Blob)
			p.Add(digest(1), 2*mib, Blob)
			asked := false
			all := p.Victims(1, func(d v1.Hash) bool {
				if !asked {
					asked = true
					during(p, w, d)
				}
				return false
			})
			if got := digestsOf(all); !slices.Equal(got, []v1.Hash{digest(1)}) {
				t.Errorf("Victims = %v, want only the other", got)
			}
			if err := p.sound(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnIndexGoesBeforeWhatItLists(t *testing.T) {
	w := newWatch()
	p := w.policy(1 * mib) // manifests have 20 KiB of it
	index, children := digest(0), []v1.Hash{digest(1), digest(2)}
	p.Add(index, 1000, Manifest)
	for _, c := range children {
		p.Add(c, 1000, Manifest)
	}
	w.pass(60)
	for range 5 { // clients that have the image send HEADs for its tag
		w.pass(usesApart)
		p.Touch(index)
		p.TouchRefs(children...)
	}
	for i := range 200 {
		w.pass(1)
		p.Add(digest(100+i), 1000, Manifest)
		p.Victims(1000*int64(i%2), nil)
		_, whole := p.State(index)
		for _, c := range children {
			if _, ok := p.State(c); whole && !ok {
				t.Fatalf("after %d others the index is there and %s is not", i, c)
			}
		}
	}
}

func TestSmallContentOutlivesLayers(t *testing.T) {
	w := newWatch()
	p := w.policy(1000 * mib)
	p.Add(digest(0), 3000, Manifest)
	p.Add(digest(1), 9000, Blob)
	for i := range 1000 {
		p.Add(digest(100+i), 10*mib, Blob)
		p.Victims(p.Bytes()-1000*mib, nil)
	}
	for i := range 2 {
		if _, ok := p.State(digest(i)); !ok {
			t.Errorf("%d is gone, want it kept: it costs a request and frees nothing", i)
		}
	}
	for i := range 1000 { // manifests do not take what the layers need
		p.Add(digest(5000+i), mib/2, Manifest)
		p.Victims(p.Bytes()-1000*mib, nil)
	}
	if s := p.Shares(); s.Manifests.Bytes > (20+10)*mib {
		t.Errorf("manifests have %d bytes, want their 20 MiB and the room of one layer", s.Manifests.Bytes)
	}
}

func TestAScanDoesNotDriveOutWhatIsUsed(t *testing.T) {
	w := newWatch()
	p := w.policy(1000 * mib)
	for i := range 50 {
		p.Add(digest(i), 10*mib, Blob)
	}
	w.pass(30)
	for i := range 50 {
		p.Touch(digest(i))
	}
	for i := range 2000 {
		p.Add(digest(1000+i), 10*mib, Blob)
		p.Victims(p.Bytes()-1000*mib, nil)
	}
	for i := range 50 {
		if _, ok := p.State(digest(i)); !ok {
			t.Errorf("%d is gone after a scan", i)
		}
	}
}

func TestWhatWasDroppedTooEarlyComesBackForGood(t *testing.T) {
	w := newWatch()
	p := w.policy(100 * mib)
	p.Add(digest(0), 10*mib, Blob)
	if got := digestsOf(p.Victims(1, nil)); !slices.Equal(got, []v1.Hash{digest(0)}) {
		t.Fatalf("Victims = %v", got)
	}
	if _, ok := p.State(digest(0)); ok || p.Len() != 0 || p.Shares().Ghosts.Len != 1 {
		t.Fatalf("a victim is still known: %d entries, %+v", p.Len(), p.Shares())
	}
	p.Touch(digest(0)) // must not bring it back
	p.Add(digest(0), 10*mib, Blob)
	if s := p.Shares(); s.Proven.Len != 1 || s.Ghosts.Len != 0 {
		t.Errorf("Shares() = %+v, want it proven", s)
	}
}

// Layers that clients have look idle; those of an image that is in use are not.
func TestReferencesSaveOnceAndDoNotAddUp(t *testing.T) {
	w := newWatch()
	p := w.policy(100 * mib)
	for i := range 10 {
		p.Add(digest(i), 10*mib, Blob)
	}
	use := func() {
		for range 20 {
			w.pass(60)
			p.TouchRefs(digest(0))
			p.Touch(digest(1))
		}
	}
	use()
	for _, v := range p.Victims(70*mib, nil) {
		if v.Digest == digest(0) || v.Digest == digest(1) {
			t.Errorf("%s is dropped before what nobody uses", v.Digest)
		}
	}
	use()
	if it, _ := p.State(digest(0)); it.Used.Before(w.at.Add(-24 * time.Hour)) {
		t.Errorf("used %s, want within a day", it.Used)
	}
	got, want := digestsOf(p.Victims(20*mib, nil)), []v1.Hash{digest(0), digest(1)}
	if !slices.Equal(got, want) {
		t.Errorf("Victims = %v, want %v: what is in use before what is asked for", got, want)
	}
}

func TestPiecesOfOnePullAreOneUse(t *testing.T) {
	w := newWatch()
	p := w.policy(100 * mib)
	p.Add(digest(0), 10*mib, Blob)
	for range 100 {
		p.Touch(digest(0), digest(0))
	}
	if got := digestsOf(p.Victims(1, nil)); !slices.Equal(got, []v1.Hash{digest(0)}) {
		t.Errorf("Victims = %v, want what was only fetched in pieces", got)
	}
}

func TestAgeIsThatOfTheLastVictim(t *testing.T) {
	w := newWatch()
	p := w.policy(100 * mib)
	if got := p.Age(); got != 0 {
		t.Errorf("Age() = %s before anything was evicted", got)
	}
	p.Add(digest(0), 10*mib, Blob)
	w.pass(90)
	all := p.Victims(1, nil)
	if got := p.Age(); got != 90*time.Minute || !all[0].Used.Equal(w.at.Add(-got)) {
		t.Errorf("Age() = %s, Used = %s, want 90 minutes", got, all[0].Used)
	}
	w.pass(-300) // clocks are set back
	p.Add(digest(1), 10*mib, Blob)
	w.pass(-300)
	p.Victims(1, nil)
	if got := p.Age(); got != 0 {
		t.Errorf("Age() = %s for what was used in the future, want 0", got)
	}
}

func TestUnusedKeepsWhatIsKeptOrUsed(t *testing.T) {
	w := newWatch()
	p := w.policy(0)
	for i := range 10_000 {
		p.Add(digest(i), int64(i), Kind(i%2))
	}
	w.pass(100)
	for i := range 5000 {
		p.Touch(digest(i))
	}
	w.pass(100)
	old, ok := p.Oldest()
	if want := w.at.Add(-200 * time.Minute); !ok || !old.Equal(want) {
		t.Errorf("Oldest() = %s, %t, want %s", old, ok, want)
	}
	all := p.Unused(w.at.Add(-150*time.Minute), func(d v1.Hash) bool { return d == digest(7000) })
	if len(all) != 4999 || p.Len() != 5001 {
		t.Errorf("Unused: %d victims, %d left, want 4999 and 5001", len(all), p.Len())
	}
	if _, ok := p.State(digest(7000)); !ok {
		t.Error("what keep kept is gone")
	}
	if err := p.sound(); err != nil {
		t.Error(err)
	}
	p = w.policy(0)
	if at, ok := p.Oldest(); ok {
		t.Errorf("Oldest() of nothing = %s", at)
	}
}

// Without a limit the shares are parts of what is there: layers go first all the same.
func TestNoCapacityMeansSharesOfWhatIsThere(t *testing.T) {
	w := newWatch()
	p := w.policy(0)
	p.Add(digest(0), 1000, Manifest)
	p.Add(digest(1), 1000, Blob)
	p.Add(digest(2), 10*mib, Blob)
	p.Add(digest(3), 10*mib, Blob)
	if got := digestsOf(p.Victims(11*mib, nil)); !slices.Equal(got, []v1.Hash{digest(2), digest(3)}) {
		t.Errorf("Victims = %v, want the layers", got)
	}
}

func TestOddDigestsAreToldApart(t *testing.T) {
	w := newWatch()
	p := w.policy(0)
	first, rest := strings.Repeat("ab", 16), strings.Repeat("cd", 16)
	all := []v1.Hash{
		{Algorithm: "sha256", Hex: first + rest},
		{Algorithm: "sha256", Hex: first + first},
		{Algorithm: "sha256", Hex: first + strings.Repeat("0", 32)},
		{Algorithm: "sha512", Hex: strings.Repeat(first+rest, 2)},
		{Algorithm: "sha512", Hex: strings.Repeat("0", 128)},
		{Algorithm: "sha256", Hex: strings.Repeat("0", 64)},
		{Algorithm: "sha256", Hex: strings.Repeat("X", 64)},
		{Algorithm: "sha256", Hex: "short"},
		{},
	}
	for i, d := range all {
		p.Add(d, int64(i+1)*mib, Blob)
	}
	for i, d := range all {
		if it, ok := p.State(d); !ok || it.Digest != d || it.Size != int64(i+1)*mib {
			t.Errorf("State(%s) = %+v, %t", d, it, ok)
		}
	}
	if err := p.sound(); err != nil {
		t.Error(err)
	}
	for i, d := range all {
		p.Remove(d)
		if _, ok := p.State(d); ok || p.Len() != len(all)-i-1 {
			t.Errorf("after Remove(%s): known %t, %d entries", d, ok, p.Len())
		}
	}
	if err := p.sound(); err != nil {
		t.Error(err)
	}
}

func TestManyAtOnceLeaveSoundCounts(t *testing.T) {
	p := New(Options{Capacity: 500 * mib})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 2))
			for range 3000 {
				d := digest(rng.IntN(400))
				switch rng.IntN(8) {
				case 0, 1:
					p.Add(d, int64(rng.IntN(4*mib)), Kind(rng.IntN(2)))
				case 2:
					p.Victims(p.Bytes()-500*mib, func(d v1.Hash) bool { return d.Hex[3] == '7' })
				case 3:
					p.Remove(d)
				case 4:
					p.Victims(int64(rng.IntN(8*mib)), nothing)
				case 5:
					p.State(d)
					p.Shares()
				case 6:
					p.TouchRefs(d, digest(rng.IntN(400)))
				default:
					p.Touch(d, digest(rng.IntN(400)))
				}
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			p.Unused(time.Now().Add(-time.Hour), nil)
			p.Oldest()
			for range p.All() {
			}
		}
	})
	wg.Wait()
	if err := p.sound(); err != nil {
		t.Error(err)
	}
	p.Victims(p.Bytes()-500*mib, nil)
	if got := p.Bytes(); got > 500*mib {
		t.Errorf("Bytes() = %d after eviction, want at most the capacity", got)
	}
}

func TestAClockThatWasWrongIsForgiven(t *testing.T) {
	w := newWatch()
	p := w.policy(100 * mib)
	w.pass(1_000_000)
	p.Add(digest(0), 10*mib, Blob)
	w.pass(-1_000_000)
	p.Add(digest(1), 10*mib, Blob)
	p.Add(digest(2), 10*mib, Blob)
	w.pass(20)
	p.Touch(digest(0))
	if it, _ := p.State(digest(0)); !it.Used.Equal(w.at) {
		t.Errorf("used %s, want now, %s", it.Used, w.at)
	}
	if got := digestsOf(p.Victims(1, nil)); !slices.Equal(got, []v1.Hash{digest(1)}) {
		t.Errorf("Victims = %v, want what was not used", got)
	}
}

// What comes back is counted wherever it had been, and comes back as it did before it was counted.
func TestAgainCountsWhatComesBack(t *testing.T) {
	p := New(Options{Capacity: 100 << 20})
	big, small, manifest := digest(1), digest(2), digest(3)
	p.Add(big, 8<<20, Blob)
	p.Add(small, 4<<10, Blob)
	p.Add(manifest, 4<<10, Manifest)
	if got := p.Again(); got != (Again{}) {
		t.Errorf("before anything was dropped: %+v", got)
	}
	if n := len(p.Victims(100<<20, nil)); n != 3 {
		t.Fatalf("%d victims, want all three", n)
	}
	if n := p.Len(); n != 0 {
		t.Errorf("%d are kept after all were dropped", n)
	}
	p.Add(big, 8<<20, Blob)
	p.Add(small, 4<<10, Blob)
	p.Add(small, 4<<10, Blob) // it is there
	p.Add(manifest, 4<<10, Manifest)
	p.Add(digest(4), 1<<20, Blob) // it never was
	if got, want := p.Again(), (Again{Count: 3, Bytes: 8<<20 + 8<<10}); got != want {
		t.Errorf("Again() = %+v, want %+v", got, want)
	}
	if n, bytes := p.Len(), p.Bytes(); n != 4 || bytes != 9<<20+8<<10 {
		t.Errorf("%d things of %d bytes are kept", n, bytes)
	}
}
