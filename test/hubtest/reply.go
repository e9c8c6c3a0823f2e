package hubtest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strconv"
	"time"
)

// Reply is an answer before it is written. Faults change it.
type Reply struct {
	Status int
	Header http.Header // sent as it is; Content-Length included
	body   content     // nil means none
	off, n int64       // the part of body that is sent
	digest string      // of the blob or manifest in body, for counting; may be empty
	wire   wire
}

// wire is how a reply departs from plain HTTP. The zero value does not.
type wire struct {
	raw       bool     // write over the bare connection, then close it
	lines     []string // raw header lines after the others, without line end
	bareLF    bool     // line feeds instead of CRLF
	framing   framing
	cut       bool  // send only keep bytes of the body, then end
	keep      int64 // body bytes to send when cut
	ending    Ending
	dripBytes int64
	dripEvery time.Duration
	headEvery time.Duration // between header lines
	flip      int64         // 1 + offset of the byte whose lowest bit is flipped; 0 means none
	endless   bool          // repeat the body until the client goes away
}

// byHand reports whether net/http cannot write this.
func (w wire) byHand() bool {
	return w.raw || w.bareLF || len(w.lines) > 0 || w.headEvery > 0 || w.framing == untilClose ||
		w.cut && (w.ending != Clean || w.framing == declared)
}

type framing int

const (
	declared   framing = iota // by Content-Length, if there is one
	chunked                   // Transfer-Encoding
	untilClose                // by the end of the connection
)

// Ending is how a connection ends after a cut body.
type Ending string

const (
	Clean Ending = ""      // as if the body were complete
	FIN   Ending = "fin"   // the connection is closed
	RST   Ending = "rst"   // the connection is reset
	Stall Ending = "stall" // nothing more comes until the client goes away
)

func newReply(status int, contentType string, b []byte) *Reply {
	a := &Reply{Status: status, Header: http.Header{}}
	if contentType != "" {
		a.Header.Set("Content-Type", contentType)
	}
	a.setBody(memory(b))
	return a
}

// SetBody replaces the body and its Content-Length. No other header changes.
func (a *Reply) SetBody(b []byte) { a.setBody(memory(b)) }

// Body returns the bytes that would be sent. It must not be used on huge blobs.
func (a *Reply) Body() []byte {
	if a.body == nil {
		return nil
	}
	all, err := readAll(context.Background(), a.body)
	if err != nil {
		return nil
	}
	return all[a.off : a.off+a.n]
}

func (a *Reply) setBody(c content) {
	a.body, a.off, a.n = c, 0, c.size()
	a.Header.Set("Content-Length", strconv.FormatInt(a.n, 10))
}

// errorReply is an error document of the registry: compact JSON and a line feed.
func errorReply(status int, code, message string, detail any) *Reply {
	return newReply(status, "application/json", errorDocument(code, message, detail))
}

func errorDocument(code, message string, detail any) []byte {
	type item struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Detail  any    `json:"detail"`
	}
	return append(encode(map[string]any{"errors": []item{{code, message, detail}}}), '\n')
}

func jsonReply(status int, v any) *Reply {
	b, err := json.Marshal(v)
	must(err)
	return newReply(status, "application/json", append(b, '\n'))
}

// hasBody reports whether HTTP allows a body here.
func (x *exchange) hasBody() bool {
	s := x.reply.Status
	return x.r.Method != http.MethodHead && s != http.StatusNoContent && s != http.StatusNotModified &&
		x.reply.body != nil
}

// send writes the reply.
func (x *exchange) send() {
	a := x.reply
	if a.Header.Get("Date") == "" {
		a.Header.Set("Date", x.Hub.Now().UTC().Format(http.TimeFormat))
	}
	x.Hub.book.answered(x)
	if a.wire.byHand() {
		x.sendRaw()
		return
	}
	header := x.w.Header()
	for k, v := range a.Header {
		header[k] = v
	}
	if len(a.Header["Content-Type"]) == 0 {
		header["Content-Type"] = nil // else net/http guesses one
	}
	if a.wire.framing != declared {
		header.Del("Content-Length")
	}
	x.w.WriteHeader(a.Status)
	flusher, _ := x.w.(http.Flusher)
	if a.wire.framing != declared || a.wire.dripEvery > 0 {
		flusher.Flush()
	}
	if !x.hasBody() {
		return
	}
	var out io.Writer = x.w
	if a.wire.dripEvery > 0 {
		out = flushWriter{x.w, flusher}
	}
	if err := x.copyBody(out); err != nil {
		panic(http.ErrAbortHandler) // the client must not take what it has for the whole
	}
}

type flushWriter struct {
	io.Writer
	http.Flusher
}

func (f flushWriter) Write(b []byte) (int, error) {
	n, err := f.Writer.Write(b)
	f.Flush()
	return n, err
}

// sendRaw takes the connection over, writes HTTP/1.1 by hand, and closes it.
func (x *exchange) sendRaw() {
	c, err := hijack(x.w)
	if err != nil {
		x.Hub.book.problem(err.Error())
		panic(http.ErrAbortHandler)
	}
	defer c.Close()
	stop := x.closeWithHub(c)
	defer stop()
	if x.writeHead(c) != nil {
		return
	}
	if x.hasBody() && !x.writeRawBody(c) {
		return
	}
	switch x.reply.wire.ending {
	case RST:
		x.conn.reset()
	case Stall:
		_, _ = io.Copy(io.Discard, c) // until the client or the hub closes
	case Clean, FIN: // the deferred Close ends it
	}
}

