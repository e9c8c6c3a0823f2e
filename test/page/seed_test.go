package page

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"path/filepath"
	"testing"
	"time"

	"forebay/cache"
	"forebay/cache/store"
	"forebay/cache/vanished"
	"forebay/internal/activity"
	"forebay/internal/statefile"
)

// hostileText is what a registry may say.
const hostileText = `<script>window.pwned=1</script><img src=x onerror="window.pwned=1">`

// seed writes eight days of history and some events into a storage folder, in the form
// in which an earlier run of the program left them. That they are shown is part of the test.
func seed(t *testing.T, dir string) {
	t.Helper()
	c, err := cache.Open(cache.Options{Store: store.Options{Dir: dir}, Upstreams: map[string]cache.UpstreamOptions{}})
	if err != nil {
		t.Fatal(err)
	}
	events, err := json.Marshal(seedEvents(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	for name, note := range map[string][]byte{
		"activity.fine":   seedSeries(10*time.Second, 720),
		"activity.coarse": seedSeries(5*time.Minute, 8*24*12),
		"activity.events": events,
	} {
		if err := c.Store().PutNote(name, note); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	gone := func(upstream, repo, tag string, more func(*vanished.Vanished)) vanished.Vanished {
		v := vanished.Vanished{Upstream: upstream, Repository: repo, Tag: tag, Served: true, Since: now.Add(-50 * time.Hour), First: now.Add(-50 * time.Hour), Checked: now, Said: "not found: MANIFEST_UNKNOWN", Handled: true}
		more(&v)
		return v
	}
	err = statefile.Write(filepath.Join(dir, "vanished.json"), []vanished.Vanished{
		gone("docker.io", "bitnami/kafka", "3.7", func(v *vanished.Vanished) {
			v.NotPinned, v.Asked, v.Last, v.Clients = "nothing of it is kept", 41, now.Add(-time.Minute), []string{"10.1.2.3", "10.1.2.4"}
		}),
		gone("quay.io", "team/gone", "", func(v *vanished.Vanished) {
			v.Denied, v.Served, v.Said, v.Pinned, v.Bytes, v.Probe = true, false, "denied", []string{"1", "2"}, 3_100_000, "1"
		}),
		gone("docker.io", "library/postgres", "9", func(v *vanished.Vanished) {
			v.Said, v.Pinned, v.Bytes, v.Asked, v.Last, v.Clients = hostileText, []string{"9"}, 12<<20, 7, now.Add(-time.Hour), []string{"10.1.2.3"}
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// seedSeries is a history of version 1: working days with two peaks, and an outage.
func seedSeries(step time.Duration, slots int) []byte {
	names := []string{"docker.io"}
	b := []byte{1}
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, name := range names {
		b = binary.AppendUvarint(b, uint64(len(name)))
		b = append(b, name...)
	}
	last := time.Now().UnixNano()/int64(step) - 1
	var rows [][]uint64
	noise := uint64(7)
	random := func() float64 { // xorshift: the same in each run
		noise ^= noise << 13
		noise ^= noise >> 7
		noise ^= noise << 17
		return float64(noise%1000) / 1000
	}
	for i := range slots {
		slot := last - int64(slots-1-i)
		at := time.Duration(slot) * step
		hours := math.Mod(at.Hours(), 24)
		morning, afternoon := hours-10, hours-15.5
		busy := 0.25 + math.Exp(-morning*morning/8) + 0.8*math.Exp(-afternoon*afternoon/6)
		busy *= step.Seconds() * (0.75 + 0.5*random())
		outage := i > slots*58/100 && i < slots*60/100
		hit, miss, stale, failed := 3.1*busy, 0.24*busy*random()*2, 0.0, 0.01*busy
		if outage {
			miss, stale, failed = 0, 0.5*busy, 0.12*busy
		}
		n := func(f float64) uint64 { return uint64(max(f, 0)) }
		bytes := hit * 2.4e6
		since := math.Mod(0.4-(time.Duration(last-slot)*step).Hours()+6000, 6) // hours since a window began
		left := 200 - 24*since
		rows = append(rows, []uint64{
			uint64(slot), n(hit), n(0.4 * busy * random()), n(miss), n(stale), 0, n(failed), n(hit * 0.4), n(hit * 0.37),
			n(bytes), n(miss * 3.1e6), n(math.Floor(random() * 1.04)), n(math.Floor(random()*1.04) * 90e6 * random()), n(45e6 + 24e6*float64(i)/float64(slots)), n(left),
		})
	}
	b = binary.AppendUvarint(b, uint64(len(rows)))
	before := uint64(0)
	for _, row := range rows {
		b = binary.AppendUvarint(b, row[0]-before)
		before = row[0]
		for _, v := range row[1:] {
			b = binary.AppendUvarint(b, v)
		}
	}
	return b
}

func seedEvents(now time.Time) []activity.Event {
	a, z := "sha256:9d1c6a5f1b0f4e8f9a7e1c0d2b3a49586776859403f2e1d0c9b8a79685746352", "sha256:12ab34cd56ef7890a1b2c3d4e5f60718293a4b5c6d7e8f9001122334455667780"[:71]
	list := []activity.Event{
		{Kind: "limited", Upstream: "docker.io", Detail: hostileText},
		{Kind: "release_moved", Upstream: "docker.io", Repository: "evil/" + hostileText, Tag: "1.0.0", Digest: a, Was: z},
		{Kind: "evicted", Count: 41, Bytes: 2310 << 20, Detail: "room for what is pulled"},
		{Kind: "upstream_failing", Upstream: "ghcr.io", Detail: "connection refused"},
		{Kind: "served_stale", Upstream: "ghcr.io", Repository: "fluxcd/source-controller", Tag: "v1.4.1", Detail: "ghcr.io: connection refused"},
		{Kind: "upstream_back", Upstream: "ghcr.io", Detail: "after 14 min"},
		{Kind: "tag_moved", Upstream: "docker.io", Repository: "library/postgres", Tag: "17", Digest: a, Was: z},
		{Kind: "tag_moved", Upstream: "docker.io", Repository: "library/nginx", Tag: "1.27", Digest: z, Was: a},
		{Kind: "pinned", Upstream: "docker.io", Repository: "library/postgres", Tag: "17", Bytes: 12 << 20},
		{Kind: "fill_done", Upstream: "docker.io", Repository: "library/golang", Digest: z, Bytes: 94 << 20, Detail: "1.2 s"},
	}
	for i := range list {
		list[i].At = now.Add(-time.Duration(len(list)-i) * 37 * time.Minute)
		list[i].ID = list[i].At.UnixMilli()
	}
	return list
}
