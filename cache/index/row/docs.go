package row

import (
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/zstd"
)

const (
	// MaxDoc bounds a document. A tag list of 100,000 commit hashes has 4.5 MB.
	MaxDoc = 16 << 20
	// DocPart is the size of the pieces that a document is kept in: values below 1 MiB stay
	// out of Badger's value log, which would have to be collected.
	DocPart = 256 << 10
	// MaxDocParts bounds a document after compression, so that it fits into one transaction.
	MaxDocParts = 8
)

// EncodeDoc returns a record: its form, the time, the length, and the compressed bytes.
func EncodeDoc(at time.Time, doc []byte) ([]byte, error) {
	if len(doc) > MaxDoc {
		return nil, fmt.Errorf("%w: %d bytes are more than %d", ErrTooBig, len(doc), MaxDoc)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	defer func() { _ = enc.Close() }() // EncodeAll leaves nothing to flush
	v := enc.EncodeAll(doc, newEncoder().time(at).int(int64(len(doc))))
	if len(v) > MaxDocParts*DocPart {
		return nil, fmt.Errorf("%w: %d bytes after compression are more than %d", ErrTooBig, len(v), MaxDocParts*DocPart)
	}
	return v, nil
}

// DecodeDoc returns the time and the bytes of a document, or [ErrRecord].
func DecodeDoc(v []byte) (time.Time, []byte, error) {
	d := newDecoder(v)
	at, size := d.time(), d.size()
	if d.failed || size > MaxDoc {
		return time.Time{}, nil, ErrRecord
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(MaxDoc))
	if err != nil {
		return time.Time{}, nil, err
	}
	defer dec.Close()
	b, err := dec.DecodeAll(d.b, make([]byte, 0, min(size, int64(len(d.b))*64)))
	if err != nil || int64(len(b)) != size {
		return time.Time{}, nil, fmt.Errorf("%w: %w", ErrRecord, errors.Join(err, binarySize(size, b)))
	}
	return at, b, nil
}

func binarySize(want int64, b []byte) error {
	if int64(len(b)) == want {
		return nil
	}
	return fmt.Errorf("%d bytes, want %d", len(b), want)
}
