// Package logkey names the fields of log lines, so that one thing has one key.
//
// Never add a key for a token, a signed URL or a header dump.
package logkey

import (
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"
)

// Upstream is the public name of a configured registry.
func Upstream(name string) zap.Field { return zap.String("upstream", name) }

// Repository is the canonical repository name.
func Repository(name string) zap.Field { return zap.String("repository", name) }

// Reference is a tag or a digest.
func Reference(ref string) zap.Field { return zap.String("reference", ref) }

// Digest is the digest of a blob or manifest.
func Digest(d v1.Hash) zap.Field { return zap.String("digest", d.String()) }

// Bytes is a number of bytes.
func Bytes(n int64) zap.Field { return zap.Int64("bytes", n) }

// Took is how long the event took, in seconds.
func Took(d time.Duration) zap.Field { return zap.Float64("took_s", d.Seconds()) }

// Unused is for how long something was not asked for, in seconds.
func Unused(d time.Duration) zap.Field { return zap.Float64("unused_s", d.Seconds()) }

// Result is how a request was answered: hit, joined, miss, stale, passed, error.
func Result(r string) zap.Field { return zap.String("result", r) }

// Status is an HTTP status.
func Status(code int) zap.Field { return zap.Int("status", code) }

// Method is an HTTP method.
func Method(m string) zap.Field { return zap.String("method", m) }

// URLPath is the path of a request, without its query.
func URLPath(p string) zap.Field { return zap.String("url_path", p) }

// UserAgent is what a client says that it is.
func UserAgent(a string) zap.Field { return zap.String("user_agent", a) }

// Path is a file name.
func Path(p string) zap.Field { return zap.String("path", p) }

// Addr is a network address.
func Addr(a string) zap.Field { return zap.String("addr", a) }

// Op is what was tried at an upstream: "head manifest library/nginx:latest".
func Op(text string) zap.Field { return zap.String("op", text) }

// User is a user name at an upstream.
func User(name string) zap.Field { return zap.String("user", name) }

// Host is a host name.
func Host(h string) zap.Field { return zap.String("host", h) }

// Limit is what an upstream limits: pulls, requests, rate, blobs, tokens, repository.
func Limit(what string) zap.Field { return zap.String("limit", what) }

// RetryAfter is how long an upstream wants to be left alone, in seconds; 0 when it did
// not say.
func RetryAfter(d time.Duration) zap.Field { return zap.Float64("retry_after_s", d.Seconds()) }

// PerMinute is how many requests an upstream is sent in a minute.
func PerMinute(n int) zap.Field { return zap.Int("per_minute", n) }

// Setting is the key of the configuration that decides it.
func Setting(key string) zap.Field { return zap.String("setting", key) }

// Count is a number of things.
func Count(n int) zap.Field { return zap.Int("count", n) }

// Err is the error of the event.
func Err(err error) zap.Field { return zap.Error(err) }

// Set is the name of a prefetch set.
func Set(name string) zap.Field { return zap.String("set", name) }

// Outcome is what came of something with several parts: done, partial, failed, limited.
func Outcome(o string) zap.Field { return zap.String("outcome", o) }
