package hubtest

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"sync"
)

// content is the bytes of one blob or body, readable from any offset.
type content interface {
	size() int64
	// open returns the n bytes from off on. The caller closes it.
	open(ctx context.Context, off, n int64) (io.ReadCloser, error)
}

// memory is content held as it is.
type memory []byte

func (m memory) size() int64 { return int64(len(m)) }

func (m memory) open(_ context.Context, off, n int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(m[off : off+n])), nil
}

// virtual is a key stream that needs no memory: AES in counter mode under a key made
// from the seed. Any offset is reached without reading what is before it.
type virtual struct {
	seed   uint64
	length int64
}

func (v virtual) size() int64 { return v.length }

func (v virtual) open(_ context.Context, off, n int64) (io.ReadCloser, error) {
	return io.NopCloser(&keyStream{stream: v.stream(off), left: n}), nil
}

func (v virtual) stream(off int64) cipher.Stream {
	key := sha256.Sum256(fmt.Appendf(nil, "hubtest virtual blob %d", v.seed))
	block, err := aes.NewCipher(key[:16])
	if err != nil {
		panic(err) // the key has the right length
	}
	var iv [aes.BlockSize]byte
	binary.BigEndian.PutUint64(iv[8:], uint64(off/aes.BlockSize))
	s := cipher.NewCTR(block, iv[:])
	var skip [aes.BlockSize]byte
	s.XORKeyStream(skip[:off%aes.BlockSize], skip[:off%aes.BlockSize])
	return s
}

type keyStream struct {
	stream cipher.Stream
	left   int64
}

func (k *keyStream) Read(p []byte) (int, error) {
	if k.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > k.left {
		p = p[:k.left]
	}
	clear(p)
	k.stream.XORKeyStream(p, p)
	k.left -= int64(len(p))
	return len(p), nil
}

// virtualDigests remembers the digests of virtual blobs for the whole test binary,
// since a big one takes seconds to compute. Values are func() string.
var virtualDigests sync.Map

type virtualKey struct {
	virtual
	algorithm string
}

// VirtualDigest returns the digest of the virtual blob (seed, size). It is computed
// once per test binary.
func VirtualDigest(seed uint64, size int64) string {
	return virtual{seed, size}.digest("sha256")
}

// VirtualReader returns the bytes of the virtual blob (seed, size), for comparing.
func VirtualReader(seed uint64, size int64) io.Reader {
	return &keyStream{stream: virtual{seed, size}.stream(0), left: size}
}

func (v virtual) digest(algorithm string) string {
	compute := sync.OnceValue(func() string {
		h := newHash(algorithm)
		r := &keyStream{stream: v.stream(0), left: v.length}
		if _, err := io.CopyBuffer(h, struct{ io.Reader }{r}, make([]byte, 256<<10)); err != nil {
			panic(err) // neither side can fail
		}
		return algorithm + ":" + hex.EncodeToString(h.Sum(nil))
	})
	f, _ := virtualDigests.LoadOrStore(virtualKey{v, algorithm}, compute)
	return f.(func() string)()
}

// readAll returns all bytes of c.
func readAll(ctx context.Context, c content) ([]byte, error) {
	if m, ok := c.(memory); ok {
		return m, nil
	}
	r, err := c.open(ctx, 0, c.size())
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}