// closeWithHub closes c when the hub closes, for connections that the HTTP server
// no longer knows.
func (x *exchange) closeWithHub(c net.Conn) (stop func() bool) {
	return context.AfterFunc(x.Hub.ctx, func() { _ = c.Close() })
}

// writeHead writes status line and header by hand.
func (x *exchange) writeHead(c net.Conn) error {
	a := x.reply
	eol := "\r\n"
	if a.wire.bareLF {
		eol = "\n"
	}
	lines := []string{fmt.Sprintf("HTTP/1.1 %d %s", a.Status, http.StatusText(a.Status))}
	keys := make([]string, 0, len(a.Header))
	for k := range a.Header {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		if k == "Content-Length" && a.wire.framing != declared {
			continue
		}
		for _, v := range a.Header[k] {
			lines = append(lines, k+": "+v)
		}
	}
	if a.wire.framing == chunked {
		lines = append(lines, "Transfer-Encoding: chunked")
	}
	if a.Header.Get("Connection") == "" {
		lines = append(lines, "Connection: close")
	}
	lines = append(lines, a.wire.lines...)
	w := bufio.NewWriter(c)
	for _, l := range append(lines, "") {
		if _, err := w.WriteString(l + eol); err != nil {
			return err
		}
		if a.wire.headEvery > 0 {
			if err := w.Flush(); err != nil {
				return err
			}
			if err := pause(x.r.Context(), a.wire.headEvery); err != nil {
				return err
			}
		}
	}
	return w.Flush()
}

// writeRawBody reports whether the body, as far as it is to be sent, went out.
func (x *exchange) writeRawBody(c net.Conn) bool {
	if x.reply.wire.framing != chunked {
		return x.copyBody(c) == nil
	}
	w := httputil.NewChunkedWriter(c)
	if x.copyBody(w) != nil {
		return false
	}
	if x.reply.wire.cut && x.reply.wire.ending != Clean {
		return true // no last chunk
	}
	if w.Close() != nil {
		return false
	}
	_, err := io.WriteString(c, "\r\n")
	return err == nil
}

// copyBody writes the body to w at the speed that options and faults allow.
func (x *exchange) copyBody(w io.Writer) error {
	a := x.reply
	n := a.n
	if a.wire.cut {
		n = min(n, a.wire.keep)
	}
	digest := a.digest
	x.Hub.book.bodyStarted(x, digest)
	whole := false
	defer func() { x.Hub.book.bodyEnded(x, digest, whole) }()
	for {
		src, err := a.body.open(x.r.Context(), a.off, n)
		if err != nil {
			return err
		}
		err = x.pump(w, src, n)
		_ = src.Close()
		if err != nil {
			return err
		}
		if !a.wire.endless {
			break
		}
	}
	whole = n == a.n
	return nil
}

// chunkBytes is how much is written at once when nothing limits the speed.
const chunkBytes = 256 << 10

// pump copies exactly n bytes.
func (x *exchange) pump(w io.Writer, src io.Reader, n int64) error {
	a, o := x.reply, x.Hub.opts()
	step := x.step(o)
	buf := x.Hub.book.buffer()
	defer x.Hub.book.release(buf)
	for done := int64(0); done < n; {
		part := (*buf)[:min(step, n-done)]
		if _, err := io.ReadFull(src, part); err != nil {
			return fmt.Errorf("read body at %d: %w", done, err)
		}
		if at := a.wire.flip - 1; at >= done && at < done+int64(len(part)) {
			part[at-done] ^= 1
		}
		if err := x.throttle(o, int64(len(part)), done == 0); err != nil {
			return err
		}
		// Counted before the write: a client that has read it all must find it counted.
		x.Hub.book.sent(x, a.digest, int64(len(part)))
		wrote, err := w.Write(part)
		if err != nil {
			x.Hub.book.sent(x, a.digest, int64(wrote-len(part)))
			return err
		}
		done += int64(len(part))
	}
	return nil
}

// step is how many bytes are written at once.
func (x *exchange) step(o *Options) int64 {
	step := int64(chunkBytes)
	if d := x.reply.wire.dripBytes; d > 0 {
		return min(d, step)
	}
	for _, rate := range []int64{x.connRate(o), o.LineBytesPerSecond} {
		if rate > 0 {
			step = min(step, max(rate/100, 1024)) // about 10 ms a piece
		}
	}
	return step
}

func (x *exchange) connRate(o *Options) int64 {
	if x.Role.servesBlobs() {
		return o.CDNBytesPerSecond
	}
	return 0
}

func (x *exchange) throttle(o *Options, n int64, first bool) error {
	ctx := x.r.Context()
	if every := x.reply.wire.dripEvery; every > 0 && !first {
		if err := pause(ctx, every); err != nil {
			return err
		}
	}
	if rate := x.connRate(o); rate > 0 {
		if err := x.conn.pace.wait(ctx, n, rate); err != nil {
			return err
		}
	}
	if o.LineBytesPerSecond > 0 {
		return x.Hub.line.wait(ctx, n, o.LineBytesPerSecond)
	}
	return nil
}
