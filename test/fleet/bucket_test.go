//go:build linux

package fleet

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"forebay/test/s3test"
)

// fillBucket starts all mirrors anew, with a bucket that they share.
func (w *world) fillBucket() *s3test.Server {
	w.t.Helper()
	bucket := s3test.New(w.t)
	for _, m := range w.mirrors {
		m.kill()
		text, err := os.ReadFile(m.config)
		if err != nil {
			w.t.Fatal(err)
		}
		s3 := fmt.Sprintf("min_free: 1MiB, s3: {bucket: %s, region: %s, endpoint: %q, path_style: true, access_key_id: %s, secret_access_key: %s}", s3test.Bucket, s3test.Region, bucket.URL, s3test.AccessKey, s3test.SecretKey)
		text = bytes.Replace(text, []byte("min_free: 1MiB"), []byte(s3), 1)
		if err := os.WriteFile(m.config, text, 0o600); err != nil {
			w.t.Fatal(err)
		}
		w.start(m)
	}
	w.gather()
	return bucket
}

// The bucket refuses, or takes ten seconds for each answer, while clients of all mirrors pull what is new, and
// later ones what another mirror has: nobody waits for it, and the registry sends each blob once.
func TestNobodyWaitsForTheBucket(t *testing.T) {
	const size = 8 << 20
	w := newWorld(t)
	bucket := w.fillBucket()
	for i, fault := range []s3test.Fault{{Status: http.StatusServiceUnavailable}, {Delay: 10 * time.Second}} {
		bucket.Add(fault)
		failed := w.failedCalls()
		tag, digest := w.layer(size, uint64(50+2*i))
		w.longest.Store(0)
		began := time.Now()
		w.pullAll(tag, digest, 18)
		took := time.Since(began)
		w.await("an upload to the bucket", func() bool { return bucket.Count("") > 0 })
		// One mirror has another blob, and a client of each of the others comes later.
		began = time.Now()
		tag, later := w.layer(size, uint64(51+2*i))
		for _, m := range w.mirrors {
			w.touch(m, tag)
			w.pull(m, later, new(atomic.Int64))
		}
		took += time.Since(began)
		t.Logf("%+v: %s", fault, took.Round(time.Millisecond))
		for _, d := range []string{digest, later} {
			if n := w.hub.BlobBytes(d); n > size*102/100 && (w.failedCalls() == failed || n > 3*size*102/100) {
				t.Errorf("%+v: the registry sent %d bytes of a blob of %d", fault, n, size)
			}
		}
		if took > 9*time.Second {
			t.Errorf("%+v: clients waited for the bucket: %s", fault, took)
		}
		bucket.Clear()
		bucket.Forget()
	}
}
