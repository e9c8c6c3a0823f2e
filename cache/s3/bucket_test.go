package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"forebay/cache/index"
	"forebay/cache/tier"
	"forebay/internal/pull"
	"forebay/test/s3test"
	"forebay/test/storetest"
)

// open opens the bucket of a server.
func open(t testing.TB, s *s3test.Server, change func(*Options)) *Bucket {
	t.Helper()
	o := Options{
		Name: s3test.Bucket, Region: s3test.Region, Endpoint: s.URL, PathStyle: true,
		AccessKeyID: s3test.AccessKey, SecretAccessKey: s3test.SecretKey, PartSize: partLeast, Timeouts: Timeouts{Backoff: 20 * time.Millisecond},
	}
	if change != nil {
		change(&o)
	}
	b, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b) // never fails
	return b
}

func keep(t testing.TB, b *Bucket, content []byte) v1.Hash {
	t.Helper()
	d := storetest.SHA256(content)
	if err := b.Put(t.Context(), d, int64(len(content)), bytes.NewReader(content), tier.PutOptions{}); err != nil {
		t.Fatalf("Put of %d bytes: %v", len(content), err)
	}
	return d
}

func read(t testing.TB, b *Bucket, d v1.Hash, off, end int64) []byte {
	t.Helper()
	body, err := b.Open(t.Context(), d, off, end)
	if err != nil {
		t.Fatalf("Open(%s, %d, %d): %v", d, off, end, err)
	}
	defer body.Close()
	got, err := io.ReadAll(body)
	if err != nil {
		t.Fatalf("read %s: %v", d, err)
	}
	return got
}

