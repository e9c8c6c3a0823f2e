package pull

import "context"

// AcceptKey is the key, among the values of a context, of the media types of manifests that
// a client takes beyond those that everybody does. A context type of its own may return a string
// for it.
type AcceptKey struct{}

// WithAccept returns a context for requests of a client that takes manifests of these types too,
// which are a part of an Accept header. Registries hide what a request does not list.
func WithAccept(ctx context.Context, types string) context.Context {
	if types == "" {
		return ctx
	}
	return context.WithValue(ctx, AcceptKey{}, types)
}

// Accept returns the types of WithAccept; "" means none.
func Accept(ctx context.Context) string {
	types, _ := ctx.Value(AcceptKey{}).(string)
	return types
}
