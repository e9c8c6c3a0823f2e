package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"forebay/cache"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

// someData is n bytes that differ from their neighbours.
func someData(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

const blobPath = "/v2/library/nginx/blobs/" + digestA

// M27, M28 of docs/clients.md: a blob looks the same whether it is kept or arriving.
func TestBlobHeaders(t *testing.T) {
	data := someData(5000)
	kept := &fakeCache{result: cache.Hit}
	kept.writeBlob(t, data)
	arriving := &fakeCache{result: cache.Miss, blob: fakeBlob{data: data}}
	for name, f := range map[string]*fakeCache{"kept": kept, "arriving": arriving} {
		url := serve(t, newHandler(t, f, nil))
		for _, method := range []string{"GET", "HEAD"} {
			a := ask(t, method, url+blobPath+"?ns=docker.io")
			if a.StatusCode != 200 || method == "GET" && a.body != string(data) {
				t.Errorf("%s: %s = %d with %d bytes", name, method, a.StatusCode, len(a.body))
			}
			a.Header.Del("Date")
			want := http.Header{
				"Content-Type":                    {"application/octet-stream"},
				"Content-Length":                  {"5000"},
				"Docker-Content-Digest":           {digestA},
				"Etag":                            {`"` + digestA + `"`},
				"Accept-Ranges":                   {"bytes"},
				"Docker-Distribution-Api-Version": {"registry/2.0"},
				"Oci-Namespace":                   {"docker.io"},
				"Cache-Control":                   {"public, max-age=31536000, immutable"},
			}
			if diff := cmp.Diff(want, a.Header); diff != "" {
				t.Errorf("%s: %s headers (-want +got):\n%s", name, method, diff)
			}
		}
	}
}

// M28, T31, T43, T46 and the ranges of the OCI conformance suite.
func TestBlobRanges(t *testing.T) {
	const size = 5000
	data := someData(size)
	etag := `"` + digestA + `"`
	rows := []struct {
		value, ifRange string
		status         int
		off, end       int
	}{
		{"bytes=500-1499", "", 206, 500, 1500},
		{"bytes=0-", "", 206, 0, size},
		{"bytes=0-1", "", 206, 0, 2},
		{"bytes=4999-", "", 206, 4999, size},
		{"bytes=-500", "", 206, size - 500, size},
		{"bytes=-50000", "", 206, 0, size},
		{"bytes=2000-5000", "", 206, 2000, size},
		{"bytes=100-5000", etag, 206, 100, size},
		{"bytes=100-200", `"sha256:other"`, 200, 0, size},
		{"bytes=100-200", "Wed, 21 Oct 2015 07:28:00 GMT", 200, 0, size},
		{"bytes=500-0", "", 416, 0, 0},
		{"bytes=5000-10000", "", 416, 0, 0},
		{"bytes=5000-", "", 416, 0, 0},
		{"bytes=-0", "", 416, 0, 0},
		{"bytes=x-y", "", 200, 0, size},
		{"items=1-2", "", 200, 0, size},
	}
	kept := &fakeCache{result: cache.Hit}
	kept.writeBlob(t, data)
	arriving := &fakeCache{result: cache.Joined, blob: fakeBlob{data: data}}
	for name, f := range map[string]*fakeCache{"kept": kept, "arriving": arriving} {
		url := serve(t, newHandler(t, f, nil))
		for _, row := range rows {
			headers := []string{"Range", row.value}
			if row.ifRange != "" {
				headers = append(headers, "If-Range", row.ifRange)
			}
			a := ask(t, "GET", url+blobPath, headers...)
			what := fmt.Sprintf("%s: Range %s, If-Range %q", name, row.value, row.ifRange)
			if a.StatusCode != row.status {
				t.Errorf("%s = %d, want %d", what, a.StatusCode, row.status)
				continue
			}
			wantRange := ""
			switch row.status {
			case 206:
				wantRange = fmt.Sprintf("bytes %d-%d/%d", row.off, row.end-1, size)
			case 416:
				wantRange = fmt.Sprintf("bytes */%d", size)
			}
			if got := a.Header.Get("Content-Range"); got != wantRange {
				t.Errorf("%s: Content-Range %q, want %q", what, got, wantRange)
			}
			if row.status == 416 {
				a.code()
				continue
			}
			if a.body != string(data[row.off:row.end]) || a.Header.Get("Docker-Content-Digest") != digestA ||
				a.Header.Get("Content-Length") != strconv.Itoa(row.end-row.off) || a.Header.Get("ETag") != etag {
				t.Errorf("%s: %d bytes, headers %v", what, len(a.body), a.Header)
			}
		}
	}
}

// T47, T48: several ranges of a kept blob come as parts; of an arriving one, as the whole.
func TestSeveralRanges(t *testing.T) {
	data := someData(5000)
	f := &fakeCache{result: cache.Hit}
	f.writeBlob(t, data)
	url := serve(t, newHandler(t, f, nil))
	a := ask(t, "GET", url+blobPath, "Range", "bytes=0-9,100-199")
	kind, params, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if a.StatusCode != 206 || err != nil || kind != "multipart/byteranges" {
		t.Fatalf("several ranges = %d %q", a.StatusCode, a.Header.Get("Content-Type"))
	}
	parts := multipart.NewReader(strings.NewReader(a.body), params["boundary"])
	for _, want := range [][]byte{data[:10], data[100:200]} {
		part, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(part); !bytes.Equal(got, want) {
			t.Errorf("part %v has %d bytes, want %d", part.Header, len(got), len(want))
		}
	}
	for _, spec := range []string{"bytes=6000-7000,8000-", "bytes=500-0,1-2"} {
		a := ask(t, "GET", url+blobPath, "Range", spec)
		if a.StatusCode != 416 || a.code() != "SIZE_INVALID" || a.Header.Get("Content-Range") != "bytes */5000" {
			t.Errorf("%s = %d %q, Content-Range %q", spec, a.StatusCode, a.body, a.Header.Get("Content-Range"))
		}
	}
	// What one request makes us send is bounded: a part costs a hundred times a byte.
	for spec, want := range map[string]struct{ status, most int }{
		"bytes=" + strings.Repeat("0-0,", 14_000) + "1-1": {200, 5000},
		"bytes=" + strings.Repeat("0-4999,", 60) + "0-1":  {206, 5000},
		"bytes=0-99,50-149":                      {206, 150},
		"bytes=" + manyRanges(wire.RangesMost):   {206, wire.RangesMost * 300},
		"bytes=" + manyRanges(wire.RangesMost+1): {200, 5000},
	} {
		if a := ask(t, "GET", url+blobPath, "Range", spec); a.StatusCode != want.status || len(a.body) > want.most || want.status == 200 && a.body != string(data) {
			t.Errorf("%.40s… = %d with %d bytes, want %d with at most %d", spec, a.StatusCode, len(a.body), want.status, want.most)
		}
	}
	f.blob = fakeBlob{data: data}
	if a := ask(t, "GET", url+blobPath, "Range", "bytes=0-9,100-199"); a.StatusCode != 200 || a.body != string(data) {
		t.Errorf("several ranges of an arriving blob = %d with %d bytes, want the whole", a.StatusCode, len(a.body))
	}
}

// manyRanges are n ranges of a byte each.
func manyRanges(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%d-%d", 2*i, 2*i)
	}
	return strings.Join(all, ",")
}

