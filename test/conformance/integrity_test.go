package conformance

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"forebay/test/hubtest"
	"forebay/test/mirrortest"
)

// corruptions are ways in which content comes wrong. Some of them leave the content right,
// but say wrong things about it.
func corruptions() map[string]hubtest.Fault {
	other := letters(999, 5000)
	return map[string]hubtest.Fault{
		"first bit": hubtest.Corrupt(0), "last bit": hubtest.Corrupt(-1), "a bit": hubtest.Corrupt(100),
		"other bytes": hubtest.WrongBytes(other), "nothing": hubtest.WrongBytes(nil), "HTML": hubtest.WrongBytes([]byte("<html>hello</html>")),
		"cut, true length":       hubtest.Truncate(50, hubtest.KeepLength),
		"cut, looks complete":    hubtest.Truncate(50, hubtest.CutLength),
		"cut, until close":       hubtest.Truncate(50, hubtest.UntilClose),
		"cut, chunked":           hubtest.Truncate(50, hubtest.ChunkedClean),
		"cut, chunked, no end":   hubtest.Truncate(50, hubtest.ChunkedCut),
		"one short, complete":    hubtest.Truncate(-1, hubtest.CutLength),
		"one short, until close": hubtest.Truncate(-1, hubtest.UntilClose),
		"empty":                  hubtest.Truncate(0, hubtest.CutLength),
		"length larger":          hubtest.WrongCL(10), "length smaller": hubtest.WrongCL(-10), "no length": hubtest.RawCL(),
		"negative": hubtest.RawCL("-5"), "two lengths": hubtest.RawCL("5", "6"), "words": hubtest.RawCL("many"), "zero": hubtest.RawCL("0"),
		"no digest": hubtest.NoDigestHeader(), "wrong digest": hubtest.DigestHeader(hubtest.Digest(other)),
		"malformed digest": hubtest.DigestHeader("sha256:xyz"), "sha512": hubtest.Sha512DigestHeader(),
		"gzip": hubtest.Gzip(1), "gzip twice": hubtest.Gzip(2), "says zstd": hubtest.Encoding("zstd"), "says gzip": hubtest.Encoding("gzip"),
		"chunked": hubtest.Chunked(), "until close": hubtest.CloseDelimited(),
		"reset": hubtest.Drop(60, hubtest.RST), "closed": hubtest.Drop(60, hubtest.FIN), "closed at once": hubtest.Drop(0, hubtest.FIN),
	}
}

// withToken is for rules: it leaves the challenge alone.
func withToken(s *hubtest.State) bool { return s.Role != hubtest.RoleRegistry || s.Bearer }

// M20 of docs/clients.md: whatever comes wrong, no wrong byte is ever complete or kept, and
// one wrong answer does not keep the next request from the right one.
func TestM20_NothingWrongIsServedOrKept(t *testing.T) {
	t.Parallel()
	for name, fault := range corruptions() {
		for _, often := range []int{1, 0} {
			title, rounds := "once", 3
			if often == 0 {
				title, rounds = "always", 1 // a mirror that keeps trying takes its time
			}
			t.Run(name+", "+title, func(t *testing.T) {
				hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
				img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
				child := img.Children[1]
				small, large := letters(1, 5000), letters(2, 2<<20+3)
				smallDigest, largeDigest := hub.PutBlob("library/app", small), hub.PutBlob("library/app", large)
				wanted := []resource{
					{"manifests/latest", false, img.MediaType, img.Digest, img.Raw},
					{"manifests/" + child.Digest, false, child.MediaType, child.Digest, child.Raw},
					{"blobs/" + smallDigest, true, "", smallDigest, small},
					{"blobs/" + largeDigest, true, "", largeDigest, large},
				}
				rules := []*hubtest.ActiveRule{
					hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Method: http.MethodGet, Route: hubtest.RouteManifest, Ref: "latest|" + img.Digest, When: withToken, Count: often, Do: fault}),
					hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Method: http.MethodGet, Route: hubtest.RouteManifest, Ref: child.Digest, When: withToken, Count: often, Do: fault}),
					hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Ref: smallDigest, Count: often, Do: fault}),
					hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Ref: largeDigest, Count: often, Do: fault}),
				}
				for range rounds {
					for _, r := range wanted {
						assertRightOrVisiblyNot(t, c, m.URL, "/v2/library/app/"+r.path, r)
					}
				}
				for i, r := range rules {
					if r.Fired() == 0 {
						t.Errorf("the fault never struck %s", wanted[i].path)
					}
					r.Remove()
				}
				if often == 0 {
					m.Restart() // what came wrong twice in a row is left alone for a while
				}
				for _, r := range wanted {
					r.assert(t, c.get(m.URL, "/v2/library/app/"+r.path))
				}
				hub.SwitchOff()
				m.Restart()
				for _, r := range wanted {
					r.assert(t, c.get(m.URL, "/v2/library/app/"+r.path))
				}
			})
		}
	}
}

