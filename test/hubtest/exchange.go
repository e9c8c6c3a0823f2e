package hubtest

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
)

// State is one request as a rule sees it.
type State struct {
	Hub       *Hub
	Request   *http.Request
	Role      Role
	Route     Route
	Repo      string // of the path; empty at a CDN
	Ref       string // tag or digest of the path
	Principal string // account, or address of an anonymous client
	Address   string // client address that pulls and abuse are booked on
	Reused    bool   // not the first request of its connection
	Bearer    bool   // carries a bearer token
}

// exchange is one request and its answer.
type exchange struct {
	State
	w     http.ResponseWriter
	r     *http.Request
	conn  *conn
	reply *Reply
	entry *entry
	claim *claims // of a good token, else nil

	ranged bool // came with a Range header; faults may remove it
}

// serve answers one request to a role.
func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	h := s.hub
	x := h.begin(s.site.role, w, r)
	defer x.end()
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler { //nolint:errorlint // what was recovered is any value
				h.book.problem(fmt.Sprintf("panic in %s %s: %v\n%s", r.Method, r.URL.Path, p, debug.Stack()))
			}
			panic(http.ErrAbortHandler)
		}
	}()
	fault := h.rules.match(&x.State)
	if fault.before != nil {
		fault.before(x)
	}
	if x.reply == nil {
		x.reply = h.answer(x)
	}
	if fault.after != nil {
		fault.after(x)
	}
	x.send()
	if fault.finally != nil {
		fault.finally(x)
	}
}

func (h *Hub) begin(role Role, w http.ResponseWriter, r *http.Request) *exchange {
	p := placeOf(role, r)
	switch style := h.profile(); {
	case role == RoleRegistry && style.ownRealm && tokenPaths[rawPath(r)]:
		p = place{route: RouteToken}
	case role == RoleSub && style.manifestsElsewhere && strings.HasPrefix(r.URL.Path, "/v2/"):
		p = parseRegistryPath(rawPath(r))
	}
	x := &exchange{w: w, r: r, conn: connOf(r), ranged: r.Header.Get("Range") != ""}
	x.State = State{Hub: h, Request: r, Role: role, Route: p.route, Repo: p.repo, Ref: p.ref}
	x.Reused = x.conn.requests.Add(1) > 1
	x.Address = h.address(r)
	x.Principal = x.Address
	x.Bearer = strings.HasPrefix(strings.ToLower(r.Header.Get("Authorization")), "bearer ")
	if role == RoleRegistry {
		if c, err := h.checkToken(r.Header.Get("Authorization")); err == nil {
			x.claim = c
			if c.Subject != "" {
				x.Principal = c.Subject
			}
		}
	}
	x.entry = h.book.arrive(x)
	return x
}

func (x *exchange) end() { x.Hub.book.leave(x) }

// answer is what a well-behaved hub says.
func (h *Hub) answer(x *exchange) *Reply {
	if h.limiter.abused(x.Address, h.opts().AbuseLimit, h.Now()) {
		return h.abuseReply()
	}
	switch {
	case x.Role == RoleAuth, x.Route == RouteToken:
		return h.answerAuth(x)
	case x.Role == RoleRegistry, x.Role.servesBlobs() && x.Repo != "":
		return h.answerRegistry(x)
	case x.Role.servesBlobs():
		return h.answerCDN(x)
	case x.Role == RoleHubAPI:
		return h.answerHubAPI(x)
	}
	return h.answerEvil(x)
}

// address returns the IPv4 address or the IPv6 /64 that a request comes from, as
// Docker Hub writes it in docker-ratelimit-source.
func (h *Hub) address(r *http.Request) string {
	host := h.opts().ClientIP
	if host == "" {
		host, _, _ = net.SplitHostPort(r.RemoteAddr)
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	ip = ip.Unmap()
	if ip.Is4() {
		return ip.String()
	}
	prefix, err := ip.WithZone("").Prefix(64)
	must(err) // 64 bits fit in an IPv6 address
	return prefix.Addr().String()
}

// answerEvil is the role that must never be asked: it says yes to everything.
func (h *Hub) answerEvil(x *exchange) *Reply {
	b := []byte("you should not be here\n")
	if x.Role == RoleEvil && strings.Contains(x.r.URL.Path, "token") {
		b = []byte(`{"token":"evil","access_token":"evil","expires_in":300}` + "\n")
	}
	return newReply(http.StatusOK, "application/json", b)
}
