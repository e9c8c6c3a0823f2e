package conformance

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"forebay/proxy"
	"forebay/test/hubtest"
	"forebay/test/mirrortest"
)

// assertNeverWrong checks what holds for any answer to a GET of the whole of raw: it is all
// of it, or a beginning of it that visibly is not all, or an error.
func (a *answer) assertNeverWrong(t testing.TB, raw []byte) {
	t.Helper()
	switch {
	case a.Status >= 400:
	case a.Status != http.StatusOK:
		t.Errorf("%s: status %d, want 200 or an error", a.request, a.Status)
	case a.Err == nil && string(a.Body) != string(raw):
		t.Errorf("%s: a complete body of %d wrong bytes, want %d right ones", a.request, len(a.Body), len(raw))
	case a.Err != nil && !isCutShort(a.Err):
		t.Errorf("%s: body ends with %v, want an unexpected EOF, which clients resume from", a.request, a.Err)
	case a.Err != nil && len(a.Body) > len(raw):
		t.Errorf("%s: cut short after %d bytes, more than there are", a.request, len(a.Body))
	}
}

// T15 of docs/clients.md, containerd#10177 and others: containerd ≥ 2.1 reads a layer in pieces: open-ended
// ranges on several connections, each closed when its piece is there. The hub sends the
// layer once.
func TestT15_ParallelPieces(t *testing.T) {
	t.Parallel()
	const size, piece = 6<<20 + 12345, 1 << 20
	for _, phase := range []string{"cold", "warm"} {
		t.Run(phase, func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{CDNBytesPerSecond: 32 << 20}, mirrortest.Options{})
			raw := letters(1, size)
			digest := hub.PutBlob("library/app", raw)
			path := "/v2/library/app/blobs/" + digest + "?ns=docker.io"
			if phase == "warm" {
				c.get(m.URL, path).assertBlob(t, digest, raw)
			}
			got := make([]byte, size)
			var wg sync.WaitGroup
			for off := 0; off < size; off += piece {
				wg.Go(func() {
					if err := readPiece(t.Context(), c, m.URL, path, got[off:min(off+piece, size)], off, size); err != nil {
						t.Errorf("piece at %d: %s", off, err)
					}
				})
			}
			wg.Wait()
			if string(got) != string(raw) {
				t.Errorf("the pieces do not make the blob")
			}
			eventually(t, "the whole blob to be kept", func() bool { return c.get(m.URL, path, "Range: bytes=0-0").Status == 206 })
			c.get(m.URL, path).assertBlob(t, digest, raw)
			if n := hub.BlobBytes(digest); n > 2*size {
				t.Errorf("hub sent %d bytes of a blob of %d", n, size)
			}
			for _, line := range []string{"latest", hub.PushImage("library/app", "latest", hubtest.ImageSpec{}).Digest} {
				a := c.get(m.URL, "/v2/library/app/manifests/"+line+"?ns=docker.io", "Range: bytes=0-") // it asks so for manifests too
				if a.Status != http.StatusOK && a.Status != http.StatusPartialContent {
					t.Errorf("%s: status %d, want 200 or 206", a.request, a.Status)
				}
			}
		})
	}
}

// readPiece asks for all from off on, reads len(into) bytes and closes.
func readPiece(ctx context.Context, c *client, base, path string, into []byte, off, size int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := newRequest(ctx, http.MethodGet, base, path, fmt.Sprintf("Range: bytes=%d-", off), "User-Agent: "+agentContainerd)
	if err != nil {
		return err
	}
	res, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if want := fmt.Sprintf("bytes %d-%d/%d", off, size-1, size); res.StatusCode != http.StatusPartialContent || res.Header.Get("Content-Range") != want {
		return fmt.Errorf("status %d, Content-Range %q, want 206 %q", res.StatusCode, res.Header.Get("Content-Range"), want)
	}
	_, err = io.ReadFull(res.Body, into)
	return err
}

