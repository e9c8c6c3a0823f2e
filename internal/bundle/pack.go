package bundle

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
)

// newPacker compresses with zstd. One goroutine and a fixed level make the same bytes of
// the same content, as long as the library is the same.
func newPacker(w io.Writer) (*zstd.Encoder, error) {
	return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault),
		zstd.WithWindowSize(4<<20), zstd.WithEncoderCRC(true))
}

// Packed returns a writer that compresses into w with zstd. The caller closes it, which
// does not close w.
func Packed(w io.Writer) (io.WriteCloser, error) { return newPacker(w) }

const (
	// ratioMost is how many bytes one compressed byte may become. Layers are compressed
	// already, and saved ones shrink to a third; zstd makes a thousand only of nothing.
	ratioMost = 1000
	// ratioFree is how many bytes may come before that counts.
	ratioFree = 64 << 20
	// windowMost bounds the memory of a decompression: of xz, whose files demand up to 4 GiB,
	// "xz -9" has half of it.
	windowMost = 128 << 20
)

// unpacked returns what is in r: decompressed, if it begins as zstd, gzip, bzip2 or xz do. done must
// be called when no more is read.
func unpacked(r *bufio.Reader) (plain io.Reader, done func(), err error) {
	head, err := r.Peek(headLen)
	if err != nil && len(head) == 0 {
		if errors.Is(err, io.EOF) {
			return nil, nil, faultf("it is empty")
		}
		return nil, nil, err
	}
	if err := unread(head); err != nil {
		return nil, nil, err
	}
	in := &counter{r: r}
	switch kindOf(head) {
	case zstdKind:
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(windowMost), zstd.WithDecoderMaxMemory(1<<50))
		if err != nil {
			return nil, nil, faultf("zstd: %w", err)
		}
		return &bounded{plain: z, in: in, what: "zstd"}, z.Close, nil
	case gzipKind:
		g, err := gzip.NewReader(in)
		if err != nil {
			return nil, nil, faultf("gzip: %w", err)
		}
		return &bounded{plain: g, in: in, what: "gzip"}, func() { _ = g.Close() }, nil
	case bzip2Kind:
		return &bounded{plain: bzip2.NewReader(in), in: in, what: "bzip2"}, func() {}, nil
	case xzKind:
		x, err := xz.NewReader(in, windowMost)
		if err != nil {
			return nil, nil, faultf("%w", err)
		}
		return &bounded{plain: x, in: in, what: "xz"}, func() {}, nil
	}
	return r, func() {}, nil
}

// compression is what a file begins as.
type compression int

const (
	noKind compression = iota
	gzipKind
	zstdKind
	bzip2Kind
	xzKind
)

func kindOf(head []byte) compression {
	switch {
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}): // RFC 8878, 3.1.1
		return zstdKind
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}): // RFC 1952, 2.3.1
		return gzipKind
	case len(head) > 9 && string(head[:3]) == "BZh" && string(head[4:10]) == "1AY&SY": // the size of blocks between
		return bzip2Kind
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")): // The .xz File Format, 2.1.1.1
		return xzKind
	}
	return noKind
}

// headLen is how much of a file tells what it is.
const headLen = 16

// unread returns what a file is that is taken for an archive by mistake; nil if it may be one.
func unread(head []byte) error {
	for magic, what := range map[string]string{
		"\x04\x22\x4d\x18": "compressed by lz4",
		"PK\x03\x04":       "a zip archive", "7z\xbc\xaf\x27\x1c": "a 7z archive", "Rar!\x1a\x07": "a rar archive",
		"\x5d\x00\x00": "compressed by lzma", "LZIP\x01": "compressed by lzip", "\x1f\x9d": "compressed by compress",
		"version https://": "a pointer of Git LFS (git lfs pull brings the file)", "{\"": "JSON",
	} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return faultf("it is %s: tar archives are read, as they are or compressed by zstd, gzip, bzip2 or xz; of others give what is in them, by standard input if it is large", what)
		}
	}
	if text := bytes.ToLower(bytes.TrimLeft(head, "\xef\xbb\xbf \r\n\t")); bytes.HasPrefix(text, []byte("<!doctype")) || bytes.HasPrefix(text, []byte("<html")) {
		return faultf("it is a web page, and no archive: what was downloaded may be the text of an error")
	}
	return nil
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// bounded ends a decompression that makes too much of too little.
type bounded struct {
	plain io.Reader
	in    *counter
	out   int64
	what  string
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.plain.Read(p)
	b.out += int64(n)
	if b.out > ratioFree && b.out/ratioMost > b.in.n {
		return 0, faultf("%s: %d bytes became more than %d, which is no image", b.what, b.in.n, b.out)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %s: %w", ErrFormat, b.what, err)
	}
	return n, err
}
