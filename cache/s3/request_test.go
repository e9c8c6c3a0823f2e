package s3

import (
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"forebay/cache/tier"
	"forebay/test/s3test"
	"forebay/test/storetest"
)

// recorder answers as a server that does whatever it is told, and keeps what it was asked.
type recorder struct {
	mu   sync.Mutex
	seen []*http.Request
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	_, _ = io.Copy(io.Discard, q.Body) // whatever it is
	r.mu.Lock()
	r.seen = append(r.seen, q)
	r.mu.Unlock()
	switch s3test.Op(q) {
	case "CreateMultipartUpload":
		fmt.Fprint(w, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
	case "CompleteMultipartUpload":
		fmt.Fprint(w, "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>")
	case "CopyObject":
		fmt.Fprintf(w, "<CopyObjectResult><LastModified>%s</LastModified></CopyObjectResult>", time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	case "DeleteObjects":
		fmt.Fprint(w, "<DeleteResult/>")
	case "ListObjectsV2":
		fmt.Fprint(w, "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
	default:
		w.Header().Set("ETag", `"e"`)
	}
}

func (r *recorder) of(op string) []*http.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*http.Request
	for _, q := range r.seen {
		if s3test.Op(q) == op {
			all = append(all, q)
		}
	}
	return all
}

// What the settings say of encryption, class and owner is in every request that it is for.
func TestSettingsReachTheServer(t *testing.T) {
	r := &recorder{}
	server := httptest.NewServer(r)
	defer server.Close()
	b, err := New(t.Context(), Options{
		Name: "blobs", Region: "eu-central-1", Endpoint: server.URL, PathStyle: true, Prefix: "a/b", AccessKeyID: "k", SecretAccessKey: "s",
		Encryption: "aws:kms", KMSKeyID: "key-1", StorageClass: "STANDARD_IA", Owner: "123456789012", PartSize: partLeast, UserAgent: "forebay-test",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	small := keep(t, b, noise(1, 10))
	keep(t, b, noise(2, partLeast+1))
	if err := b.Touch(t.Context(), tier.Object{Digest: small, Size: 10, Stamp: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if err := b.Reach(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, op := range []string{"PutObject", "CreateMultipartUpload", "CopyObject"} {
		for _, q := range r.of(op) {
			for name, want := range map[string]string{
				"X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "key-1", "X-Amz-Storage-Class": "STANDARD_IA",
			} {
				if got := q.Header.Get(name); got != want {
					t.Errorf("%s: %s is %q, want %q", op, name, got, want)
				}
			}
		}
	}
	for _, op := range []string{"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "CopyObject", "ListObjectsV2"} {
		all := r.of(op)
		if len(all) == 0 {
			t.Errorf("no %s was made", op)
		}
		for _, q := range all {
			if got := q.Header.Get("X-Amz-Expected-Bucket-Owner"); got != "123456789012" {
				t.Errorf("%s: owner is %q, want the one of the settings", op, got)
			}
			if auth := q.Header.Get("Authorization"); !strings.Contains(auth, "/eu-central-1/s3/aws4_request") {
				t.Errorf("%s: signed %q, want it for the region", op, auth)
			}
			if op != "ListObjectsV2" && !strings.HasPrefix(q.URL.Path, "/blobs/a/b/blobs/sha256/") {
				t.Errorf("%s of %s, want it in bucket and prefix", op, q.URL.Path)
			}
			if agent := q.UserAgent(); !strings.Contains(agent, "forebay-test") {
				t.Errorf("%s by %q, want us named", op, agent)
			}
		}
	}
	q := r.of("PutObject")[0]
	if got := q.Header.Get("X-Amz-Content-Sha256"); got != small.Hex {
		t.Errorf("payload hash is %s, want the digest %s", got, small.Hex)
	}
	if q.Header.Get("If-None-Match") != "*" || q.Header.Get("X-Amz-Checksum-Sha256") == "" {
		t.Errorf("PutObject has no condition or checksum: %v", q.Header)
	}
}

func TestStyleOfURLs(t *testing.T) {
	for pathStyle, want := range map[bool]string{true: "https://minio.lan:9000/blobs/blobs/sha256/", false: "https://blobs.minio.lan:9000/blobs/sha256/"} {
		b, err := New(t.Context(), Options{Name: "blobs", Endpoint: "https://minio.lan:9000", PathStyle: pathStyle, AccessKeyID: "k", SecretAccessKey: "s"})
		if err != nil {
			t.Fatal(err)
		}
		url, err := b.Presign(t.Context(), storetest.SHA256([]byte("x")), time.Minute)
		if err != nil || !strings.HasPrefix(url, want) {
			t.Errorf("Presign = %.80q, %v; want it to begin with %q", url, err, want)
		}
	}
}

func TestOwnCertificates(t *testing.T) {
	server := httptest.NewTLSServer(&recorder{})
	defer server.Close()
	server.Config.ErrorLog = nil
	ca := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, works := range map[string]bool{ca: true, "": false} {
		b, err := New(t.Context(), Options{Name: "blobs", Endpoint: server.URL, PathStyle: true, AccessKeyID: "k", SecretAccessKey: "s", CAFile: file,
			Timeouts: Timeouts{Backoff: time.Millisecond}})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Reach(t.Context()); (err == nil) != works {
			t.Errorf("Reach with ca_file %q: %v, want it to work: %t", file, err, works)
		}
		b.Close()
	}
}

// The default chain finds what Kubernetes and containers give: a web identity, a role.
func TestRolesOfTheEnvironment(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err == nil && r.Form.Get("WebIdentityToken") == "a token" {
			fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>web</AccessKeyId>`+
				`<SecretAccessKey>s</SecretAccessKey><SessionToken>session</SessionToken><Expiration>%s</Expiration></Credentials>`+
				`</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`, until)
			return
		}
		fmt.Fprintf(w, `{"AccessKeyId":"container","SecretAccessKey":"s","Token":"session","Expiration":"%s"}`, until)
	}))
	sts.Config.SetKeepAlivesEnabled(false) // the SDK's own connections, which nobody closes
	defer sts.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("a token"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, env := range map[string]map[string]string{
		"web":       {"AWS_WEB_IDENTITY_TOKEN_FILE": token, "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/mirror", "AWS_ENDPOINT_URL_STS": sts.URL},
		"container": {"AWS_CONTAINER_CREDENTIALS_FULL_URI": sts.URL},
	} {
		t.Run(want, func(t *testing.T) {
			for name, value := range env {
				t.Setenv(name, value)
			}
			r := &recorder{}
			server := httptest.NewServer(r)
			defer server.Close()
			b, err := New(t.Context(), Options{Name: "blobs", Region: "eu-central-1", Endpoint: server.URL, PathStyle: true})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if err := b.Reach(t.Context()); err != nil {
				t.Fatal(err)
			}
			q := r.of("ListObjectsV2")[0]
			if auth := q.Header.Get("Authorization"); !strings.Contains(auth, "Credential="+want+"/") || q.Header.Get("X-Amz-Security-Token") != "session" {
				t.Errorf("signed %q, want it by the role", auth)
			}
		})
	}
}
