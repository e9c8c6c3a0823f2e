package refs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/goleak"

	"forebay/cache/index"
	"forebay/cache/index/journal"
	"forebay/cache/tier"
	"forebay/internal/pull"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// files is a bucket's files in memory, with conditions as S3 has them. It fails every call from one on.
type files struct {
	mu    sync.Mutex
	named map[string][]byte // guarded by mu
	calls int               // guarded by mu
	cut   int               // guarded by mu; 0 cuts nothing
	half  bool              // guarded by mu; the first call that is cut is made, and its answer lost
	asked int64             // guarded by mu; bytes that were read
}

func newFiles() *files { return &files{named: map[string][]byte{}} }

var errCut = errors.New("cut by the test")

// pass counts a call, and reports whether it is made and whether it is answered.
func (f *files) pass() (made bool, err error) {
	f.calls++
	if f.cut == 0 || f.calls < f.cut {
		return true, nil
	}
	return f.half && f.calls == f.cut, errCut
}

func (f *files) cutAt(call int, half bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls, f.cut, f.half = 0, call, half
}

func version(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (f *files) PutFile(_ context.Context, name string, content io.ReaderAt, size int64, c tier.Condition) error {
	b := make([]byte, size)
	if _, err := content.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	made, err := f.pass()
	if !made {
		return err
	}
	old, there := f.named[name]
	if c.Absent && there || c.Version != "" && version(old) != c.Version {
		return tier.ErrCondition
	}
	f.named[name] = b
	return err
}

func (f *files) OpenFile(_ context.Context, name string, off, end int64) (*pull.Body, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.pass(); err != nil {
		return nil, "", err
	}
	b, ok := f.named[name]
	if !ok {
		return nil, "", &pull.Error{Kind: pull.NotFound, Upstream: "bucket"}
	}
	if end < 0 {
		end = int64(len(b))
	}
	f.asked += end - off
	return &pull.Body{ReadCloser: io.NopCloser(bytes.NewReader(b[off:end])), Offset: off, End: end, Size: int64(len(b))}, version(b), nil
}

func (f *files) ListFiles(_ context.Context, folder string, fn func(tier.File) error) error {
	f.mu.Lock()
	_, err := f.pass()
	var all []tier.File
	for _, name := range slices.Sorted(maps.Keys(f.named)) {
		if strings.HasPrefix(name, folder+"/") {
			all = append(all, tier.File{Name: name, Size: int64(len(f.named[name]))})
		}
	}
	f.mu.Unlock()
	for _, one := range all {
		if err == nil {
			err = fn(one)
		}
	}
	return err
}

func (f *files) RemoveFiles(_ context.Context, names []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	made, err := f.pass()
	for i, name := range names {
		if made && (err == nil || i%2 == 0) { // half of them
			delete(f.named, name)
		}
	}
	return err
}

func digest(s string) v1.Hash {
	sum := sha256.Sum256([]byte(s))
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// replica is a mirror's index with its record.
type replica struct {
	*Refs
	ix *index.Index
}

func open(t testing.TB, f tier.Files, dir string) *replica {
	t.Helper()
	ix, err := index.Open(index.Options{Dir: filepath.Join(dir, "index"), Journal: filepath.Join(dir, "refs.journal")})
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(Options{Files: f, Index: ix, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ix.Close() })
	return &replica{r, ix}
}

// fresh returns what a mirror with an empty folder learns.
func fresh(t testing.TB, f *files) map[string]string {
	t.Helper()
	f.cutAt(0, false)
	r := open(t, f, t.TempDir())
	if err := r.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r.facts(t)
}

// facts are all links, tags with their histories, and pins.
func (r *replica) facts(t testing.TB) map[string]string {
	t.Helper()
	all := map[string]string{}
	for n := range repos {
		repo := repoNamed(n)
		for _, k := range []index.Kind{index.Manifest, index.Blob} {
			if err := r.ix.Links(repo, k, func(d v1.Hash, l index.Link) error {
				all[fmt.Sprint("link ", repo, k, d)] = fmt.Sprint(l.MediaType, l.Size)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range names {
			tag, ok, err := r.ix.Tag(repo, fmt.Sprint("t", i))
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				text := tag.Desc.Digest.String() + string(tag.Desc.MediaType)
				for _, b := range tag.History {
					text += " " + b.Digest.String() + b.FirstSeen.String()
				}
				all[fmt.Sprint("tag ", repo, i)] = text
			}
		}
	}
	if err := r.ix.Decisions("", func(d index.Decision) error {
		all["decision "+d.Name] = d.Text
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := r.ix.Pins(func(p index.Pin) error {
		all[fmt.Sprint("pin ", p.Repo, p.Ref)] = strings.Join(p.Platforms, ",")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

const repos, names = 3, 5

func repoNamed(n int) index.Repo {
	return index.Repo{Upstream: "docker.io", Name: fmt.Sprint("library/app", n)}
}

// random makes a random change, at a time of its own.
func (r *replica) random(t testing.TB, rnd *rand.Rand, now *time.Time) {
	t.Helper()
	for last := *now; !now.After(last.Add(2 * time.Millisecond)); { // each change has a millisecond of its own
		*now = time.Now()
	}
	repo, i := repoNamed(rnd.IntN(repos)), rnd.IntN(names)
	d := digest(fmt.Sprint(rnd.IntN(8)))
	err := r.ix.Update(func(b *index.Batch) error {
		switch rnd.IntN(10) {
		case 8:
			return b.Decide(index.Decision{Name: fmt.Sprint("freeze/", i), Text: d.String(), At: *now})
		case 9:
			return b.Undecide(fmt.Sprint("freeze/", i))
		case 0:
			return b.DeleteLink(repo, index.Blob, d)
		case 1:
			return b.DeleteTag(repo, fmt.Sprint("t", i))
		case 2:
			return b.DeletePin(repo, fmt.Sprint("t", i))
		case 3:
			return b.PutPin(index.Pin{Repo: repo, Ref: fmt.Sprint("t", i), Platforms: []string{"linux/amd64"}, At: *now})
		case 4, 5:
			return b.PutTag(repo, fmt.Sprint("t", i), index.Tag{Desc: v1.Descriptor{Digest: d, Size: 5, MediaType: "a/b"}, CheckedAt: *now})
		default:
			return b.PutLink(repo, index.Blob, d, index.Link{Size: 7, At: *now})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Whatever call is the last that the bucket takes or answers, before, while or after segments are
// merged, the bucket tells what the mirror knew when all of it was put, once it is put again.
func TestCutAtEveryCall(t *testing.T) {
	for _, half := range []bool{false, true} {
		for call := 1; call < 60; call += 3 {
			f, rnd := newFiles(), rand.New(rand.NewPCG(uint64(call), 1))
			now := time.Now()
			dir := t.TempDir()
			r := open(t, f, dir)
			if err := r.Restore(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.cutAt(call, half)
			for n := range 40 {
				r.random(t, rnd, &now)
				err := r.push(t.Context())
				if n%10 == 9 {
					err = errors.Join(err, r.merge(t.Context()))
				}
				_ = err // it is cut
			}
			// Killed here, and started again.
			if err := r.ix.Close(); err != nil {
				t.Fatal(err)
			}
			r = open(t, f, dir)
			f.cutAt(0, false)
			delete(f.named, leaseFile) // its time is over
			if err := errors.Join(r.push(t.Context()), r.merge(t.Context())); err != nil {
				t.Fatal(err)
			}
			want := r.facts(t)
			if diff := cmp.Diff(want, fresh(t, f)); diff != "" {
				t.Fatalf("cut at call %d, half %t: (-want +got)\n%s", call, half, diff)
			}
		}
	}
}

// Two mirrors that put and merge at once lose nothing of each other.
func TestTwoWriters(t *testing.T) {
	f := newFiles()
	var all sync.WaitGroup
	var both []*replica
	for n := range 2 {
		r := open(t, f, t.TempDir())
		both = append(both, r)
		all.Go(func() {
			for i := range 60 {
				err := r.ix.Update(func(b *index.Batch) error {
					return b.PutLink(repoNamed(n), index.Blob, digest(fmt.Sprint(n, i)), index.Link{Size: 1, At: time.Now()})
				})
				if err = errors.Join(err, r.push(t.Context())); err == nil && i%8 == 7 {
					err = r.merge(t.Context())
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	want := both[0].facts(t)
	maps.Copy(want, both[1].facts(t))
	if diff := cmp.Diff(want, fresh(t, f)); diff != "" || len(want) != 120 {
		t.Errorf("%d facts: (-want +got)\n%s", len(want), diff)
	}
	if n := len(f.named); n > 40 {
		t.Errorf("%d segments are left, want them merged", n)
	}
}

// A lease that its owner left behind is taken over when its time is over, and not before.
func TestLeaseIsTakenOver(t *testing.T) {
	f := newFiles()
	r := open(t, f, t.TempDir())
	for _, tc := range []struct {
		until time.Time
		want  bool
	}{{time.Now().Add(time.Minute), false}, {time.Now().Add(-time.Second), true}} {
		f.named[leaseFile] = fmt.Appendf(nil, `{"until":%q}`, tc.until.Format(time.RFC3339Nano))
		if got, err := r.lease(t.Context()); err != nil || got != tc.want {
			t.Errorf("lease until %s: ours is %t, %v; want %t", tc.until, got, err, tc.want)
		}
	}
}

// What this program does not know passes through, once.
func TestUnknownKindsPassThrough(t *testing.T) {
	f := newFiles()
	r := open(t, f, t.TempDir())
	strange := []journal.Line{
		{Noun: "freeze", Fields: []string{"docker.io", "library/app", "latest", "17"}},
		{Noun: "freeze", Remove: true, Fields: []string{"docker.io", "library/app", "latest"}},
	}
	for i := range 40 {
		if err := r.put(t.Context(), encode(identify([]journal.Line{strange[i%2]}, r.o.Identity))); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if err := r.merge(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	all, err := r.segments(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []journal.Line
	if _, err := r.read(t.Context(), all, time.Time{}, func(group []journal.Line) error {
		for _, l := range group {
			l, _ = unidentified(l, r.o.Identity)
			got = append(got, l)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strange, got); diff != "" {
		t.Errorf("lines (-want +got)\n%s", diff)
	}
}

// A removal goes only when it is old and nothing is there any more that it takes away.
func TestReduce(t *testing.T) {
	link := func(at string) journal.Line {
		return journal.Line{Noun: "link", Fields: []string{"u@i", "r", "blob", "d", "5", at, ""}}
	}
	unlink := func(at string) journal.Line {
		return journal.Line{Noun: "link", Remove: true, Fields: []string{"u@i", "r", "blob", "d", at}}
	}
	tag := func(digest, at string) journal.Line {
		return journal.Line{Noun: "tag", Fields: []string{"u@i", "r", "t", digest, "5", at, "a/b"}}
	}
	untag := func(at string) journal.Line {
		return journal.Line{Noun: "tag", Remove: true, Fields: []string{"u@i", "r", "t", at}}
	}
	was := func(digest, first, last string) journal.Line {
		return journal.Line{Noun: "was", Fields: []string{"u@i", "r", "t", digest, first, last}}
	}
	type lines = []journal.Line
	for name, tc := range map[string]struct {
		all, want lines
		forget    int64
	}{
		"removed":                      {lines{unlink("9"), link("3")}, lines{unlink("9")}, 0},
		"as old":                       {lines{link("9"), unlink("9")}, lines{unlink("9")}, 0},
		"again":                        {lines{unlink("9"), link("10"), link("3")}, lines{link("10")}, 0},
		"kept while it is of use":      {lines{unlink("9"), link("3")}, lines{unlink("9")}, 100},
		"forgotten when it is of none": {lines{unlink("9")}, nil, 100},
		"young":                        {lines{unlink("9")}, lines{unlink("9")}, 5},
		"bindings":                     {lines{tag("b", "5"), tag("a", "1"), tag("b", "6")}, lines{tag("b", "5"), was("a", "1", "1")}, 0},
		"former bindings":              {lines{was("a", "1", "4"), tag("b", "5"), tag("a", "1"), was("a", "1", "2")}, lines{tag("b", "5"), was("a", "1", "4")}, 0},
		"bindings after a removal":     {lines{tag("b", "5"), untag("3"), tag("a", "1")}, lines{untag("3"), tag("b", "5")}, 0},
	} {
		key, _ := keyOf(tc.all[0])
		got := reduce(key, slices.Clone(tc.all), time.UnixMilli(tc.forget))
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

// Each line is copied a few times, however many segments there are.
func TestMergesCopyLittle(t *testing.T) {
	var all []tier.File
	written, copied := int64(0), int64(0)
	for i := range 2000 {
		written += 1000
		all = append(all, tier.File{Name: fmt.Sprintf("refs/%06d.journal", i), Size: 1000})
		some := chosen(all)
		size := int64(0)
		for _, f := range some {
			size += f.Size
		}
		if size > 0 {
			copied += size
			all = slices.DeleteFunc(all, func(f tier.File) bool { return slices.Contains(some, f) })
			all = append(all, tier.File{Name: fmt.Sprintf("refs/%06dm.journal", i), Size: size})
		}
	}
	if len(all) > mergeAt+8 || copied > 12*written {
		t.Errorf("%d segments are left after %d bytes were written and %d copied", len(all), written, copied)
	}
}
