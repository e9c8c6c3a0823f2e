package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index/journal"
)

// model is what an index must say, as maps.
type model struct {
	blobs map[v1.Hash]int64
	links map[string]int64 // size by repository, kind and digest
	tags  map[string]string
	was   map[string]map[string]bool // what tags pointed to before
}

func newModel() *model {
	return &model{blobs: map[v1.Hash]int64{}, links: map[string]int64{}, tags: map[string]string{}, was: map[string]map[string]bool{}}
}

// moved notes what a tag pointed to before.
func (m *model) moved(name, from string) {
	if m.was[name] == nil {
		m.was[name] = map[string]bool{}
	}
	m.was[name][from] = true
}

// step gathers one random change and makes it in the model.
func (m *model) step(r *rand.Rand, b *Batch) error {
	repo, kind, tag, d := pick(r, someRepos), pick(r, someKinds), pick(r, someTags), pick(r, someDigests)
	size := int64(r.IntN(1000))
	switch r.IntN(8) {
	case 0, 1:
		m.blobs[d] = size
		return b.PutBlob(d, BlobInfo{Size: size, Added: at(1)})
	case 2:
		delete(m.blobs, d)
		return b.DeleteBlob(d)
	case 3, 4:
		m.links[linkName(repo, kind, d)] = size
		return b.PutLink(repo, kind, d, Link{Size: size, MediaType: "m/t", At: at(1)})
	case 5:
		delete(m.links, linkName(repo, kind, d))
		return b.DeleteLink(repo, kind, d)
	case 6:
		name := repo.String() + ":" + tag
		if old := m.tags[name]; old != "" && old != d.String() {
			m.moved(name, old)
		}
		m.tags[name] = d.String()
		return b.PutTag(repo, tag, Tag{Desc: v1.Descriptor{Digest: d, MediaType: "m/t", Size: size}, CheckedAt: at(int(size))})
	default:
		delete(m.tags, repo.String()+":"+tag)
		delete(m.was, repo.String()+":"+tag)
		return b.DeleteTag(repo, tag)
	}
}

// read returns what the index says as a model, having checked that it agrees with itself.
func readModel(t testing.TB, ix *Index) *model {
	t.Helper()
	m := newModel()
	var want Totals
	err := ix.Blobs(func(d v1.Hash, b BlobInfo, _ time.Time) error {
		m.blobs[d] = b.Size
		want.Blobs++
		want.Bytes += b.Size
		return nil
	})
	withManifests := []Repo{}
	holders := map[string]bool{}
	for _, r := range someRepos {
		before, manifests := want, 0
		for _, k := range someKinds {
			err = errors.Join(err, ix.Links(r, k, func(d v1.Hash, l Link) error {
				m.links[linkName(r, k, d)] = l.Size
				want.Links++
				if k == Manifest {
					manifests++
				}
				return nil
			}))
		}
		err = errors.Join(err, ix.Tags(r, func(tag string, rec Tag) error {
			m.tags[r.String()+":"+tag] = rec.Desc.Digest.String()
			for _, b := range rec.History {
				m.moved(r.String()+":"+tag, b.Digest.String())
			}
			want.Tags++
			return nil
		}))
		if manifests > 0 {
			withManifests = append(withManifests, r)
		}
		if before != want {
			want.Repositories++
		}
	}
	for _, d := range someDigests {
		err = errors.Join(err, ix.Holders(d, func(r Repo, k Kind) error {
			holders[linkName(r, k, d)] = true
			return nil
		}))
	}
	repos, repoErr := ix.Repositories("", 100)
	if err = errors.Join(err, repoErr); err != nil {
		t.Fatalf("reading the index: %v", err)
	}
	if got := ix.Totals(); got != want {
		t.Errorf("Totals = %+v, the records are %+v", got, want)
	}
	if !slices.Equal(repos, withManifests) {
		t.Errorf("Repositories = %v, with manifests are %v", repos, withManifests)
	}
	for name := range m.links {
		if !holders[name] {
			t.Errorf("Holders lack %s", name)
		}
	}
	if len(holders) != len(m.links) {
		t.Errorf("there are %d holders and %d links", len(holders), len(m.links))
	}
	return m
}

func (m *model) check(t testing.TB, when string, ix *Index) {
	t.Helper()
	if diff := cmp.Diff(m, readModel(t, ix), cmp.AllowUnexported(model{})); diff != "" {
		t.Fatalf("%s (-want +got)\n%s", when, diff)
	}
}

// walk is the store that the model describes.
func (m *model) walk(fn func(v1.Hash, int64, time.Time) error) error {
	for d, size := range m.blobs {
		if err := fn(d, size, at(1)); err != nil {
			return err
		}
	}
	return nil
}

func (m *model) Walk(fn func(v1.Hash, int64, time.Time) error) error { return m.walk(fn) }

func (m *model) Stat(d v1.Hash) (int64, error) {
	if size, ok := m.blobs[d]; ok {
		return size, nil
	}
	return 0, fs.ErrNotExist
}

// present returns the model without links whose content is gone, and tags of which nothing is left.
func (m *model) present() *model {
	p := newModel()
	p.blobs = m.blobs
	for d := range m.blobs {
		for name, size := range m.links {
			if strings.HasSuffix(name, d.String()) {
				p.links[name] = size
			}
		}
		for name, to := range m.tags {
			if to == d.String() || m.was[name][d.String()] {
				p.tags[name] = to
				if m.was[name] != nil {
					p.was[name] = m.was[name]
				}
			}
		}
	}
	return p
}

func randomSteps(t testing.TB, r *rand.Rand, ix *Index, m *model, batches int) {
	t.Helper()
	for range batches {
		update(t, ix, func(b *Batch) error {
			for range 1 + r.IntN(4) {
				if err := m.step(r, b); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func TestIndexAgreesWithModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	f := newFolder(t)
	m := newModel()
	ix := f.open(t)
	for round := range 12 {
		randomSteps(t, r, ix, m, 60)
		m.check(t, fmt.Sprintf("round %d", round), ix)
		ix.journal.Spoil()
		if err := ix.compactJournal(context.Background()); err != nil {
			t.Fatal(err)
		}
		live := ix.totals.Load().Live + journal.HeaderSize
		if info, err := os.Stat(f.journal); err != nil || info.Size() != live {
			t.Errorf("round %d: compacted journal has %d bytes, %v; %d are live", round, info.Size(), err, live)
		}
		randomSteps(t, r, ix, m, 20)
		if err := ix.Close(); err != nil {
			t.Fatal(err)
		}
		if round%3 == 0 {
			done, err := Rebuild(context.Background(), f.options(), m.walk, nil)
			if err != nil || done.Bad > 0 || done.Blobs != int64(len(m.blobs)) {
				t.Fatalf("Rebuild = %+v, %v", done, err)
			}
			m = m.present()
		}
		ix = f.open(t)
		m.check(t, fmt.Sprintf("round %d, reopened", round), ix)
		if ix.Unclean() {
			t.Errorf("round %d: Unclean after Close", round)
		}
	}
}
