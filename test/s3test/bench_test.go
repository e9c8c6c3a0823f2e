package s3test_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/cache/s3"
	"forebay/cache/store"
	"forebay/cache/tier"
	"forebay/cache/upkeep"
	"forebay/test/hubtest"
	"forebay/test/mirrortest"
	"forebay/test/s3test"
)

// fetch reads a path and returns how long that took.
func fetch(b *testing.B, c *http.Client, url string, size int) time.Duration {
	b.Helper()
	start := time.Now()
	res, err := c.Get(url)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	if n, err := io.Copy(io.Discard, res.Body); err != nil || n != int64(size) {
		b.Fatalf("GET %s = %d bytes, %v; want %d", url, n, err, size)
	}
	return time.Since(start)
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// direct opens the bucket without the proxy.
func direct(b *testing.B, s *s3test.Server) *s3.Bucket {
	b.Helper()
	o := bucketOptions(s.Direct)
	o.PartSize, o.Timeouts = 0, s3.Timeouts{}
	bucket, err := s3.New(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(bucket.Close)
	return bucket
}

// What a bucket costs the client of a cold pull: eight layers of 24 MiB, three at a time,
// as dockerd pulls them, from a registry at 100 MiB/s. The uploads of the first run beside
// the download of the last. The two mirrors take turns.
func BenchmarkColdPull(b *testing.B) {
	const layers, size = 8, 24 << 20
	s := s3test.New(b)
	hub := hubtest.New(b, hubtest.Options{Anonymous: hubtest.Unlimited(), CDNBytesPerSecond: 100 << 20})
	plain := mirrortest.New(b, mirrortest.Options{Hub: hub})
	behind := mirrortest.New(b, mirrortest.Options{Hub: hub, Cache: cache.Options{Store: store.Options{Bucket: &tier.Options{Bucket: direct(b, s)}}}})
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
	defer c.CloseIdleConnections()
	seed := uint64(0)
	pull := func(m *mirrortest.Mirror) time.Duration {
		var urls []string
		for range layers {
			seed++
			urls = append(urls, m.URL+blobPath("library/app", hub.PutBlob("library/app", noise(seed, size))))
		}
		next := make(chan string, layers)
		for _, u := range urls {
			next <- u
		}
		close(next)
		start := time.Now()
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				for u := range next {
					fetch(b, c, u, size)
				}
			})
		}
		all.Wait()
		return time.Since(start)
	}
	var without, with []time.Duration
	for b.Loop() {
		without = append(without, pull(plain))
		with = append(with, pull(behind))
		s3test.Await(b, time.Minute, "uploads to end", func() bool { return bucketOf(b, behind).Queued == 0 })
	}
	b.ReportMetric(median(without).Seconds(), "s/disk")
	b.ReportMetric(median(with).Seconds(), "s/bucket")
	b.ReportMetric(median(with).Seconds()/median(without).Seconds(), "ratio")
}

