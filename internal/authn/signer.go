package authn

import (
	"crypto/rand"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// ownLifetime is how long a token of ours holds. A credential that is withdrawn may be used so
// long; the distribution specification wants at least a minute.
const ownLifetime = 5 * time.Minute

// signer makes and knows the tokens of our own token endpoint. Its key ends with the process:
// clients then ask for another token, as they do when one expires.
type signer struct {
	key     [32]byte
	signing jose.Signer
}

// claims are those of our tokens beside the registered ones.
type claims struct {
	Groups []string `json:"groups,omitempty"`
	By     Way      `json:"by,omitempty"`
}

func newSigner() (*signer, error) {
	s := &signer{}
	if _, err := rand.Read(s.key[:]); err != nil {
		return nil, err
	}
	var err error
	s.signing, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: s.key[:]}, nil)
	return s, err
}

func (s *signer) sign(id Identity) (string, error) {
	now := time.Now()
	return jwt.Signed(s.signing).Claims(jwt.Claims{
		Subject: id.Name, IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(ownLifetime)),
	}).Claims(claims{Groups: id.Groups, By: id.By}).Serialize()
}

// verify returns whom a token of ours was made for.
func (s *signer) verify(token string) (proof, bool) {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.HS256})
	if err != nil {
		return proof{}, false
	}
	var registered jwt.Claims
	var ours claims
	if parsed.Claims(s.key[:], &registered, &ours) != nil || registered.ValidateWithLeeway(jwt.Expected{Time: time.Now()}, 0) != nil {
		return proof{}, false
	}
	return proof{id: Identity{Name: registered.Subject, Groups: ours.Groups, By: ours.By}, until: registered.Expiry.Time()}, true
}

// looksSigned reports whether a token has the form of a JWS (RFC 7515 section 3.1), so that others
// cost nothing.
func looksSigned(token string) bool {
	return strings.HasPrefix(token, "eyJ") && strings.Count(token, ".") == 2 && len(token) < 16<<10
}
