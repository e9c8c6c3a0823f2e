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

// unwantedKey is the key of the channel of WithUnwanted.
type unwantedKey struct{}

// WithUnwanted returns a context for a request that several may wait for. left is closed when
// all of them have gone: then it is not begun any more, but goes on if it has.
func WithUnwanted(ctx context.Context, left <-chan struct{}) context.Context {
	return context.WithValue(ctx, unwantedKey{}, left)
}

// Unwanted returns the channel of WithUnwanted; nil, which is never closed, without one.
func Unwanted(ctx context.Context) <-chan struct{} {
	left, _ := ctx.Value(unwantedKey{}).(<-chan struct{})
	return left
}