// A hit in the bucket against the SDK's own download of the same object into a file. The
// hit goes to the client, through the disk, is compared with its digest and synced; "safe"
// is a download that is that, too.
func BenchmarkBucketHit(b *testing.B) {
	const size = 256 << 20
	s := s3test.New(b)
	hub := hubtest.New(b, hubtest.Options{Anonymous: hubtest.Unlimited()})
	m := mirrortest.New(b, mirrortest.Options{Hub: hub, Cache: cache.Options{Store: store.Options{Bucket: &tier.Options{Bucket: direct(b, s)}}}})
	c := &http.Client{Transport: &http.Transport{}}
	defer c.CloseIdleConnections()
	digest := hub.PutBlob("library/app", noise(1, size))
	url := m.URL + blobPath("library/app", digest)
	fetch(b, c, url, size)
	s3test.Await(b, time.Minute, "the upload to end", func() bool { return bucketOf(b, m).Queued == 0 })
	own := sdk.New(sdk.Options{
		BaseEndpoint: aws.String(s.Direct), Region: s3test.Region, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(s3test.AccessKey, s3test.SecretKey, ""),
	})
	download := func(safe bool) time.Duration {
		start := time.Now()
		out, err := own.GetObject(b.Context(), &sdk.GetObjectInput{
			Bucket: aws.String(s3test.Bucket), Key: aws.String("blobs/sha256/" + digest[7:9] + "/" + digest[7:]),
		})
		if err != nil {
			b.Fatal(err)
		}
		defer out.Body.Close()
		f, err := os.Create(filepath.Join(b.TempDir(), "object"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		if n, err := io.Copy(f, out.Body); err != nil || n != size {
			b.Fatalf("download = %d bytes, %v", n, err)
		}
		if safe {
			_, err = f.Seek(0, io.SeekStart)
			if d, _, herr := v1.SHA256(f); err != nil || herr != nil || d.String() != digest {
				b.Fatalf("digest = %s, %v, %v", d, err, herr)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(start)
	}
	var ours, theirs, safe []time.Duration
	for b.Loop() {
		drop(b, m, digest)
		ours = append(ours, fetch(b, c, url, size))
		theirs = append(theirs, download(false))
		safe = append(safe, download(true))
	}
	b.ReportMetric(size/1e6/median(ours).Seconds(), "MB/s-hit")
	b.ReportMetric(size/1e6/median(theirs).Seconds(), "MB/s-sdk")
	b.ReportMetric(size/1e6/median(safe).Seconds(), "MB/s-sdk-safe")
	b.ReportMetric(median(ours).Seconds()/median(theirs).Seconds(), "ratio")
	b.ReportMetric(median(ours).Seconds()/median(safe).Seconds(), "ratio-safe")
}

// The memory of fifty uploads of 100 MiB at once, each in parts, by a process that does
// nothing else.
func BenchmarkUploadMemory(b *testing.B) {
	const count, size = 50, 100 << 20
	s := s3test.New(b)
	var peaks []float64
	for b.Loop() {
		dir := b.TempDir()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childVariable+"="+dir, childVariable+"_URL="+s.Direct, fmt.Sprintf("%s_UPLOADS=%d", childVariable, count))
		cmd.Stderr = os.Stderr
		done, err := cmd.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		text, err := io.ReadAll(done)
		if werr := cmd.Wait(); err != nil || werr != nil {
			b.Fatalf("child: %v, %v", err, werr)
		}
		m := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindSubmatch(text)
		if m == nil {
			b.Fatalf("child said %q", text)
		}
		kb, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			b.Fatal(err)
		}
		peaks = append(peaks, kb/1024)
		if n := len(s.Objects()); n != count {
			b.Fatalf("%d objects, want %d", n, count)
		}
	}
	b.ReportMetric(slices.Max(peaks), "MiB-peak")
}

// uploads takes blobs in, uploads all of them at once, and tells how much memory that took.
func uploads(count int) error {
	const size = 100 << 20
	dir := os.Getenv(childVariable)
	o := bucketOptions(os.Getenv(childVariable + "_URL"))
	o.Timeouts, o.PartSize = s3.Timeouts{Answer: time.Minute, Stall: 2 * time.Minute}, 0
	bucket, err := s3.New(context.Background(), o)
	if err != nil {
		return err
	}
	c, err := cache.Open(cache.Options{Store: store.Options{Dir: dir, Bucket: &tier.Options{Bucket: bucket, Uploads: count}}})
	if err != nil {
		return err
	}
	k := upkeep.New(c, upkeep.Options{})
	in, err := k.Begin(upkeep.ImportOptions{})
	if err != nil {
		return err
	}
	for i := range count {
		content := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{byte(i)}), size) }
		d, _, err := v1.SHA256(content())
		if err == nil {
			_, err = in.TakeIn(context.Background(), d, size, content())
		}
		if err != nil {
			return err
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() { _ = c.Run(ctx) }()
	for {
		st, err := k.Stats()
		if err != nil {
			return err
		}
		if st.Bucket.Uploaded == int64(count) {
			break
		}
		<-time.After(50 * time.Millisecond)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err == nil {
		_, err = os.Stdout.Write(status)
	}
	return err
}
