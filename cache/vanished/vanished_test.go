package vanished

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forebay/cache/event"
	"forebay/cache/index"
	"forebay/internal/pull"
)

var (
	nginx = index.Repo{Upstream: "docker.io", Name: "library/nginx"}
	redis = index.Repo{Upstream: "docker.io", Name: "library/redis"}
)

var (
	notFound = &pull.Error{Kind: pull.NotFound, Upstream: "docker.io"}
	denied   = &pull.Error{Kind: pull.Denied, Upstream: "docker.io"}
)

// rig is a list with a clock and what it told.
type rig struct {
	*List
	file string
	now  time.Time
	told []string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{file: filepath.Join(t.TempDir(), "vanished.json"), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	r.open(t)
	return r
}

func (r *rig) open(t *testing.T) {
	t.Helper()
	var err error
	if r.List, err = Open(r.file, func(e event.Event) { r.told = append(r.told, fmt.Sprintf("%s %s:%s", e.Kind, e.Repository, e.Tag)) }); err != nil {
		t.Fatal(err)
	}
}

// say has a registry answer after some minutes.
func (r *rig) say(minutes int, repo index.Repo, tag string, err error, public bool) error {
	r.now = r.now.Add(time.Duration(minutes) * time.Minute)
	return r.Observe(Answer{Repo: repo, Tag: tag, Err: err, Public: public, Known: func() bool { return tag != "unknown" }}, r.now)
}

func (r *rig) want(t *testing.T, told ...string) {
	t.Helper()
	if diff := cmp.Diff(told, r.told); diff != "" {
		t.Errorf("it told (-want +got)\n%s", diff)
	}
	r.told = nil
}

func TestATagIsGoneWhenItsRegistrySaysSoForAWhile(t *testing.T) {
	r := newRig(t)
	_ = r.say(0, nginx, "1.27", notFound, true)
	_ = r.say(5, redis, "7", nil, true)
	r.want(t)
	_ = r.say(6, nginx, "1.27", notFound, true)
	r.want(t, "vanished library/nginx:1.27")
	_ = r.say(6, nginx, "1.27", notFound, true) // once
	r.Asked(nginx, "1.27", "10.0.0.7", r.now)
	r.Asked(nginx, "1.27", "10.0.0.8", r.now)
	r.Asked(nginx, "1.27", "10.0.0.7", r.now)
	r.Asked(redis, "7", "10.0.0.9", r.now)
	r.Asked(nginx, "1.27", "", r.now)
	all := r.All()
	if len(all) != 1 || all[0].Name() != "docker.io/library/nginx:1.27" || all[0].Asked != 3 || !cmp.Equal(all[0].Clients, []string{"10.0.0.7", "10.0.0.8"}) || !all[0].Served ||
		!all[0].Since.Equal(r.now.Add(-17*time.Minute)) {
		t.Errorf("list %+v", all)
	}
	if err := r.Write(); err != nil {
		t.Fatal(err)
	}
	r.open(t) // a restart
	if diff := cmp.Diff(all, r.All()); diff != "" {
		t.Errorf("after a restart (-want +got)\n%s", diff)
	}
	_ = r.say(60, nginx, "1.27", nil, true)
	r.want(t, "returned library/nginx:1.27")
	if back := r.Unhandled(); len(back) != 1 || !back[0].Back || len(r.All()) != 0 {
		t.Errorf("unhandled %+v of %+v, want one that is back", back, r.All())
	}
}

// A registry that misses or denies everything fails.
func TestARegistryThatMissesEverythingIsNotBelieved(t *testing.T) {
	r := newRig(t)
	for range 20 {
		_ = r.say(5, nginx, "1.27", notFound, true)
		_ = r.say(0, redis, "7", denied, true)
		_ = r.say(0, redis, "7", &pull.Error{Kind: pull.Unavailable}, true)
	}
	r.want(t)
	for range 24 {
		_ = r.say(60, nginx, "1.27", notFound, true)
	}
	r.want(t, "vanished library/nginx:1.27")
}

func TestWhatIsNotSaidOfAnImageIsNotBelieved(t *testing.T) {
	r := newRig(t)
	for _, err := range []error{
		&pull.Error{Kind: pull.NotFound, Detail: pull.HeadOnly}, &pull.Error{Kind: pull.NotFound, Detail: pull.OfLogin},
		&pull.Error{Kind: pull.Unavailable}, &pull.Error{Kind: pull.Limited}, &pull.Error{Kind: pull.Timeout}, errors.New("x"),
	} {
		for range 5 {
			_ = r.say(20, nginx, "1.27", err, true)
			_ = r.say(0, redis, "7", nil, true)
		}
	}
	for range 5 {
		_ = r.say(20, nginx, "unknown", notFound, true)
		_ = r.say(0, nginx, "", notFound, true) // a digest
		_ = r.say(0, redis, "7", nil, true)
	}
	r.want(t)
	// One that comes and goes is there.
	for range 5 {
		_ = r.say(6, nginx, "1.27", notFound, true)
		_ = r.say(6, nginx, "1.27", nil, true)
	}
	r.want(t)
}

// What everybody could read and is denied for long enough is gone, and served: it is not found. By
// credentials it may be that they are no good any more.
func TestADeniedRepository(t *testing.T) {
	for _, public := range []bool{true, false} {
		r := newRig(t)
		if err := r.say(0, nginx, "1.27", denied, public); pull.KindOf(err) != pull.Denied {
			t.Errorf("at first: %v", err)
		}
		_ = r.say(5, redis, "7", nil, public)
		err := r.say(6, nginx, "1.26", denied, public)
		r.want(t, "vanished library/nginx:")
		if got, want := pull.KindOf(err), pull.NotFound; public && got != want || !public && got != pull.Denied {
			t.Errorf("public %t: %v", public, err)
		}
		if err := r.say(1, nginx, "", denied, public); public == (pull.KindOf(err) == pull.Denied) {
			t.Errorf("of a digest, public %t: %v", public, err)
		}
		if all := r.All(); len(all) != 1 || all[0].Served != public || all[0].Probe != "1.27" {
			t.Errorf("public %t: list %+v", public, all)
		}
		_ = r.say(1, nginx, "", nil, public)
		r.want(t, "returned library/nginx:")
	}
}

func TestWhatIsAskedForAgain(t *testing.T) {
	r := newRig(t)
	_ = r.say(0, nginx, "1.27", notFound, true)
	if due := r.Due(r.now.Add(askEvery - time.Second)); len(due) != 0 {
		t.Errorf("due too early: %+v", due)
	}
	if due := r.Due(r.now.Add(askEvery)); len(due) != 1 || due[0].Tag != "1.27" {
		t.Errorf("due %+v, want one", due)
	}
	for i := range 3 * suspectsMost {
		_ = r.say(0, nginx, fmt.Sprintf("t%d", i), notFound, true)
	}
	if n := len(r.list); n != suspectsMost {
		t.Errorf("%d are suspected, want %d", n, suspectsMost)
	}
	if due := r.Due(r.now.Add(time.Hour)); len(due) != askMost {
		t.Errorf("%d are due, want %d", len(due), askMost)
	}
}

func TestPinsAreNotedAndUndone(t *testing.T) {
	r := newRig(t)
	_ = r.say(0, nginx, "1.27", notFound, true)
	_ = r.say(5, redis, "7", nil, true)
	_ = r.say(6, nginx, "1.27", notFound, true)
	one := r.Unhandled()
	if len(one) != 1 || one[0].Back {
		t.Fatalf("unhandled %+v, want one", one)
	}
	one[0].Pinned, one[0].Bytes = []string{"1.27"}, 7
	r.Pin(&one[0])
	if left := r.Unhandled(); len(left) != 0 {
		t.Errorf("unhandled %+v, want none", left)
	}
	v, ok := r.Find("docker.io/library/nginx:1.27")
	if !ok || v.Bytes != 7 {
		t.Errorf("Find = %+v, %t", v, ok)
	}
	r.Drop(&v)
	if _, ok := r.Find("docker.io/library/nginx:1.27"); ok || r.any.Load() != 0 {
		t.Error("it is still there")
	}
}
