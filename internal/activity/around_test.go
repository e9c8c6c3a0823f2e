package activity

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/nodes"
)

func TestWhoGoesPastTheMirror(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cluster []nodes.Node
		labels, err := ReadLabels(strings.NewReader("10.0.0.9 node-9 # never asks\n\n10.0.0.0/8 rack\n10.0.0.2 build\n"))
		if err != nil {
			t.Fatal(err)
		}
		names, err := NewNames(NamesOptions{Nodes: func() []nodes.Node { return cluster }})
		if err != nil {
			t.Fatal(err)
		}
		names.labels = func() []Label { return labels }
		elsewhere := map[string]int64{"docker.io": 3}
		store := notes{}
		o := Options{Upstreams: []string{"docker.io"}, Store: store, Names: names,
			Gauges: func() Gauges { return Gauges{Elsewhere: map[string]int64{"docker.io": elsewhere["docker.io"]}} }}
		r := New(o)
		manifest := func(client, repo, result string) { r.Observe(pullOf(client, repo, result, 1)) }
		for _, repo := range []string{"a", "b", "c"} {
			manifest("10.0.0.1", repo, "miss")  // gets layers elsewhere
			manifest("10.0.0.2", repo, "miss")  // gets one here, below
			manifest("10.0.0.3", repo, "hit")   // may have had them before
			manifest("10.0.0.4", repo, "error") // got nothing
		}
		r.Observe(&Request{Client: "10.0.0.5", UserAgent: "skopeo/1.0", Upstream: "docker.io", Repository: "a", Result: "miss", Pull: true})
		r.Observe(&Request{Client: "10.0.0.2", UserAgent: "containerd/2.0", Upstream: "docker.io", Repository: "c", Result: "hit", Blob: true})
		kinds := func() (got []string) {
			for _, a := range r.Around() {
				got = append(got, string(a.Kind)+" "+a.Client+a.Upstream+" "+a.Name)
			}
			return got
		}
		if diff := cmp.Diff([]string{"never 10.0.0.9 node-9"}, kinds()); diff != "" {
			t.Errorf("at once (-want +got):\n%s", diff)
		}
		elsewhere["docker.io"] = 8
		time.Sleep(loneAfter)
		if diff := cmp.Diff([]string{"budget docker.io ", "manifests 10.0.0.1 rack", "never 10.0.0.9 node-9"}, kinds()); diff != "" {
			t.Errorf("after ten minutes (-want +got):\n%s", diff)
		}
		if got := r.Around()[0]; got.Pulls != 5 || !got.Since.Equal(time.Now().Truncate(time.Hour)) {
			t.Errorf("spent elsewhere: %+v, want the 5 that were seen to go", got)
		}
		time.Sleep(24 * time.Hour)
		manifest("10.0.0.3", "a", "hit") // comes on a second day
		r.saveSeries()
		r = New(o) // who came is known after a restart
		time.Sleep(silentAfter + time.Hour)
		if diff := cmp.Diff([]string{"silent 10.0.0.3 rack", "never 10.0.0.9 node-9"}, kinds()); diff != "" {
			t.Errorf("two days later (-want +got):\n%s", diff)
		}
		// Nodes of the cluster: by their own address, or by one of their pods' network.
		machine := func(name string, from ...string) nodes.Node {
			n := nodes.Node{Name: name, Since: time.Now().Add(-time.Hour)}
			for _, p := range from {
				n.From = append(n.From, netip.MustParsePrefix(p))
			}
			return n
		}
		cluster = []nodes.Node{machine("a", "192.0.2.1/32", "10.42.1.0/24"), machine("b", "192.0.2.2/32", "2001:db8::2/128", "10.42.2.0/24"), machine("c", "192.0.2.3/32", "10.42.3.0/24")}
		of := func() (got []string) {
			for _, a := range r.Around() {
				if a.Kind == NeverAsked {
					got = append(got, a.Name+" "+a.What[:7])
				}
			}
			return got
		}
		if diff := cmp.Diff([]string{"all nodes none of", "node-9 has a n"}, of()); diff != "" {
			t.Errorf("a cluster of which nobody was seen (-want +got):\n%s", diff)
		}
		manifest("10.42.1.1", "a", "hit")
		manifest("2001:db8::2", "a", "hit")
		cluster = append(cluster, nodes.Node{Name: "new", Since: time.Now(), From: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/32")}})
		if diff := cmp.Diff([]string{"c is a no", "node-9 has a n"}, of()); diff != "" {
			t.Errorf("a cluster of which two nodes ask (-want +got):\n%s", diff)
		}
		if got := names.Of("10.42.1.1"); got != "a" {
			t.Errorf("a client of node a is called %q", got)
		}
	})
}

func TestLabelsSayWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.1":           "line 1: 10.0.0.1 has no name",
		"# x\nnode 10.0.0.1": `line 2: "node" is neither an address nor a network`,
	} {
		if _, err := ReadLabels(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ReadLabels(%q) = %v, want %q", text, err, want)
		}
	}
}

// Nobody waits for a name server, and it is asked once for what it does not know either.
func TestNamesAreLookedUpBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		n, err := NewNames(NamesOptions{LookUp: func(_ context.Context, address string) ([]string, error) {
			asked.Add(1)
			time.Sleep(time.Second)
			if address == "10.0.0.1" {
				return []string{"one.lan."}, nil
			}
			return nil, errors.New("no such host")
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		start := time.Now()
		for range 3 {
			if got := n.Of("10.0.0.1") + n.Of("10.0.0.2") + n.Of("no address"); got != "" {
				t.Errorf("Of = %q before anybody was asked", got)
			}
		}
		if time.Since(start) != 0 {
			t.Error("Of has waited")
		}
		time.Sleep(10 * time.Second)
		if one, two := n.Of("10.0.0.1"), n.Of("10.0.0.2"); one != "one.lan" || two != "" || asked.Load() != 2 {
			t.Errorf("names %q and %q after %d questions, want one.lan and none after 2", one, two, asked.Load())
		}
		cancel()
		<-done
	})
}

func TestDrillTellsWhatFailedForWhom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Options{Upstreams: []string{"docker.io"}})
		ask := func(result string) {
			q := pullOf("10.0.0.1", "library/nginx", result, 1)
			q.Reference, q.Fault = "1.27", "offline"
			r.Observe(q)
		}
		ask("error")
		r.Rehearse(time.Now().Add(5 * time.Minute))
		ask("hit")
		ask("error")
		ask("error")
		if d := r.Rehearsal(); !d.Runs || d.Served != 1 || d.Failed != 2 {
			t.Errorf("while it runs: %+v", d)
		}
		time.Sleep(5 * time.Minute) // it ends by itself
		ask("error")
		r.Rehearse(time.Now()) // and to end it once more changes nothing
		d := r.Rehearsal()
		want := []DrillFailure{{Client: "10.0.0.1", Upstream: "docker.io", Repository: "library/nginx", Reference: "1.27", Times: 2, Fault: "offline"}}
		if diff := cmp.Diff(want, d.Failures); diff != "" || d.Runs || d.Failed != 2 {
			t.Errorf("after its end: %+v (-want +got):\n%s", d, diff)
		}
		r.Rehearse(time.Now().Add(time.Hour))
		ask("error")
		time.Sleep(time.Minute)
		r.Rehearse(time.Now()) // an operator ends it
		ask("error")
		if d := r.Rehearsal(); d.Runs || d.Failed != 1 || d.Until.After(time.Now()) {
			t.Errorf("ended early: %+v", d)
		}
	})
}
