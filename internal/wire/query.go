package wire

import (
	"net/url"
	"strings"
)

// QueryValue returns the first value of key in a raw query, and whether there is one.
// It allocates only for an escaped value: containerd sends ns with every request.
func QueryValue(raw, key string) (value string, ok bool) {
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		k, v, _ := strings.Cut(pair, "=")
		if k != key {
			continue
		}
		if strings.ContainsAny(v, "%+") {
			plain, err := url.QueryUnescape(v)
			if err != nil {
				return v, true // a caller finds that it is no name, number or tag
			}
			return plain, true
		}
		return v, true
	}
	return "", false
}
