package wire

import (
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// retryAfterMax bounds what an upstream can make us wait. Docker Hub's longest window
// was six hours.
const retryAfterMax = 24 * time.Hour

// retryMessagePattern finds the wait in GHCR's message "toomanyrequests: retry-after:
// 160.574µs, allowed: 44000/minute": a Go duration, whose micro sign has two spellings.
var retryMessagePattern = regexp.MustCompile(`(?i)retry[- ]after:?\s+([0-9][0-9.]*(?:ns|us|µs|μs|ms|s|m|h)(?:[0-9.]+(?:ns|us|µs|μs|ms|s|m|h))*)`)

// ParseRetryAfter returns how long an upstream asks to be left alone. It reads the headers
// Retry-After and X-Retry-After (seconds, an HTTP date, or a Unix time, which Docker Hub's
// API sends), else the message of its error document. 0 means that the upstream did not
// say, or that the time is past. The result is at most a day.
func ParseRetryAfter(h http.Header, message string, now time.Time) time.Duration {
	for _, name := range []string{"Retry-After", "X-Retry-After"} {
		if d, ok := parseRetryValue(h.Get(name), now); ok {
			return d
		}
	}
	if m := retryMessagePattern.FindStringSubmatch(message); m != nil {
		if d, err := time.ParseDuration(m[1]); err == nil {
			return clampRetry(d)
		}
	}
	return 0
}

// allowedPattern finds the rate in the same message.
var allowedPattern = regexp.MustCompile(`(?i)allowed:?\s+([0-9]{1,9})\s*/\s*(second|sec|s|minute|min|m|hour|h)\b`)

// ParseAllowed returns how many requests a minute the message of a refusal allows; 0 if it does not say.
func ParseAllowed(message string) int {
	m := allowedPattern.FindStringSubmatch(message)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1]) // of nine digits at most
	switch m[2][0] | 0x20 {
	case 's':
		return n * 60
	case 'h':
		return max(n/60, 1)
	}
	return n
}

// NamesRepository reports whether a message speaks of a repository: it holds its whole name, with a slash
// in it or between quotes.
func NamesRepository(message, repo string) bool {
	for _, word := range strings.FieldsFunc(message, func(r rune) bool { return strings.ContainsRune(" \t,;:()[]<>@", r) }) {
		bare := strings.Trim(word, `"'`+"`.")
		if bare == repo && (strings.Contains(repo, "/") || strings.ContainsAny(word[:1], `"'`+"`")) {
			return true
		}
	}
	return false
}

// ParseRateLimitReset returns how long it is until an upstream's limit of requests starts
// anew, from X-RateLimit-Reset or RateLimit-Reset: seconds, which Docker Hub's token server
// sends, or a Unix time, which its API sends. It is only meant for a status 429. 0 means that
// the upstream did not say, or that the time is past. The result is at most a day.
func ParseRateLimitReset(h http.Header, now time.Time) time.Duration {
	for _, name := range []string{"X-Ratelimit-Reset", "Ratelimit-Reset"} {
		if d, ok := parseRetryValue(h.Get(name), now); ok {
			return d
		}
	}
	return 0
}

func parseRetryValue(s string, now time.Time) (time.Duration, bool) {
	s = strings.TrimSpace(s)
	if s == "" {
		return 0, false
	}
	if n, err := strconv.ParseFloat(s, 64); err == nil && !math.IsNaN(n) {
		if n > 1e9 { // no wait is 30 years: this is a Unix time
			return clampRetry(time.Unix(int64(min(n, 1e11)), 0).Sub(now)), true
		}
		return clampRetry(time.Duration(math.Ceil(max(n, 0)) * float64(time.Second))), true
	}
	if t, err := http.ParseTime(s); err == nil {
		return clampRetry(t.Sub(now)), true
	}
	if d, err := time.ParseDuration(s); err == nil {
		return clampRetry(d), true
	}
	return 0, false
}

func clampRetry(d time.Duration) time.Duration { return min(max(d, 0), retryAfterMax) }
