package admin

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"forebay/internal/activity"
)

func (a *API) series(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "span")
	if err != nil {
		return err
	}
	span := activity.Span(q["span"])
	switch span {
	case "":
		span = activity.LastHour
	case activity.LastHour, activity.LastDay, activity.LastWeek:
	default:
		return badRequest("span is %q: use hour, day or week", clip(q["span"]))
	}
	replyZipped(w, r, a.activity.Series(span))
	return nil
}

const (
	clientsUsual = 50
	clientsMost  = 512
)

func (a *API) clients(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "window", "limit")
	if err != nil {
		return err
	}
	limit, err := bounded(q["limit"], clientsUsual, clientsMost)
	if err != nil {
		return err
	}
	window := activity.Window(q["window"])
	switch window {
	case "":
		window = activity.Start
	case activity.Hour, activity.Day, activity.Start:
	default:
		return badRequest("window is %q: use hour, day or start", clip(q["window"]))
	}
	replyZipped(w, r, ClientList{
		Window: window, Since: a.activity.Started(),
		Clients: a.activity.Clients(window, limit), Repositories: a.activity.Repositories(window, limit),
	})
	return nil
}

// bounded reads how many are asked for.
func bounded(s string, usual, most int) (int, error) {
	n, err := number("limit", s)
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return usual, nil
	}
	if n > most {
		return 0, badRequest("limit is %d: use 1 to %d", n, most)
	}
	return n, nil
}

const (
	eventsUsual = 100
	eventsMost  = 1000
	kindsMost   = 40
)

// events answers with a part of the log, or, if it is asked for one, with a stream.
func (a *API) events(w http.ResponseWriter, r *http.Request) error {
	if strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		return a.stream(w, r)
	}
	q, err := query(r, "kind", "upstream", "q", "before", "until", "limit")
	if err != nil {
		return err
	}
	ask := activity.EventQuery{Upstream: q["upstream"], Text: q["q"]}
	if ask.Limit, err = bounded(q["limit"], eventsUsual, eventsMost); err != nil {
		return err
	}
	if s := q["kind"]; s != "" {
		if ask.Kinds = strings.Split(s, ","); len(ask.Kinds) > kindsMost {
			return badRequest("kind has %d kinds: use %d at most", len(ask.Kinds), kindsMost)
		}
	}
	if s := q["before"]; s != "" {
		if ask.Before, err = eventID(s); err != nil {
			return badRequest("before: %s", err)
		}
	}
	if s := q["until"]; s != "" {
		if ask.Until, err = time.Parse(time.RFC3339, s); err != nil {
			return badRequest("until is %q: use a time as of RFC 3339", clip(s))
		}
	}
	list, more := a.activity.Events.List(ask)
	out := EventList{Events: list}
	if more {
		out.Before = list[len(list)-1].ID
	}
	replyZipped(w, r, out)
	return nil
}

func eventID(s string) (int64, error) {
	id, err := strconv.ParseInt(s, 10, 64)
	if err != nil || id < 0 {
		return 0, fmt.Errorf("%q is no event's id", clip(s))
	}
	return id, nil
}
