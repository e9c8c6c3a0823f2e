package fleet

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"forebay/internal/fleet/answers"
)

const (
	// A status of all is sent when one has changed, every glanceEvery at most; who is not followed is
	// tried again every followEvery.
	glanceEvery = 500 * time.Millisecond
	followEvery = 5 * time.Second
)

// stream makes one stream of those of all mirrors: the status of all, and the events of each. Its ID says how
// far each was read, so that a client that comes back misses nothing.
func (o *Operators) stream(w http.ResponseWriter, r *http.Request) {
	ctx, end := context.WithCancel(r.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer end()
	last, err := url.ParseQuery(r.Header.Get("Last-Event-ID"))
	if err != nil || !strings.Contains(r.Header.Get("Last-Event-ID"), "=") {
		last = url.Values{} // of a single mirror it is a number
	}
	_, mine := o.self()
	all := make(chan answers.Message)
	local, body := answers.NewPipe()
	mirror := withLast(r.WithContext(ctx), last.Get(mine))
	work.Go(func() {
		o.o.Local.ServeHTTP(local, mirror)
		local.Close()
	})
	work.Go(func() {
		<-ctx.Done()
		_ = body.Close() // whoever writes to it ends
	})
	status := local.Status()
	maps.Copy(w.Header(), local.Header())
	w.WriteHeader(status)
	if status != http.StatusOK {
		_, _ = io.Copy(w, body) // the client may be gone
		return
	}
	work.Go(func() { answers.Follow(ctx, mine, body, all) })
	who, role := o.o.Who(r)
	s := answers.NewStream(w, mine, last)
	following := map[string]bool{}
	follow := func() {
		for _, a := range o.others() {
			if a.err != nil || following[a.name] {
				continue
			}
			following[a.name] = true
			more := http.Header{"Accept": {"text/event-stream"}}
			if id := s.IDs.Get(a.name); id != "" {
				more.Set("Last-Event-ID", id)
			}
			work.Go(func() {
				res, err := o.request(ctx, errand{method: http.MethodGet, path: r.URL.RequestURI(), name: who, role: role}, a.from, more)
				if err == nil && res.StatusCode == http.StatusOK {
					answers.Follow(ctx, a.name, res.Body, all)
					_ = res.Body.Close() // it was read
					return
				}
				if err == nil {
					_ = res.Body.Close() // it says nothing
				}
				answers.Message{Mirror: a.name, End: true}.Hand(ctx, all)
			})
		}
	}
	glance, look := time.NewTicker(glanceEvery), time.NewTicker(followEvery)
	defer glance.Stop()
	defer look.Stop()
	for follow(); ; {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-o.life.Done():
			return
		case <-look.C:
			follow()
		case <-glance.C:
			err = s.Glance()
		case m := <-all:
			if m.End && m.Mirror == mine {
				return
			}
			if m.End {
				delete(following, m.Mirror)
			}
			err = s.Take(m)
		}
		if err != nil {
			return
		}
	}
}

// withLast asks a mirror for what comes after one of its events; an ID that is none of a fleet's stays.
func withLast(r *http.Request, id string) *http.Request {
	if id != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Last-Event-ID", id)
	} else if strings.Contains(r.Header.Get("Last-Event-ID"), "=") {
		r = r.Clone(r.Context())
		r.Header.Del("Last-Event-ID")
	}
	return r
}