func TestBlobNotModified(t *testing.T) {
	f := &fakeCache{result: cache.Hit}
	f.writeBlob(t, someData(100))
	url := serve(t, newHandler(t, f, nil))
	for _, method := range []string{"GET", "HEAD"} {
		if a := ask(t, method, url+blobPath, "If-None-Match", `W/"`+digestA+`"`); a.StatusCode != 304 || a.body != "" {
			t.Errorf("%s = %d with %d bytes, want 304", method, a.StatusCode, len(a.body))
		}
		if a := ask(t, method, url+blobPath, "If-Match", `"x", W/"`+digestA+`"`); a.StatusCode != 412 {
			t.Errorf("%s of another tag only = %d, want 412", method, a.StatusCode)
		}
		if a := ask(t, method, url+blobPath, "If-Match", `"x", "`+digestA+`"`); a.StatusCode != 200 {
			t.Errorf("%s of this tag only = %d, want 200", method, a.StatusCode)
		}
		if a := ask(t, method, url+blobPath, "If-None-Match", `"x"`); a.StatusCode != 200 {
			t.Errorf("%s of another tag = %d, want 200", method, a.StatusCode)
		}
	}
}

func TestEmptyBlob(t *testing.T) {
	kept := &fakeCache{result: cache.Hit}
	kept.writeBlob(t, nil)
	for name, f := range map[string]*fakeCache{"kept": kept, "arriving": {blob: fakeBlob{data: []byte{}}}} {
		url := serve(t, newHandler(t, f, nil))
		for _, headers := range [][]string{nil, {"Range", "bytes=0-"}} {
			if a := ask(t, "GET", url+blobPath, headers...); a.StatusCode != 200 || a.ContentLength != 0 || a.err != nil {
				t.Errorf("%s: GET %v = %d, length %d, %v", name, headers, a.StatusCode, a.ContentLength, a.err)
			}
		}
	}
}