// T17, containerd#10035, #11365: every released containerd fails for good on a reset and
// resumes after an end. A body that cannot be finished ends with a FIN, short of its length.
func TestT17_BrokenBodiesEndAndAreNotReset(t *testing.T) {
	t.Parallel()
	const size = 32 << 20
	for name, fault := range map[string]hubtest.Fault{
		"last bit wrong": hubtest.Corrupt(-1), "first bit wrong": hubtest.Corrupt(0), "always cut": hubtest.Drop(2<<20, hubtest.FIN),
	} {
		t.Run(name, func(t *testing.T) {
			hub, m, _ := setup(t, hubtest.Options{}, mirrortest.Options{})
			// So large that its head is on the way long before the whole is hashed.
			digest := hub.PutVirtualBlob("library/app", 17, size)
			first := hubtest.Rule{Role: hubtest.CDN, Do: fault}
			if name == "always cut" {
				hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Method: http.MethodGet, Count: 1, Do: fault})
				first = hubtest.Rule{Role: hubtest.CDN, Do: hubtest.Status(500)}
			}
			hub.AddRule(first)
			conn := rawGet(t, m.URL, "/v2/library/app/blobs/"+digest)
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("read the head: %s", err)
			}
			defer res.Body.Close()
			if res.StatusCode != http.StatusOK || res.ContentLength != size {
				t.Fatalf("status %d, length %d, want 200 and %d", res.StatusCode, res.ContentLength, size)
			}
			n, err := io.Copy(io.Discard, res.Body)
			if errors.Is(err, syscall.ECONNRESET) || !isCutShort(err) {
				t.Errorf("after %d bytes: %v, want an unexpected EOF", n, err)
			}
			if n >= size {
				t.Errorf("%d bytes came, want fewer than all", n)
			}
		})
	}
}

// T18, containerd#3974: the upstream breaks off wherever it likes, and the client sees
// nothing of it.
func TestT18_UpstreamTruncatesAnywhere(t *testing.T) {
	t.Parallel()
	const size = 4<<20 + 321
	endings := []func(int64) hubtest.Fault{
		func(k int64) hubtest.Fault { return hubtest.Drop(k, hubtest.FIN) },
		func(k int64) hubtest.Fault { return hubtest.Drop(k, hubtest.RST) },
		func(k int64) hubtest.Fault { return hubtest.Truncate(k, hubtest.ChunkedCut) },
		func(k int64) hubtest.Fault { return hubtest.Truncate(k, hubtest.KeepLength) },
	}
	for n, ending := range endings {
		for _, at := range [][]int64{{0}, {1}, {-1}, {size / 2}, {70_000, 200_000, 1 << 20, 5}, {1000, 1000, 1000, 100_000}} {
			t.Run(fmt.Sprintf("ending %d at %d", n, at), func(t *testing.T) {
				hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
				raw := letters(n, size)
				digest := hub.PutBlob("library/app", raw)
				for _, k := range at {
					hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Count: 1, Do: ending(k)})
				}
				c.get(m.URL, "/v2/library/app/blobs/"+digest).assertBlob(t, digest, raw)
				reset := n == 1 // which throws away what was on its way
				if n := hub.BlobBytes(digest); n > size+2<<20 && !reset {
					t.Errorf("hub sent %d bytes of a blob of %d: resumes begin anew", n, size)
				}
			})
		}
	}
}

// T31, spegel#548: a range far into a blob that is not here does not wait for what is
// before it.
func TestT31_FarRangeOfAColdBlob(t *testing.T) {
	t.Parallel()
	for _, mid := range []bool{false, true} {
		t.Run(fmt.Sprintf("while a client reads it: %t", mid), func(t *testing.T) {
			const size, speed, soon = 24 << 20, 1 << 20, 8 * time.Second // of 24 s for all of it
			hub, m, c := setup(t, hubtest.Options{LineBytesPerSecond: speed}, mirrortest.Options{})
			digest := hub.PutVirtualBlob("library/app", 31, size)
			path := "/v2/library/app/blobs/" + digest
			if mid {
				conn := rawGet(t, m.URL, path)
				if _, err := io.ReadFull(conn, make([]byte, 100_000)); err != nil {
					t.Fatalf("begin to read the blob: %s", err)
				}
			}
			raw, err := io.ReadAll(hubtest.VirtualReader(31, size))
			if err != nil {
				t.Fatal(err)
			}
			// The blob's last byte waits for the digest of all; everything before it does not.
			for _, off := range []int{size - 2000, size / 2, size / 3} {
				a := c.get(m.URL, path, fmt.Sprintf("Range: bytes=%d-%d", off, off+999))
				rangeCase{a.request, 206, off, off + 1000}.assert(t, a, digest, raw)
				if a.Took > soon {
					t.Errorf("%s: took %s", a.request, a.Took)
				}
			}
			start := time.Now()
			conn := rawGet(t, m.URL, path, fmt.Sprintf("Range: bytes=%d-", size-5000))
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("range to the end: %s", err)
			}
			defer res.Body.Close()
			tail := make([]byte, 4999)
			if _, err := io.ReadFull(res.Body, tail); err != nil || string(tail) != string(raw[size-5000:size-1]) {
				t.Errorf("range to the end: wrong bytes, or %v", err)
			}
			if took := time.Since(start); took > soon {
				t.Errorf("all but the last byte of the end took %s", took)
			}
		})
	}
}

