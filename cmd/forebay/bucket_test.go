package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// refusing answers every request as S3 does with an error.
func refusing(t *testing.T, status int, code string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>no</Message></Error>", code)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func bucketConfig(t *testing.T, endpoint string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "forebay.yaml")
	text := fmt.Sprintf("listen: 127.0.0.1:0\nadmin_listen: off\nstorage: {dir: %s, s3: {bucket: blobs, region: r, path_style: true, endpoint: %s, access_key_id: k, secret_access_key: hunter22}}\n",
		t.TempDir(), endpoint)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A wrong bucket or missing rights end the start with what to change, and so does the check.
func TestWrongBucketIsNamedAtTheStart(t *testing.T) {
	for _, tt := range []struct {
		status     int
		code, want string
	}{
		{404, "NoSuchBucket", `storage.s3: there is no bucket "blobs"`},
		{403, "AccessDenied", "s3:ListBucket"},
		{403, "SignatureDoesNotMatch", "storage.s3.secret_access_key"},
		{301, "PermanentRedirect", "storage.s3.region"},
	} {
		t.Run(tt.code, func(t *testing.T) {
			file := bucketConfig(t, refusing(t, tt.status, tt.code))
			for _, args := range [][]string{{"serve", "--config", file}, {"config", "check", "--online", file}} {
				code, _, stderr := execute(t, nil, args...)
				if code == 0 || !strings.Contains(stderr, tt.want) || strings.Contains(stderr, "hunter22") {
					t.Errorf("%v = %d: %s; want an error that has %q and no secret", args, code, stderr, tt.want)
				}
			}
			if code, _, stderr := execute(t, nil, "config", "check", file); code != 0 {
				t.Errorf("config check without --online = %d: %s; want it right", code, stderr)
			}
		})
	}
}
