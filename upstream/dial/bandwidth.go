package dial

import (
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"forebay/config/unit"
)

// bandwidthChunk bounds one read, so that the connections of an upstream take turns, and none waits
// so long that it looks stalled.
const bandwidthChunk = 16 << 10

// Bandwidth bounds the bytes a second that all connections of an upstream share.
type Bandwidth struct {
	limit *rate.Limiter
	bytes int64
	hours []unit.Hours
}

// NewBandwidth returns a bound of bytes a second, and of others within hours of the day, of which the
// first counts; nil for none. 0 bytes are no bound.
func NewBandwidth(bytes int64, hours ...unit.Hours) *Bandwidth {
	if bytes <= 0 && len(hours) == 0 {
		return nil
	}
	return &Bandwidth{rate.NewLimiter(rate.Inf, bandwidthChunk), bytes, hours}
}

// wait returns how long n bytes that have come are held back.
func (b *Bandwidth) wait(n int) time.Duration {
	now, bytes := time.Now(), b.bytes
	if i := slices.IndexFunc(b.hours, func(h unit.Hours) bool { return h.Hold(now) }); i >= 0 {
		bytes = b.hours[i].Bytes
	}
	limit := rate.Inf
	if bytes > 0 {
		limit = rate.Limit(bytes)
	}
	if b.limit.Limit() != limit {
		b.limit.SetLimitAt(now, limit)
	}
	return b.limit.ReserveN(now, n).Delay()
}

// slowConn is a connection whose reads wait for their share.
type slowConn struct {
	net.Conn
	limit  *Bandwidth
	close  sync.Once
	closed chan struct{} // by Close, which ends a wait
}

// Read reads what has arrived, and returns when the bandwidth has room for it.
func (c *slowConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:min(len(p), bandwidthChunk)])
	if n == 0 {
		return n, err
	}
	if wait := c.limit.wait(n); wait > 0 {
		pause := time.NewTimer(wait)
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-c.closed:
		}
	}
	return n, err
}

// Close ends a read that waits, too.
func (c *slowConn) Close() error {
	c.close.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
