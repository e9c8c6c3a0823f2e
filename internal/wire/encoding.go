package wire

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// ContentEncoding returns how a body is encoded, all headers together; "" means that it
// is not.
func ContentEncoding(h http.Header) string {
	list := h.Values("Content-Encoding")
	if len(list) == 1 && strings.EqualFold(list[0], "identity") {
		return ""
	}
	return strings.Join(list, ",")
}

// encodingsMax bounds how often a body may be encoded. Twice has been seen.
const encodingsMax = 2

// Decode undoes a Content-Encoding, which a client has asked not to be used. The result has
// at most most bytes.
func Decode(encoding string, body []byte, most int) ([]byte, error) {
	if encoding == "" {
		return body, nil
	}
	list := strings.Split(encoding, ",")
	if len(list) > encodingsMax {
		return nil, fmt.Errorf("content encoding %q is not supported", Redact(encoding))
	}
	for i := len(list) - 1; i >= 0; i-- {
		switch name := strings.ToLower(strings.TrimSpace(list[i])); name {
		case "", "identity":
		case "gzip", "x-gzip":
			var err error
			if body, err = gunzip(body, most); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("content encoding %q is not supported", Redact(name))
		}
	}
	return body, nil
}

func gunzip(body []byte, most int) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the body is not the gzip that it says it is")
	}
	plain, err := io.ReadAll(io.LimitReader(z, int64(most)+1))
	switch {
	case err != nil:
		return nil, errors.New("the body is damaged gzip")
	case len(plain) > most:
		return nil, fmt.Errorf("the decoded body has more than %d bytes", most)
	}
	return plain, nil
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
