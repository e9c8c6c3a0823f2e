package auth

import (
	"context"
	"errors"

	"forebay/internal/pull"
	"forebay/internal/wire"
)

// Issuer hands out passwords that live for hours, such as those of Amazon's registries.
type Issuer interface {
	// Issue returns the user name and the password to use now. renew says that those it
	// returned last were refused. It is called for every request, so it must keep what it
	// has, and bound how often it looks for another.
	Issue(ctx context.Context, renew bool) (user, password string, err error)
}

// issuedSource makes identities of what an issuer hands out.
type issuedSource struct{ from Issuer }

func (s issuedSource) Identity(ctx context.Context, _ string, renew bool) (Identity, error) {
	user, password, err := s.from.Issue(ctx, renew)
	if err != nil {
		return Identity{}, wire.RedactError(err)
	}
	if user == "" || password == "" {
		return Identity{}, errors.New("nothing was handed out") // which must not mean anonymous
	}
	return newIdentity(user, password, "", false), nil
}

// SourceOf returns the source of a client's own login.
func SourceOf(l *pull.Login) Source { return loginSource{l} }

type loginSource struct{ *pull.Login }

func (s loginSource) Identity(context.Context, string, bool) (Identity, error) {
	if s.ID == "" {
		return Identity{}, nil
	}
	return Identity{id: "client " + s.ID, user: s.User, secret: s.Password, refresh: s.User == tokenUser, client: true}, nil
}
