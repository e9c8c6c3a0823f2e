package authn

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"forebay/internal/reread"
	"forebay/internal/wire"
)

// tokenPrefix lets people and scanners of secrets know our tokens.
const tokenPrefix = "fbt_"

// Token is a line of a tokens file: NAME SHA256 EXPIRY GROUPS, where EXPIRY is a time of RFC 3339
// or "never", and GROUPS are separated by commas, or "-".
type Token struct {
	Name    string
	Expires time.Time // zero: never
	Groups  []string

	sum [sha256.Size]byte // of the token: it has 128 bits of chance, which no table of hashes has
}

// nameMost bounds a name in the text of an error.
const nameMost = 64

// tokenName is what may stand for a token, a user or a group in our files.
var tokenName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@:/-]{0,127}$`)

// NewToken returns a token to give away, and the line by which it is known.
func NewToken(name string, groups []string, expires time.Time) (secret string, line Token, err error) {
	for _, s := range slices.Concat([]string{name}, groups) {
		if !tokenName.MatchString(s) {
			return "", Token{}, fmt.Errorf("%q is no name: use letters, digits and . _ @ : / -", wire.Clip(s, nameMost))
		}
	}
	secret = tokenPrefix + rand.Text()
	return secret, Token{Name: name, Expires: expires, Groups: slices.Sorted(slices.Values(groups)), sum: sha256.Sum256([]byte(secret))}, nil
}

// String returns the line.
func (t *Token) String() string {
	expires, groups := "never", "-"
	if !t.Expires.IsZero() {
		expires = t.Expires.UTC().Format(time.RFC3339)
	}
	if len(t.Groups) > 0 {
		groups = strings.Join(t.Groups, ",")
	}
	return strings.Join([]string{t.Name, hex.EncodeToString(t.sum[:]), expires, groups}, " ")
}

// ParseTokens reads a tokens file. Lines that are empty or begin with # are left out.
func ParseTokens(text []byte) ([]Token, error) {
	var all []Token
	n := 0
	for line := range bytes.Lines(text) {
		n++
		parts := strings.Fields(string(line))
		if len(parts) == 0 || strings.HasPrefix(parts[0], "#") {
			continue
		}
		if len(parts) != 4 || !tokenName.MatchString(parts[0]) {
			return nil, fmt.Errorf("line %d is no NAME SHA256 EXPIRY GROUPS: let forebay token create write it", n)
		}
		t := Token{Name: parts[0]}
		if sum, err := hex.DecodeString(parts[1]); err != nil || copy(t.sum[:], sum) != sha256.Size || len(sum) != sha256.Size {
			return nil, fmt.Errorf("line %d: the hash is no SHA-256 in hex: let forebay token create write it", n)
		}
		if parts[2] != "never" {
			var err error
			if t.Expires, err = time.Parse(time.RFC3339, parts[2]); err != nil {
				return nil, fmt.Errorf("line %d: %q is no time: use one such as 2027-01-31T00:00:00Z, or never", n, wire.Clip(parts[2], nameMost))
			}
		}
		if parts[3] != "-" {
			t.Groups = slices.Sorted(strings.SplitSeq(parts[3], ","))
		}
		all = append(all, t)
	}
	return all, nil
}

// tokens verifies those of a tokens file.
type tokens struct {
	file *reread.Files[map[[sha256.Size]byte]Token]
}

func newTokens(name string, log *zap.Logger) (*tokens, error) {
	f, err := newFile(name, func(text []byte) (map[[sha256.Size]byte]Token, error) {
		all, err := ParseTokens(text)
		by := make(map[[sha256.Size]byte]Token, len(all))
		for _, t := range all {
			by[t.sum] = t
		}
		return by, err
	}, log)
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	return &tokens{f}, nil
}

// verify returns whose token it is. What is looked up is its hash, so that the time which that
// takes says nothing of other tokens.
func (t *tokens) verify(secret string) (Identity, bool) {
	if !strings.HasPrefix(secret, tokenPrefix) {
		return Identity{}, false
	}
	line, ok := t.file.Get()[sha256.Sum256([]byte(secret))]
	if !ok || !line.Expires.IsZero() && !time.Now().Before(line.Expires) {
		return Identity{}, false
	}
	return Identity{Name: line.Name, Groups: line.Groups, By: ByToken}, true
}
