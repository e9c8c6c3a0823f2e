package server

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// streamPiece is how much of a body may be written to an HTTP/2 stream at once.
const streamPiece = 64 << 10

// streamWriter bounds each piece of an HTTP/2 answer by time. The connection's own
// deadline does not see a client that takes everything but one stream.
type streamWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	idle    time.Duration
	buffers *sync.Pool // of *[streamPiece]byte
}

// Unwrap serves [http.ResponseController].
func (w *streamWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *streamWriter) Write(p []byte) (int, error) {
	written := 0
	for {
		piece := p[written:min(len(p), written+streamPiece)]
		if err := w.control.SetWriteDeadline(time.Now().Add(w.idle)); err != nil {
			return written, err
		}
		n, err := w.ResponseWriter.Write(piece)
		written += n
		if err != nil || written == len(p) {
			// Without this the stream would be reset while its handler waits for more.
			return written, orFirst(err, w.control.SetWriteDeadline(time.Time{}))
		}
	}
}

// ReadFrom copies in large pieces: there is no sendfile into frames.
func (w *streamWriter) ReadFrom(r io.Reader) (int64, error) {
	buf := w.buffers.Get().(*[streamPiece]byte)
	defer w.buffers.Put(buf)
	return io.CopyBuffer(onlyWriter{w}, r, buf[:])
}

func orFirst(first, second error) error {
	if first != nil {
		return first
	}
	return second
}
