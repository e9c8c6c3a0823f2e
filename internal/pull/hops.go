package pull

import (
	"context"
	"errors"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// HopsKey is the key, among the values of a context, of the mirrors that a request came
// through. A context type of its own may return a string for it.
type HopsKey struct{}

// WithHops returns a context for a request that came through the mirrors in hops, which is a
// value of wire.HopsHeader. A request to another mirror on its behalf names them too, so
// that no mirror ends up asking itself.
func WithHops(ctx context.Context, hops string) context.Context {
	if hops == "" {
		return ctx
	}
	return context.WithValue(ctx, HopsKey{}, hops)
}

// Hops returns the mirrors that the request of ctx came through; "" means none.
func Hops(ctx context.Context) string {
	hops, _ := ctx.Value(HopsKey{}).(string)
	return hops
}

// statusLoop is what a mirror answers to a request that came through it already, by RFC 5842.
const statusLoop = 508

// Foreign reports whether an error is about who asked alone, and not about what was asked for: that
// of a client's login, or of mirrors through which the request came back to where it began.
func Foreign(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Status == statusLoop || e.Detail == OfLogin)
}

// ErrOffline is the cause of an [Error] of kind NotFound: the content is not kept, and its
// upstream must not be contacted.
var ErrOffline = errors.New("the mirror is offline and does not have it")

// staleKey marks a descriptor that another mirror gave although it could not confirm it.
const staleKey = "forebay.stale"

// MarkStale marks a descriptor as one that another mirror could not confirm.
func MarkStale(desc *v1.Descriptor) { desc.Annotations = map[string]string{staleKey: "true"} }

// TakeStale removes the mark and reports whether it was there.
func TakeStale(desc *v1.Descriptor) bool {
	if desc.Annotations[staleKey] == "" {
		return false
	}
	desc.Annotations = nil
	return true
}
