package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// streamsMost bounds the streams that are open: a page has one.
	streamsMost = 64
	// A status is sent when it has changed: often while something is fetched, so that
	// progress is seen, and less often else.
	statusFast = 500 * time.Millisecond
	statusSlow = 2 * time.Second
	// beatEvery is how often a quiet stream gets a sign of life, so that no proxy on the way
	// closes it and clients that are gone are noticed.
	beatEvery = 15 * time.Second
	// takeWithin is how long a client may take for one message. Without it a client that reads
	// nothing of an HTTP/2 stream would keep the stream open for ever.
	takeWithin = 30 * time.Second
)

// stream sends server-sent events: "status" with a [Status] whenever it has changed, and
// "event" with each event of the log, from the one after the header Last-Event-ID on. It
// ends with the client, with the API, and when the client takes nothing. Nothing is queued for it: it reads the log at its own pace.
func (a *API) stream(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	if !ownPage(r) {
		return &problem{http.StatusForbidden, "foreign_origin", "the request comes from a page of another origin"}
	}
	last := a.activity.Events.Last()
	if s := r.Header.Get("Last-Event-ID"); s != "" {
		id, err := eventID(s)
		if err != nil {
			return badRequest("Last-Event-ID: %s", err)
		}
		last = min(id, last)
	}
	if a.streams.Add(1) > streamsMost {
		a.streams.Add(-1)
		return &problem{http.StatusTooManyRequests, "too_many_streams", fmt.Sprintf("%d streams are open already: close some", streamsMost)}
	}
	defer a.streams.Add(-1)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would gather it
	w.WriteHeader(http.StatusOK)
	s := streaming{a: a, w: w, last: last}
	s.run(r)
	return nil
}

// streaming is one open stream.
type streaming struct {
	a      *API
	w      http.ResponseWriter
	flush  func() error
	last   int64     // ID of the last event that was sent
	status []byte    // as it was sent last
	sent   time.Time // when anything was
}

// run sends until the client leaves or the API ends.
func (s *streaming) run(r *http.Request) {
	control := http.NewResponseController(s.w)
	limit := func(t time.Time) {
		_ = control.SetWriteDeadline(t) // what knows no deadline is bounded by its connection
	}
	s.flush = func() error {
		defer limit(time.Time{})
		return control.Flush()
	}
	limit(time.Now().Add(takeWithin))
	_, _ = io.WriteString(s.w, "retry: 2000\n\n") // an error shows at the flush
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		limit(time.Now().Add(takeWithin))
		more, err := s.events()
		if err != nil || s.flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-s.a.jobs.ctx.Done():
			return
		case <-more:
			continue
		case <-wait.C:
		}
		limit(time.Now().Add(takeWithin))
		next, err := s.glance()
		if err != nil || s.flush() != nil {
			return
		}
		wait.Reset(next)
	}
}

// events sends what is new in the log, and returns a channel that tells of more.
func (s *streaming) events() (<-chan struct{}, error) {
	list, more := s.a.activity.Events.After(s.last)
	for i := range list {
		b, err := json.Marshal(list[i])
		if err != nil {
			return nil, err
		}
		if err := s.send(fmt.Sprintf("id: %d\nevent: event\n", list[i].ID), b); err != nil {
			return nil, err
		}
		s.last = list[i].ID
	}
	return more, nil
}

// glance sends the status if it has changed, and returns when to look again.
func (s *streaming) glance() (time.Duration, error) {
	status, err := s.a.glance()
	if err != nil { // a disk that cannot be asked may come back
		return statusSlow, s.beat()
	}
	uptime := status.UptimeSeconds
	status.UptimeSeconds = 0 // it alone is no change
	b, err := json.Marshal(status)
	if err != nil {
		return 0, err
	}
	next := statusSlow
	if len(status.Fills)+len(status.Jobs) > 0 {
		next = statusFast
	}
	if bytes.Equal(b, s.status) {
		return next, s.beat()
	}
	s.status = b
	status.UptimeSeconds = uptime
	if b, err = json.Marshal(status); err != nil {
		return 0, err
	}
	return next, s.send("event: status\n", b)
}

// beat sends a sign of life if there was none for a while.
func (s *streaming) beat() error {
	if time.Since(s.sent) < beatEvery {
		return nil
	}
	s.sent = time.Now()
	_, err := io.WriteString(s.w, ": alive\n\n")
	return err
}

// send writes one message. JSON has no line breaks of its own.
func (s *streaming) send(head string, data []byte) error {
	s.sent = time.Now()
	_, err := fmt.Fprintf(s.w, "%sdata: %s\n\n", head, data)
	return err
}
