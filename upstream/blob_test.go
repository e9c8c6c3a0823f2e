package upstream

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"

	"forebay/internal/pull"
	"forebay/test/hubtest"
	"forebay/upstream/places"
)

func TestM20DamagedBlobNeverLooksWhole(t *testing.T) {
	tests := []struct {
		name  string
		fault hubtest.Fault
		want  pull.Kind // of the error of OpenBlob; ok for none
		read  bool      // reading ends without an error, so that only the digest can tell
	}{
		{"corrupt", hubtest.Corrupt(500), ok, true},
		{"wrong bytes", hubtest.WrongBytes([]byte("another blob")), ok, true},
		{"cut, true length", hubtest.Truncate(1000, hubtest.KeepLength), ok, false},
		{"cut, length of what is sent", hubtest.Truncate(1000, hubtest.CutLength), ok, true},
		{"cut, until close", hubtest.Truncate(1000, hubtest.UntilClose), ok, true},
		{"cut, chunked", hubtest.Truncate(1000, hubtest.ChunkedClean), ok, true},
		{"cut, chunked without end", hubtest.Truncate(1000, hubtest.ChunkedCut), ok, false},
		{"dropped at 0", hubtest.Drop(0, hubtest.RST), ok, false},
		{"dropped at 1", hubtest.Drop(1, hubtest.FIN), ok, false},
		{"dropped before the end", hubtest.Drop(-1, hubtest.RST), ok, false},
		{"length too large", hubtest.WrongCL(10), ok, false},
		{"length too small", hubtest.WrongCL(-10), ok, true},
		{"negative length", hubtest.RawCL("-5"), pull.Unavailable, false},
		{"two lengths", hubtest.RawCL("5", "6"), pull.Unavailable, false},
		{"no number", hubtest.RawCL("many"), pull.Unavailable, false},
		{"gzip three times", hubtest.Gzip(3), pull.Invalid, false},
		{"an encoding that nobody knows", hubtest.Encoding("br"), pull.Invalid, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			hub, r := newHub(t, hubtest.Options{})
			d, want := aBlob(t, hub)
			rule := hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: test.fault})
			b, got, err := readBlob(t.Context(), r, "library/alpine", d, 0, -1)
			switch {
			case test.want != ok:
				wantKind(t, "OpenBlob", err, test.want)
			case test.read && err != nil:
				t.Errorf("reading: %v", err)
			case !test.read && err == nil:
				t.Errorf("reading gives %d bytes and no error", len(got))
			case test.read && digestOf("", got) == d:
				t.Error("the blob is whole; the fault had no effect")
			}
			if b != nil && b.End >= 0 && err == nil && int64(len(got)) != b.End {
				t.Errorf("read %d bytes, End is %d", len(got), b.End)
			}
			if strings.Contains(test.name, "true length") && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("reading: %v, want unexpected EOF", err)
			}
			hub.AssertAllFired(t)
			rule.Remove()
			wantBlob(t, r, "library/alpine", d, want)
			hub.AssertClean(t)
		})
	}
}

func TestM20BlobOfUnknownLength(t *testing.T) {
	for name, fault := range map[string]hubtest.Fault{"chunked": hubtest.Chunked(), "until close": hubtest.CloseDelimited()} {
		hub, r := newHub(t, hubtest.Options{})
		d, want := aBlob(t, hub)
		hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: fault})
		b, got, err := readBlob(t.Context(), r, "library/alpine", d, 0, -1)
		if err != nil || !bytes.Equal(got, want) || b.End != -1 || b.Size != -1 {
			t.Errorf("%s: %d bytes, End %d, Size %d, %v; want %d, -1, -1", name, len(got), b.End, b.Size, err, len(want))
		}
		b, got, err = readBlob(t.Context(), r, "library/alpine", d, 100, 200)
		if err != nil || !bytes.Equal(got, want[100:200]) || b.Offset != 100 || b.End != 200 {
			t.Errorf("%s: range gives %d bytes, Offset %d, End %d, %v; want 100, 100, 200", name, len(got), b.Offset, b.End, err)
		}
	}
}

