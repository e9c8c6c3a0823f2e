package pull

import (
	"context"
	"errors"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// HopsKey is the key, among the values of a context, of the mirrors that a request came
// through. A context of one's own may answer to it with a string.
type HopsKey struct{}

// WithHops returns a context of a request that came through the mirrors that hops names,
// as wire.HopsHeader has them. Whoever asks another mirror on its behalf names them, so that
// none is asked for what it is asking for itself.
func WithHops(ctx context.Context, hops string) context.Context {
	if hops == "" {
		return ctx
	}
	return context.WithValue(ctx, HopsKey{}, hops)
}

// Hops returns through which mirrors the request of ctx came; "" means none.
func Hops(ctx context.Context) string {
	hops, _ := ctx.Value(HopsKey{}).(string)
	return hops
}

// ErrOffline is the cause of an [Error] of kind NotFound for what is not kept of an
// upstream that must not be contacted.
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