// T47, T48: snapshotters that pull lazily read pieces of a layer, its end first. Each comes as it
// arrives, several as parts; in the end the registry has sent the blob once, or with OnlyRanges
// what was read and nothing else.
func TestT47_T48_PiecesOfAColdBlob(t *testing.T) {
	t.Parallel()
	const size, speed, soon = 24 << 20, 768 << 10, 24 * time.Second // of 32 s for all of it
	for _, only := range []bool{false, true} {
		t.Run(fmt.Sprintf("only ranges: %t", only), func(t *testing.T) {
			mo := mirrortest.Options{}
			mo.Cache.OnlyRanges = only
			hub, m, c := setup(t, hubtest.Options{LineBytesPerSecond: speed}, mo)
			digest := hub.PutVirtualBlob("library/app", 47, size)
			path := "/v2/library/app/blobs/" + digest
			raw, err := io.ReadAll(hubtest.VirtualReader(47, size))
			if err != nil {
				t.Fatal(err)
			}
			asked := int64(0)
			for _, span := range [][2]int{{size - 1000, size}, {5 << 20, 5<<20 + 1}, {size - 70_000, size - 60_000}, {0, 100}} {
				spec := fmt.Sprintf("Range: bytes=%d-%d", span[0], span[1]-1)
				if span[1] == size {
					spec = fmt.Sprintf("Range: bytes=-%d", size-span[0])
				}
				a := c.get(m.URL, path, spec)
				rangeCase{a.request, 206, span[0], span[1]}.assert(t, a, digest, raw)
				if a.Took > soon {
					t.Errorf("%s: took %s", a.request, a.Took)
				}
				asked += int64(span[1] - span[0])
			}
			a := c.get(m.URL, path, fmt.Sprintf("Range: bytes=1000000-1000999,200-299,%d-%d", size-2000, size-1001))
			if a.assertParts(t, raw); a.Status != http.StatusPartialContent || a.Took > soon {
				t.Errorf("%s: status %d after %s", a.request, a.Status, a.Took)
			}
			asked += 1000 + 100 + 1000
			hub.Set(func(o *hubtest.Options) { o.LineBytesPerSecond = 0 })
			most := int64(size * 102 / 100)
			if only {
				m.Restart() // and those who come later find what there is
				for _, span := range [][2]int{{size - 500, size}, {7 << 20, 7<<20 + 1000}} {
					a := c.get(m.URL, path, fmt.Sprintf("Range: bytes=%d-%d", span[0], span[1]-1))
					rangeCase{a.request, 206, span[0], span[1]}.assert(t, a, digest, raw)
				}
				most = asked + 1 + 1000 // a byte proves that the repository holds the first
			} else {
				eventually(t, "the whole blob", func() bool { return len(m.Cache().Fills().List()) == 0 })
			}
			if n := hub.BlobBytes(digest); n > most {
				t.Errorf("the hub sent %d bytes, want at most %d", n, most)
			}
			c.get(m.URL, path).assertBlob(t, digest, raw)
		})
	}
}

