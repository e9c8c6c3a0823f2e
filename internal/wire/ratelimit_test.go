package wire

import (
	"net/http"
	"testing"
	"time"
)

func TestParseRateLimit(t *testing.T) {
	h := func(pairs ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			h.Set(pairs[i], pairs[i+1])
		}
		return h
	}
	tests := []struct {
		name string
		h    http.Header
		want RateLimit
		ok   bool
	}{
		{"hub", h("ratelimit-limit", "100;w=3600", "ratelimit-remaining", "99;w=3600", "docker-ratelimit-source", "2001:41d0:801:2000::"),
			RateLimit{100, 99, time.Hour, "2001:41d0:801:2000::"}, true},
		{"six hours", h("ratelimit-limit", "100;w=21600", "ratelimit-remaining", "0;w=21600"), RateLimit{100, 0, 6 * time.Hour, ""}, true},
		{"x only", h("x-ratelimit-limit", "200;w=3600", "x-ratelimit-remaining", "198;w=3600"), RateLimit{200, 198, time.Hour, ""}, true},
		{"plain before x", h("ratelimit-limit", "100;w=60", "x-ratelimit-limit", "200;w=3600"), RateLimit{100, -1, time.Minute, ""}, true},
		{"mixed", h("x-ratelimit-limit", "200;w=3600", "ratelimit-remaining", "5"), RateLimit{200, 5, time.Hour, ""}, true},
		{"spaces", h("ratelimit-limit", "200 ; w=3600", "ratelimit-remaining", " 7 ;w = 3600"), RateLimit{200, 7, time.Hour, ""}, true},
		{"token server", h("x-ratelimit-limit", "3000, 3000;w=60", "x-ratelimit-remaining", "2999"), RateLimit{3000, 2999, time.Minute, ""}, true},
		{"negative", h("ratelimit-limit", "100;w=3600", "ratelimit-remaining", "-3;w=3600"), RateLimit{100, 0, time.Hour, ""}, true},
		{"no window", h("ratelimit-limit", "180"), RateLimit{180, -1, 0, ""}, true},
		{"bad window", h("ratelimit-limit", "180;w=x;w=-1;w=99999999999"), RateLimit{180, -1, 0, ""}, true},
		{"garbage", h("ratelimit-limit", "lots", "ratelimit-remaining", ";w=3600"), RateLimit{-1, -1, 0, ""}, false},
		{"source only", h("docker-ratelimit-source", "10.0.0.1"), RateLimit{-1, -1, 0, "10.0.0.1"}, false},
		{"odd source", h("ratelimit-limit", "1", "docker-ratelimit-source", "a b\x7f"), RateLimit{1, -1, 0, ""}, true},
		{"none", h(), RateLimit{-1, -1, 0, ""}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got, ok := ParseRateLimit(test.h); got != test.want || ok != test.ok {
				t.Errorf("ParseRateLimit(%v) = %+v, %v; want %+v, %v", test.h, got, ok, test.want, test.ok)
			}
		})
	}
}

func FuzzParseRateLimit(f *testing.F) {
	f.Add("100;w=3600", "-9223372036854775808;w=3600", "::1")
	f.Add("3000, 3000;w=60", "", "u")
	f.Fuzz(func(t *testing.T, limit, remaining, source string) {
		h := http.Header{"Ratelimit-Limit": {limit}, "X-Ratelimit-Remaining": {remaining}, "Docker-Ratelimit-Source": {source}}
		r, ok := ParseRateLimit(h)
		if r.Limit < -1 || r.Remaining < -1 || r.Window < 0 || len(r.Source) > 128 || ok != (r.Limit >= 0 || r.Remaining >= 0) {
			t.Errorf("ParseRateLimit(%v) = %+v, %v", h, r, ok)
		}
	})
}
