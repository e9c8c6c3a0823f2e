package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"

	"forebay/config"
)

// identity names what the rights of an upstream depend on, by the settings of now; "" for a name that
// is no upstream. Links that other mirrors left in the bucket count for those with the same one.
func (m *mirror) identity(name string) string {
	c := m.front.Load().settings
	u := c.Upstream(name)
	if u == nil {
		other, ok := stranger(c, name)
		if !ok {
			return ""
		}
		u = &other
	}
	return identityOf(c, u)
}

// identityOf is a digest of who is asked for an upstream, as whom, and whom it believes. No password is
// part of it: with another one of the same account its rights are the same, and nobody who reads a
// bucket is to guess them.
func identityOf(c *config.Config, u *config.Upstream) string {
	type account struct{ Name, File, Match string }
	accountOf := func(a config.Account) account { return account{a.Username, a.DockerConfig, a.Match} }
	type endpoint struct {
		URL, From, To string
		Tags          bool
		Account       account
	}
	id := struct {
		Name        string
		Endpoints   []endpoint
		Accounts    []account
		Platform    string
		Certificate string
		Domain      string
		Believes    []string
		Access      string
		PassThrough bool
	}{
		Name: u.Name, Accounts: []account{accountOf(u.Account)}, Platform: string(u.Credentials), Certificate: u.ClientCertFile,
		Domain: u.TrustDomain(), Access: string(u.Access), PassThrough: u.PassThrough,
	}
	for _, e := range u.Endpoints {
		id.Endpoints = append(id.Endpoints, endpoint{e.URL, e.From, e.To, e.Tags, accountOf(e.Account)})
	}
	for _, a := range u.FallbackCredentials {
		id.Accounts = append(id.Accounts, accountOf(a))
	}
	for _, other := range c.Upstreams {
		if u.Trust != "" && other.TrustDomain() == u.TrustDomain() { // a domain that operators made
			id.Believes = append(id.Believes, other.Name)
		}
	}
	slices.Sort(id.Believes)
	b, err := json.Marshal(id)
	if err != nil {
		panic(err) // it is texts
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
