package admin

import (
	"context"
	"fmt"
	"net/http"
	"slices"
)

// OwnToken is the name, in the storage folder, of the file with the token that a mirror makes for
// itself when its admin listener is on loopback and none is configured: whoever may read the
// folder may operate the mirror.
const OwnToken = "admin.token"

// TokenFileHeader is on the refusal of a mirror that made its own token, to a request from this
// machine without it: the file that holds it, which only who may operate the mirror can read.
const TokenFileHeader = "Forebay-Token-File"

// Role is what an operator may do: what is below too. Without one nobody may do anything but log in.
type Role string

// The roles.
const (
	Read    Role = "read"    // look at everything but the bytes of images and the log
	Operate Role = "operate" // change what is kept, and read all of it
	Admin   Role = "admin"   // bring in what clients then get, and look into the running program
)

// may reports whether the role is enough for what needs another.
func (r Role) may(need Role) bool {
	rank := []Role{"", Read, Operate, Admin}
	return slices.Index(rank, r) >= slices.Index(rank, need)
}

// Operator is who asks.
type Operator struct {
	Name string `json:"name"` // as rules name identities; "admin_token" for its holder; "" for a command in this process
	Role Role   `json:"role"`
}

// tokenHolder is what who has the admin token is called.
const tokenHolder = "admin_token"

// visit is what is known of who sends one request, so that its credential is looked at once. Only
// the goroutine of the request uses it.
type visit struct {
	known bool
	who   Operator
	err   error
}

type visitKey struct{}

// visiting returns r with a visit in its context, and that.
func visiting(r *http.Request) (*http.Request, *visit) {
	if v, ok := r.Context().Value(visitKey{}).(*visit); ok {
		return r, v
	}
	v := &visit{}
	return r.WithContext(context.WithValue(r.Context(), visitKey{}, v)), v
}

// Asked returns who sent a request to the admin listener that the API has answered.
func Asked(r *http.Request) Operator {
	_, v := visiting(r)
	return v.who
}

// As returns r as if o had sent it, for whom somebody vouches that we trust as much as ourselves.
func As(r *http.Request, o Operator) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), visitKey{}, &visit{known: true, who: o}))
}

// lacks is the refusal of somebody known who may not do this.
func lacks(o Operator, need Role) error {
	const see = ": see operators in the configuration"
	if o.Role == "" {
		return &problem{http.StatusForbidden, "no_role", clip(o.Name) + " has no role here" + see}
	}
	return &problem{http.StatusForbidden, "role", fmt.Sprintf("%s has the role %s, and this needs %s"+see, clip(o.Name), o.Role, need)}
}
