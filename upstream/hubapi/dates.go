package hubapi

import (
	"context"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"forebay/internal/pull"
)

const (
	// datesMost bounds the tags of which a date is remembered, and datesFor how long one is: a digest that is
	// pushed again gets another.
	datesMost = 8192
	datesFor  = time.Hour
	// datesPerMinute leaves two thirds of what the API gives an address to others behind it.
	datesPerMinute = 60
)

// Dates tells since when tags have their digests, for rules that go by that. It remembers, and asks seldom
// enough that nobody else behind the same address goes without.
type Dates struct {
	client *Client
	known  *lru.Cache[dated, said]
	limit  *rate.Limiter
	asking sync.Mutex // held by who asks: rulings on many tags of an image come at once
}

// dated is a tag with the digest that it has.
type dated struct {
	repo, tag string
	digest    v1.Hash
}

// said is what the API said of one.
type said struct {
	at    time.Time // zero: it does not say
	until time.Time // by our clock; it is asked again then
}

// NewDates asks by client, whose owner closes it.
func NewDates(c *Client) *Dates {
	known, err := lru.New[dated, said](datesMost)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &Dates{client: c, known: known, limit: rate.NewLimiter(datesPerMinute/60., datesPerMinute)}
}

// Updated returns when a tag got its digest, as the API says; the zero time if that does not know it, is about
// another digest by now, or cannot be had. An error, of kind [pull.Limited], means that it may be asked later.
func (d *Dates) Updated(ctx context.Context, repo, tag string, digest v1.Hash) (time.Time, error) {
	k := dated{repo, tag, digest}
	if known, ok := d.known.Get(k); ok && d.client.now().Before(known.until) {
		return known.at, nil
	}
	d.asking.Lock()
	defer d.asking.Unlock()
	if known, ok := d.known.Get(k); ok && d.client.now().Before(known.until) {
		return known.at, nil
	}
	if !d.limit.Allow() {
		return time.Time{}, &pull.Error{Kind: pull.Limited, Upstream: name, Op: "get tag " + repo + ":" + tag, Message: "asked often enough for now"}
	}
	t, err := d.client.Tag(ctx, repo, tag)
	switch {
	case pull.KindOf(err) == pull.Limited, ctx.Err() != nil:
		return time.Time{}, err
	case err != nil || t.Digest != digest:
		t.LastUpdated = time.Time{}
	}
	d.known.Add(k, said{t.LastUpdated, d.client.now().Add(datesFor)})
	return t.LastUpdated, nil
}
