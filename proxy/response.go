package proxy

import (
	"io"
	"net/http"
	"time"
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
	w.begin(http.StatusOK)
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

func (w *responseWriter) ReadFrom(r io.Reader) (int64, error) {
	if w.from == nil {
		return io.Copy(onlyWriter{w}, r)
	}
	w.begin(http.StatusOK)
	n, err := w.from.ReadFrom(r)
	w.bytes += n
	return n, err
}

// onlyWriter hides ReadFrom from io.Copy.
type onlyWriter struct{ io.Writer }
