package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Login is what a client shows that is not for us but for a registry. The zero value is that of
// one which shows nothing, and may have what everybody may.
type Login struct {
	// ID tells logins apart without giving them away: a hash under a key that only this process
	// has. Empty for nothing.
	ID             string
	User, Password string
}

// ErrLogin is the cause of a Denied: a user name and password that are wrong, or are not taken.
var ErrLogin = errors.New("the user name or password is wrong")

// Format writes nothing of it, for every verb.
func (l *Login) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "login of a client") }

// LoginKey is the key of a client's login among the values of a context. A context type of its own
// may return a *Login for it.
type LoginKey struct{}

// WithLogin returns a context for requests to a registry that are made in the name of a client, and
// not in ours. nil leaves them in ours.
func WithLogin(ctx context.Context, l *Login) context.Context {
	if l == nil {
		return ctx
	}
	return context.WithValue(ctx, LoginKey{}, l)
}

// LoginOf returns the login of WithLogin; nil for a request in our name.
func LoginOf(ctx context.Context) *Login {
	l, _ := ctx.Value(LoginKey{}).(*Login)
	return l
}

// Asker is on whose behalf a registry is asked: what goes along from a client's request to one that
// does not end with it.
type Asker struct {
	hops  string
	login *Login
}

// AskerOf returns the asker of ctx.
func AskerOf(ctx context.Context) Asker { return Asker{Hops(ctx), LoginOf(ctx)} }

// In returns ctx with the asker.
func (a Asker) In(ctx context.Context) context.Context {
	return WithLogin(WithHops(ctx, a.hops), a.login)
}