// T43: all containerd fail for good when a resume is answered with 200. After a restart or a
// crash in the middle, a resume gets its range or an error, and the range is right.
func TestT43_ResumeIsNeverAnsweredWhole(t *testing.T) {
	t.Parallel()
	const size = 8 << 20
	raw, err := io.ReadAll(hubtest.VirtualReader(43, size))
	if err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"restart", "crash", "restart without upstream", "crash without upstream", "crash, upstream without ranges"} {
		t.Run(how, func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{CDNBytesPerSecond: 4 << 20}, mirrortest.Options{})
			digest := hub.PutVirtualBlob("library/app", 43, size)
			path := "/v2/library/app/blobs/" + digest
			conn := rawGet(t, m.URL, path)
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("begin to read the blob: %s", err)
			}
			defer res.Body.Close()
			have := make([]byte, 1<<20+17)
			if _, err := io.ReadFull(res.Body, have); err != nil {
				t.Fatalf("read the first part: %s", err)
			}
			if strings.HasPrefix(how, "crash") {
				m.Crash()
			} else {
				m.Restart()
			}
			rest, err := io.ReadAll(res.Body)
			have = append(have, rest...)
			if err == nil || len(have) >= size {
				t.Fatalf("the mirror stopped, and the client has %d bytes and %v", len(have), err)
			}
			gone := strings.HasSuffix(how, "without upstream")
			switch {
			case gone:
				hub.SwitchOff()
			case strings.HasSuffix(how, "without ranges"):
				hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: hubtest.IgnoreRange()})
			}
			a := c.get(m.URL, path, fmt.Sprintf("Range: bytes=%d-", len(have)))
			switch {
			case a.Status == http.StatusPartialContent && a.Err == nil:
				if string(have)+string(a.Body) != string(raw) {
					t.Errorf("%s: first part and resumed part do not make the blob", a.request)
				}
			case a.Status == http.StatusPartialContent && gone:
			case a.Status < 400 || !gone:
				t.Errorf("%s: status %d, %d bytes, %v; want the range", a.request, a.Status, len(a.Body), a.Err)
			}
			if gone {
				if err := hub.SwitchOn(); err != nil {
					t.Fatal(err)
				}
			}
			c.recovers(m.URL, path)
			c.get(m.URL, path).assertBlob(t, digest, raw)
		})
	}
}

// T43: a blob whose size nobody tells: a range from the start may be answered with the
// whole, any other not.
func TestT43_UnknownSizes(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]hubtest.Fault{
		"chunked": hubtest.Both(hubtest.IgnoreRange(), hubtest.Chunked()), "until close": hubtest.Both(hubtest.IgnoreRange(), hubtest.CloseDelimited()),
	} {
		t.Run(name, func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
			hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: fault})
			for i, spec := range []string{"bytes=100-", "bytes=0-", "bytes=-100", "bytes=3000000-", "bytes=5000000-"} {
				raw := letters(i, 4<<20)
				digest := hub.PutBlob("library/app", raw)
				path := "/v2/library/app/blobs/" + digest
				res, err := c.loose(t.Context(), m.URL, path, "Range: "+spec)
				if err != nil {
					t.Fatal(err)
				}
				switch {
				case res.Status == http.StatusOK && spec != "bytes=0-":
					t.Errorf("%s: status 200 to a range", spec)
				case res.Status == http.StatusOK && res.Err == nil && string(res.Body) != string(raw):
					t.Errorf("%s: 200 with %d wrong bytes", spec, len(res.Body))
				}
				eventually(t, "the blob to be kept", func() bool {
					a, err := c.loose(t.Context(), m.URL, path)
					if err == nil && a.Status == http.StatusOK && a.Err == nil && string(a.Body) != string(raw) {
						t.Fatalf("%s: a complete body with wrong bytes", a.request)
					}
					return err == nil && a.Status == http.StatusOK && a.Err == nil && a.Length == int64(len(raw))
				})
			}
		})
	}
}

// T47, T48: stargz and SOCI probe with a range of two bytes, and podman's partial pulls ask
// for many ranges: they take parts that fit, the whole, or a 400.
func TestT47_T48_SeveralRanges(t *testing.T) {
	t.Parallel()
	const size = 100_000
	specs := []string{
		"bytes=0-1,500-999", "bytes=0-0,-1", "bytes=5-6, 7-9 , 99990-200000", "bytes=0-99999,0-99999,0-99999", "bytes=10-20,15-30",
		"bytes=200000-300000,5-9", "bytes=200000-300000,400000-", "bytes=" + strings.Repeat("1-2,", 200) + "3-4", "bytes=0-1,abc",
		"bytes=,,5-6", "bytes=500-0,1-2",
	}
	for _, phase := range []string{"cold", "warm", "restarted"} {
		t.Run(phase, func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
			for i, spec := range specs {
				raw := letters(i, size)
				digest := hub.PutBlob("library/app", raw)
				path := "/v2/library/app/blobs/" + digest
				if phase != "cold" {
					c.get(m.URL, path).assertBlob(t, digest, raw)
				}
				if phase == "restarted" && i == 0 {
					m.Restart()
				}
				a := c.get(m.URL, path, "Range: "+spec)
				if a.Status == http.StatusOK || a.Status == http.StatusPartialContent {
					a.assertHeader(t, "Docker-Content-Digest", digest)
				}
				switch a.Status {
				case http.StatusOK:
					a.assertBlob(t, digest, raw)
				case http.StatusPartialContent:
					a.assertParts(t, raw)
				case http.StatusBadRequest, http.StatusRequestedRangeNotSatisfiable:
				default:
					t.Errorf("%s: status %d, want 200, 206, 400 or 416", a.request, a.Status)
				}
			}
		})
	}
}

