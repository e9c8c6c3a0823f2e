package s3

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"forebay/cache/tier"
	"forebay/test/s3test"
	"forebay/test/storetest"
)

func TestWrongSettingsAreNamed(t *testing.T) {
	s := s3test.New(t)
	for name, tt := range map[string]struct {
		change func(*Options)
		fault  s3test.Fault
		want   string
	}{
		"bucket":   {change: func(o *Options) { o.Name = "no-such-bucket" }, want: `there is no bucket "no-such-bucket"`},
		"key":      {change: func(o *Options) { o.AccessKeyID = "somebody" }, want: "correct AccessKeyID"},
		"secret":   {change: func(o *Options) { o.SecretAccessKey, o.Names.SecretAccessKey = "wrong-secret", "its.secret" }, want: "correct its.secret"},
		"region":   {change: func(o *Options) { o.Region = "us-west-9" }, want: "Region"},
		"reading":  {fault: s3test.Fault{Op: "GetObject", Status: 403, Code: "AccessDenied"}, want: "s3:GetObject"},
		"putting":  {fault: s3test.Fault{Op: "PutObject", Status: 403, Code: "AccessDenied"}, want: "s3:PutObject"},
		"listing":  {fault: s3test.Fault{Op: "ListObjectsV2", Status: 403, Code: "AccessDenied"}, want: "s3:ListBucket"},
		"removing": {fault: s3test.Fault{Op: "DeleteObjects", Status: 403, Code: "AccessDenied"}, want: "s3:DeleteObject"},
		"aborting": {fault: s3test.Fault{Op: "AbortMultipartUpload", Status: 403, Code: "AccessDenied"}, want: "s3:AbortMultipartUpload"},
	} {
		t.Run(name, func(t *testing.T) {
			s.Clear()
			if tt.want != "" && tt.change == nil {
				s.Add(tt.fault)
			}
			err := open(t, s, tt.change).Check(t.Context())
			var r *Refusal
			if !errors.As(err, &r) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Check: %v, want a refusal that names %s", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), s3test.SecretKey) {
				t.Errorf("Check tells the secret: %v", err)
			}
		})
	}
	s.Clear()
	if err := open(t, s, nil).Check(t.Context()); err != nil {
		t.Errorf("Check of what is right: %v", err)
	}
	s.Add(s3test.Fault{Status: 503})
	err := open(t, s, nil).Reach(t.Context())
	var r *Refusal
	if err == nil || errors.As(err, &r) {
		t.Errorf("Reach of a server that is overloaded: %v, want an error that is no refusal", err)
	}
	if n := len(s.Objects()); n != 1 {
		t.Errorf("%d objects are left by the checks, want one: where it may not be removed", n)
	}
}

// The port of a console and the page of a proxy answer 200 to everything.
func TestPageIsNoBucket(t *testing.T) {
	for name, page := range map[string]string{
		"page":     "<!doctype html><html lang=en><head><meta charset=utf-8><title>Console</title></head><body><p>Log in</body></html>",
		"xml page": "<html><body>Log in</body></html>",
		"empty":    "",
		"json":     `{"status":"ok"}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, page) }))
			t.Cleanup(s.Close)
			b := open(t, &s3test.Server{URL: s.URL}, nil)
			var r *Refusal
			if err := b.Reach(t.Context()); !errors.As(err, &r) || !strings.Contains(err.Error(), "correct Endpoint") {
				t.Errorf("Reach: %v, want a refusal that names the endpoint", err)
			}
			for _, size := range []int{1, partLeast + 1} {
				content := make([]byte, size)
				if err := b.Put(t.Context(), storetest.SHA256(content), int64(size), bytes.NewReader(content), tier.PutOptions{}); err == nil {
					t.Errorf("Put of %d bytes: no error, but nobody has kept them", size)
				}
			}
			if err := b.PutFile(t.Context(), "refs/x", strings.NewReader("x"), 1, tier.Condition{}); err == nil {
				t.Error("PutFile: no error, but nobody has kept it")
			}
		})
	}
}

func TestNoCredentialsAreNamed(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	b := open(t, s3test.New(t), func(o *Options) { o.AccessKeyID = "" })
	err := b.Reach(t.Context())
	var r *Refusal
	if !errors.As(err, &r) || !strings.Contains(err.Error(), "no credentials were found") {
		t.Errorf("Reach without credentials: %v, want a refusal that says so", err)
	}
}
