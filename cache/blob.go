package cache

import (
	"context"
	"errors"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Blob is a blob opened for one reader, who must call Close. It is complete on disk
// (File is not nil) or still arriving (use Send).
type Blob struct {
	Digest v1.Hash
	Size   int64 // bytes; -1 while the upstream has not said
	Result Result
}

// File returns the verified file of a complete blob, positioned at its start, or nil
// while the blob is arriving. It stays open until Close.
func (b *Blob) File() *os.File { return nil }

// Send writes the bytes [off, end) to w as they arrive, end -1 being the blob's end.
// It returns nil only when all of them were written. The blob's last byte is not
// written before the digest of the whole is right. An error after the first byte means
// that w got a prefix: the caller must end its body short.
func (b *Blob) Send(ctx context.Context, w io.Writer, off, end int64) (int64, error) {
	return 0, errors.New("not built yet")
}

// Close lets go of the blob. A fill goes on without its readers.
func (b *Blob) Close() error { return nil }