// A blob whose size nobody knows yet is served whole, and never in place of a part.
func TestBlobOfUnknownSize(t *testing.T) {
	data := someData(5000)
	f := &fakeCache{result: cache.Miss, blob: fakeBlob{data: data, hidden: true}}
	url := serve(t, newHandler(t, f, nil))
	for _, value := range []string{"", "bytes=0-", "bytes=0-99"} {
		if a := ask(t, "GET", url+blobPath, "Range", value); a.StatusCode != 200 || a.body != string(data) || a.ContentLength != -1 {
			t.Errorf("Range %q = %d with %d bytes, want the whole", value, a.StatusCode, len(a.body))
		}
	}
	for _, value := range []string{"bytes=100-", "bytes=-5"} {
		if a := ask(t, "GET", url+blobPath, "Range", value); a.StatusCode != 404 || a.code() != "BLOB_UNKNOWN" {
			t.Errorf("Range %q = %d, want 404", value, a.StatusCode)
		}
	}
	if a := ask(t, "HEAD", url+blobPath); a.StatusCode != 404 {
		t.Errorf("HEAD = %d, want 404 rather than no length", a.StatusCode)
	}
	f.blob.failAt, f.blob.fail = 3000, kind(pull.Unavailable)
	if a := ask(t, "GET", url+blobPath); a.err == nil {
		t.Errorf("a broken body of %d bytes ended as if it were whole", len(a.body))
	}
}

// M20: before the first byte an error is a status, after it a short body.
func TestFailingFill(t *testing.T) {
	data := someData(50000)
	f := &fakeCache{result: cache.Miss, blob: fakeBlob{data: data, fail: kind(pull.Invalid)}}
	h := newHandler(t, f, nil)
	url := serve(t, h)
	a := ask(t, "GET", url+blobPath)
	if a.StatusCode != 404 || a.code() != "BLOB_UNKNOWN" || a.Header.Get("Docker-Content-Digest") != "" ||
		a.Header.Get("Accept-Ranges") != "" || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("failed before the first byte: %d %v", a.StatusCode, a.Header)
	}
	if a := ask(t, "GET", url+"/v2/docker.io/library/nginx/blobs/"+digestA); a.StatusCode != 502 {
		t.Errorf("failed before the first byte, direct: %d, want 502", a.StatusCode)
	}
	for _, at := range []int64{1, 3000, 49999} {
		f.blob.failAt = at
		a := ask(t, "GET", url+blobPath)
		if a.StatusCode != 200 || !errors.Is(a.err, io.ErrUnexpectedEOF) || a.body != string(data[:at]) {
			t.Errorf("failed at %d: %d with %d bytes, error %v, want an unexpected EOF", at, a.StatusCode, len(a.body), a.err)
		}
		a = ask(t, "GET", url+blobPath, "Range", "bytes=0-")
		if a.StatusCode != 206 || !errors.Is(a.err, io.ErrUnexpectedEOF) {
			t.Errorf("ranged, failed at %d: %d, error %v, want an unexpected EOF", at, a.StatusCode, a.err)
		}
	}
	// The same over HTTP/2, where only a plain return makes containerd try again.
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	resp, err := s.Client().Get(s.URL + blobPath)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if resp.ProtoMajor != 2 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("HTTP/%d: %d bytes, error %v, want an unexpected EOF over HTTP/2", resp.ProtoMajor, len(got), err)
	}
}

