package s3test_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"forebay/cache"
	"forebay/cache/index"
	"forebay/cache/s3"
	"forebay/cache/store"
	"forebay/cache/tier"
	"forebay/cache/upkeep"
	"forebay/test/s3test"
)

// childVariable has the test's program be a cache that takes a blob in and uploads it.
const (
	childVariable = "S3TEST_CHILD"
	childSize     = 48 << 20
)

type progress = index.Progress

// open opens a cache in front of a bucket.
func open(dir, url string) (*cache.Cache, *s3.Bucket, error) {
	b, err := s3.New(context.Background(), bucketOptions(url))
	if err != nil {
		return nil, nil, err
	}
	c, err := cache.Open(cache.Options{Store: store.Options{Dir: dir, Bucket: &tier.Options{Bucket: b}}})
	return c, b, err
}

// child takes a blob in and runs until it is killed.
func child() {
	if n, err := strconv.Atoi(os.Getenv(childVariable + "_UPLOADS")); err == nil {
		if err := uploads(n); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	c, _, err := open(os.Getenv(childVariable), os.Getenv(childVariable+"_URL"))
	if err == nil {
		go func() { _ = c.Run(context.Background()) }()
		raw := noise(77, childSize)
		var in *upkeep.Import
		if in, err = upkeep.New(c, upkeep.Options{}).Begin(upkeep.ImportOptions{}); err == nil {
			_, err = in.TakeIn(context.Background(), sha256(raw), childSize, bytes.NewReader(raw))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {} // killed here
}

// kill -9 in the middle of an upload leaves no visible half, and the next process goes on.
func TestKillDuringAnUpload(t *testing.T) {
	server := s3test.New(t)
	dir := t.TempDir()
	raw := noise(77, childSize)
	d := sha256(raw)
	stuck := make(chan struct{})
	server.Add(s3test.Fault{Op: "UploadPart", After: 5, Hang: true, Gone: stuck})
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+dir, childVariable+"_URL="+server.URL)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-stuck:
	case <-time.After(time.Minute):
		t.Error("the upload did not get to its sixth part")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if _, err := os.Stat(server.Object("", d)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half an object is visible: %v", err)
	}
	server.Clear()
	server.Forget()
	c, b, err := open(dir, server.URL)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	s3test.Await(t, time.Minute, "the upload to end", func() bool {
		got, err := os.ReadFile(server.Object("", d))
		return err == nil && bytes.Equal(got, raw)
	})
	stop()
	<-ended
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	b.Close()
	if n := server.Count("UploadPart"); n > 5 {
		t.Errorf("%d parts of 10 were sent after the kill, want the 5 that were missing", n)
	}
	if n := server.Count("CreateMultipartUpload"); n != 0 {
		t.Errorf("%d uploads were begun anew, want none", n)
	}
}
