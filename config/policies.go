package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"forebay/config/key"
	"forebay/config/parse"
	"forebay/config/rule"
	"forebay/internal/wire"
)

// Policy is a rule about which digest of a tag answers.
type Policy = rule.Policy

func policiesField(p *[]Policy) field {
	return key.Mappings("policies",
		"Rules about which digest of a tag clients get: one that the tag has had for long enough, that was not denied, that it had at some time. A digest that must not answer is replaced by the latest that may, so that clients get an image and ask nobody else; all rules that match a tag must allow a digest. `forebay policy test` says what answers and why. See docs/policies.md.",
		p, rule.Default(), (*Policy).Fields)
}

// checkPolicies finds rules without a name or without an effect, and reads secrets.
func (d *decoder) checkPolicies() {
	names := map[string]bool{}
	for i := range d.config.Policies {
		r, at := &d.config.Policies[i], nth("policies", i)
		fault := func(format string, args ...any) { d.Add(d.config.origins[at], at, format, args...) }
		d.password(join(at, "judge"), "headers", &r.Judge.Headers, "headers_file", &r.Judge.HeadersFile)
		if _, err := parse.HeaderPairs(r.Judge.Headers.Reveal()); err != nil {
			fault("judge.headers: %s", err)
		}
		for _, name := range r.SignedBy {
			if !slices.ContainsFunc(d.config.Signers, func(s Signer) bool { return s.Name == name }) {
				fault("signed_by names %s, which is not among signers", name)
			}
		}
		for _, list := range [][]string{r.DenyFrom, r.AllowFrom} {
			for n, from := range list {
				if !strings.Contains(from, "://") && !filepath.IsAbs(from) && d.config.File != "" {
					list[n] = filepath.Join(filepath.Dir(d.config.File), from)
				}
			}
		}
		if why := r.Fault(); why != "" {
			fault("%s", why)
		} else if names[r.Name] {
			fault("%s is there twice: give each rule a name of its own", r.Name)
		}
		names[r.Name] = true
	}
}

// pastOf reads a time or the name of a snapshot.
func pastOf(s string) (string, error) {
	if s != "" && !wire.ValidAsOf(s) {
		return "", fmt.Errorf("%q is neither a time nor the name of a snapshot: use one such as 2026-11-01, 2026-11-01T12:00Z or prod-2026-11", parse.Clip(s))
	}
	return s, nil
}

// asOfField is the table of names in Host that stand for a past.
func asOfField(p *map[string]string) field {
	return field{Name: "as_of", Kind: key.Table, What: "pairs of a host name and a time or the name of a snapshot",
		Doc: "Names in the Host header under which tags are served as they were at a time, or as they are in a snapshot: `prod.mirror.example: prod-2026-11`. The same is had by `/v2/@2026-11-01T12:00Z/` or `/v2/@prod-2026-11/` at the beginning of a path, and by `as_of` of a listener.",
		Set: func(s string) error {
			name, past, _ := strings.Cut(s, "=")
			host, _ := wire.Host(name)
			past, err := pastOf(past)
			if err == nil && (past == "" || host == "") {
				err = fmt.Errorf("%q is not usable: use HOST=TIME or HOST=SNAPSHOT", parse.Clip(s))
			}
			if err != nil {
				return err
			}
			if *p == nil {
				*p = map[string]string{}
			}
			(*p)[host] = past
			return nil
		},
		Clear: func() { *p = nil },
		Get:   func() []string { return parse.Pairs(*p) }}
}
