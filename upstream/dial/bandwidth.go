package dial

import (
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// bandwidthChunk bounds one read, so that the connections of an upstream take turns, and none waits
// so long that it looks stalled.
const bandwidthChunk = 16 << 10

// NewBandwidth returns a bound of bytes a second that all connections of an upstream share; nil for 0.
func NewBandwidth(bytes int64) *rate.Limiter {
	if bytes <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytes), bandwidthChunk)
}

// slowConn is a connection whose reads wait for their share.
type slowConn struct {
	net.Conn
	limit  *rate.Limiter
	close  sync.Once
	closed chan struct{} // by Close, which ends a wait
}

// Read reads what has arrived, and returns when the bandwidth has room for it.
func (c *slowConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:min(len(p), bandwidthChunk)])
	if n == 0 {
		return n, err
	}
	if wait := c.limit.ReserveN(time.Now(), n).Delay(); wait > 0 {
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
