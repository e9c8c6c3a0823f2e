package proxy

import (
	"net/http"
	"strconv"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
)

// staticHeaders are header values that never change. They are shared by all answers,
// which saves an allocation for each, so nobody may write to them.
type staticHeaders struct {
	apiVersion  []string
	json        []string
	octetStream []string
	bytes       []string
	immutable   []string
	noCache     []string
	noStore     []string
	stale       []string
}

func newStaticHeaders() staticHeaders {
	return staticHeaders{
		apiVersion:  []string{"registry/2.0"},
		json:        []string{"application/json"},
		octetStream: []string{"application/octet-stream"},
		bytes:       []string{"bytes"},
		immutable:   []string{"public, max-age=31536000, immutable"}, // a year, the most that HTTP caches take seriously
		noCache:     []string{"no-cache"},
		noStore:     []string{"no-store"},
		// 110 is HTTP's code for it (RFC 7234 section 5.5.1). 299 is the only one that clients
		// of registries show (OCI distribution specification, "Warnings").
		stale: []string{
			`110 - "Response is Stale"`,
			`299 - "stale: the registry could not be asked, this is what it last said"`,
		},
	}
}

// setContent sets the headers that say what content is, the same for HEAD and GET.
func setContent(to http.Header, d v1.Hash) {
	// One allocation for both texts and one for both slices: each cached answer has them.
	quoted := `"` + d.Algorithm + ":" + d.Hex + `"`
	values := []string{quoted[1 : len(quoted)-1], quoted}
	to["Docker-Content-Digest"] = values[:1:1]
	to["Etag"] = values[1:]
}

func setLength(to http.Header, n int64) {
	to["Content-Length"] = []string{strconv.FormatInt(n, 10)}
}

// setMutable sets the headers of an answer that may differ next time.
func (h *Handler) setMutable(to http.Header, result cache.Result) {
	to["Cache-Control"] = h.static.noCache
	if result == cache.Stale {
		to["Warning"] = h.static.stale
	}
}