// T17: an aborted body ends with FIN. A reset would be another error than EOF.
func TestAbortIsNoReset(t *testing.T) {
	for _, hidden := range []bool{false, true} {
		f := &fakeCache{blob: fakeBlob{data: someData(50000), failAt: 20000, fail: kind(pull.Unavailable), hidden: hidden}}
		addr := strings.TrimPrefix(serve(t, newHandler(t, f, nil)), "http://")
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: m\r\n\r\n", blobPath)
		got, err := io.ReadAll(c)
		c.Close()
		if err != nil || len(got) < 10000 || bytes.HasSuffix(got, []byte("\r\n0\r\n\r\n")) {
			t.Errorf("hidden %t: %d bytes, error %v, want a clean end of the connection in mid-body", hidden, len(got), err)
		}
	}
}

// A kept file that lost its end is a short body and not a short blob.
func TestTruncatedFileEndsShort(t *testing.T) {
	f := &fakeCache{result: cache.Hit}
	f.writeBlob(t, someData(50000))
	if err := os.Truncate(f.blob.path, 30000); err != nil {
		t.Fatal(err)
	}
	a := ask(t, "GET", serve(t, newHandler(t, f, nil))+blobPath)
	if !errors.Is(a.err, io.ErrUnexpectedEOF) || len(a.body) != 30000 {
		t.Errorf("%d bytes, error %v, want an unexpected EOF after 30000", len(a.body), a.err)
	}
}

// recorder sees what reaches the server's own writer.
type recorder struct {
	httptest.ResponseRecorder
	from []io.Reader
}

func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	r.from = append(r.from, src)
	return io.Copy(&r.ResponseRecorder, src)
}

// Without this a hit costs three times the CPU: only an *os.File, bare or under an
// io.LimitedReader, is handed to sendfile.
func TestFileReachesWriterAsFile(t *testing.T) {
	f := &fakeCache{result: cache.Hit}
	f.writeBlob(t, someData(5000))
	h := newHandler(t, f, nil)
	for _, value := range []string{"", "bytes=100-", "bytes=0-9"} {
		rec := &recorder{ResponseRecorder: *httptest.NewRecorder()}
		req := httptest.NewRequest("GET", blobPath, nil)
		req.Header.Set("Range", value)
		h.ServeHTTP(rec, req)
		if len(rec.from) != 1 {
			t.Fatalf("Range %q: ReadFrom called %d times, want once", value, len(rec.from))
		}
		limited, ok := rec.from[0].(*io.LimitedReader)
		if !ok {
			t.Fatalf("Range %q: ReadFrom got a %T, want *io.LimitedReader", value, rec.from[0])
		}
		if _, ok := limited.R.(*os.File); !ok {
			t.Errorf("Range %q: ReadFrom got a limited %T, want *os.File", value, limited.R)
		}
	}
}

// fileSender is an arriving blob that is sent from a file, as the cache's are.
type fileSender struct{ fakeBlob }

func (b *fileSender) File() *os.File { return nil }

func (b *fileSender) Send(ctx context.Context, w io.Writer, off, end int64) (int64, error) {
	if _, err := b.file.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	return io.CopyN(w, b.file, end-off)
}

func TestArrivingFileReachesWriterAsFile(t *testing.T) {
	f := &fakeCache{}
	f.writeBlob(t, someData(5000))
	h := newHandler(t, f, nil)
	file, err := os.Open(f.blob.path)
	if err != nil {
		t.Fatal(err)
	}
	opens(h, &fileSender{fakeBlob{file: file, length: 5000, result: cache.Joined}})
	rec := &recorder{ResponseRecorder: *httptest.NewRecorder()}
	h.ServeHTTP(rec, httptest.NewRequest("GET", blobPath, nil))
	if len(rec.from) != 1 || rec.Body.Len() != 5000 {
		t.Fatalf("ReadFrom called %d times, %d bytes", len(rec.from), rec.Body.Len())
	}
	if _, ok := rec.from[0].(*io.LimitedReader).R.(*os.File); !ok {
		t.Errorf("ReadFrom got no file but %T", rec.from[0])
	}
}