func TestRanges(t *testing.T) {
	b := open(t, s3test.New(t), nil)
	content := noise(1, 100_000)
	d := keep(t, b, content)
	for _, span := range [][2]int64{{0, -1}, {1, -1}, {0, 1}, {99_999, -1}, {99_999, 100_000}, {500, 70_000}, {50_000, 200_000}} {
		end := span[1]
		if end < 0 || end > 100_000 {
			end = 100_000
		}
		body, err := b.Open(t.Context(), d, span[0], span[1])
		if err != nil {
			t.Fatalf("Open(%v): %v", span, err)
		}
		got, err := io.ReadAll(body)
		if err != nil || !bytes.Equal(got, content[span[0]:end]) {
			t.Errorf("Open(%v) has %d bytes, %v; want %d", span, len(got), err, end-span[0])
		}
		if body.Offset != span[0] || body.End != end || body.Size != 100_000 || !body.Ranged {
			t.Errorf("Open(%v) = offset %d, end %d, size %d, ranged %t; want %d, %d, 100000, true", span, body.Offset, body.End, body.Size, body.Ranged, span[0], end)
		}
		if err := body.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	_, err := b.Open(t.Context(), d, 100_000, -1)
	var e *pull.Error
	if !errors.As(err, &e) || e.Status != 416 || e.Detail != pull.OutOfRange {
		t.Errorf("Open behind the end: %v, detail %d, want status 416, out of range", err, pull.DetailOf(err))
	}
	_, err = b.Open(t.Context(), storetest.SHA256([]byte("none")), 0, -1)
	if pull.KindOf(err) != pull.NotFound {
		t.Errorf("Open of what is not there: %v, want not found", err)
	}
}

// A put is one request, and an upload in n parts n + 2; none of them asks first.
func TestPutCountsOfRequests(t *testing.T) {
	for _, tt := range []struct {
		size int
		want map[string]int
	}{
		{0, map[string]int{"PutObject": 1}},
		{1000, map[string]int{"PutObject": 1}},
		{partLeast, map[string]int{"PutObject": 1}},
		{partLeast + 1, map[string]int{"CreateMultipartUpload": 1, "UploadPart": 2, "CompleteMultipartUpload": 1}},
		{3*partLeast + 7, map[string]int{"CreateMultipartUpload": 1, "UploadPart": 4, "CompleteMultipartUpload": 1}},
	} {
		t.Run(fmt.Sprint(tt.size, " bytes"), func(t *testing.T) {
			s := s3test.New(t)
			b := open(t, s, nil)
			content := noise(2, tt.size)
			d := keep(t, b, content)
			total := 0
			for op, want := range tt.want {
				total += want
				if got := s.Count(op); got != want {
					t.Errorf("%d %s, want %d", got, op, want)
				}
			}
			if got := s.Count(""); got != total {
				t.Errorf("%d requests, want %d: %v", got, total, s.Requests())
			}
			if got := read(t, b, d, 0, -1); !bytes.Equal(got, content) {
				t.Errorf("object has %d bytes, want the %d that were put", len(got), tt.size)
			}
			if s.Uploads() != 0 {
				t.Errorf("%d uploads are left, want none", s.Uploads())
			}
			for _, c := range b.Calls() {
				if c.Outcome != "ok" || c.Within[len(c.Within)-1] != c.Count {
					t.Errorf("counted %+v, want it ok and within a minute", c)
				}
			}
		})
	}
}

// An object that is there stays, and one of another size does not.
func TestPutWhereSomethingIs(t *testing.T) {
	for _, size := range []int{1000, partLeast + 1000} {
		t.Run(fmt.Sprint(size, " bytes"), func(t *testing.T) {
			s := s3test.New(t)
			b := open(t, s, nil)
			content := noise(3, size)
			d := keep(t, b, content)
			s.Age("", d, time.Hour)
			before, err := b.Stat(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			keep(t, b, content)
			if after, err := b.Stat(t.Context(), d); err != nil || !after.Stamp.Equal(before.Stamp) {
				t.Errorf("Stat after the second Put = %v, %v; want the object untouched since %v", after, err, before.Stamp)
			}
			if s.Uploads() != 0 {
				t.Errorf("%d uploads are left, want none", s.Uploads())
			}
			if err := os.Truncate(s.Object("", d), int64(size-1)); err != nil {
				t.Fatal(err)
			}
			keep(t, b, content)
			if got := read(t, b, d, 0, -1); !bytes.Equal(got, content) {
				t.Errorf("object has %d bytes after a Put over a shorter one, want %d", len(got), size)
			}
			for range 2 { // whatever is there
				if err := b.Put(t.Context(), d, int64(size), bytes.NewReader(content), tier.PutOptions{Replace: true}); err != nil {
					t.Errorf("Put with Replace: %v", err)
				}
			}
			if after, err := b.Stat(t.Context(), d); err != nil || !after.Stamp.After(before.Stamp) {
				t.Errorf("Stat after Put with Replace = %v, %v; want a younger object", after, err)
			}
		})
	}
}

func TestServerWithoutConditionalWrites(t *testing.T) {
	s := s3test.New(t)
	b := open(t, s, nil)
	s.Add(s3test.Fault{Op: "PutObject", Status: 501, Code: "NotImplemented", Times: 1})
	keep(t, b, noise(4, 100))
	keep(t, b, noise(5, 100))
	if n := s.Count("PutObject"); n != 3 {
		t.Errorf("%d PutObject, want 3: one that is refused, and then none with a condition", n)
	}
}

// Bytes that do not have their digest never become an object.
func TestDamagedContentIsRefused(t *testing.T) {
	s := s3test.New(t)
	b := open(t, s, nil)
	for _, size := range []int{1000, 2*partLeast + 1000} {
		content := noise(6, size)
		for _, d := range []v1.Hash{storetest.SHA256(content), storetest.SHA512(content)} {
			wrong := bytes.Clone(content)
			wrong[size/2] ^= 1
			if err := b.Put(t.Context(), d, int64(size), bytes.NewReader(wrong), tier.PutOptions{}); !errors.Is(err, tier.ErrDamaged) {
				t.Errorf("Put of %d damaged bytes: %v, want %v", size, err, tier.ErrDamaged)
			}
			if _, err := b.Stat(t.Context(), d); pull.KindOf(err) != pull.NotFound || err == nil {
				t.Errorf("Stat: %v, want not found", err)
			}
		}
	}
	if s.Uploads() != 0 {
		t.Errorf("%d uploads are left, want none", s.Uploads())
	}
}

// An upload that broke off goes on with the parts that it has.
func TestUploadResumes(t *testing.T) {
	s := s3test.New(t)
	b := open(t, s, nil)
	content := noise(7, 4*partLeast+5)
	d := storetest.SHA256(content)
	s.Add(s3test.Fault{Op: "UploadPart", After: 2, Status: 500, Code: "InternalError"})
	var begun index.Upload
	err := b.Put(t.Context(), d, int64(len(content)), bytes.NewReader(content), tier.PutOptions{Begun: func(u index.Upload) error {
		begun = u
		return nil
	}})
	if err == nil || begun.ID == "" {
		t.Fatalf("Put through a server that fails = %v with upload %v, want an error and an upload", err, begun)
	}
	if _, err := b.Stat(t.Context(), d); pull.KindOf(err) != pull.NotFound || err == nil {
		t.Errorf("Stat of half an object: %v, want not found", err)
	}
	s.Clear()
	s.Forget()
	if err := b.Put(t.Context(), d, int64(len(content)), bytes.NewReader(content), tier.PutOptions{Resume: begun}); err != nil {
		t.Fatalf("Put that resumes: %v", err)
	}
	if got := read(t, b, d, 0, -1); !bytes.Equal(got, content) {
		t.Error("resumed object has other bytes")
	}
	if n := s.Count("UploadPart"); n != 3 {
		t.Errorf("%d parts were sent after the resume, want the 3 that were missing", n)
	}
	// One that the server does not know any more begins anew.
	s.Forget()
	if err := b.Put(t.Context(), d, int64(len(content)), bytes.NewReader(content), tier.PutOptions{Resume: begun, Replace: true}); err != nil {
		t.Fatalf("Put that resumes what is over: %v", err)
	}
	if n := s.Count("UploadPart"); n != 5 {
		t.Errorf("%d parts were sent, want 5", n)
	}
}

// The answer to the last step is lost: the object is there all the same.
func TestLostAnswerToTheLastStep(t *testing.T) {
	s := s3test.New(t)
	b := open(t, s, nil)
	s.Add(s3test.Fault{Op: "CompleteMultipartUpload", Lost: true, Times: 1})
	content := noise(8, partLeast+5)
	d := keep(t, b, content)
	if got := read(t, b, d, 0, -1); !bytes.Equal(got, content) {
		t.Error("object has other bytes")
	}
	s.Add(s3test.Fault{Op: "PutObject", Lost: true, Times: 1})
	content = noise(9, 500)
	if d = keep(t, b, content); !bytes.Equal(read(t, b, d, 0, -1), content) {
		t.Error("object has other bytes")
	}
}

func TestFaultsAreRetried(t *testing.T) {
	for name, f := range map[string]s3test.Fault{
		"throttled":      {Status: 503, Times: 1},
		"internal error": {Status: 500, Code: "InternalError", Times: 1},
		"reset":          {Reset: true, Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := s3test.New(t)
			b := open(t, s, nil)
			for _, op := range []string{"PutObject", "GetObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "ListObjectsV2", "DeleteObjects", "HeadObject"} {
				f := f
				f.Op = op
				s.Add(f)
			}
			small := keep(t, b, noise(10, 100))
			large := keep(t, b, noise(11, partLeast+1))
			if got := read(t, b, small, 0, -1); len(got) != 100 {
				t.Errorf("read %d bytes, want 100", len(got))
			}
			if _, err := b.Stat(t.Context(), large); err != nil {
				t.Errorf("Stat: %v", err)
			}
			n := 0
			if err := b.List(t.Context(), "", func(tier.Object) error { n++; return nil }); err != nil || n != 2 {
				t.Errorf("List = %d, %v; want 2", n, err)
			}
			if err := b.Remove(t.Context(), []v1.Hash{small, large}); err != nil {
				t.Errorf("Remove: %v", err)
			}
		})
	}
}

// What hangs ends in time, with an error that says so.
func TestTimeouts(t *testing.T) {
	s := s3test.New(t)
	content := noise(12, 3<<20)
	d := keep(t, open(t, s, nil), content)
	b := open(t, s, func(o *Options) {
		o.Timeouts = Timeouts{Connect: 10 * time.Second, Answer: time.Second, Stall: time.Second, Backoff: time.Millisecond}
	})
	s.Add(s3test.Fault{Op: "GetObject", Hang: true, Times: 1})
	if _, err := b.Open(t.Context(), d, 0, -1); pull.KindOf(err) != pull.Timeout {
		t.Errorf("Open of a server that hangs: %v, want a timeout", err)
	}
	s.Clear()
	s.Add(s3test.Fault{Op: "GetObject", Rate: 1000, Times: 1})
	body, err := b.Open(t.Context(), d, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if n, err := io.Copy(io.Discard, body); err == nil || n == int64(len(content)) {
		t.Errorf("read of a body that stalls = %d, %v; want an error", n, err)
	}
	s.Clear()
	s.Add(s3test.Fault{Op: "HeadObject", Hang: true})
	if _, err := b.Stat(t.Context(), d); pull.KindOf(err) != pull.Timeout {
		t.Errorf("Stat of a server that hangs: %v, want a timeout", err)
	}
}

// A body that breaks off is an error, not an end.
func TestCutBody(t *testing.T) {
	s := s3test.New(t)
	b := open(t, s, nil)
	d := keep(t, b, noise(13, 1<<20))
	s.Add(s3test.Fault{Op: "GetObject", CutBody: 1000})
	body, err := b.Open(t.Context(), d, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if n, err := io.Copy(io.Discard, body); err == nil {
		t.Errorf("read of a cut body = %d without an error", n)
	}
}

// More names than fit on a page are all listed, by shards too, and removed in batches.
func TestListPages(t *testing.T) {
	s := s3test.New(t)
	b := open(t, s, func(o *Options) { o.Prefix = "some/where" })
	const count = 2300
	want := map[v1.Hash]bool{}
	var all []v1.Hash
	for i := range count {
		content := []byte(fmt.Sprint("object ", i))
		d := storetest.SHA256(content)
		name := s.Object("some/where", d)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
		want[d] = true
		all = append(all, d)
	}
	keep(t, open(t, s, func(o *Options) { o.Prefix = "elsewhere" }), []byte("not ours"))
	got := map[v1.Hash]bool{}
	if err := b.List(t.Context(), "", func(o tier.Object) error { got[o.Digest] = true; return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != count {
		t.Errorf("List names %d objects, want %d", len(got), count)
	}
	if n := s.Count("ListObjectsV2"); n != 3 {
		t.Errorf("%d requests for %d names, want 3", n, count)
	}
	var mu sync.Mutex
	sharded := map[v1.Hash]bool{}
	calls := 0
	err := tier.EachShard(t.Context(), b, func(_ string, some []tier.Object) error {
		mu.Lock()
		defer mu.Unlock()
		calls++
		for _, o := range some {
			sharded[o.Digest] = true
		}
		return nil
	})
	if err != nil || len(sharded) != count || calls != 258 {
		t.Errorf("EachShard = %v with %d objects in %d shards, want %d in 258", err, len(sharded), calls, count)
	}
	s.Forget()
	if err := b.Remove(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	if n := s.Count("DeleteObjects"); n != 3 {
		t.Errorf("%d requests to remove %d objects, want 3", n, count)
	}
	if left := s.Objects(); len(left) != 1 || !strings.HasPrefix(left[0], "elsewhere/") {
		t.Errorf("objects left: %v, want the one that is not ours", left)
	}
}

func TestTouch(t *testing.T) {
	s := s3test.New(t)
	b := open(t, s, nil)
	b.copyMost = partLeast
	for _, size := range []int{1000, 2*partLeast + 10} {
		content := noise(14, size)
		d := keep(t, b, content)
		s.Age("", d, 48*time.Hour)
		before, err := b.Stat(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Touch(t.Context(), before); err != nil {
			t.Fatalf("Touch of %d bytes: %v", size, err)
		}
		after, err := b.Stat(t.Context(), d)
		if err != nil || time.Since(after.Stamp) > time.Hour {
			t.Errorf("Stat after Touch = %v, %v; want a young object", after, err)
		}
		if got := read(t, b, d, 0, -1); !bytes.Equal(got, content) {
			t.Errorf("object of %d bytes has other bytes after Touch", size)
		}
	}
}

func TestAbandonedUploadsAreEnded(t *testing.T) {
	s := s3test.New(t)
	b := open(t, s, nil)
	s.Add(s3test.Fault{Op: "UploadPart", Status: 403, Code: "AccessDenied"})
	content := noise(15, partLeast+5)
	if err := b.Put(t.Context(), storetest.SHA256(content), int64(len(content)), bytes.NewReader(content), tier.PutOptions{}); err == nil {
		t.Fatal("Put without the right works")
	}
	if n, err := b.AbortUploads(t.Context(), time.Now().Add(-time.Hour)); n != 0 || err != nil {
		t.Errorf("AbortUploads of old ones = %d, %v; want 0", n, err)
	}
	if n, err := b.AbortUploads(t.Context(), time.Now().Add(time.Hour)); n != 1 || err != nil {
		t.Errorf("AbortUploads = %d, %v; want 1", n, err)
	}
	if s.Uploads() != 0 {
		t.Errorf("%d uploads are left, want none", s.Uploads())
	}
}

// The default chain: a shared file with a profile.
func TestProfile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials")
	text := "[mirror]\naws_access_key_id = " + s3test.AccessKey + "\naws_secret_access_key = " + s3test.SecretKey + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	b := open(t, s3test.New(t), func(o *Options) { o.AccessKeyID, o.SecretAccessKey, o.Profile = "", "", "mirror" })
	if err := b.Check(t.Context()); err != nil {
		t.Errorf("Check with a profile: %v", err)
	}
	_, err := New(t.Context(), Options{Name: "b", Region: "r", Profile: "nobody"})
	if err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("New with a profile that is not there: %v, want it named", err)
	}
}

// No error, no log line holds the secret or a signed URL.
func TestSecretsStayInside(t *testing.T) {
	core, lines := observer.New(zapcore.DebugLevel)
	s := s3test.New(t)
	b := open(t, s, func(o *Options) { o.Log = zap.New(core) })
	content := noise(16, 100)
	d := keep(t, b, content)
	url, err := b.Presign(t.Context(), d, time.Minute)
	if err != nil || !strings.Contains(url, "X-Amz-Signature=") {
		t.Fatalf("Presign = %v, want a signed URL", err)
	}
	s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var texts []string
	for _, err := range []error{
		b.Put(ctx, storetest.SHA256([]byte("x")), 1, strings.NewReader("x"), tier.PutOptions{}),
		b.Check(ctx), b.Remove(ctx, []v1.Hash{d}),
	} {
		if err == nil {
			t.Fatal("a request to a server that is gone works")
		}
		texts = append(texts, err.Error())
	}
	for _, e := range lines.All() {
		texts = append(texts, fmt.Sprint(e.Message, e.ContextMap()))
	}
	for _, text := range texts {
		for _, secret := range []string{s3test.SecretKey, "Signature"} {
			if strings.Contains(text, secret) {
				t.Errorf("%q holds %q", text, secret)
			}
		}
	}
}
