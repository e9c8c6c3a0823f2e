package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"go.uber.org/zap"

	"forebay/config"
	"forebay/internal/access"
	"forebay/internal/admin"
	"forebay/internal/allowance"
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
	rules, err := access.NewRules(list, func(upstream string) bool { return !c.Restricted() || !credentialed[upstream] })
	if err == nil {
		all := asked(c)
		rules.Asked = func(upstream string) bool { _, ok := all[upstream]; return ok }
	}
	return rules, err
}

// asked returns the upstreams of c that are asked what clients may have.
func asked(c *config.Config) map[string]access.Asked {
	all := map[string]access.Asked{}
	for i := range c.Upstreams {
		if u := &c.Upstreams[i]; u.Access == config.AccessUpstream {
			all[u.Name] = access.Asked{TTL: u.AccessTTL, PassThrough: u.PassThrough}
		}
	}
	return all
}

// asking returns the registry that is asked what the client of ctx may have, if it may be asked.
func (m *mirror) asking(ctx context.Context, upstream, repository string) (access.Registry, error) {
	return m.front.Load().client(upstream), m.cache.Limits().Ask(ctx, upstream, repository)
}

// newTerms returns the limits of some clients.
func newTerms(c *config.Config) (all []access.Terms, err error) {
	for i, l := range c.LimitsOf {
		t := access.Terms{Terms: allowance.Terms{Limits: limits(l.Limits)}}
		if l.Shared {
			t.Name = fmt.Sprintf("limits.of[%d] %s", i+1, strings.Join(l.Who, " ")) // which no client is called: names are escaped
		}
		if t.Who, err = authn.NewWho(l.Who); err != nil {
			return nil, fmt.Errorf("limits.of[%d].who: %w", i+1, err)
		}
		all = append(all, t)
	}
	return all, nil
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

// openDoors makes what each listener of the registry API serves by f, in the order of the
// configuration's doors. Where clients are not told apart, that is the handler as it is. What was
// proved to was still holds where c says so of it.
func (f *front) openDoors(c *config.Config, was *front, rights *access.Rights, log *zap.Logger) error {
	if err := f.makeDoors(c, was, rights, log); err != nil {
		return err
	}
	for i, l := range c.Doors() {
		f.doors[i] = inPast(f.doors[i], l.AsOf, c.AsOf)
	}
	return nil
}

// makeDoors is openDoors for the tags of today.
func (f *front) makeDoors(c *config.Config, was *front, rights *access.Rights, log *zap.Logger) error {
	doors := c.Doors()
	f.doors = make([]http.Handler, len(doors))
	if c.Restricted() || c.Asks() || c.Operators.Given() {
		if err := f.openAuth(c, was, log); err != nil {
			return command.Usage(err)
		}
	}
	if !c.Restricted() && !c.Asks() {
		for i, l := range doors {
			f.doors[i] = f.handler
			if len(l.Upstreams) > 0 {
				f.doors[i] = f.handler.Behind(&access.Door{Upstreams: l.Upstreams})
			}
		}
		return nil
	}
	rules, err := newRules(c)
	if err != nil {
		return command.Usage(err)
	}
	terms, err := newTerms(c)
	if err != nil {
		return command.Usage(err)
	}
	for i, l := range doors {
		door := &access.Door{Terms: terms, Auth: f.auth, Mode: modeOf(l.Authentication), Rules: rules, Upstreams: l.Upstreams, Trusted: c.Trusted, Asked: asked(c), Rights: rights}
		f.doors[i] = withTokens(f.handler.Behind(door), door)
	}
	return nil
}

// openAuth makes what tells clients and operators apart.
func (f *front) openAuth(c *config.Config, was *front, log *zap.Logger) (err error) {
	if was != nil && was.auth != nil && !slices.ContainsFunc(was.settings.Differing(c), func(key string) bool { return strings.HasPrefix(key, "auth.") }) {
		f.auth = was.auth
	} else if f.auth, err = newAuthenticator(c, log); err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	for _, r := range []struct {
		role admin.Role
		who  []string
	}{{admin.Admin, c.Operators.Admin}, {admin.Operate, c.Operators.Operate}, {admin.Read, c.Operators.Read}} {
		who, err := authn.NewWho(r.who)
		if err != nil {
			return fmt.Errorf("operators.%s: %w", r.role, err)
		}
		f.roles = append(f.roles, roleOf{r.role, who})
	}
	return nil
}

// roleOf is a role and who has it.
type roleOf struct {
	role admin.Role
	who  authn.Who
}

// operator serves [admin.APIOptions]. A network proves nothing: what a browser on it is tricked into
// must not be done.
func (m *mirror) operator(r *http.Request) (admin.Operator, error) {
	f := m.front.Load()
	id, err := access.Identify(f.auth, r)
	if err != nil || !id.Known() || id.By == authn.ByNetwork {
		return admin.Operator{}, err
	}
	o := admin.Operator{Name: authn.Qualified(id)}
	for i := range f.roles {
		if f.roles[i].who.Has(id) {
			o.Role = f.roles[i].role
			break
		}
	}
	return o, nil
}

// clients returns what the listeners of c serve: for each the door of the front there is now.
func (m *mirror) clients(c *config.Config) []http.Handler {
	all := make([]http.Handler, len(c.Doors()))
	for i := range all {
		all[i] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.front.Load().doors[i].ServeHTTP(w, r) })
	}
	return all
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
