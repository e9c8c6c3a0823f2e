package pull

import "context"

type urlsKey struct{}

// WithURLs returns a context for a request for a foreign layer, which its manifest says is at
// urls too. They are a manifest's word, so that whoever asks there decides which may be asked.
func WithURLs(ctx context.Context, urls []string) context.Context {
	if len(urls) == 0 {
		return ctx
	}
	return context.WithValue(ctx, urlsKey{}, urls)
}

// URLs returns what [WithURLs] was given.
func URLs(ctx context.Context) []string {
	urls, _ := ctx.Value(urlsKey{}).([]string)
	return urls
}
