package hubtest

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// HubAPIOptions are how the Hub API role behaves. The zero value is hub.docker.com as it
// was seen in 2026.
type HubAPIOptions struct {
	Limit      int             // requests a minute from one address; 0 means 180, negative no limit
	RetryAfter RetryAfterStyle // of the 429; RetryUnix is the older X-Retry-After
	TokenTTL   time.Duration   // 0 means 10 minutes
	LegacyOnly bool            // POST /v2/auth/token is missing
	LoginBody  string          // what a login answers with status 200 in place of a token
	NeedToken  bool            // tags of public repositories need a token, as documented
	// Lag makes tag objects say what was true so long ago.
	Lag time.Duration
	// NextBase is put before the path of next and previous instead of this role's own URL;
	// "{evil}" and the other roles in braces become base URLs. "-" repeats the page asked for.
	NextBase string
	NoDigest bool // tag objects have no digest, as old ones
}

// hubAPIState is what the role remembers.
type hubAPIState struct {
	mu   sync.Mutex
	used map[string]*usage // by address
}

// tagChange is what a tag pointed at from a time on; "" means that it was gone.
type tagChange struct {
	at     time.Time
	digest string
}

const hubAPILimit = 180

// answerHubAPI serves hub.docker.com.
func (h *Hub) answerHubAPI(x *exchange) *Reply {
	left, reset, ok := h.takeHubAPI(x.Address)
	var a *Reply
	if ok {
		a = h.hubAPIAnswer(x)
	} else {
		a = h.hubAPILimited(reset)
	}
	if limit := h.hubAPILimit(); limit > 0 {
		a.Header.Set("X-Ratelimit-Limit", strconv.Itoa(limit))
		a.Header.Set("X-Ratelimit-Remaining", strconv.Itoa(left))
		a.Header.Set("X-Ratelimit-Reset", strconv.FormatInt(reset.Unix(), 10))
	}
	return a
}

func (h *Hub) hubAPILimit() int {
	if limit := h.opts().HubAPI.Limit; limit != 0 {
		return limit
	}
	return hubAPILimit
}

// takeHubAPI books a request and returns what is left, when the minute ends, and
// whether the request was within the limit.
func (h *Hub) takeHubAPI(address string) (left int, reset time.Time, ok bool) {
	limit, now := h.hubAPILimit(), h.Now()
	if limit < 0 {
		return 0, now, true
	}
	h.api.mu.Lock()
	defer h.api.mu.Unlock()
	if h.api.used == nil {
		h.api.used = map[string]*usage{}
	}
	u := h.api.used[address]
	if u == nil {
		u = &usage{}
		h.api.used[address] = u
	}
	u.window(now, time.Minute, false)
	ok = len(u.used) < limit
	if ok {
		u.used = append(u.used, now)
	}
	return max(limit-len(u.used), 0), u.used[0].Add(time.Minute), ok
}

// hubAPILimited is the 429 of the API, with the body that was captured.
func (h *Hub) hubAPILimited(reset time.Time) *Reply {
	a := newReply(http.StatusTooManyRequests, "application/json", []byte(`{"detail": "Rate limit exceeded", "error": false}`))
	switch h.opts().HubAPI.RetryAfter {
	case RetrySeconds:
		a.Header.Set("Retry-After", strconv.Itoa(int(reset.Sub(h.Now())/time.Second)))
	case RetryDate:
		a.Header.Set("Retry-After", reset.UTC().Format(http.TimeFormat))
	case RetryPast:
		a.Header.Set("Retry-After", h.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
	case RetryUnix:
		a.Header.Set("X-Retry-After", strconv.FormatInt(reset.Unix(), 10))
	}
	return a
}

// hubAPIAnswer finds what a path asks for. A slash at the end makes no difference.
func (h *Hub) hubAPIAnswer(x *exchange) *Reply {
	part := strings.Split(strings.Trim(x.r.URL.Path, "/"), "/")
	if x.Route == RouteHubLogin {
		return h.hubAPILogin(x, part[len(part)-1])
	}
	switch x.r.Method {
	case http.MethodGet, http.MethodHead:
	default:
		h.book.wrote()
		return hubAPIError(http.StatusMethodNotAllowed, "method not allowed")
	}
	user, ok := h.hubAPIUser(x.r)
	if !ok {
		return hubAPIError(http.StatusUnauthorized, "Invalid token")
	}
	q := hubAPIQuery{Hub: h, user: user, path: x.r.URL.Path, query: x.r.URL.Query()}
	if len(part) < 3 || part[0] != "v2" {
		return objectNotFound()
	}
	switch rest := part[2:]; part[1] {
	case "namespaces":
		if len(rest) >= 2 && rest[1] == "repositories" {
			return q.repositories(rest[0], rest[2:])
		}
	case "repositories":
		return q.repositories(rest[0], rest[1:])
	case "users":
		return q.account(rest[0])
	case "search":
		if rest[0] == "repositories" {
			return q.search()
		}
	}
	return objectNotFound()
}

func objectNotFound() *Reply {
	return newReply(http.StatusNotFound, "application/json", []byte(`{"message":"object not found","errinfo":{}}`+"\n"))
}

func hubAPIError(status int, detail string) *Reply {
	return jsonReply(status, map[string]string{"detail": detail})
}

// hubAPIQuery is one request for objects.
type hubAPIQuery struct {
	*Hub
	user  *User // nil is anonymous
	path  string
	query url.Values
}

// page answers with one page of a list.
func (q hubAPIQuery) page(all []any) *Reply {
	number, size := atLeastOne(q.query.Get("page"), 1), min(atLeastOne(q.query.Get("page_size"), 10), 100)
	first := (number - 1) * size
	if first > 0 && first >= len(all) {
		return objectNotFound()
	}
	last := min(first+size, len(all))
	body := map[string]any{"count": len(all), "next": nil, "previous": nil, "results": append([]any{}, all[first:last]...)}
	if last < len(all) {
		body["next"] = q.pageURL(number + 1)
	}
	if number > 1 {
		body["previous"] = q.pageURL(number - 1)
	}
	return jsonReply(http.StatusOK, body)
}

func atLeastOne(s string, fallback int) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return fallback
	}
	return n
}

// pageURL is the absolute URL of another page of the same list.
func (q hubAPIQuery) pageURL(number int) string {
	base := q.opts().HubAPI.NextBase
	switch base {
	case "-":
		return q.URL(RoleHubAPI) + q.path + "?" + q.query.Encode()
	case "":
		base = q.URL(RoleHubAPI)
	default:
		base = q.expand(base)
	}
	next := url.Values{}
	for k, v := range q.query {
		next[k] = v
	}
	next.Set("page", strconv.Itoa(number))
	return fmt.Sprintf("%s%s?%s", base, q.path, next.Encode())
}
