package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestS3Settings(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"id": "AKIA\n", "secret": "shh\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "forebay.yaml")
	text := `storage:
  s3:
    bucket: blobs
    region: eu-central-1
    endpoint: https://minio.example:9000/
    prefix: /mirror/a/
    path_style: true
    access_key_id_file: id
    secret_access_key_file: secret
    sse: aws:kms
    kms_key_id: key-1
    storage_class: STANDARD_IA
    expected_bucket_owner: "123456789012"
    max_size: 2TiB
    max_age: 90d
    redirect: true
    redirect_min_size: 1MiB
    uploads: 8
    part_size: 64MiB
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(Sources{File: file, Env: []string{"HOME=/tmp"}})
	if err != nil {
		t.Fatal(err)
	}
	s := c.Storage.S3
	if s.AccessKeyID.Reveal() != "AKIA" || s.SecretAccessKey.Reveal() != "shh" {
		t.Error("keys are not those of the files")
	}
	s.AccessKeyID, s.SecretAccessKey = Secret{}, Secret{}
	s.AccessKeyIDFile, s.SecretAccessKeyFile = "", ""
	want := S3{
		Bucket: "blobs", Region: "eu-central-1", Endpoint: "https://minio.example:9000", Prefix: "mirror/a", PathStyle: true,
		SSE: SSEKMS, KMSKeyID: "key-1", StorageClass: "STANDARD_IA", Owner: "123456789012",
		MaxSize: 2 << 40, MaxAge: 90 * 24 * time.Hour, Redirect: true, RedirectMinSize: 1 << 20, Uploads: 8, PartSize: 64 << 20,
	}
	if s != want {
		t.Errorf("S3 = %+v, want %+v", s, want)
	}
	var b strings.Builder
	if err := c.Print(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "shh") || strings.Contains(b.String(), "AKIA") {
		t.Errorf("Print tells keys:\n%s", b.String())
	}
}

func TestNoBucketByDefault(t *testing.T) {
	c, err := Load(Sources{Env: []string{"HOME=/tmp"}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Storage.S3.Enabled() {
		t.Error("there is a bucket by default")
	}
}
