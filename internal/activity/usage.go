package activity

import "time"

// Usage is what the mirror did for its clients since the start.
type Usage struct {
	Since time.Time `json:"since"`
	Traffic
	SavedBytes int64 `json:"saved_bytes"` // that clients got and no registry sent
	// HitRatio is the share of requests that were answered without fetching content, and
	// ByteRatio the share of bytes that no registry sent: from 0 to 1, -1 without any.
	HitRatio  float64 `json:"hit_ratio"`
	ByteRatio float64 `json:"byte_ratio"`
	Price     float64 `json:"price_per_gib"` // 0 when none is configured
	Saved     float64 `json:"saved_cost"`    // SavedBytes at that price
	Currency  string  `json:"currency"`
	// Upstreams has the same for each of them.
	Upstreams map[string]Traffic `json:"upstreams"`
}

// Usage returns what was counted since the start, with what it would have cost at a price of a GiB.
func (r *Recorder) Usage(price float64, currency string) Usage {
	all, upstreams := r.Totals()
	u := Usage{
		Since: r.Started(), Traffic: all, SavedBytes: all.SavedBytes(), HitRatio: -1, ByteRatio: -1,
		Price: price, Currency: currency, Upstreams: map[string]Traffic{},
	}
	for name, one := range upstreams {
		u.Upstreams[name] = one
	}
	if n := all.Answered(); n > 0 {
		u.HitRatio = float64(all.Hit+all.Joined+all.Stale) / float64(n)
	}
	if all.ClientBytes > 0 {
		u.ByteRatio = float64(u.SavedBytes) / float64(all.ClientBytes)
	}
	u.Saved = float64(u.SavedBytes) / (1 << 30) * price
	return u
}