// T14, T42: whoever waits for headers gets an answer before 20 s are over.
func TestHeadersWithinDeadline(t *testing.T) {
	hung := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	rows := []struct {
		method, path string
		want         int
	}{
		{"GET", "/v2/library/nginx/manifests/latest", 503},
		{"GET", "/v2/docker.io/library/nginx/manifests/latest", 504},
		{"GET", "/v2/library/nginx/tags/list", 503},
		{"GET", "/v2/library/nginx/referrers/" + digestA, 503},
		{"HEAD", blobPath, 404},
		{"GET", blobPath, 404},
		{"GET", "/v2/docker.io/library/nginx/blobs/" + digestA, 504},
		{"GET", "/v2/library/slow/blobs/" + digestA, 404}, // opened, but its first byte never comes
		{"GET", "/v2/docker.io/library/slow/blobs/" + digestA, 504},
	}
	for _, row := range rows {
		synctest.Test(t, func(t *testing.T) {
			h := newHandler(t, &fakeCache{}, nil)
			h.source = opening{&hungCache{hung: hung}, func(ctx context.Context, repo cache.Repo) (blob, error) {
				if repo.Name == "library/slow" {
					return &fakeBlob{stalled: true, length: 100}, nil
				}
				return nil, hung(ctx)
			}}
			rec := httptest.NewRecorder()
			began := time.Now()
			h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), row.method, row.path, nil))
			if took := time.Since(began); rec.Code != row.want || took >= 20*time.Second || took < 10*time.Second {
				t.Errorf("%s %s = %d after %s, want %d within 20 s", row.method, row.path, rec.Code, took, row.want)
			}
		})
	}
}

// The deadline is for headers: a body may take as long as it likes.
func TestBodyHasNoDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, &fakeCache{}, nil)
		opens(h, &slowSender{fakeBlob{length: 10}})
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", blobPath, nil))
		if rec.Code != 200 || rec.Body.Len() != 10 {
			t.Errorf("slow blob = %d with %d bytes, want all 10", rec.Code, rec.Body.Len())
		}
	})
}

// slowSender gives ten bytes, a minute apart but for the first.
type slowSender struct{ fakeBlob }

func (*slowSender) Send(ctx context.Context, w io.Writer, off, end int64) (int64, error) {
	for i := range int64(10) {
		if _, err := w.Write([]byte{'x'}); err != nil {
			return i, err
		}
		select {
		case <-time.After(time.Minute):
		case <-ctx.Done():
			return i + 1, ctx.Err()
		}
	}
	return 10, nil
}

// A client that leaves stops its own sending and nothing else.
func TestLeavingClientStopsSending(t *testing.T) {
	stopped := make(chan error, 1)
	h := newHandler(t, &fakeCache{}, nil)
	opens(h, &endlessSender{fakeBlob: fakeBlob{length: 1 << 40}, stopped: stopped})
	c, err := net.Dial("tcp", strings.TrimPrefix(serve(t, h), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: m\r\n\r\n", blobPath)
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	c.Close()
	select {
	case err := <-stopped:
		if err == nil {
			t.Error("sending ended without an error")
		}
	case <-time.After(10 * time.Second):
		t.Error("sending went on without its client")
	}
}

// endlessSender writes one byte and then waits for the end of its context.
type endlessSender struct {
	fakeBlob
	stopped chan error
}

func (s *endlessSender) Send(ctx context.Context, w io.Writer, off, end int64) (int64, error) {
	if _, err := w.Write([]byte{'x'}); err != nil {
		return 0, err
	}
	<-ctx.Done()
	s.stopped <- ctx.Err()
	return 1, ctx.Err()
}
