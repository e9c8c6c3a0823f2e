// Package authn finds out who a client is.
//
// It promises that a request is that of the identity which proved itself, of nobody, or refused: a
// client that shows a wrong credential is never served as nobody in its place, since that would
// hide the mistake. Nothing that a client shows is kept in clear, logged or part of an error.
package authn

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"go.uber.org/zap"

	"forebay/internal/pull"
)

// Options says which ways there are. All fields may be zero.
type Options struct {
	// HtpasswdFile has a NAME:BCRYPT per line, as htpasswd -B writes it.
	HtpasswdFile string
	// TokensFile has the hashes of tokens, as [NewToken] makes them.
	TokensFile string
	Issuers    []Issuer // of tokens that others sign
	// Networks are identities of clients that show nothing, by name. The narrowest counts.
	Networks map[string][]netip.Prefix
	// Groups are the members, which are names of identities, of each group. Groups that an issuer
	// or a tokens file names are added.
	Groups map[string][]string
	Log    *zap.Logger // nil means no logging
}

// Errors of [Authenticator.Identify]. Both are told to the client as they are.
var (
	// ErrRefused is a credential that is not valid.
	ErrRefused = errors.New("the user name, password or token is not valid here")
	// ErrTooMany is an address that has shown too many of them, or one among too many others.
	ErrTooMany = errors.New("too many failed logins from this address")
)

// RetryAfter is how long an address waits after [ErrTooMany].
const RetryAfter = guessEvery

// Authenticator finds identities. Its methods may be called concurrently.
type Authenticator struct {
	passwords *passwords // nil without
	tokens    *tokens    // nil without
	issuers   []*issuer
	own       *signer
	networks  []network
	groups    map[string][]string // of each identity by its name
	guesses   guesses
	key       [32]byte // of the hashes of what was proved; it is nowhere but in memory
	proved    *lru.Cache[[sha256.Size]byte, proof]
}

const (
	// provedTime is how long what was proved is known again at no cost, at most.
	provedTime = 5 * time.Minute
	provedMost = 8192 // credentials that are known again, some 250 bytes each
)

// network is one that has an identity.
type network struct {
	prefix netip.Prefix
	name   string
}

// New returns an authenticator. Its files must be readable; those of issuers may come later.
func New(o Options) (*Authenticator, error) {
	log := o.Log
	if log == nil {
		log = zap.NewNop()
	}
	a := &Authenticator{groups: map[string][]string{}, guesses: newGuesses()}
	if _, err := rand.Read(a.key[:]); err != nil {
		return nil, err
	}
	var err error
	if a.proved, err = lru.New[[sha256.Size]byte, proof](provedMost); err != nil {
		return nil, err
	}
	if a.own, err = newSigner(); err != nil {
		return nil, err
	}
	if o.HtpasswdFile != "" {
		if a.passwords, err = newPasswords(o.HtpasswdFile, log); err != nil {
			return nil, err
		}
	}
	if o.TokensFile != "" {
		if a.tokens, err = newTokens(o.TokensFile, log); err != nil {
			return nil, err
		}
	}
	for _, i := range o.Issuers {
		made, err := newIssuer(i)
		if err != nil {
			return nil, err
		}
		a.issuers = append(a.issuers, made)
	}
	for name, prefixes := range o.Networks {
		for _, p := range prefixes {
			a.networks = append(a.networks, network{p.Masked(), name})
		}
	}
	slices.SortFunc(a.networks, func(x, y network) int { return y.prefix.Bits() - x.prefix.Bits() })
	for group, members := range o.Groups {
		for _, m := range members {
			a.groups[m] = append(a.groups[m], group)
		}
	}
	return a, nil
}

// Identify returns who sends r, which came from addr over a connection whose client showed cert;
// nil for none, and verified else. The error is ErrRefused or ErrTooMany.
func (a *Authenticator) Identify(r *http.Request, addr netip.Addr, cert *x509.Certificate) (Identity, error) {
	if cert != nil {
		return a.member(certificateIdentity(cert)), nil
	}
	shown, ok := credentialOf(r)
	if !ok {
		return a.fromNetwork(addr), nil
	}
	if a.tokens != nil {
		if id, ok := a.tokens.verify(shown.password); ok {
			return a.member(id), nil
		}
	}
	sum := a.hash(r.Header.Get("Authorization"))
	was, known := a.proved.Get(sum)
	if known && time.Now().Before(was.until) && (was.by == nil || was.by == a.passwords.file.Get()) {
		return a.member(was.id), nil
	}
	end := func(bool) {}
	if !known { // what was right before is no guess: others may guess from the same address
		var ok bool
		if end, ok = a.guesses.begin(r.Context(), addr); !ok {
			return Identity{}, ErrTooMany
		}
	}
	p, err := a.verify(pull.WithClient(r.Context(), client(addr).String()), shown)
	wrong := errors.Is(err, ErrRefused)
	if end(!wrong); wrong {
		a.proved.Remove(sum)
	}
	if err != nil {
		return Identity{}, err
	}
	if most := time.Now().Add(provedTime); p.until.IsZero() || p.until.After(most) {
		p.until = most
	}
	a.proved.Add(sum, p)
	return a.member(p.id), nil
}

// hash is by what a credential is known again. It never leaves the process, so that a secret in front is
// enough of a key.
func (a *Authenticator) hash(header string) [sha256.Size]byte {
	b := make([]byte, 0, 512) // on the stack, where the header is no longer
	return sha256.Sum256(append(append(b, a.key[:]...), header...))
}

// Takes reports whether any password or token is of use here.
func (a *Authenticator) Takes() bool {
	return a.passwords != nil || a.tokens != nil || len(a.issuers) > 0
}

// verify looks at what is not known. A token may stand in the place of a password, since that is
// all that docker login and pull secrets have.
func (a *Authenticator) verify(ctx context.Context, c credential) (proof, error) {
	if looksSigned(c.password) {
		if p, ok := a.own.verify(c.password); ok && c.bearer {
			return p, nil
		}
		for _, i := range a.issuers {
			if p, ok := i.verify(ctx, c.password); ok {
				return p, nil
			}
		}
	}
	if !c.bearer && c.name != "" && a.passwords != nil {
		return a.passwords.verify(ctx, c)
	}
	return proof{}, ErrRefused
}

// fromNetwork returns the identity of a client that shows nothing.
func (a *Authenticator) fromNetwork(addr netip.Addr) Identity {
	addr = addr.Unmap().WithZone("")
	for _, n := range a.networks {
		if n.prefix.Contains(addr) {
			return a.member(Identity{Name: n.name, By: ByNetwork})
		}
	}
	return Identity{}
}

// member returns id with the groups that the configuration gives it. Networks and certificates
// have names of their own kind: no user becomes a member by being called like a network.
func (a *Authenticator) member(id Identity) Identity {
	more := a.groups[Qualified(id)]
	if len(more) == 0 {
		return id
	}
	id.Groups = slices.Compact(slices.Sorted(slices.Values(slices.Concat(id.Groups, more))))
	return id
}

// Exchange returns a short-lived token for the identity that r proves, as a registry's token
// endpoint does (distribution specification of token authentication), and how long it holds.
// An identity of nobody gets one too, as anonymous clients ask for it.
func (a *Authenticator) Exchange(id Identity) (token string, lifetime time.Duration, err error) {
	token, err = a.own.sign(id)
	return token, ownLifetime, err
}