// assertRightOrVisiblyNot asks for r and checks that a body that looks complete is the
// right one.
func assertRightOrVisiblyNot(t testing.TB, c *client, base, path string, r resource) {
	t.Helper()
	a, err := c.loose(t.Context(), base, path)
	if err != nil {
		t.Errorf("GET %s: %s", path, err)
		return
	}
	a.assertNeverWrong(t, r.raw)
	if got := a.Header.Get("Docker-Content-Digest"); a.Status == http.StatusOK && got != r.digest && got != hubtest.DigestBy("sha512", r.raw) {
		t.Errorf("%s: digest %q, want %s", path, got, r.digest)
	}
}

// M21: a transfer that drops is taken up at the byte where it dropped, also when the
// upstream treats ranges in one of the known wrong ways, its signed URLs have expired, or
// another CDN is chosen.
func TestM21_Resume(t *testing.T) {
	t.Parallel()
	const size, dropped = 3 << 20, 1 << 20
	for name, tt := range map[string]struct {
		options hubtest.Options
		fault   hubtest.Fault // of the resume
		anew    bool          // the whole may come again
	}{
		"plain":         {fault: hubtest.Pass()},
		"CDN rotates":   {options: hubtest.Options{CDN: hubtest.CDNRotate}, fault: hubtest.Pass()},
		"expired":       {options: hubtest.Options{SignedTTL: time.Hour}, fault: hubtest.Pass()},
		"ignored":       {fault: hubtest.IgnoreRange(), anew: true},
		"wrong range":   {fault: hubtest.WrongRange(10), anew: true},
		"shifted range": {fault: hubtest.ShiftedRange(10), anew: true},
		"short range":   {fault: hubtest.ShortRange(100_000)},
		"416":           {fault: hubtest.Range416(), anew: true},
		"dropped again": {fault: hubtest.Drop(300_000, hubtest.RST)},
		"a 500":         {fault: hubtest.Status(500)},
		"a 403":         {fault: hubtest.StatusWith(403, "application/xml", "<Error><Code>AccessDenied</Code></Error>", nil)},
	} {
		t.Run(name, func(t *testing.T) {
			hub, m, c := setup(t, tt.options, mirrortest.Options{})
			raw := letters(21, size)
			digest := hub.PutBlob("library/app", raw)
			drop := hubtest.Drop(dropped, hubtest.FIN)
			if name == "expired" {
				drop = hubtest.Both(drop, hubtest.Call(func() { hub.Advance(2 * time.Hour) }))
			}
			hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Count: 1, Do: drop})
			hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Count: 1, Do: tt.fault})
			c.get(m.URL, "/v2/library/app/blobs/"+digest).assertBlob(t, digest, raw)
			hub.AssertAllFired(t)
			if hub.Counters().RangeRequests[digest] == 0 {
				t.Errorf("no request had a range: the transfer was begun anew")
			}
			if n := hub.BlobBytes(digest); n > size+300_000 && !tt.anew {
				t.Errorf("hub sent %d bytes of a blob of %d", n, size)
			}
		})
	}
}

