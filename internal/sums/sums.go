// Package sums makes digests of content and compares content with its digest.
//
// It is the only place that knows the algorithms. [Beside] hashes what somebody else
// moves, beside the moving: it promises that the hash sees the pieces in their order. It
// does not copy them: a piece belongs to it from Write until the next call of Buffer.
package sums

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/zeebo/blake3"

	"forebay/internal/wire"
)

// Piece is how many bytes a buffer has.
const Piece = 512 << 10

// pieces are under way at a time: one that is read or written, one that is hashed, and
// one between.
const pieces = 3

// Beside is a hash in a goroutine of its own. Its owner calls Sum or End.
type Beside struct {
	algorithm string
	to        hash.Hash
	free      chan []byte
	full      chan []byte
	once      sync.Once
	ended     chan struct{}
}

// New returns a Beside for digests of one of [wire.Algorithms].
func New(algorithm string) (*Beside, error) {
	to, err := Hash(algorithm)
	if err != nil {
		return nil, err
	}
	b := &Beside{algorithm: algorithm, to: to, free: make(chan []byte, pieces), full: make(chan []byte, pieces), ended: make(chan struct{})}
	for range pieces {
		b.free <- nil // made when it is needed: most content is small
	}
	go b.run()
	return b, nil
}

// run hashes until End.
func (b *Beside) run() {
	defer close(b.ended)
	for p := range b.full {
		_, _ = b.to.Write(p) // a hash takes everything
		b.free <- p[:cap(p)]
	}
}

// Buffer returns a piece that nobody uses, waiting for one if need be. It must be handed
// back by Write.
func (b *Beside) Buffer() []byte {
	if p := <-b.free; p != nil {
		return p
	}
	return make([]byte, Piece)
}

// Write hands over the beginning of a piece from Buffer. Its bytes may be read, and not
// changed, until the next call of Buffer.
func (b *Beside) Write(p []byte) { b.full <- p }

// End waits until everything is hashed. It may be called again.
func (b *Beside) End() {
	b.once.Do(func() { close(b.full) })
	<-b.ended
}

// Sum ends the hash and returns the digest.
func (b *Beside) Sum() v1.Hash {
	b.End()
	return digest(b.algorithm, b.to)
}

func digest(algorithm string, h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: algorithm, Hex: hex.EncodeToString(h.Sum(nil))}
}

// Hash returns a new hash of one of [wire.Algorithms]. It is a [hash.Cloner].
func Hash(algorithm string) (hash.Hash, error) {
	switch algorithm {
	case "sha256":
		return sha256.New(), nil
	case "sha512":
		return sha512.New(), nil
	case "blake3":
		return blake{blake3.New()}, nil
	}
	return nil, fmt.Errorf("digest algorithm %q is not supported: use %s", algorithm, strings.Join(wire.Algorithms, ", "))
}

// blake is BLAKE3 with its output of 256 bits, as the image specification registers it.
type blake struct{ *blake3.Hasher }

// Clone implements [hash.Cloner].
func (b blake) Clone() (hash.Cloner, error) { return blake{b.Hasher.Clone()}, nil }

// Of returns the digest of content by one of [wire.Algorithms].
func Of(algorithm string, content []byte) (v1.Hash, error) {
	h, err := Hash(algorithm)
	if err != nil {
		return v1.Hash{}, err
	}
	_, _ = h.Write(content) // a hash takes everything
	return digest(algorithm, h), nil
}

// ErrMismatch: content does not have the digest that it should have.
var ErrMismatch = errors.New("content does not have the digest asked for")

// Check returns an [ErrMismatch] unless content has the digest d.
func Check(d v1.Hash, content []byte) error {
	h, err := Hash(d.Algorithm)
	if err != nil {
		return err
	}
	_, _ = h.Write(content)
	return CheckHash(d, h)
}

// CheckHash returns an [ErrMismatch] unless what h, of d's algorithm, has seen has the
// digest d.
func CheckHash(d v1.Hash, h hash.Hash) error {
	if got := digest(d.Algorithm, h); got != d {
		return fmt.Errorf("%w: got %s", ErrMismatch, got)
	}
	return nil
}
