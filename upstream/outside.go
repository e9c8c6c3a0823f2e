package upstream

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"forebay/internal/registries"
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

// Account returns the user name and the password that c stands for at the registry of
// that name, for a service beside it. Both are empty for anonymous. Passwords are read
// and helpers run anew each time, and one that fails is an error.
func Account(ctx context.Context, c Credentials, registry string) (user, password string, err error) {
	source, err := newSource(c, registry, []string{registries.Find(registry).Endpoint}, time.Now)
	if err != nil {
		return "", "", err
	}
	who, err := source.identity(ctx, true)
	switch {
	case err != nil:
		return "", "", err
	case who.refresh, who.registryToken != "":
		return "", "", errors.New("credentials: they are a token of the registry: a user name with a password or access token is needed")
	}
	return who.user, who.secret, nil
}
