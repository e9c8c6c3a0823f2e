package mirrortest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"forebay/test/hubtest"
	"forebay/test/mirrortest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, o hubtest.Options) (*hubtest.Hub, *mirrortest.Mirror) {
	t.Helper()
	hub := hubtest.New(t, o)
	return hub, mirrortest.New(t, mirrortest.Options{Hub: hub})
}

// noise returns bytes that look like nothing else.
func noise(seed uint64, size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = r.Read(b) // never fails
	return b
}

// errWrongWhole: a body that is wrong and ended as if it were right.
var errWrongWhole = errors.New("a clean end of a wrong body")

// follow reads a path as plainly as a client can, into nothing but a check.
func follow(ctx context.Context, c *http.Client, url, span string, want []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if span != "" {
		r.Header.Set("Range", span)
	}
	res, err := c.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return compare(res.Body, want)
}

// compare reads a body in small pieces, as there may be a thousand of them. A wrong piece
// is forgiven a body that does not end cleanly.
func compare(body io.Reader, want []byte) error {
	buf := make([]byte, 16<<10)
	right, n := true, 0
	for {
		m, err := body.Read(buf)
		right = right && n+m <= len(want) && bytes.Equal(buf[:m], want[n:n+m])
		n += m
		switch {
		case errors.Is(err, io.EOF) && (!right || n != len(want)):
			return fmt.Errorf("%w: %d bytes, want %d", errWrongWhole, n, len(want))
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// T29, M01 of docs/clients.md: a thousand clients of one cold blob cost one transfer,
// whenever they come.
func TestT29_ThousandClientsOneTransfer(t *testing.T) {
	hub, m := start(t, hubtest.Options{Anonymous: hubtest.Unlimited(), CDNBytesPerSecond: 8 << 20})
	raw := noise(7, 6<<20)
	digest := hub.PutBlob("library/app", raw)
	url := m.URL + "/v2/library/app/blobs/" + digest
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	defer c.CloseIdleConnections()
	var all sync.WaitGroup
	for n := range crowd {
		all.Go(func() {
			<-time.After(time.Duration(n%20) * 25 * time.Millisecond) // while it arrives
			if err := follow(t.Context(), c, url, "", raw); err != nil {
				t.Errorf("client %d: %s", n, err)
			}
		})
	}
	all.Wait()
	if n, most := hub.BlobBytes(digest), int64(len(raw))*102/100; n > most {
		t.Errorf("hub sent %d bytes of a blob of %d, want at most %d", n, len(raw), most)
	}
	if n := hub.BlobGets(digest); n != 1 {
		t.Errorf("hub saw %d transfers, want 1", n)
	}
	hub.AssertClean(t)
}

// descriptors counts the files and connections of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// containerd#10177: clients that vanish leave nothing behind. Goroutines are counted at the
// end of the package.
func TestT15_VanishedClientsLeaveNothing(t *testing.T) {
	hub, m := start(t, hubtest.Options{Anonymous: hubtest.Unlimited(), CDNBytesPerSecond: 4 << 20})
	raw := noise(8, 4<<20)
	digest := hub.PutBlob("library/app", raw)
	path := "/v2/library/app/blobs/" + digest
	before := descriptors(t)
	var all sync.WaitGroup
	for n := range 200 {
		all.Go(func() {
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(20+n)*time.Millisecond)
			defer cancel()
			span := ""
			if n%2 == 1 {
				span = fmt.Sprintf("bytes=%d-", n*10000)
			}
			// Whatever it got, it is gone before the end.
			_ = follow(ctx, &http.Client{Transport: tr}, m.URL+path, span, raw[min(n%2*n*10000, len(raw)):])
		})
	}
	all.Wait()
	if err := follow(t.Context(), http.DefaultClient, m.URL+path, "", raw); err != nil {
		t.Error(err)
	}
	if n, most := hub.BlobBytes(digest), int64(len(raw))*13/10; n > most {
		t.Errorf("hub sent %d bytes of a blob of %d, want at most %d", n, len(raw), most)
	}
	// The upstream's own idle connections and the client's stay.
	http.DefaultClient.CloseIdleConnections()
	hub.WaitFor(t, 30*time.Second, "descriptors to be closed", func() bool { return descriptors(t) <= before+20 })
}

// T18: faults drawn at random with a fixed seed, readers of the whole and of ranges: every
// clean end is right, and in the end the blob is served whole.
func TestT18_MixturesOfFaults(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 18))
			hub, m := start(t, hubtest.Options{Anonymous: hubtest.Unlimited()})
			raw := noise(seed, 9<<20+rnd.IntN(8<<20))
			digest := hub.PutBlob("library/app", raw)
			for n := range 5 {
				k := int64(rnd.IntN(len(raw)))
				fault := []hubtest.Fault{
					hubtest.Drop(k, hubtest.RST), hubtest.Drop(k, hubtest.FIN), hubtest.Corrupt(k), hubtest.Truncate(k, hubtest.KeepLength),
					hubtest.IgnoreRange(), hubtest.WrongRange(7), hubtest.ShortRange(1000), hubtest.Range416(), hubtest.ExpireURL(),
					hubtest.Chunked(), hubtest.Status(503), hubtest.Gzip(1),
				}[rnd.IntN(12)]
				hub.AddRule(hubtest.Rule{ID: fmt.Sprint("fault ", n), Role: hubtest.CDN, From: 1 + rnd.IntN(4), Count: 1 + rnd.IntN(2), Do: fault})
			}
			url := m.URL + "/v2/library/app/blobs/" + digest
			c := &http.Client{Transport: &http.Transport{}}
			defer c.CloseIdleConnections()
			var all sync.WaitGroup
			for range 12 {
				off := rnd.IntN(len(raw))
				span, want := "", raw
				if rnd.IntN(2) == 0 {
					span, want = fmt.Sprintf("bytes=%d-", off), raw[off:]
				}
				all.Go(func() {
					if err := follow(t.Context(), c, url, span, want); errors.Is(err, errWrongWhole) {
						t.Errorf("reader of %q: %s", span, err)
					}
				})
			}
			all.Wait()
			hub.ClearRules()
			// An upstream that failed several times in a row is asked only now and then.
			hub.WaitFor(t, time.Minute, "the blob to be served whole", func() bool {
				return follow(t.Context(), c, url, "", raw) == nil
			})
			hub.AssertClean(t)
		})
	}
}