// M21: an upstream that never gets beyond a point is given up, and not asked for ever.
func TestM21_NoProgressIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]hubtest.Fault{
		"with ranges": hubtest.Drop(0, hubtest.FIN), "without ranges": hubtest.Both(hubtest.IgnoreRange(), hubtest.Drop(1<<20, hubtest.FIN)),
		"length too large": hubtest.WrongCL(1000), "length too large without ranges": hubtest.Both(hubtest.IgnoreRange(), hubtest.WrongCL(1000)),
	} {
		t.Run(name, func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
			raw := letters(21, 3<<20)
			digest := hub.PutBlob("library/app", raw)
			broken := hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: fault})
			a := c.get(m.URL, "/v2/library/app/blobs/"+digest)
			a.assertNeverWrong(t, raw)
			eventually(t, "the fill to be given up", func() bool { return len(m.Entries("fill failed")) > 0 })
			if n := hub.BlobGets(digest); n > 60 {
				t.Errorf("hub began %d bodies of the blob", n)
			}
			broken.Remove()
			c.recovers(m.URL, "/v2/library/app/blobs/"+digest)
			c.get(m.URL, "/v2/library/app/blobs/"+digest).assertBlob(t, digest, raw)
		})
	}
}

// M21: a stop in the middle of a fill loses next to nothing. A crash may lose what was not
// noted yet, and never makes anything wrong.
func TestM21_M25_ResumeAfterRestart(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"restart", "crash"} {
		t.Run(how, func(t *testing.T) {
			const size = 8 << 20
			hub, m, c := setup(t, hubtest.Options{CDNBytesPerSecond: 2 << 20}, mirrortest.Options{})
			digest := hub.PutVirtualBlob("library/app", 21, size)
			conn := rawGet(t, m.URL, "/v2/library/app/blobs/"+digest)
			if _, err := io.ReadFull(conn, make([]byte, 5<<20)); err != nil {
				t.Fatalf("begin to read: %s", err)
			}
			if how == "crash" {
				m.Crash()
			} else {
				m.Restart()
			}
			hub.Settle(t)
			sent := hub.BlobBytes(digest)
			a := c.get(m.URL, "/v2/library/app/blobs/"+digest)
			if a.Status != http.StatusOK || hubtest.Digest(a.Body) != digest {
				t.Fatalf("%s: status %d, %d bytes, %v, want the blob", a.request, a.Status, len(a.Body), a.Err)
			}
			if n := hub.BlobBytes(digest) - sent; n > size-4<<20 && how == "restart" {
				t.Errorf("%d of %d bytes were fetched again, though 5 MiB had been read", n, size)
			}
		})
	}
}

// M23: a fill goes on when its clients leave, and is there for the next one.
func TestM23_FillOutlivesItsClients(t *testing.T) {
	const size = 3 << 20
	hub, m, c := setup(t, hubtest.Options{CDNBytesPerSecond: 8 << 20}, mirrortest.Options{})
	digest := hub.PutVirtualBlob("library/app", 23, size)
	path := "/v2/library/app/blobs/" + digest
	for range 5 {
		conn := rawGet(t, m.URL, path)
		if _, err := io.ReadFull(conn, make([]byte, 1000)); err != nil {
			t.Fatalf("begin to read: %s", err)
		}
		conn.Close()
	}
	hub.WaitFor(t, patience, "whole blob sent", func() bool { return hub.BlobBytes(digest) >= size })
	hub.Settle(t)
	if n := hub.BlobBytes(digest); n != size {
		t.Errorf("hub sent %d bytes, want %d once", n, size)
	}
	eventually(t, "the blob to be committed", func() bool { return len(m.Entries("blob cached")) == 1 })
	hub.SwitchOff()
	if a := c.get(m.URL, path); hubtest.Digest(a.Body) != digest {
		t.Errorf("%s: status %d, %d bytes, want the blob from the cache", a.request, a.Status, len(a.Body))
	}
}

