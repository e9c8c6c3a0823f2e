package proxy

import (
	"bytes"
	"context"
	"io"
	"math"
	"net/http"
	"time"

	"golang.org/x/time/rate"
)

// responseWriter counts what a handler sends. It hands files on as files, so that the
// kernel copies them: without ReadFrom every blob would go through our memory.
type responseWriter struct {
	http.ResponseWriter
	from   io.ReaderFrom // the wrapped writer's, nil if it has none (HTTP/2)
	status int           // 0 until the header is written
	bytes  int64         // of the body
	timed  bool          // first must be set
	first  time.Time     // when the header was written
	pace   *rate.Limiter // of bytes to the client; nil without a limit
	ctx    context.Context
}

func (w *responseWriter) wrap(rw http.ResponseWriter, timed bool) {
	w.ResponseWriter, w.timed = rw, timed
	w.from, _ = rw.(io.ReaderFrom)
}

func (w *responseWriter) wroteHeader() bool { return w.status != 0 }

// Unwrap serves [http.ResponseController].
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// begin notes that the header goes out.
func (w *responseWriter) begin(status int) {
	if w.status != 0 {
		return
	}
	w.status = status
	if w.timed {
		w.first = time.Now()
	}
}

func (w *responseWriter) WriteHeader(status int) {
	w.begin(status)
	w.ResponseWriter.WriteHeader(status)
}

func (w *responseWriter) Write(p []byte) (int, error) {
	if w.pace != nil {
		n, err := w.paced(bytes.NewReader(p))
		return int(n), err
	}
	return w.write(p)
}

func (w *responseWriter) write(p []byte) (int, error) {
	w.begin(http.StatusOK)
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

func (w *responseWriter) ReadFrom(r io.Reader) (int64, error) {
	switch {
	case w.pace != nil:
		return w.paced(r)
	case w.from == nil:
		return io.Copy(onlyWriter{w}, r)
	}
	return w.readFrom(r)
}

// paceStep is what goes out at a time where bytes are limited: 1 ms of a gigabit.
const paceStep = 128 << 10

// paced sends r in steps, each in its time. A file goes out by sendfile as ever.
func (w *responseWriter) paced(r io.Reader) (sent int64, err error) {
	left := int64(math.MaxInt64)
	if limited, ok := r.(*io.LimitedReader); ok { // net/http looks for a file behind one of them
		r, left = limited.R, limited.N
		defer func() { limited.N -= sent }()
	}
	for left > 0 {
		step := min(left, paceStep, int64(w.pace.Burst()))
		if err := w.pace.WaitN(w.ctx, int(step)); err != nil {
			return sent, err
		}
		piece := &io.LimitedReader{R: r, N: step}
		var n int64
		if w.from != nil {
			n, err = w.readFrom(piece)
		} else {
			n, err = io.Copy(pacedWriter{w}, piece)
		}
		sent, left = sent+n, left-n
		if err != nil || n < step {
			return sent, err
		}
	}
	return sent, nil
}

// pacedWriter writes what its time has come for.
type pacedWriter struct{ w *responseWriter }

func (p pacedWriter) Write(b []byte) (int, error) { return p.w.write(b) }

func (w *responseWriter) readFrom(r io.Reader) (int64, error) {
	w.begin(http.StatusOK)
	n, err := w.from.ReadFrom(r)
	w.bytes += n
	return n, err
}

// onlyWriter hides ReadFrom from io.Copy.
type onlyWriter struct{ io.Writer }
