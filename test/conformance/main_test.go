package conformance

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

// together is how many tests run at once. Most of their time is spent waiting, for a disk
// to sync or a hub to be late, so that it is more than there are cores.
const together = "24"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", together); err != nil {
		panic(err) // the flag has a new name
	}
	goleak.VerifyTestMain(m)
}
