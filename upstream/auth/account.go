package auth

import (
	"context"
	"errors"
	"time"

	"forebay/internal/registries"
)

// Account returns the user name and the password that c stands for at the registry of
// that name, for a service beside it. Both are empty for anonymous. Passwords are read
// and helpers run anew each time, and one that fails is an error.
func Account(ctx context.Context, c Credentials, registry string) (user, password string, err error) {
	source, err := NewSource(c, registry, []string{registries.Find(registry).Endpoint}, time.Now)
	if err != nil {
		return "", "", err
	}
	who, err := source.Identity(ctx, "", true)
	switch {
	case err != nil:
		return "", "", err
	case who.refresh, who.registryToken != "":
		return "", "", errors.New("credentials: they are a token of the registry: a user name with a password or access token is needed")
	}
	return who.user, who.secret, nil
}

// Known reports whether c has anything for a registry: a docker config may be for others only.
func Known(ctx context.Context, c Credentials, registry string, endpoints []string) (bool, error) {
	source, err := NewSource(c, registry, endpoints, time.Now)
	if err != nil {
		return false, err
	}
	who, err := source.Identity(ctx, "", false)
	chain, is := source.(*keychainSource)
	return err == nil && (!who.Anonymous() || is && len(chain.last.parts) > 0), err
}