// A proxy on the way encodes what was asked for plain, or a store tells how the file that it has was made:
// the bytes of the blob are what its digest says, and a part of them is got from the whole.
func TestBlobsWithAContentEncoding(t *testing.T) {
	zipped := func(b []byte) []byte {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		_, err := w.Write(b)
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return z.Bytes()
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "f", Mode: 0o644, Format: tar.FormatUSTAR}), w.Close()); err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("what a blob has in it, "), 9000)
	layer := zipped(archive.Bytes())
	encoded := func(b []byte, encoding string) hubtest.Fault {
		return hubtest.Both(hubtest.WrongBytes(b), hubtest.Encoding(encoding))
	}
	for name, test := range map[string]struct {
		blob  []byte
		fault hubtest.Fault
	}{
		"gzip on the way":                {text, hubtest.Gzip(1)},
		"gzip on the way, of a layer":    {layer, hubtest.Gzip(1)},
		"twice":                          {text, hubtest.Gzip(2)},
		"zstd on the way":                {text, encoded(z.EncodeAll(text, nil), "zstd")},
		"gzip, as it is stored":          {layer, encoded(layer, "gzip")},
		"gzip that is none":              {text, encoded(text, "gzip")},
		"zstd that is none, short":       {[]byte("{}"), encoded([]byte("{}"), "zstd")},
		"zstd that is a layer in gzip":   {layer, encoded(layer, "zstd")},
		"gzip of nothing":                {nil, hubtest.Gzip(1)},
		"identity, which is no encoding": {text, encoded(text, "identity")},
		"no encoding, kept by a store":   {layer, encoded(layer, "aws-chunked")},
	} {
		t.Run(name, func(t *testing.T) {
			hub, r := newHub(t, hubtest.Options{})
			d, err := v1.NewHash(hub.PutBlob("library/alpine", test.blob))
			if err != nil {
				t.Fatal(err)
			}
			hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Method: http.MethodGet, Do: test.fault})
			wantBlob(t, r, "library/alpine", d, test.blob)
			if len(test.blob) > 100 {
				b, got, err := readBlob(t.Context(), r, "library/alpine", d, 50, 60)
				if err != nil || !bytes.Equal(got, test.blob[b.Offset:][:len(got)]) || b.Offset+int64(len(got)) < 60 {
					t.Errorf("a range gives %d bytes, %+v, %v", len(got), b, err)
				}
			}
		})
	}
}

func TestRangesOfABlob(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	d, want := aBlob(t, hub)
	size := int64(len(want))
	for _, span := range [][2]int64{{0, 10}, {5, 6}, {1000, -1}, {size - 1, -1}, {0, size}, {50, size + 100}} {
		off, end := span[0], span[1]
		b, got, err := readBlob(t.Context(), r, "library/alpine", d, off, end)
		if err != nil {
			t.Errorf("OpenBlob(%d, %d): %v", off, end, err)
			continue
		}
		if end < 0 || end > size {
			end = size
		}
		if !bytes.Equal(got, want[off:end]) || b.Offset != off || b.End != end || b.Size != size || !b.Ranged {
			t.Errorf("OpenBlob(%d, %d) = %d bytes, %+v", span[0], span[1], len(got), b)
		}
	}
	_, _, err := readBlob(t.Context(), r, "library/alpine", d, size, -1)
	wantKind(t, "OpenBlob past the end", err, pull.Invalid)
	for _, span := range [][2]int64{{-1, 5}, {5, 5}, {5, 4}, {0, 0}, {0, -2}} {
		_, err := r.OpenBlob(t.Context(), "library/alpine", d, span[0], span[1])
		wantKind(t, fmt.Sprintf("OpenBlob(%v)", span), err, pull.Invalid)
	}
	hub.AssertClean(t)
}

func TestRangesCostTheRegistryOneRequest(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	d, want := aBlob(t, hub)
	for off := int64(0); off < 10; off++ {
		if _, got, err := readBlob(t.Context(), r, "library/alpine", d, off, off+10); err != nil || !bytes.Equal(got, want[off:off+10]) {
			t.Fatalf("OpenBlob(%d): %v", off, err)
		}
	}
	if n := hub.Count(hubtest.Query{Role: hubtest.RoleRegistry, Route: hubtest.RouteBlob}); n != 2 {
		t.Errorf("registry saw %d requests for ten ranges, want 2: a challenge and a redirect", n)
	}
	// Another repository has to prove that it holds the blob.
	_, _, err := readBlob(t.Context(), r, "library/other", d, 0, 10)
	wantKind(t, "OpenBlob through another repository", err, pull.Denied)
	// And so has a link.
	before := hub.Count(hubtest.Query{Role: hubtest.RoleRegistry})
	if _, err := r.statByRange(t.Context(), "library/alpine", d); err != nil {
		t.Errorf("statByRange: %v", err)
	}
	if n := hub.Count(hubtest.Query{Role: hubtest.RoleRegistry}) - before; n != 1 {
		t.Errorf("registry saw %d requests for a proof, want 1", n)
	}
	hub.Advance(places.KeptFor + time.Second)
	if _, _, err := readBlob(t.Context(), r, "library/alpine", d, 0, 10); err != nil {
		t.Errorf("OpenBlob: %v", err)
	}
	if n := hub.Count(hubtest.Query{Role: hubtest.RoleRegistry}) - before; n != 2 {
		t.Errorf("registry saw %d requests after a while, want 2", n)
	}
}

