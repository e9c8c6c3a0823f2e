package disktest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

const (
	// fullEnv has the tests take all of their many cases, in place of a sample.
	fullEnv = "FOREBAY_DISKTEST_FULL"
	// sampleEnv is the number that tells which sample is taken, to take the same once more.
	sampleEnv = "FOREBAY_DISKTEST_SEED"
)

// full reports whether all cases are to be taken.
func full() bool { return os.Getenv(fullEnv) != "" }

// takeSample chooses the sample of this run and says which it is.
func takeSample() error {
	if full() {
		return nil
	}
	seed := os.Getenv(sampleEnv)
	if seed == "" {
		seed = strconv.Itoa(rand.IntN(1_000_000))
		if err := os.Setenv(sampleEnv, seed); err != nil {
			return err
		}
	}
	if _, err := strconv.ParseUint(seed, 10, 32); err != nil {
		return fmt.Errorf("%s: %w", sampleEnv, err)
	}
	if os.Getenv(stageEnv) != "" {
		return nil // said already
	}
	fmt.Printf("disktest: a sample; the same once more with %s=%s, all with %s=1\n", sampleEnv, seed, fullEnv)
	return nil
}

// strideOf returns the first of a number of cases that a test takes, and how far it is to the
// next: all of them, or one of so many.
func strideOf(oneOf int) (first, stride int) {
	if full() {
		return 0, 1
	}
	seed, _ := strconv.Atoi(os.Getenv(sampleEnv)) // takeSample has looked at it
	return seed % oneOf, oneOf
}

// sample calls fn for all numbers below a count, or for one of so many.
func sample(t *testing.T, count, oneOf int, fn func(n int)) {
	t.Helper()
	first, stride := strideOf(oneOf)
	for n := first; n < count && !t.Failed(); n += stride {
		fn(n)
	}
}