// assertParts checks a 206 with one or several parts.
func (a *answer) assertParts(t testing.TB, raw []byte) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if err != nil {
		t.Fatalf("%s: Content-Type %q: %s", a.request, a.Header.Get("Content-Type"), err)
	}
	if kind != "multipart/byteranges" {
		assertPart(t, a.request, a.Header.Get("Content-Range"), a.Body, raw)
		return
	}
	r := multipart.NewReader(strings.NewReader(string(a.Body)), params["boundary"])
	for {
		p, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%s: read part: %s", a.request, err)
		}
		b, err := io.ReadAll(p)
		if err != nil {
			t.Fatalf("%s: read part: %s", a.request, err)
		}
		assertPart(t, a.request, p.Header.Get("Content-Range"), b, raw)
	}
}

func assertPart(t testing.TB, request, contentRange string, b, raw []byte) {
	t.Helper()
	var first, last, size int
	if n, err := fmt.Sscanf(contentRange, "bytes %d-%d/%d", &first, &last, &size); n != 3 || size != len(raw) || last >= size || first > last {
		t.Errorf("%s: Content-Range %q (%v)", request, contentRange, err)
		return
	}
	if string(b) != string(raw[first:last+1]) {
		t.Errorf("%s: part %q has %d wrong bytes", request, contentRange, len(b))
	}
}

// T49: dockerd, containerd and podman speak HTTP/1.1 and keep sockets open: many idle
// connections are kept, and used again.
func TestT49_IdleConnectionsStayOpen(t *testing.T) {
	hub, m, _ := setup(t, hubtest.Options{}, mirrortest.Options{})
	img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
	const conns = 200
	host := strings.TrimPrefix(m.URL, "http://")
	request := "GET /v2/library/app/manifests/latest HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
	list, opened := make([]*bufio.ReadWriter, conns), make([]net.Conn, conns)
	for i := range list {
		conn := rawGet(t, m.URL, "/v2/library/app/manifests/latest")
		opened[i] = conn
		list[i] = bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	}
	for round := range 3 {
		for i, rw := range list {
			_ = opened[i].SetDeadline(time.Now().Add(patience)) // for each request, not for all of them
			if round > 0 {
				if _, err := rw.WriteString(request); err != nil {
					t.Fatalf("connection %d: %s", i, err)
				}
				if err := rw.Flush(); err != nil {
					t.Fatalf("connection %d: %s", i, err)
				}
			}
			res, err := http.ReadResponse(rw.Reader, nil)
			if err != nil {
				t.Fatalf("connection %d, request %d: %s", i, round+1, err)
			}
			b, err := io.ReadAll(res.Body)
			if err != nil || string(b) != string(img.Raw) || res.Close {
				t.Fatalf("connection %d, request %d: %d bytes, %v, to be closed: %t", i, round+1, len(b), err, res.Close)
			}
		}
	}
}

// A blob that is larger than what may be kept is passed through, verified like any other.
func TestT40_LargerThanTheStore(t *testing.T) {
	mo := mirrortest.Options{Fallback: proxy.FallbackNone}
	mo.Cache.Store.MaxBytes = 1 << 20
	hub, m, c := setup(t, hubtest.Options{}, mo)
	raw := letters(40, 3<<20)
	digest := hub.PutBlob("library/app", raw)
	path := "/v2/library/app/blobs/" + digest
	c.get(m.URL, path).assertBlob(t, digest, raw)
	rangeCase{"a range", 206, 2 << 20, 3 << 20}.assert(t, c.get(m.URL, path, "Range: bytes=2097152-"), digest, raw)
	if _, err := os.Stat(blobFile(m, digest)); err == nil {
		t.Errorf("a blob of 3 MiB was kept, though 1 MiB may be")
	}
	hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: hubtest.Corrupt(-1)})
	a := c.get(m.URL, path)
	a.assertNeverWrong(t, raw)
	if a.Status == http.StatusOK && a.Err == nil {
		t.Errorf("%s: complete, though the upstream sends it damaged", a.request)
	}
}
