package upstream

import (
	"net/http"
	"net/url"

	"forebay/upstream/dial"
)

// Transport returns connections to a service beside the registry, such as Docker Hub's
// web API, at base: with proxy, certificates, address family and timeouts of opts, and
// under the same policy of addresses as for an endpoint. It follows no redirect. The
// caller closes its idle connections.
func Transport(base *url.URL, opts Options) (*http.Transport, error) {
	opts.setDefaults()
	d, err := dial.New(base, opts.dialing())
	if err != nil {
		return nil, err
	}
	return d.Transport()
}
