package wire

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)
	unix := func(d time.Duration) string { return fmt.Sprint(now.Add(d).Unix()) }
	tests := []struct {
		header, value, message string
		want                   time.Duration
	}{
		{"Retry-After", "60", "", time.Minute},
		{"Retry-After", " 1.2 ", "", 2 * time.Second},
		{"Retry-After", "0", "retry-after: 5s", 0},
		{"Retry-After", "-5", "", 0},
		{"Retry-After", "NaN", "", 0},
		{"Retry-After", "999999999", "", 24 * time.Hour},
		{"Retry-After", "1e300", "", 24 * time.Hour},
		{"Retry-After", now.Add(90 * time.Second).Format(http.TimeFormat), "", 90 * time.Second},
		{"Retry-After", now.Add(-time.Hour).Format(http.TimeFormat), "", 0},
		{"Retry-After", unix(45 * time.Second), "", 45 * time.Second},
		{"X-Retry-After", unix(30 * time.Second), "", 30 * time.Second},
		{"X-Retry-After", unix(-30 * time.Second), "", 0},
		{"X-Retry-After", "7", "", 7 * time.Second},
		{"Retry-After", "1m30s", "", 90 * time.Second},
		{"Retry-After", "soon", "", 0},
		{"", "", "toomanyrequests: retry-after: 160.574µs, allowed: 44000/minute", 160574 * time.Nanosecond},
		{"", "", "Retry-After: 1m2.5s, allowed: 1/minute", 62500 * time.Millisecond},
		{"", "", "retry after 3s", 3 * time.Second},
		{"", "", "retry-after: 12 bananas", 0},
		{"", "", "Too Many Requests (HAP429).", 0},
	}
	for _, test := range tests {
		h := http.Header{}
		if test.header != "" {
			h.Set(test.header, test.value)
		}
		if got := ParseRetryAfter(h, test.message, now); got != test.want {
			t.Errorf("ParseRetryAfter(%v, %q) = %v, want %v", h, test.message, got, test.want)
		}
	}
}

func TestParseRateLimitReset(t *testing.T) {
	now := time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		header, value string
		want          time.Duration
	}{
		{"X-RateLimit-Reset", "49", 49 * time.Second}, // Docker Hub's token server
		{"X-RateLimit-Reset", fmt.Sprint(now.Add(30 * time.Second).Unix()), 30 * time.Second},
		{"RateLimit-Reset", "7", 7 * time.Second},
		{"X-RateLimit-Reset", "-3", 0},
		{"X-RateLimit-Reset", "1e300", 24 * time.Hour},
		{"X-RateLimit-Reset", "later", 0},
		{"X-RateLimit-Limit", "3000", 0},
	}
	for _, test := range tests {
		h := http.Header{}
		h.Set(test.header, test.value)
		if got := ParseRateLimitReset(h, now); got != test.want {
			t.Errorf("ParseRateLimitReset(%v) = %v, want %v", h, got, test.want)
		}
	}
}

func FuzzParseRetryAfter(f *testing.F) {
	f.Add("60", "")
	f.Add("Thu, 01 Oct 2026 12:00:00 GMT", "retry-after: 160.574µs, allowed")
	f.Add("-1e308", "retry-after: 9999999999999h")
	now := time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value, message string) {
		h := http.Header{"Retry-After": {value}}
		if got := ParseRetryAfter(h, message, now); got < 0 || got > retryAfterMax {
			t.Errorf("ParseRetryAfter(%q, %q) = %v, want 0 to a day", value, message, got)
		}
	})
}

func TestParseAllowed(t *testing.T) {
	for message, want := range map[string]int{
		"toomanyrequests: retry-after: 160.574µs, allowed: 44000/minute": 44000,
		"retry-after: 1.889377ms, allowed: 2000/minute":                  2000,
		"Allowed 10 / second": 600, "allowed: 600/h": 10, "allowed: 1/hour": 1,
		"": 0, "allowed: many/minute": 0, "allowed: 5/day": 0, "not allowed": 0, "allowed: 99999999999/minute": 0,
	} {
		if got := ParseAllowed(message); got != want {
			t.Errorf("ParseAllowed(%q) = %d, want %d", message, got, want)
		}
	}
}

func TestNamesRepository(t *testing.T) {
	for _, test := range []struct {
		message, repo string
		want          bool
	}{
		{"too many requests to repository acme/app", "acme/app", true},
		{`rate limit of "acme/app" reached.`, "acme/app", true},
		{"acme/app: pull rate exceeded", "acme/app", true},
		{"limit of repository 'app' reached", "app", true},
		{"You have reached your pull rate limit. https://www.docker.com/increase-rate-limit", "library/pull", false},
		{"You have reached your pull rate limit.", "pull", false},
		{"too many requests to acme/application", "acme/app", false},
		{"", "acme/app", false},
	} {
		if got := NamesRepository(test.message, test.repo); got != test.want {
			t.Errorf("NamesRepository(%q, %q) = %v", test.message, test.repo, got)
		}
	}
}
