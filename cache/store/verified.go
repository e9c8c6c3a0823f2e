package store

import (
	"encoding/hex"
	"os"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// ShortDigest is a digest cut to 16 bytes: a million of them take 50 MB less than whole ones.
type ShortDigest [16]byte

// Shorten cuts a digest, which must be valid.
func Shorten(d v1.Hash) (s ShortDigest) {
	_, _ = hex.Decode(s[:], []byte(d.Hex[:2*len(s)])) // digests were validated
	return s
}

// Stamp tells the file that was verified from one that was changed since: whoever writes to
// it sets its time. It is 0, and never that of a verified one, when the file cannot tell.
type Stamp uint64

// StampOf returns the stamp of an open file.
func StampOf(f *os.File) Stamp {
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	// An odd factor, so that no size and time are those of another by a small change.
	return Stamp(info.Size())*0x9e3779b97f4a7c15 ^ Stamp(info.ModTime().UnixNano())
}

// Verified reports whether the digest of d was computed since the start, of a file as it
// is now.
func (s *Store) Verified(d v1.Hash, now Stamp) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, ok := s.verified[Shorten(d)]
	return ok && was == now && now != 0
}

// WasVerified reports whether the digest of d was computed since the start.
func (s *Store) WasVerified(d v1.Hash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.verified[Shorten(d)]
	return ok
}

// SetVerified notes that a file had the digest d.
func (s *Store) SetVerified(d v1.Hash, found Stamp) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verified[Shorten(d)] = found
}

func (s *Store) forgetVerified(d v1.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.verified, Shorten(d))
}

// awaitedFor is how long content that was taken in waits for the image that it belongs
// to: an import that was cut is run again within it, or loses what it brought to others.
const awaitedFor = 24 * time.Hour

// awaited is content that was taken in and belongs to no repository yet, or is being exported. It is
// neither evicted nor garbage. The zero value is ready for use.
type awaited struct {
	mu    sync.Mutex
	until map[ShortDigest]time.Time // guarded by mu
}

// Await keeps content until it is linked, or for a day.
func (s *Store) Await(d v1.Hash) { s.Hold(d, awaitedFor) }

// Hold keeps content from eviction for a while, unless it is held for longer already.
func (s *Store) Hold(d v1.Hash, while time.Duration) {
	a := &s.awaited
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.until == nil {
		a.until = map[ShortDigest]time.Time{}
	}
	if until := time.Now().Add(while); until.After(a.until[Shorten(d)]) {
		a.until[Shorten(d)] = until
	}
}

// EndAwait ends an Await.
func (s *Store) EndAwait(d v1.Hash) {
	s.awaited.mu.Lock()
	defer s.awaited.mu.Unlock()
	delete(s.awaited.until, Shorten(d))
}

// Awaits reports whether d is kept by an Await.
func (s *Store) Awaits(d v1.Hash) bool { return s.awaited.has(d) }

// has reports whether d is waiting; what waited too long is forgotten.
func (a *awaited) has(d v1.Hash) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	until, ok := a.until[Shorten(d)]
	if ok && time.Now().After(until) {
		delete(a.until, Shorten(d))
		return false
	}
	return ok
}