// M23 with the other policy: the last client that leaves ends the fill, whose part is kept.
func TestM23_CancelAbandoned(t *testing.T) {
	const size = 16 << 20
	mo := mirrortest.Options{}
	mo.Cache.CancelAbandoned = true
	hub, m, c := setup(t, hubtest.Options{CDNBytesPerSecond: 4 << 20}, mo)
	digest := hub.PutVirtualBlob("library/app", 24, size)
	path := "/v2/library/app/blobs/" + digest
	conn := rawGet(t, m.URL, path)
	if _, err := io.ReadFull(conn, make([]byte, 2<<20)); err != nil {
		t.Fatalf("begin to read: %s", err)
	}
	conn.Close()
	hub.Settle(t)
	if n := hub.BlobBytes(digest); n > size*3/4 {
		t.Errorf("hub sent %d bytes though nobody waited for more than %d", n, 2<<20)
	}
	hub.Set(func(o *hubtest.Options) { o.CDNBytesPerSecond = 0 })
	if a := c.get(m.URL, path); hubtest.Digest(a.Body) != digest {
		t.Errorf("%s: status %d, %d bytes, want the blob", a.request, a.Status, len(a.Body))
	}
}

// M24: when a shared fetch fails, all who wait for it get an error, and none a success.
func TestM24_FollowersShareTheError(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]hubtest.Fault{
		"500": hubtest.Status(500), "404": hubtest.Status(404), "wrong": hubtest.Corrupt(7), "cut": hubtest.Truncate(10, hubtest.CutLength),
	} {
		t.Run(name, func(t *testing.T) {
			hub, m, _ := setup(t, hubtest.Options{}, mirrortest.Options{})
			img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
			small, large := hub.PutBlob("library/app", letters(1, 4000)), hub.PutBlob("library/app", letters(2, 2<<20))
			release := make(chan struct{})
			do := hubtest.Both(hubtest.Block(release), fault)
			hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: do})
			hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Method: http.MethodGet, Route: hubtest.RouteManifest, Do: do})
			raws := map[string][]byte{"blobs/" + small: letters(1, 4000), "blobs/" + large: letters(2, 2<<20), "manifests/" + img.Digest: img.Raw}
			var paths []string
			for path := range raws {
				paths = append(paths, path)
			}
			time.AfterFunc(300*time.Millisecond, func() { close(release) })
			crowd(t, 60, func(c *client, i int) {
				path := paths[i%len(paths)]
				a, err := c.loose(t.Context(), m.URL, "/v2/library/app/"+path)
				if err != nil {
					t.Errorf("%s: %s", path, err)
					return
				}
				a.assertNeverWrong(t, raws[path])
				if a.Status == http.StatusOK && a.Err == nil {
					t.Errorf("%s: a success, though the upstream always fails", path)
				}
			})
		})
	}
}

// M27, T05, T06: HEAD and GET have the same headers, and manifests are verbatim, however
// oddly they are written.
func TestM27_VerbatimManifests(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	list := func(s string) []byte { return []byte(strings.ReplaceAll(s, "TYPE", hubtest.OCIIndex)) }
	for name, raw := range map[string][]byte{
		"spaces":         list("{ \"schemaVersion\" : 2 ,\t\"mediaType\":\"TYPE\",\n   \"manifests\":[ ] }\n\n\n"),
		"CRLF":           list("{\r\n\"schemaVersion\":2,\r\n\"mediaType\":\"TYPE\",\r\n\"manifests\":[]\r\n}\r\n"),
		"BOM":            list("\xef\xbb\xbf{\"schemaVersion\":2,\"mediaType\":\"TYPE\",\"manifests\":[]}"),
		"duplicate keys": list(`{"schemaVersion":2,"mediaType":"TYPE","a":1,"a":2,"manifests":[],"manifests":[]}`),
		"escapes":        list(`{"schemaVersion":2,"mediaType":"TYPE","manifests":[],"x":"\u003c\/\u00e9é"}`),
		"numbers":        list(`{"schemaVersion":2.0,"mediaType":"TYPE","manifests":[],"n":1e400,"m":10000000000000000000000001}`),
		"no mediaType":   []byte(`{"schemaVersion":2,"manifests":[]}`),
		"deep":           list(`{"schemaVersion":2,"mediaType":"TYPE","manifests":[],"d":` + strings.Repeat("[", 500) + strings.Repeat("]", 500) + `}`),
		"invalid UTF-8":  list("{\"schemaVersion\":2,\"mediaType\":\"TYPE\",\"manifests\":[],\"x\":\"\xff\xfe\"}"),
	} {
		tag := strings.ReplaceAll(name, " ", "-")
		d256 := hub.PutManifest("library/odd", tag, hubtest.OCIIndex, raw)
		d512 := hub.PutManifestBy("sha512", "library/odd", tag+"-512", hubtest.OCIIndex, raw)
		for _, r := range []resource{
			{"manifests/" + tag, false, hubtest.OCIIndex, d256, raw}, {"manifests/" + d256, false, hubtest.OCIIndex, d256, raw},
			{"manifests/" + tag + "-512", false, hubtest.OCIIndex, d512, raw}, {"manifests/" + d512, false, hubtest.OCIIndex, d512, raw},
		} {
			t.Run(name+" "+r.path[:12], func(t *testing.T) {
				for range 2 {
					r.assertBoth(t, c, m.URL, "/v2/library/odd/"+r.path)
				}
			})
		}
	}
	m.Restart()
	hub.SwitchOff()
	c.get(m.URL, "/v2/library/odd/manifests/CRLF").assertHeader(t, "Content-Type", hubtest.OCIIndex)
}

