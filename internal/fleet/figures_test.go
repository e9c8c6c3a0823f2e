package fleet

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/redis/rueidis"

	"forebay/cache"
	"forebay/cache/store"
	"forebay/test/cachetest"
)

// info returns a number that the engine tells of itself.
func (s *server) info(f *Fleet, section, field string) (n int) {
	s.t.Helper()
	err := f.engine.call(s.t.Context(), func(ctx context.Context, c rueidis.Client) error {
		text, err := c.Do(ctx, c.B().Info().Section(section).Build()).ToString()
		if m := regexp.MustCompile(`(?m)^` + field + `(\d+)`).FindStringSubmatch(text); m != nil {
			n, err = strconv.Atoi(m[1])
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// What the engine keeps of a million tags, and of a million blobs that one mirror has, or three, fits where
// docs/replicas.md says that it does.
func TestMemoryOfTheEngine(t *testing.T) {
	const many = 20_000
	s := newServer(t)
	all := s.replicas(3)
	each := func(do func(i int, d v1.Hash)) int {
		before := s.info(all[0], "memory", "used_memory:")
		for i := range many {
			do(i, v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%064x", i)})
		}
		return (s.info(all[0], "memory", "used_memory:") - before) / many
	}
	begin := func(f *Fleet, d v1.Hash) {
		w := f.work("same", "b", blobsPath, hub, app.Name, d, keptFor)
		turn, err := f.begin(t.Context(), w.key, "")
		if err != nil {
			t.Fatal(err)
		}
		if turn.leads {
			f.tellLeases(t.Context(), []renewal{{w.key, turn.epoch, "kept", keptFor}})
		}
	}
	for _, one := range []struct {
		what string
		most int // bytes each
		do   func(i int, d v1.Hash)
	}{
		{"a tag", 400, func(i int, d v1.Hash) {
			_, _, err := all[0].Confirm(t.Context(), hub, fmt.Sprint("library/app", i), "v1", time.Time{}, time.Hour, func(context.Context) (v1.Descriptor, error) {
				return v1.Descriptor{Digest: d, Size: 1000, MediaType: "application/vnd.oci.image.index.v1+json"}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}},
		{"a blob that one mirror has", 330, func(_ int, d v1.Hash) { begin(all[0], d) }},
		{"a second mirror that has it", 120, func(_ int, d v1.Hash) { begin(all[1], d) }},
		{"a third", 120, func(_ int, d v1.Hash) { begin(all[2], d) }},
	} {
		n := each(one.do)
		t.Logf("%s: %d bytes of the engine's memory", one.what, n)
		if n > one.most {
			t.Errorf("%s takes %d bytes of the engine, want %d at most", one.what, n, one.most)
		}
	}
}

// crowd is many mirrors of one registry in this process.
func (s *server) crowd(r cache.Upstream, n int) []*replica {
	s.t.Helper()
	all := make([]*replica, n)
	var work sync.WaitGroup
	for i := range all {
		f := s.replica("one secret for all replicas", "same")
		way := f.peers.client.Transport.(*http.Transport) // on a machine that all of them share with others
		way.DialContext, way.TLSHandshakeTimeout = (&net.Dialer{Timeout: 10 * time.Second}).DialContext, 10*time.Second
		m := &replica{Fleet: f, dir: s.t.TempDir()}
		var err error
		m.cache, err = cache.Open(cache.Options{Store: store.Options{Dir: m.dir}, Fleet: f, Upstreams: map[string]cache.UpstreamOptions{hub: {Upstream: f.Share(hub, r), TagTTL: time.Minute}}})
		if err != nil {
			s.t.Fatal(err)
		}
		listener := httptest.NewUnstartedServer(f.Handler(m.cache))
		listener.TLS = f.TLS()
		listener.Config.ErrorLog = log.New(io.Discard, "", 0) // of connections that nobody needed
		listener.StartTLS()
		work.Go(func() {
			if err := f.Run(s.t.Context(), listener.Listener.Addr().String()); err != nil {
				s.t.Error(err)
			}
		})
		s.t.Cleanup(func() {
			listener.CloseClientConnections()
			listener.Close()
			work.Wait()
			if err := m.cache.Close(); err != nil {
				s.t.Error(err)
			}
		})
		all[i] = m
	}
	for _, m := range all {
		await(s.t, "the mirrors to find each other", func() bool { return len(m.Members()) == n })
	}
	return all
}

// asked returns how often the engine was asked for what, and the bytes that went there and back.
func (s *server) asked(f *Fleet) map[string]int {
	s.t.Helper()
	n := map[string]int{}
	for _, name := range []string{"evalsha", "hset", "hgetall", "hmget"} {
		n[name] = s.info(f, "commandstats", "cmdstat_"+name+":calls=")
	}
	n["bytes"] = s.info(f, "stats", "total_net_input_bytes:") + s.info(f, "stats", "total_net_output_bytes:")
	return n
}

// loaded is what only happens when something fails, or the machine is too slow for so many.
func loaded(all []*replica) (n int64) {
	for _, m := range all {
		f := m.Figures()
		n += f.Failed + f.ByItself + f.Takeovers
	}
	return n
}

// A hundred mirrors (twelve without FOREBAY_FLEET_SOAK), ten, a hundred and a thousand pulls a second (or as many as the machine can) of a tag, its
// manifest and five blobs; in six of seven the mirror has them. A pull costs the engine what docs/replicas.md
// says, and each thing is fetched once. Of one blob for all at once nobody gives more than four others a copy, and
// none is more than four steps from who fetched it.
func TestAHundredMirrors(t *testing.T) {
	const images = 20
	mirrors, each, most := 12, 2, 100
	if os.Getenv("FOREBAY_FLEET_SOAK") != "" {
		mirrors, each, most = 100, 20, 3000
	}
	s, r := newServer(t), cachetest.NewRegistry()
	all := s.crowd(r, mirrors)
	f := all[0].Fleet
	rest := s.asked(f)
	<-time.After(beatEvery)
	now := s.asked(f)
	beats, beatBytes := float64(now["hset"]-rest["hset"])/beatEvery.Seconds(), float64(now["bytes"]-rest["bytes"])/beatEvery.Seconds()
	t.Logf("%d mirrors at rest: %.0f heartbeats and %.0f kB a second", mirrors, beats, beatBytes/1000)
	var built []cachetest.Built
	for i := range images {
		built = append(built, r.Image(t, app.Name, fmt.Sprint("v", i), fmt.Sprint("a", i), fmt.Sprint("b", i), fmt.Sprint("c", i), fmt.Sprint("d", i)))
	}
	sum := func() (led, followed, tags int64) {
		for _, m := range all {
			n := m.Figures()
			led, followed, tags = led+n.Led, followed+n.Followed, tags+n.Shared+n.Asked
		}
		return led, followed, tags
	}
	chance := rand.New(rand.NewPCG(1, 1))
	had := make([][]int, mirrors)
	for _, rate := range []int{10, 100, 1000} {
		pulls := min(each*rate, most)
		before, began := s.asked(f), time.Now()
		led, followed, tags := sum()
		tick, work, tasks := time.NewTicker(time.Second/time.Duration(rate)), sync.WaitGroup{}, make(chan [2]int)
		for range 32 {
			work.Go(func() {
				for one := range tasks {
					s.image(all[one[0]], fmt.Sprint("v", one[1]), built[one[1]])
				}
			})
		}
		for range pulls {
			m := chance.IntN(mirrors)
			i := chance.IntN(images)
			if n := len(had[m]); n > 0 && chance.IntN(7) > 0 {
				i = had[m][chance.IntN(n)]
			} else {
				had[m] = append(had[m], i)
			}
			<-tick.C
			tasks <- [2]int{m, i}
		}
		close(tasks)
		work.Wait()
		tick.Stop()
		took := time.Since(began)
		<-time.After(4 * time.Second) // leases end
		after, lasted := s.asked(f), time.Since(began).Seconds()
		led2, followed2, tags2 := sum()
		led, followed, tags = led2-led, followed2-followed, tags2-tags
		calls := int64(after["evalsha"] - before["evalsha"])
		t.Logf("%d pulls, %.0f a second, that lacked %d things and %d tags, of which %d things were led: %.2f calls a pull, %.0f bytes", pulls, float64(pulls)/took.Seconds(),
			led+followed, tags, led, float64(calls)/float64(pulls), (float64(after["bytes"]-before["bytes"])-beatBytes*lasted)/float64(pulls))
		// One for each tag and thing; a tag that was asked for is told, and a lease is renewed until it ends.
		if most := tags + led + followed + images + 3*led; calls > most*12/10 && loaded(all) == 0 {
			t.Errorf("%d calls, want %d at most", calls, most)
		}
	}
	if n := int64(r.Count("Manifest")); n > images+loaded(all) {
		t.Errorf("%d manifests of %d images were fetched", n, images)
	}
	data := bytes.Repeat([]byte("tree"), 1<<20)
	source := &cachetest.Script{Data: data, Pace: 5 * time.Millisecond}
	d := r.Put(app.Name, source)
	var work sync.WaitGroup
	out, was := map[string]int64{}, loaded(all)
	for _, m := range all {
		out[m.me] = m.Figures().BytesOut
	}
	for _, m := range all {
		work.Go(func() {
			if got, err := m.blob(t.Context(), d); err != nil || !bytes.Equal(got, data) {
				t.Errorf("blob = %d bytes, %v", len(got), err)
			}
		})
	}
	work.Wait()
	key := f.work("same", "b", blobsPath, hub, app.Name, d, keptFor).key
	deepest, widest, parent := 0, int64(0), map[string]string{}
	for _, m := range all {
		if turn, ok := m.peers.last.Get(key); ok {
			parent[m.me] = turn.parent
		}
		widest = max(widest, (m.Figures().BytesOut-out[m.me])/int64(len(data)))
	}
	for id := range parent {
		depth := 0
		for at := id; parent[at] != "" && depth < mirrors; at = parent[at] {
			depth++
		}
		deepest = max(deepest, depth)
	}
	source.Lock()
	defer source.Unlock()
	t.Logf("a blob for all at once: %.2f of it from the registry; %d of %d followed, at most %d steps from who fetched it; nobody gave it to more than %d", float64(source.Sent)/float64(len(data)), len(parent), mirrors, deepest, widest)
	if loaded(all) == was && (deepest > 4 || widest > 4 || len(parent) != mirrors-1 || source.Sent > int64(len(data))*102/100) {
		t.Errorf("want one copy, %d that follow, 4 steps and 4 copies from one at most", mirrors-1)
	}
}

// image pulls an image from a mirror.
func (s *server) image(m *replica, tag string, b cachetest.Built) {
	if _, err := m.cache.Manifest(s.t.Context(), app, tag, false); err != nil {
		s.t.Errorf("manifest of %s: %v", tag, err)
		return
	}
	for _, d := range b.Blobs {
		if _, err := m.blob(s.t.Context(), d); err != nil {
			s.t.Errorf("blob of %s: %v", tag, err)
		}
	}
}
