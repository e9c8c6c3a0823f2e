package main

import (
	"fmt"
	"net/http"
	"os"

	"go.uber.org/zap"

	"forebay/config"
	"forebay/internal/access"
	"forebay/internal/audit"
	"forebay/internal/authn"
	"forebay/internal/command"
	"forebay/proxy"
)

// newRules returns who may pull what.
func newRules(c *config.Config) (*access.Rules, error) {
	credentialed := map[string]bool{}
	for i := range c.Upstreams {
		credentialed[c.Upstreams[i].Name] = c.Upstreams[i].Credentialed()
	}
	var list []access.Rule
	for _, r := range c.Access {
		list = append(list, access.Rule(r))
	}
	return access.NewRules(list, func(upstream string) bool { return !credentialed[upstream] })
}

// newAudit returns the audit log; nil when there is none.
func newAudit(c *config.Config, log *zap.Logger) (*audit.Log, error) {
	switch c.Audit {
	case "":
		return nil, nil
	case config.AuditStdout:
		return audit.ToStream(os.Stdout, log), nil
	default:
		l, err := audit.ToFile(c.Audit, log)
		if err != nil {
			return nil, command.Hint(err, "Let "+whoami()+" write there, or name another file with audit.")
		}
		return l, nil
	}
}

// newAuthenticator returns how clients prove who they are.
func newAuthenticator(c *config.Config, log *zap.Logger) (*authn.Authenticator, error) {
	o := authn.Options{
		HtpasswdFile: c.Auth.HtpasswdFile, TokensFile: c.Auth.TokensFile, Networks: c.Auth.Networks, Groups: c.Auth.Groups, Log: log,
	}
	for _, i := range c.Auth.Issuers {
		o.Issuers = append(o.Issuers, authn.Issuer(i))
	}
	return authn.New(o)
}

// clientsOf returns what each listener of the registry API serves, in the order of c.Doors. Where
// clients are not told apart, that is the handler as it is.
func clientsOf(c *config.Config, h *proxy.Handler, log *zap.Logger) ([]http.Handler, error) {
	doors := c.Doors()
	all := make([]http.Handler, len(doors))
	if !c.Restricted() {
		for i, l := range doors {
			all[i] = http.Handler(h)
			if len(l.Upstreams) > 0 {
				all[i] = h.Behind(&access.Door{Upstreams: l.Upstreams})
			}
		}
		return all, nil
	}
	rules, err := newRules(c)
	if err != nil {
		return nil, command.Usage(err)
	}
	auth, err := newAuthenticator(c, log)
	if err != nil {
		return nil, command.Usage(fmt.Errorf("auth: %w", err))
	}
	for i, l := range doors {
		door := &access.Door{Auth: auth, Mode: modeOf(l.Authentication), Rules: rules, Upstreams: l.Upstreams, Trusted: c.Trusted}
		all[i] = withTokens(h.Behind(door), door)
	}
	return all, nil
}

func modeOf(a config.Authentication) access.Mode {
	switch a {
	case config.AuthRequired:
		return access.Required
	case config.AuthOptional:
		return access.Optional
	default:
		return access.Open
	}
}

// withTokens serves the token endpoint beside what clients ask for.
func withTokens(clients http.Handler, door *access.Door) http.Handler {
	if door.Mode == access.Open {
		return clients
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if access.IsToken(r) {
			door.ServeHTTP(w, r)
		} else {
			clients.ServeHTTP(w, r)
		}
	})
}

// explain serves [operate.Explain].
func explain(c *config.Config, id authn.Identity, image string) (d access.Decision, name string, err error) {
	aliases := map[string][]string{}
	for i := range c.Upstreams {
		aliases[c.Upstreams[i].Name] = c.Upstreams[i].Aliases
	}
	names, err := proxy.NamesOf(proxy.Options{Upstreams: aliases, Hosts: c.Hosts})
	if err != nil {
		return d, "", err
	}
	ref, err := names.Reference(image)
	if err != nil {
		return d, "", err
	}
	rules, err := newRules(c)
	if err != nil {
		return d, "", err
	}
	return rules.Decide(id, ref.Upstream, ref.Repository), ref.Name(), nil
}