func TestM21Resume(t *testing.T) {
	const cut = 40_000
	tests := []struct {
		name  string
		rules []hubtest.Rule // for what comes after the cut
		whole bool           // the resume gets the blob from the start
	}{
		{"same target", nil, false},
		{"expired", []hubtest.Rule{{Role: hubtest.CDN, Count: 1, Do: hubtest.ExpireURL()}}, false},
		{"target gone", []hubtest.Rule{{Role: hubtest.CDN, Count: 1, Do: hubtest.Status(http.StatusNotFound)}}, false},
		{"target unavailable", []hubtest.Rule{{Role: hubtest.CDN, Count: 3, Do: hubtest.Status(http.StatusServiceUnavailable)}}, false},
		{"target resets", []hubtest.Rule{{Role: hubtest.CDN, Count: 1, Do: hubtest.NoReply(hubtest.RST)}}, false},
		{"token expired", []hubtest.Rule{
			{Role: hubtest.CDN, Count: 1, Do: hubtest.ExpireURL()},
			{Role: hubtest.RoleRegistry, Count: 1, Do: hubtest.ExpireToken()},
		}, false},
		{"range ignored", []hubtest.Rule{{Role: hubtest.CDN, Do: hubtest.IgnoreRange()}}, true},
		{"wrong range", []hubtest.Rule{{Role: hubtest.CDN, Do: hubtest.WrongRange(7)}}, true},
		{"shifted range", []hubtest.Rule{{Role: hubtest.CDN, Do: hubtest.ShiftedRange(7)}}, true},
		{"416", []hubtest.Rule{{Role: hubtest.CDN, Do: hubtest.Range416()}}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			hub, r := newHub(t, hubtest.Options{})
			d, want := aBlob(t, hub)
			dropped := hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Count: 1, Do: hubtest.Drop(cut, hubtest.RST)})
			_, first, err := readBlob(t.Context(), r, "library/alpine", d, 0, -1)
			if err == nil || len(first) == 0 || len(first) > cut {
				t.Fatalf("first read: %d bytes, %v; want up to %d and an error", len(first), err, cut)
			}
			dropped.Remove()
			for _, rule := range test.rules {
				hub.AddRule(rule)
			}
			off := int64(len(first))
			b, rest, err := readBlob(t.Context(), r, "library/alpine", d, off, -1)
			if err != nil {
				t.Fatalf("resume: %v", err)
			}
			if test.whole {
				off = 0
			}
			if b.Offset != off || b.Ranged == test.whole || !bytes.Equal(rest, want[off:]) {
				t.Errorf("resume: Offset %d, Ranged %v, %d bytes; want %d, %v, %d", b.Offset, b.Ranged, len(rest), off, !test.whole, int64(len(want))-off)
			}
			hub.AssertAllFired(t)
			hub.AssertClean(t)
		})
	}
}

func TestM21ShortRangeSaysSo(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	d, want := aBlob(t, hub)
	hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: hubtest.ShortRange(1000)})
	b, got, err := readBlob(t.Context(), r, "library/alpine", d, 100, -1)
	if err != nil || b.Offset != 100 || b.End != 1100 || b.Size != int64(len(want)) || !bytes.Equal(got, want[100:1100]) {
		t.Errorf("OpenBlob = %d bytes, %+v, %v; want [100, 1100)", len(got), b, err)
	}
}

func TestM22StalledBodyTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, r := newHub(t, hubtest.Options{InMemory: true})
		d, _ := aBlob(t, hub)
		hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Count: 1, Do: hubtest.StallAt(10_000)})
		start := time.Now()
		_, got, err := readBlob(t.Context(), r, "library/alpine", d, 0, -1)
		wantKind(t, "reading a body that stalls", err, pull.Timeout)
		if len(got) != 10_000 {
			t.Errorf("read %d bytes before the stall, want 10000", len(got))
		}
		if took := time.Since(start); took < defaultStall || took > defaultStall+time.Second {
			t.Errorf("the stall was noticed after %v, want %v", took, defaultStall)
		}
	})
}

func TestM22SlowBodyHasNoTotalLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, r := newHub(t, hubtest.Options{InMemory: true})
		d, want := aBlob(t, hub)
		hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: hubtest.Drip(1024, 14*time.Second)})
		start := time.Now()
		_, got, err := readBlob(t.Context(), r, "library/alpine", d, 0, -1)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("reading a slow body: %d bytes, %v; want %d", len(got), err, len(want))
		}
		if took := time.Since(start); took < 20*time.Minute {
			t.Errorf("reading took %v; the body was not slow", took)
		}
	})
}

func TestSlowReaderIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, r := newHub(t, hubtest.Options{InMemory: true})
		d, want := aBlob(t, hub)
		b, err := r.OpenBlob(t.Context(), "library/alpine", d, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		var got bytes.Buffer
		for buf := make([]byte, 10<<10); ; time.Sleep(time.Hour) {
			n, err := b.Read(buf)
			got.Write(buf[:n])
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("Read: %v", err)
			}
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("read %d bytes, want %d", got.Len(), len(want))
		}
	})
}

func TestM30Sha512Blob(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	img := hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{Algorithm: "sha512"})
	desc, raw, err := r.Manifest(t.Context(), "library/alpine", img.Digest)
	if err != nil || desc.Digest.String() != img.Digest || !bytes.Equal(raw, img.Raw) {
		t.Errorf("Manifest = %+v, %v; want %s", desc, err, img.Digest)
	}
	if desc, err := r.Resolve(t.Context(), "library/alpine", "latest"); err != nil || desc.Digest.String() != img.Digest {
		t.Errorf("Resolve = %+v, %v; want %s", desc, err, img.Digest)
	}
	for _, b := range img.Blobs() {
		wantBlob(t, r, "library/alpine", digest(t, b.Digest), hub.Bytes(b.Digest))
	}
}

func TestEmptyBlob(t *testing.T) {
	empty := digestOf("", nil)
	hub, r := newHub(t, hubtest.Options{})
	hub.PutBlob("library/alpine", nil)
	wantBlob(t, r, "library/alpine", empty, nil)
	if b, got, err := readBlob(t.Context(), r, "library/alpine", empty, 0, 10); err != nil || len(got) != 0 || b.Size != 0 || b.End != 0 {
		t.Errorf("range of an empty blob: %d bytes, %+v, %v; want none", len(got), b, err)
	}
	if size, err := r.StatBlob(t.Context(), "library/alpine", empty); err != nil || size != 0 {
		t.Errorf("StatBlob = %d, %v; want 0", size, err)
	}
	if size, err := r.statByRange(t.Context(), "library/alpine", empty); err != nil || size != 0 {
		t.Errorf("statByRange = %d, %v; want 0", size, err)
	}
}

func TestStatBlobWhereHeadIsRefused(t *testing.T) {
	for name, rule := range map[string]hubtest.Rule{
		"405":             {Role: hubtest.RoleRegistry, Route: hubtest.RouteBlob, When: bearer, Do: hubtest.HeadNotAllowed()},
		"401":             {Role: hubtest.RoleRegistry, Route: hubtest.RouteBlob, When: bearer, Do: hubtest.HeadUnauthorized()},
		"403":             {Role: hubtest.RoleRegistry, Method: http.MethodHead, Route: hubtest.RouteBlob, When: bearer, Do: hubtest.Status(http.StatusForbidden)},
		"404":             {Role: hubtest.RoleRegistry, Method: http.MethodHead, Route: hubtest.RouteBlob, When: bearer, Do: hubtest.Status(http.StatusNotFound)},
		"304":             {Role: hubtest.RoleRegistry, Method: http.MethodHead, Route: hubtest.RouteBlob, When: bearer, Do: hubtest.Status(http.StatusNotModified)},
		"405 at CDN":      {Role: hubtest.CDN, Method: http.MethodHead, Do: hubtest.Status(http.StatusMethodNotAllowed)},
		"signed for GET":  {Role: hubtest.CDN, Method: http.MethodHead, Do: hubtest.Status(http.StatusForbidden)},
		"HEAD without CL": {Role: hubtest.CDN, Method: http.MethodHead, Do: hubtest.RawCL()},
	} {
		t.Run(name, func(t *testing.T) {
			hub := hubtest.New(t, hubtest.Options{})
			o := hubOptions(hub)
			o.MaxConnections = 1 // so that holding one while waiting for another shows
			r := newRegistry(t, o)
			d, want := aBlob(t, hub)
			hub.AddRule(rule)
			for range 2 {
				if size, err := r.StatBlob(t.Context(), "library/alpine", d); err != nil || size != int64(len(want)) {
					t.Errorf("StatBlob = %d, %v; want %d", size, err, len(want))
				}
			}
			hub.Settle(t)
			if n := hub.BlobBytes(d.String()); n > 2 {
				t.Errorf("StatBlob moved %d bytes, want at most 2", n)
			}
			if n := hub.Count(hubtest.Query{Role: hubtest.RoleRegistry, Method: http.MethodHead}); n > 3 {
				t.Errorf("registry saw %d HEADs, want no more after the first refusal", n)
			}
		})
	}
}

