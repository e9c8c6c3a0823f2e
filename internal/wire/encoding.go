package wire

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// ContentEncoding returns how a body is encoded, all headers together; "" means that it is not. Names
// of no encoding, which stores keep of whoever put a file there ("aws-chunked", "utf-8", "none"), are left out.
func ContentEncoding(h http.Header) string {
	var list []string
	for name := range strings.SplitSeq(strings.Join(h.Values("Content-Encoding"), ","), ",") {
		switch name = strings.ToLower(strings.TrimSpace(name)); name {
		case "gzip", "x-gzip", "zstd", "br", "deflate", "compress", "x-compress": // RFC 9110, 8.4.1, and what browsers take
			list = append(list, name)
		}
	}
	return strings.Join(list, ",")
}

// encodingsMax bounds how often a body may be encoded. Twice has been seen.
const encodingsMax = 2

var errEncoding = errors.New("unknown content encoding")

// Decode undoes a Content-Encoding, which a client has asked not to be used. The result has
// at most most bytes.
func Decode(encoding string, body []byte, most int) ([]byte, error) {
	if encoding == "" {
		return body, nil
	}
	plain, err := decoder(encoding, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	out, err := io.ReadAll(io.LimitReader(plain, int64(most)+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the body is damaged %s", Redact(encoding))
	case len(out) > most:
		return nil, fmt.Errorf("the decoded body has more than %d bytes", most)
	}
	return out, nil
}

// windowMost is the most that a body in zstd may refer back to, in bytes (RFC 9659, 3).
const windowMost = 8 << 20

// decoder returns what is encoded in body, which is to be closed and leaves body open.
func decoder(encoding string, body io.Reader) (io.ReadCloser, error) {
	plain, list := io.NopCloser(body), strings.Split(encoding, ",")
	if len(list) > encodingsMax {
		return nil, fmt.Errorf("%w: %q", errEncoding, Redact(encoding))
	}
	for i := len(list) - 1; i >= 0; i-- {
		switch name := strings.ToLower(strings.TrimSpace(list[i])); name {
		case "", "identity":
		case "gzip", "x-gzip":
			z, err := gzip.NewReader(plain)
			if err != nil {
				return nil, errors.New("the body is not the gzip that it says it is")
			}
			plain = z
		case "zstd":
			z, err := zstd.NewReader(plain, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(windowMost))
			if err != nil {
				return nil, errors.New("the body is not the zstd that it says it is")
			}
			plain = z.IOReadCloser()
		default:
			return nil, fmt.Errorf("%w: %q", errEncoding, Redact(name))
		}
	}
	return plain, nil
}

// DecodedBlob returns the bytes of a blob whose body came with a Content-Encoding; closing it
// closes body, an error leaves body open. Whether the encoding was made for the way, as proxies do, or
// tells what is stored, as stores do of files that were put there with it, is not said: what is
// no such encoding, or is a tar archive once decoded, is taken as it came. The caller verifies.
func DecodedBlob(encoding string, body io.ReadCloser) (io.ReadCloser, error) {
	raw := bufio.NewReader(body)
	begin, err := raw.Peek(raw.Size())
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	header := make([]byte, len(tarMagic)+tarMagicAt)
	n, err := 0, error(nil)
	tried, bad := decoder(encoding, bytes.NewReader(begin))
	if errors.Is(bad, errEncoding) {
		return nil, bad
	} else if bad == nil {
		n, err = io.ReadFull(tried, header)
		tried.Close()
	}
	if n == len(header) && string(header[tarMagicAt:]) == tarMagic || bad != nil || n == 0 && !errors.Is(err, io.EOF) {
		return &blobBody{Reader: raw, closers: []io.Closer{body}}, nil //nolint:nilerr // it is another encoding than it says, or none
	}
	plain, err := decoder(encoding, raw)
	if err != nil {
		return nil, err
	}
	return &blobBody{Reader: plain, closers: []io.Closer{plain, body}}, nil
}

// tarMagic stands at tarMagicAt of a tar archive (POSIX.1-1988, ustar; GNU's has it, too).
const (
	tarMagic   = "ustar"
	tarMagicAt = 257
)

// blobBody closes what it reads from, in order.
type blobBody struct {
	io.Reader
	closers []io.Closer
}

func (b *blobBody) Close() (err error) {
	for _, c := range b.closers {
		err = errors.Join(err, c.Close())
	}
	return err
}

// AcceptsGzip reads an Accept-Encoding as far as browsers write it: one that refuses gzip
// by q=0 gets none.
func AcceptsGzip(header string) bool {
	for one := range strings.SplitSeq(header, ",") {
		name, quality, _ := strings.Cut(strings.TrimSpace(one), ";")
		if name == "gzip" {
			quality = strings.ReplaceAll(quality, " ", "")
			return quality != "q=0" && !strings.HasPrefix(quality, "q=0.0")
		}
	}
	return false
}
