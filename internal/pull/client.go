package pull

import "context"

// ClientKey is the key of the client's address among the values of a context. A context
// type of its own may return a string for it.
type ClientKey struct{}

// WithClient returns a context for requests on behalf of the client at addr, an address
// without a port. A pull that a registry counts is booked on that client.
func WithClient(ctx context.Context, addr string) context.Context {
	return context.WithValue(ctx, ClientKey{}, addr)
}

// Client returns the client of ctx; "" means that the mirror acts for itself.
func Client(ctx context.Context) string {
	addr, _ := ctx.Value(ClientKey{}).(string)
	return addr
}
