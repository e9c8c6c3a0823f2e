package upkeep

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/statefile"
)

// Signed is what a bundle says of itself by a signature that the caller has verified.
type Signed struct {
	Key string // which has signed it, by its fingerprint
	// Made is when: the serial of the bundle among those of the key. Zero when it is not said, as
	// earlier versions did not.
	Made    time.Time
	Vouched []v1.Hash // content that its images rely on, and that it does not bring
}

// ErrOlder means that a signed bundle is older than one by the same key that was taken in.
var ErrOlder = errors.New("the bundle is older than one by the same key that was taken in")

const (
	// signedName is a file of the storage folder: when the newest bundle of each key was made.
	// Who loses it takes in older ones again.
	signedName = "signed.json"
	// signedMost bounds it: some 10,000 keys.
	signedMost = 1 << 20
)

// signers remembers the newest bundle of each key, so that whoever carries bundles cannot
// bring back an older one.
type signers struct {
	file string
	mu   sync.Mutex // over reading and writing the file
}

func newSigners(dir string) signers { return signers{file: filepath.Join(dir, signedName)} }

// check returns an [ErrOlder] for a bundle that is older than the newest of its key, unless it
// may be. With remember it is the newest from now on, if it is.
func (s *signers) check(b *Signed, mayBeOlder, remember bool) error {
	if b == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := map[string]time.Time{}
	if err := statefile.Read(s.file, signedMost, &newest); err != nil {
		return err
	}
	at := newest[b.Key]
	switch {
	case b.Made.Equal(at):
		return nil
	case b.Made.After(at):
		if !remember {
			return nil
		}
		newest[b.Key] = b.Made.UTC()
		return statefile.Write(s.file, newest)
	case mayBeOlder:
		return nil
	case b.Made.IsZero():
		return fmt.Errorf("%w: it does not say when it was made, and that was made at %s", ErrOlder, at.Format(time.RFC3339))
	}
	return fmt.Errorf("%w: it was made at %s, and that at %s", ErrOlder, b.Made.UTC().Format(time.RFC3339Nano), at.Format(time.RFC3339Nano))
}
