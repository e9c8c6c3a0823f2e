package tier

import "time"

// Calls counts requests of one operation with one outcome.
type Calls struct {
	Operation string  `json:"operation"`                                                               // "GetObject"
	Outcome   string  `json:"outcome" enum:"ok,absent,exists,throttled,denied,timeout,canceled,error"` // "ok", "absent", "exists", "throttled", "denied", "timeout", "canceled" or "error"
	Count     int64   `json:"count"`
	Seconds   float64 `json:"seconds"` // that they took together, until their answer began
	// Within counts those that took no longer than each of [LatencyBounds].
	Within []int64 `json:"within"`
}

// LatencyBounds are the bounds in seconds by which [Calls] are counted.
func LatencyBounds() []float64 { return []float64{0.005, 0.02, 0.1, 0.5, 2, 10, 60} }

// Stats are figures of the tier.
type Stats struct {
	Objects     int64 `json:"objects"` // in the bucket, as far as is known
	ObjectBytes int64 `json:"object_bytes"`
	MaxBytes    int64 `json:"max_bytes"` // 0 means no limit

	Queued      int   `json:"queued"` // uploads that wait or run
	QueuedBytes int64 `json:"queued_bytes"`
	// More is whether there is more to upload than is counted in Queued.
	More bool `json:"more"`

	// Since the start.
	Uploaded      int64 `json:"uploaded"`
	UploadedBytes int64 `json:"uploaded_bytes"`
	Failures      int64 `json:"failures"` // of uploads
	Removed       int64 `json:"removed"`  // objects, for age or room
	Damaged       int64 `json:"damaged"`  // objects that were not what their name says

	Degraded      bool      `json:"degraded"`
	DegradedSince time.Time `json:"degraded_since,omitzero"`
	LastError     string    `json:"last_error,omitempty"`
	LastErrorAt   time.Time `json:"last_error_at,omitzero"`

	// Since when links, tags and pins wait to get into the bucket, zero when none do; and how many of
	// the segments there had lines that could not be read, when they were read last.
	RefsBehind  time.Time `json:"refs_behind_since,omitzero"`
	RefsDamaged int64     `json:"refs_damaged"`

	Survey *Survey `json:"survey,omitempty"` // the last listing of the bucket
	Calls  []Calls `json:"calls"`
}

// Stats returns figures of the tier. It makes no request.
func (t *Tier) Stats() Stats {
	s := Stats{
		Objects: t.objects.Load(), ObjectBytes: t.bytes.Load(), MaxBytes: t.opts.MaxBytes,
		Uploaded: t.uploaded.Load(), UploadedBytes: t.sent.Load(), Failures: t.failures.Load(),
		Removed: t.dropped.Load(), Damaged: t.distrusts.Load(),
		Survey: t.survey.Load(), Calls: append([]Calls{}, t.opts.Bucket.Calls()...),
	}
	s.Queued, s.QueuedBytes = t.queue.length()
	t.queue.mu.Lock()
	s.More = t.queue.missed
	t.queue.mu.Unlock()
	for _, b := range []*breaker{&t.reads, &t.writes} {
		at, since, err := b.failure()
		if err != nil && at.After(s.LastErrorAt) {
			s.LastError, s.LastErrorAt = err.Error(), at
		}
		if !since.IsZero() && (s.DegradedSince.IsZero() || since.Before(s.DegradedSince)) {
			s.Degraded, s.DegradedSince = true, since
		}
	}
	return s
}
