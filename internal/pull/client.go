package pull

import "context"

// ClientKey is the key of the client's address among the values of a context. A context
// of one's own may answer to it with a string.
type ClientKey struct{}

// WithClient returns a context of a request that is made on behalf of the client at addr,
// an address without a port. Whoever charges a request to somebody charges it to that.
func WithClient(ctx context.Context, addr string) context.Context {
	return context.WithValue(ctx, ClientKey{}, addr)
}

// Client returns on whose behalf ctx is; "" means the mirror's own.
func Client(ctx context.Context) string {
	addr, _ := ctx.Value(ClientKey{}).(string)
	return addr
}
