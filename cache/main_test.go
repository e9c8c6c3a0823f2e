package cache

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// settle waits until what was served is on the disk.
func settle(t *testing.T, c *Cache) {
	t.Helper()
	for start := time.Now(); c.fills.Busy(); <-time.After(time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatal("fills do not end")
		}
	}
	if err := c.store.Settle(); err != nil {
		t.Errorf("Settle: %v", err)
	}
}
