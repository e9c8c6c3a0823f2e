package answers

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	// aliveEvery is how often a quiet stream gets a sign of life.
	aliveEvery = 15 * time.Second
	// takeMost is how long a client may take for one message, and messageMost what one may have.
	takeMost    = 30 * time.Second
	messageMost = 4 << 20
)

// Message is one of a stream of server-sent events of a mirror.
type Message struct {
	Mirror string
	End    bool // the stream ends
	kind   string
	id     string
	data   any
}

// Hand hands a message over, unless ctx is done.
func (m Message) Hand(ctx context.Context, to chan<- Message) {
	select {
	case to <- m:
	case <-ctx.Done():
	}
}

// Follow hands over the messages of the stream of a mirror, and its end.
func Follow(ctx context.Context, mirror string, from io.Reader, to chan<- Message) {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, messageMost)
	m := Message{Mirror: mirror}
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "id":
			m.id = value
		case "event":
			m.kind = value
		case "data":
			m.data, _ = Decode([]byte(value)) // nil is left out
		case "":
			if m.data != nil {
				m.Hand(ctx, to)
			}
			m = Message{Mirror: mirror}
		}
	}
	Message{Mirror: mirror, End: true}.Hand(ctx, to)
}

// Stream is one stream of those of several mirrors, as a client gets it. One goroutine uses it.
type Stream struct {
	IDs      url.Values // of the last event of each mirror, by its name
	w        http.ResponseWriter
	mine     string         // the mirror that was asked
	statuses map[string]any // of each mirror
	changed  bool           // one is new
	wrote    time.Time
}

// NewStream returns the stream that w gets from the mirror of that name, behind the events of ids.
func NewStream(w http.ResponseWriter, mirror string, ids url.Values) *Stream {
	return &Stream{IDs: ids, w: w, mine: mirror, statuses: map[string]any{}}
}

// Take takes in a message: an event goes on at once. An error is the client's end.
func (s *Stream) Take(m Message) error {
	fields, _ := m.data.(map[string]any)
	switch {
	case m.End:
		delete(s.statuses, m.Mirror)
		s.changed = true
	case m.kind == "status":
		s.statuses[m.Mirror], s.changed = fields, true
	case m.kind == "event" && fields != nil:
		fields["mirror"] = m.Mirror
		s.IDs.Set(m.Mirror, m.id)
		return s.send("id: "+s.IDs.Encode()+"\nevent: event\n", fields)
	}
	return nil
}

// Glance sends the status of all when it has changed, or a sign of life.
func (s *Stream) Glance() error {
	if !s.changed || s.statuses[s.mine] == nil {
		if time.Since(s.wrote) < aliveEvery {
			return nil
		}
		return s.write(": alive\n\n")
	}
	s.changed = false
	names, values := []string{s.mine}, []any{copied(s.statuses[s.mine])}
	for name, v := range s.statuses {
		if name != s.mine {
			names, values = append(names, name), append(values, copied(v))
		}
	}
	to, _ := Of(http.MethodGet, "/status") // it is there
	return s.send("event: status\n", to.One(names, values))
}

// copied returns a value that may be written into: what is merged is stamped.
func copied(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, one := range v {
			out[name] = copied(one)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, one := range v {
			out[i] = copied(one)
		}
		return out
	}
	return v
}

func (s *Stream) send(head string, data any) error {
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	return s.write(fmt.Sprintf("%sdata: %s\n\n", head, text))
}

func (s *Stream) write(text string) error {
	s.wrote = time.Now()
	control := http.NewResponseController(s.w)
	_ = control.SetWriteDeadline(s.wrote.Add(takeMost)) // what knows no deadline is bounded by its connection
	_, _ = io.WriteString(s.w, text)                    // an error shows at the flush
	return control.Flush()
}

// Pipe is an answer that is read while it is written.
type Pipe struct {
	header http.Header
	status int
	once   sync.Once
	began  chan struct{}
	to     *io.PipeWriter
}

// NewPipe returns an answer and what reads its body. Who writes it closes it, and who reads it closes that.
func NewPipe() (*Pipe, *io.PipeReader) {
	body, to := io.Pipe()
	return &Pipe{header: http.Header{}, began: make(chan struct{}), to: to}, body
}

// Status waits until the answer begins. Its header is as it will be then.
func (p *Pipe) Status() int {
	<-p.began
	return p.status
}

// Close ends the answer, one that has not begun with status 200.
func (p *Pipe) Close() {
	p.WriteHeader(http.StatusOK)
	_ = p.to.Close() // it does not fail
}

func (p *Pipe) Header() http.Header { return p.header }

func (p *Pipe) WriteHeader(status int) {
	p.once.Do(func() {
		p.status = status
		close(p.began)
	})
}

func (p *Pipe) Flush() {}

func (p *Pipe) Write(b []byte) (int, error) {
	p.WriteHeader(http.StatusOK)
	return p.to.Write(b)
}