func TestStatBlobIsNotFoundOrDeniedOnlyIfTheRegistrySaysSo(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	d, _ := aBlob(t, hub)
	missing := digestOf("", []byte("missing"))
	_, err := r.StatBlob(t.Context(), "library/alpine", missing)
	wantKind(t, "StatBlob of a missing blob", err, pull.NotFound)
	_, _, err = readBlob(t.Context(), r, "library/alpine", missing, 0, -1)
	wantKind(t, "OpenBlob of a missing blob", err, pull.NotFound)
	hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: hubtest.Status(http.StatusForbidden)})
	_, err = r.StatBlob(t.Context(), "library/alpine", d)
	wantKind(t, "StatBlob where the CDN refuses all", err, pull.Unavailable)
}

func TestBlobConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := hubtest.New(t, hubtest.Options{InMemory: true})
		img := hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{})
		o := hubOptions(hub)
		o.MaxConnections = 2
		r := newRegistry(t, o)
		d := digest(t, img.Blobs()[0].Digest)
		var open []*pull.Body
		for range 2 {
			b, err := r.OpenBlob(t.Context(), "library/alpine", d, 0, -1)
			if err != nil {
				t.Fatalf("OpenBlob: %v", err)
			}
			open = append(open, b)
		}
		start := time.Now()
		_, err := r.OpenBlob(t.Context(), "library/alpine", d, 0, -1)
		wantKind(t, "OpenBlob beyond max_connections", err, pull.Overloaded)
		if took := time.Since(start); took != defaultAnswer {
			t.Errorf("gave up after %v, want %v", took, defaultAnswer)
		}
		// Everything else has a lane of its own.
		if _, _, err := r.Manifest(t.Context(), "library/alpine", "latest"); err != nil {
			t.Errorf("Manifest beside open blobs: %v", err)
		}
		go func() {
			time.Sleep(time.Second)
			open[0].Close()
			open[0].Close() // twice does no harm
		}()
		b, err := r.OpenBlob(t.Context(), "library/alpine", d, 0, -1)
		if err != nil {
			t.Fatalf("OpenBlob after one was closed: %v", err)
		}
		b.Close()
		open[1].Close()
		if n := r.blobs.Used(); n != 0 {
			t.Errorf("%d connections are still counted, want 0", n)
		}
	})
}

func TestTargetThatBrokeOffIsNotAskedForTheRest(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	d, want := aBlob(t, hub)
	if _, _, err := readBlob(t.Context(), r, "library/alpine", d, 0, 10); err != nil {
		t.Fatal(err) // from now on the target is known
	}
	hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Count: 1, Do: hubtest.Drop(1000, hubtest.FIN)})
	_, first, err := readBlob(t.Context(), r, "library/alpine", d, 0, 50_000)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("reading a body that is cut: %v, want unexpected EOF", err)
	}
	before := hub.Count(hubtest.Query{Role: hubtest.RoleRegistry})
	_, rest, err := readBlob(t.Context(), r, "library/alpine", d, int64(len(first)), 50_000)
	if err != nil || !bytes.Equal(append(first, rest...), want[:50_000]) {
		t.Errorf("resume: %d bytes, %v", len(rest), err)
	}
	if n := hub.Count(hubtest.Query{Role: hubtest.RoleRegistry}) - before; n != 1 {
		t.Errorf("registry saw %d requests for the resume, want 1", n)
	}
}

func TestRangeBehindTheEndIsTold(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	d, all := aBlob(t, hub)
	_, err := r.OpenBlob(t.Context(), "library/alpine", d, int64(len(all)), int64(len(all))+1)
	if e := wantKind(t, "OpenBlob behind the end", err, pull.Invalid); e.Detail != pull.OutOfRange {
		t.Errorf("detail of %v is %d, want %d", e, e.Detail, pull.OutOfRange)
	}
}
