package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/cache/policy"
	"forebay/config"
	"forebay/internal/command"
	"forebay/internal/pull"
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
	v := s.verifier.Verdict(ctx, content{m.cache, repo}, d, s.by[rule])
	return policy.Answer{Yes: v.Signed, Wait: v.Unknown, Why: v.Why, Until: v.Until}
}

// content is what a repository has for who verifies its signatures: by the mirror itself, whatever its
// policies say, so that it is kept with the image.
type content struct {
	cache *cache.Cache
	repo  cache.Repo
}

func (c content) Name() string { return c.repo.String() }

func (c content) Absent(err error) bool {
	kind := pull.KindOf(err)
	return kind == pull.NotFound || kind == pull.Unsupported
}

// Manifest asks for a tag by HEAD, which no registry counts. What is known of one will do while that fails.
func (c content) Manifest(ctx context.Context, ref string) (v1.Descriptor, []byte, error) {
	d, err := v1.NewHash(ref)
	if err != nil {
		desc, err := c.cache.Confirm(ctx, c.repo, ref)
		if d = desc.Digest; err != nil {
			t, known, _ := c.cache.Tag(c.repo, ref)
			if !known || pull.KindOf(err) == pull.NotFound && c.cache.MayAsk(c.repo) {
				return v1.Descriptor{}, nil, err
			}
			d = t.Desc.Digest
		}
	}
	m, err := c.cache.Unruled(ctx, c.repo, d)
	if err != nil {
		return v1.Descriptor{}, nil, err
	}
	return m.Desc, m.Bytes, nil
}

func (c content) Referrers(ctx context.Context, d v1.Hash) ([]v1.Descriptor, error) {
	r, err := c.cache.Referrers(ctx, c.repo, d)
	if err != nil {
		return nil, err
	}
	all := make([]v1.Descriptor, len(r.Manifests))
	for i, text := range r.Manifests {
		_ = json.Unmarshal(text, &all[i]) // what cannot be read is no signature
	}
	return all, nil
}

func (c content) Blob(ctx context.Context, desc v1.Descriptor) ([]byte, error) {
	b, err := c.cache.Blob(ctx, c.repo, desc.Digest)
	if err != nil {
		return nil, err
	}
	defer func() { _ = b.Close() }() // of what was read
	var text bytes.Buffer
	_, err = b.Send(ctx, &text, 0, desc.Size)
	return text.Bytes(), err
}
