package authn

import (
	"crypto/x509"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"forebay/internal/wire"
)

// Identity is who a client is. The zero value is nobody.
type Identity struct {
	Name   string   // of a user, a token, a certificate's subject or a network
	Groups []string // sorted
	By     Way      // how it was found
}

// Known reports whether the client has proved who it is, or came from a named network.
func (id Identity) Known() bool { return id.By != "" }

// Way is how an identity was found.
type Way string

// The ways, in the order in which they are looked for.
const (
	ByCertificate Way = "certificate"
	ByToken       Way = "token"
	ByPassword    Way = "password"
	ByNetwork     Way = "network"
)

// Qualified returns the name of id among all identities: that of a user as it is, others with how
// they were found before it, "network:ci" or "certificate:node-7".
func Qualified(id Identity) string {
	switch id.By {
	case ByNetwork, ByCertificate:
		return string(id.By) + ":" + id.Name
	default:
		return id.Name
	}
}

// certificateIdentity is the subject's common name, else the first name of the certificate, with
// the subject's organizations as groups, as Kubernetes has it.
func certificateIdentity(cert *x509.Certificate) Identity {
	id := Identity{Name: cert.Subject.CommonName, By: ByCertificate, Groups: slices.Sorted(slices.Values(cert.Subject.Organization))}
	switch {
	case id.Name != "":
	case len(cert.URIs) > 0: // as SPIFFE has it
		id.Name = cert.URIs[0].String()
	case len(cert.DNSNames) > 0:
		id.Name = cert.DNSNames[0]
	case len(cert.EmailAddresses) > 0:
		id.Name = cert.EmailAddresses[0]
	default:
		id.Name = fmt.Sprintf("serial %x", cert.SerialNumber)
	}
	return id
}

// Who is a set of identities. The zero value has none.
type Who struct {
	anyone, known bool
	names, groups []*regexp.Regexp
}

// NewWho compiles a set: "anyone"; "known", who has proved who it is; "group:NAME"; and names, of
// users and tokens as they are, of others as "network:NAME" and "certificate:NAME". * stands for any
// text.
func NewWho(list []string) (w Who, err error) {
	for _, s := range list {
		group, isGroup := strings.CutPrefix(s, "group:")
		to := &w.names
		switch {
		case s == "anyone":
			w.anyone = true
			continue
		case s == "known":
			w.known = true
			continue
		case s == "":
			return w, fmt.Errorf("%q names nobody", s)
		case isGroup:
			to = &w.groups
		}
		p, err := wire.CompilePattern(group)
		if err != nil {
			return w, fmt.Errorf("%q: %w", s, err)
		}
		*to = append(*to, p)
	}
	return w, nil
}

// Has reports whether id is in the set.
func (w *Who) Has(id Identity) bool {
	if w.anyone || !id.Known() {
		return w.anyone
	}
	matches := func(patterns []*regexp.Regexp, s string) bool {
		return slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(s) })
	}
	return w.known || matches(w.names, Qualified(id)) || slices.ContainsFunc(id.Groups, func(g string) bool { return matches(w.groups, g) })
}
