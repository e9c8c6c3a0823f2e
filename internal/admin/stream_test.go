package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"forebay/internal/activity"
)

// sink takes what a handler sends, as it is flushed.
type sink struct {
	mu     sync.Mutex
	header http.Header
	status int
	text   strings.Builder // guarded by mu
}

func (s *sink) Header() http.Header { return s.header }
func (s *sink) WriteHeader(n int)   { s.status = n }
func (s *sink) Flush()              {}
func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// take returns what was sent since the last take.
func (s *sink) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.text.Reset()
	return s.text.String()
}

// follow opens a stream, and returns what it sends and a channel that is closed at its end.
func follow(ctx context.Context, a *API, lastID string) (*sink, <-chan struct{}) {
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:5001/api/v1/events", nil).WithContext(ctx)
	r.Header.Set("Accept", "text/event-stream")
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	w, ended := &sink{header: http.Header{}}, make(chan struct{})
	go func() {
		defer close(ended)
		a.ServeHTTP(w, r)
	}()
	return w, ended
}

func TestStreamTellsOfStatusAndEventsAndLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := openAPIFor(t, true, "")
		w, ended := follow(t.Context(), a, "")
		synctest.Wait()
		first := w.take()
		if w.header.Get("Content-Type") != "text/event-stream" || !strings.HasPrefix(first, "retry: 2000\n\nevent: status\ndata: {") {
			t.Fatalf("%v: %s", w.header, first)
		}
		var status Status
		text := strings.TrimSpace(first[strings.Index(first, "data: ")+6:])
		if err := json.Unmarshal([]byte(text), &status); err != nil || status.Version != "v1" {
			t.Errorf("status %s: %v", text, err)
		}
		a.activity.Events.Add(activity.Event{Kind: "tag_moved", Repository: "a\nb"})
		synctest.Wait()
		id := a.activity.Events.Last()
		if got := w.take(); !strings.HasPrefix(got, fmt.Sprintf("id: %d\nevent: event\ndata: {", id)) || strings.Count(got, "\n") != 4 {
			t.Errorf("an event came as %q", got)
		}
		a.activity.Observe(&activity.Request{Client: "10.0.0.1", Upstream: "docker.io", Result: "hit", Bytes: 5})
		time.Sleep(statusSlow)
		synctest.Wait()
		if got := w.take(); !strings.Contains(got, `"client_bytes":5`) {
			t.Errorf("after a request came %q, want a status with it", got)
		}
		quiet := ""
		for range 4 { // the room on the disk may change meanwhile, which is a status
			time.Sleep(beatEvery)
			synctest.Wait()
			quiet += w.take()
		}
		if !strings.Contains(quiet, ": alive\n\n") && !strings.Contains(quiet, "event: status") {
			t.Errorf("in a minute came %q, want a sign of life", quiet)
		}
		a.Stop()
		<-ended
		if n := a.streams.Load(); n != 0 {
			t.Errorf("%d streams are open after the end", n)
		}
	})
}

func TestStreamGoesOnAfterTheLastKnownEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := openAPIFor(t, true, "")
		for range 3 {
			a.activity.Events.Add(activity.Event{Kind: "limited"})
		}
		ctx, cancel := context.WithCancel(t.Context())
		w, ended := follow(ctx, a, fmt.Sprint(a.activity.Events.Last()-2))
		synctest.Wait()
		if got := w.take(); strings.Count(got, "event: event\n") != 2 {
			t.Errorf("came %q, want the two events that were missed", got)
		}
		cancel()
		<-ended
		// One from the future is of a clock that went wrong: nothing is withheld for it.
		ctx, cancel = context.WithCancel(t.Context())
		w, ended = follow(ctx, a, "9007199254740991")
		synctest.Wait()
		w.take()
		a.activity.Events.Add(activity.Event{Kind: "limited"})
		synctest.Wait()
		if got := w.take(); strings.Count(got, "event: event\n") != 1 {
			t.Errorf("came %q, want the new event", got)
		}
		cancel()
		<-ended
	})
}

// stuck is a client that takes nothing.
type stuck struct {
	sink
	limit time.Time
}

func (s *stuck) SetWriteDeadline(t time.Time) error {
	s.limit = t
	return nil
}

func (s *stuck) Write([]byte) (int, error) {
	if s.limit.IsZero() {
		select {} // for ever
	}
	time.Sleep(time.Until(s.limit))
	return 0, os.ErrDeadlineExceeded
}

func TestStreamEndsWhenItsClientTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := openAPIFor(t, true, "")
		r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:5001/api/v1/events", nil)
		r.Header.Set("Accept", "text/event-stream")
		began := time.Now()
		a.ServeHTTP(&stuck{sink: sink{header: http.Header{}}}, r)
		if took := time.Since(began); took > 3*takeWithin {
			t.Errorf("the stream ended after %s", took)
		}
	})
}

func TestStreamsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := openAPIFor(t, true, "")
		ctx, cancel := context.WithCancel(t.Context())
		var all []<-chan struct{}
		for range streamsMost {
			_, ended := follow(ctx, a, "")
			all = append(all, ended)
		}
		synctest.Wait()
		w, ended := follow(ctx, a, "")
		<-ended
		if got := w.take(); w.status != http.StatusTooManyRequests || !strings.Contains(got, "too_many_streams") {
			t.Errorf("one more = %d %s", w.status, got)
		}
		cancel()
		for _, ended := range all {
			<-ended
		}
	})
}

func TestStreamIsRefused(t *testing.T) {
	a := openAPIFor(t, true, "")
	for header, want := range map[string]string{
		"Sec-Fetch-Site: cross-site": "foreign_origin",
		"Sec-Fetch-Site: same-site":  "foreign_origin",
		"Last-Event-ID: none":        "bad_request",
		"Last-Event-ID: -1":          "bad_request",
		"Host: evil.example":         "foreign_host",
	} {
		w := asks(a, http.MethodGet, "/events", "", func(r *http.Request) {
			name, value, _ := strings.Cut(header, ": ")
			r.Header.Set("Accept", "text/event-stream")
			r.Header.Set(name, value)
			if name == "Host" {
				r.Host = value
			}
		})
		if got := codeOf(t, w); got != want {
			t.Errorf("with %s: %s, want %s", header, got, want)
		}
	}
	if got := codeOf(t, asks(openAPIFor(t, false, "0123456789abcdef"), http.MethodGet, "/events", "", func(r *http.Request) {
		r.Header.Set("Accept", "text/event-stream")
	})); got != "unauthorized" {
		t.Errorf("without a token: %s", got)
	}
}

func TestUsageAndHistoryAreServed(t *testing.T) {
	a := openAPIFor(t, true, "")
	a.price, a.currency = 2, "EUR"
	a.activity = activity.New(activity.Options{
		Upstreams: []string{"docker.io"}, Received: func() map[string]int64 { return map[string]int64{"docker.io": 1 << 30} },
	})
	for _, result := range []string{"miss", "hit", "hit", "error"} {
		a.activity.Observe(&activity.Request{Client: "10.0.0.1", Upstream: "docker.io", Repository: "library/nginx", Result: result, Bytes: 1 << 30, Pull: true})
	}
	var status Status
	decodeAnswer(t, asks(a, http.MethodGet, "/status", "", nil), &status)
	u := status.Usage
	if u.SavedBytes != 3<<30 || u.Saved != 6 || u.HitRatio != 0.5 || u.ByteRatio != 0.75 || u.SavedPulls != 2 || u.Currency != "EUR" {
		t.Errorf("usage %+v", u)
	}
	var series Series
	decodeAnswer(t, asks(a, http.MethodGet, "/series?span=day", "", nil), &series)
	if series.Sum.ClientBytes != 4<<30 || len(series.Times) != 1 {
		t.Errorf("series %+v", series)
	}
	var clients ClientList
	decodeAnswer(t, asks(a, http.MethodGet, "/clients?window=hour&limit=5", "", nil), &clients)
	if len(clients.Clients) != 1 || len(clients.Repositories) != 1 || clients.Clients[0].Errors != 1 {
		t.Errorf("clients %+v", clients)
	}
	for range 3 {
		a.activity.Events.Add(activity.Event{Kind: "limited", Upstream: "docker.io"})
	}
	var events EventList
	decodeAnswer(t, asks(a, http.MethodGet, "/events?kind=limited,evicted&limit=2", "", nil), &events)
	if len(events.Events) != 2 || events.Before != events.Events[1].ID {
		t.Errorf("events %+v", events)
	}
	for _, path := range []string{"/series?span=year", "/clients?window=x", "/clients?limit=513", "/events?limit=x", "/events?before=x", "/events?kind=" + strings.Repeat("x,", 100)} {
		if got := codeOf(t, asks(a, http.MethodGet, path, "", nil)); got != "bad_request" {
			t.Errorf("GET %s: %s, want bad_request", path, got)
		}
	}
}

func decodeAnswer(t *testing.T, w *httptest.ResponseRecorder, to any) {
	t.Helper()
	if w.Code != http.StatusOK {
		t.Fatalf("answer %d: %s", w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), to); err != nil {
		t.Fatalf("answer %s: %v", w.Body, err)
	}
}