// M28: ranges and conditions on a blob that is still arriving: what is here is sent at
// once, what is not is fetched, and everything is right.
func TestM28_RangesWhileFilling(t *testing.T) {
	const size = 5 << 20
	hub, m, c := setup(t, hubtest.Options{CDNBytesPerSecond: 2 << 20}, mirrortest.Options{})
	digest := hub.PutVirtualBlob("library/app", 28, size)
	raw, err := io.ReadAll(hubtest.VirtualReader(28, size))
	if err != nil {
		t.Fatal(err)
	}
	path := "/v2/library/app/blobs/" + digest
	conn := rawGet(t, m.URL, path)
	if _, err := io.ReadFull(conn, make([]byte, 600_000)); err != nil {
		t.Fatalf("begin to read: %s", err)
	}
	var wg sync.WaitGroup
	for _, rc := range append(rangeCases(size), rangeCase{"bytes=100000-400000", 206, 100_000, 400_001}) {
		wg.Go(func() {
			a, err := c.try(context.Background(), http.MethodGet, m.URL, path, "Range: "+rc.header)
			if err != nil {
				t.Errorf("Range %s: %s", rc.header, err)
				return
			}
			rc.assert(t, a, digest, raw)
		})
	}
	wg.Go(func() {
		a, err := c.try(context.Background(), http.MethodGet, m.URL, path, "Range: bytes=0-1", `If-Range: "other"`)
		if err != nil {
			t.Errorf("If-Range: %s", err)
			return
		}
		a.assertBlob(t, digest, raw)
	})
	wg.Go(func() {
		if a, err := c.try(context.Background(), http.MethodHead, m.URL, path); err != nil || a.Length != size {
			t.Errorf("HEAD while filling: %v %+v", err, a)
		}
	})
	wg.Wait()
	if n := hub.BlobBytes(digest); n > size+2<<20 {
		t.Errorf("hub sent %d bytes of a blob of %d", n, size)
	}
}

// M28: what is here of an arriving blob does not wait for the rest.
func TestM28_WhatIsHereIsServedAtOnce(t *testing.T) {
	const size, soon = 6 << 20, 8 * time.Second // of 24 s for all of it
	hub, m, c := setup(t, hubtest.Options{LineBytesPerSecond: 256 << 10}, mirrortest.Options{})
	digest := hub.PutVirtualBlob("library/app", 29, size)
	path := "/v2/library/app/blobs/" + digest
	conn := rawGet(t, m.URL, path)
	if _, err := io.ReadFull(conn, make([]byte, 300_000)); err != nil {
		t.Fatalf("begin to read: %s", err)
	}
	start := time.Now()
	if a := c.get(m.URL, path, "Range: bytes=100000-199999"); a.Status != http.StatusPartialContent || len(a.Body) != 100_000 {
		t.Errorf("%s: status %d, %d bytes", a.request, a.Status, len(a.Body))
	}
	if a := c.head(m.URL, path); a.Status != http.StatusOK || a.Length != size {
		t.Errorf("%s: status %d, length %d", a.request, a.Status, a.Length)
	}
	if took := time.Since(start); took > soon {
		t.Errorf("what is here took %s", took)
	}
}

