package proxy

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"forebay/internal/wire"
)

// pageMost bounds the entries of one answer. The rest is behind its Link.
const pageMost = 10000

// page is the part of a list that a client asks for.
type page struct {
	n     int    // entries at most
	given bool   // the client gave n
	last  string // only entries after it
}

// page reads the parameters n and last. most is the cap, which is also used without n.
func (x *exchange) page(most int) (page, error) {
	p := page{n: most}
	p.last, _ = x.query("last")
	text, ok := x.query("n")
	if !ok || text == "" {
		return p, nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		if !errors.Is(err, strconv.ErrRange) {
			return p, &Refusal{Status: http.StatusBadRequest, Code: "PAGINATION_NUMBER_INVALID", Message: "n must be a number that is not negative"}
		}
		n = uint64(most)
	}
	p.n, p.given = int(min(n, uint64(most))), true
	return p, nil
}

// linkNext points to the page after last.
func (x *exchange) linkNext(p page, last string) { x.link(p, "last", last) }

// link points to a further page, which a parameter names: by a reference without a host, so that it works
// behind any name, and with the prefix and ns of this request.
func (x *exchange) link(p page, key, value string) {
	path := "/" + strings.TrimLeft(x.r.URL.EscapedPath(), "/") // behind two slashes stands a host
	query := ""
	if p.given {
		query = "n=" + strconv.Itoa(p.n) + "&"
	}
	query += key + "=" + url.QueryEscape(value)
	if x.route.Namespace != "" {
		query += "&ns=" + url.QueryEscape(x.route.Namespace)
	}
	if filter, ok := x.query("artifactType"); ok && x.route.Resource == wire.Referrers {
		query += "&artifactType=" + url.QueryEscape(filter)
	}
	x.w.Header().Set("Link", "<"+path+"?"+query+`>; rel="next"`)
}

// writeJSON answers with a document.
func (x *exchange) writeJSON(doc any) error {
	body, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	x.w.Header()["Content-Type"] = x.h.static.json
	return x.writeBody(body)
}

// writeBody answers with a body whose type is set.
func (x *exchange) writeBody(body []byte) error {
	setLength(x.w.Header(), int64(len(body)))
	x.w.WriteHeader(http.StatusOK)
	if x.head() {
		return nil
	}
	_, err := x.w.Write(body)
	return err
}
