package main

import (
	"context"
	"fmt"
	"net/http"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/cache/policy"
	"forebay/config"
	"forebay/internal/command"
	"forebay/internal/rules"
	"forebay/internal/signed"
)

// signatures verify what the policies of a configuration want signed.
type signatures struct {
	verifier *signed.Verifier
	by       map[string][]string // signers by policy
}

// newSignatures reads the keys, roots and policies of the signers of a configuration.
func newSignatures(c *config.Config, client *http.Client) (*signatures, error) {
	s := &signatures{by: map[string][]string{}}
	var signers []signed.Signer
	for i, one := range c.Signers {
		next := signed.Signer{Name: one.Name, Keys: one.Keys, TrustedRoot: one.TrustedRoot, Notation: one.Notation,
			Identity: signed.Identity{Issuer: one.Issuer, Subject: one.Subject, SubjectRegexp: one.SubjectRegexp}}
		if _, err := signed.New([]signed.Signer{next}, client); err != nil {
			return nil, command.Usage(config.Faults{c.FaultAt(fmt.Sprintf("signers[%d]", i+1), err)})
		}
		signers = append(signers, next)
	}
	for _, p := range c.Policies {
		s.by[p.Name] = p.SignedBy
	}
	var err error
	s.verifier, err = signed.New(signers, client)
	return s, err
}

// signed says whether a digest has a signature that a policy accepts.
func (m *mirror) signed(ctx context.Context, repo cache.Repo, d v1.Hash, rule string) policy.Answer {
	s := m.signatures.Load()
	v := s.verifier.Verdict(ctx, rules.Content{Cache: m.cache, Repo: repo}, d, s.by[rule])
	return policy.Answer{Yes: v.Signed, Wait: v.Unknown, Why: v.By + v.Why, Until: v.Until}
}