// M29: a tag that moves between HEAD and GET is bound to the digest of the bytes that came.
func TestM29_TagMovesInBetween(t *testing.T) {
	t.Parallel()
	for _, gone := range []bool{false, true} {
		t.Run(fmt.Sprintf("the former manifest is gone: %t", gone), func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{TagTTL: time.Hour})
			old := hub.PushImage("library/app", "latest", hubtest.ImageSpec{Seed: 1})
			young := hub.PushImage("library/app", "", hubtest.ImageSpec{Seed: 2})
			hub.AddRule(hubtest.Rule{
				Role: hubtest.RoleRegistry, Method: http.MethodHead, Route: hubtest.RouteManifestTag, When: withToken, Count: 1,
				Do: hubtest.Both(hubtest.TagMoves("library/app", "latest", young.Digest), hubtest.CallAfter(func() {
					if gone {
						hub.DeleteManifest("library/app", old.Digest)
					}
				})),
			})
			a := c.get(m.URL, "/v2/library/app/manifests/latest")
			want := old
			if a.Header.Get("Docker-Content-Digest") == young.Digest {
				want = young
			} else if gone {
				t.Logf("the former manifest was fetched before it went") // both are right
			}
			a.assertManifest(t, want.MediaType, want.Digest, want.Raw)
			c.head(m.URL, "/v2/library/app/manifests/latest").assertManifest(t, want.MediaType, want.Digest, want.Raw)
			c.get(m.URL, "/v2/library/app/manifests/"+want.Digest).assertManifest(t, want.MediaType, want.Digest, want.Raw)
			m.RestartWith(func(o *mirrortest.Options) { o.TagTTL = alwaysAsk })
			c.get(m.URL, "/v2/library/app/manifests/latest").assertManifest(t, young.MediaType, young.Digest, young.Raw)
		})
	}
}

// M30: content under sha512 or blake3 is stored and served under that, beside the same bytes
// under sha256, and never through one another.
func TestM30_OtherAlgorithms(t *testing.T) {
	for _, algorithm := range []string{"sha512", "blake3"} {
		t.Run(algorithm, func(t *testing.T) { testOtherAlgorithm(t, algorithm) })
	}
}

func testOtherAlgorithm(t *testing.T, algorithm string) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	raw := letters(30, 2<<20)
	other, d256 := hub.PutBlobBy(algorithm, "library/a", raw), hub.PutBlob("library/b", raw)
	img := hub.PushImage("library/a", "latest", hubtest.ImageSpec{Algorithm: algorithm, Platforms: []string{"linux/amd64", "linux/arm64"}})
	check := func() {
		c.get(m.URL, "/v2/library/a/blobs/"+other).assertBlob(t, other, raw)
		c.get(m.URL, "/v2/library/b/blobs/"+d256).assertBlob(t, d256, raw)
		for _, r := range resources(t, hub, img) {
			r.assertBoth(t, c, m.URL, "/v2/library/a/"+r.path)
			if !strings.HasPrefix(r.digest, algorithm+":") {
				t.Errorf("%s has digest %s, want %s", r.path, r.digest, algorithm)
			}
		}
		c.get(m.URL, "/v2/library/a/blobs/"+d256).assertError(t, http.StatusNotFound, "BLOB_UNKNOWN")
		c.get(m.URL, "/v2/library/b/blobs/"+other).assertError(t, http.StatusNotFound, "BLOB_UNKNOWN")
		c.get(m.URL, "/v2/library/a/manifests/"+hubtest.Digest(img.Raw)).assertError(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
	}
	check()
	check()
	m.Restart()
	check()
	hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: hubtest.Corrupt(5)})
	wrong := hub.PutBlobBy(algorithm, "library/a", letters(31, 3000))
	if a := c.get(m.URL, "/v2/library/a/blobs/"+wrong); a.Status < 400 {
		t.Errorf("%s: status %d, though the bytes do not have that %s", a.request, a.Status, algorithm)
	}
	if !bytes.Equal(c.get(m.URL, "/v2/library/a/blobs/"+other).Body, raw) {
		t.Errorf("the kept blob is no longer right")
	}
}
