package authn

import (
	"encoding/base64"
	"net/http"
	"strings"
	"time"
)

// proof is a credential that was right.
type proof struct {
	id    Identity
	until time.Time
	by    *htpasswd // what it was right by, if it is a password: another file says anew
}

// credential is what a client shows: a bearer token, or a name and a password.
type credential struct {
	bearer         bool
	name, password string // of a bearer token only password
}

// credentialOf returns what r shows in Authorization (RFC 7617, RFC 6750 section 2.1).
func credentialOf(r *http.Request) (credential, bool) {
	value := r.Header.Get("Authorization")
	scheme, rest, _ := strings.Cut(value, " ")
	rest = strings.TrimLeft(rest, " ")
	switch {
	case value == "":
		return credential{}, false
	case strings.EqualFold(scheme, "Bearer"):
		return credential{bearer: true, password: rest}, true
	case strings.EqualFold(scheme, "Basic"):
		text, err := base64.StdEncoding.DecodeString(rest)
		if err != nil {
			return credential{}, true // which nothing accepts
		}
		name, password, _ := strings.Cut(string(text), ":")
		return credential{name: name, password: password}, true
	default:
		return credential{}, true
	}
}
