package wire

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// RateLimit is what rate-limit headers of one answer say. Docker Hub puts them on
// manifest answers, as "100;w=3600"; public images and paid accounts have none.
type RateLimit struct {
	Limit     int64         // requests in a window; -1 when not said
	Remaining int64         // requests that are left, never below 0; -1 when not said
	Window    time.Duration // 0 when not said
	Source    string        // who is charged: an address, an IPv6 /64, an account; may be empty
}

// ParseRateLimit reads the headers ratelimit-* and, where those say nothing,
// x-ratelimit-*. It reports false when there is neither a limit nor a remainder.
func ParseRateLimit(h http.Header) (RateLimit, bool) {
	r := RateLimit{Limit: -1, Remaining: -1, Source: rateSource(h.Get("Docker-Ratelimit-Source"))}
	for _, prefix := range []string{"Ratelimit-", "X-Ratelimit-"} {
		r.take(&r.Limit, h.Get(prefix+"Limit"))
		r.take(&r.Remaining, h.Get(prefix+"Remaining"))
	}
	return r, r.Limit >= 0 || r.Remaining >= 0
}

// take sets n to the number of a header value unless it is set already, and the window
// with it. A negative remainder, which Hub has sent, is none.
func (r *RateLimit) take(n *int64, value string) {
	if *n >= 0 {
		return
	}
	count, window, ok := parseRate(value)
	if !ok {
		return
	}
	*n = max(count, 0)
	if r.Window == 0 {
		r.Window = window
	}
}

// parseRate reads "100;w=3600", "200 ; w=3600", "100" and "3000, 3000;w=60", of which
// the last part counts because it has the window.
func parseRate(s string) (count int64, window time.Duration, ok bool) {
	if i := strings.LastIndexByte(s, ','); i >= 0 {
		s = s[i+1:]
	}
	number, params, _ := strings.Cut(s, ";")
	count, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil {
		return 0, 0, false
	}
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(param, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "w") {
			continue
		}
		seconds, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		if err == nil && seconds > 0 && seconds <= maxWindowSeconds {
			window = time.Duration(seconds) * time.Second
		}
	}
	return count, window, true
}

// maxWindowSeconds bounds a window to a year, so that no arithmetic on it overflows.
const maxWindowSeconds = 366 * 24 * 3600

// rateSource returns s if it can be an address or an account, for logs and labels.
func rateSource(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > 128 {
		return ""
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return ""
		}
	}
	return s
}
