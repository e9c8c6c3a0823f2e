package authn

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"runtime"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/crypto/bcrypt"

	"forebay/internal/lane"
	"forebay/internal/reread"
	"forebay/internal/wire"
)

// costMost bounds what one login costs: at 14 about a second of a processor.
const costMost = 14

// passwords verifies names and passwords by an htpasswd file.
type passwords struct {
	file *reread.Files[*htpasswd]
	// verifying bounds how many are compared at once, so that logins leave a processor for pulls. Addresses
	// take turns, so that one's guesses hold up its own.
	verifying *lane.Lane
}

// htpasswd is the content of the file.
type htpasswd struct {
	hashes map[string][]byte // by name
	nobody []byte            // compared for names that are not there; as costly as the others
}

func newPasswords(name string, log *zap.Logger) (*passwords, error) {
	p := &passwords{verifying: lane.New(max(runtime.GOMAXPROCS(0)-1, 1))}
	var err error
	if p.file, err = newFile(name, parseHtpasswd, log); err != nil {
		return nil, fmt.Errorf("read passwords: %w", err)
	}
	return p, nil
}

// parseHtpasswd reads lines of NAME:HASH. Only bcrypt is taken: the other forms of such files can
// be guessed quickly.
func parseHtpasswd(text []byte) (*htpasswd, error) {
	h := &htpasswd{hashes: map[string][]byte{}}
	most := bcrypt.DefaultCost
	n := 0
	for line := range bytes.Lines(text) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		name, hash, ok := strings.Cut(string(line), ":")
		if !ok || name == "" {
			return nil, fmt.Errorf("line %d is no NAME:HASH", n)
		}
		cost, err := bcrypt.Cost([]byte(hash))
		switch {
		case err != nil:
			return nil, fmt.Errorf("line %d: the password of %q is not hashed by bcrypt: use htpasswd -B", n, wire.Clip(name, nameMost))
		case cost > costMost:
			return nil, fmt.Errorf("line %d: the cost of the hash of %q is %d: use at most %d, or logins keep the mirror busy", n, wire.Clip(name, nameMost), cost, costMost)
		}
		if h.hashes[name] != nil {
			return nil, fmt.Errorf("line %d: %q is there twice", n, wire.Clip(name, nameMost))
		}
		h.hashes[name] = []byte(hash)
		most = max(most, cost)
	}
	var err error
	h.nobody, err = bcrypt.GenerateFromPassword([]byte(rand.Text()), most)
	return h, err
}

// verify reports whether the password is that of the name. Both for names that are there and for
// others it takes the time of one comparison. ctx names the client's address.
func (p *passwords) verify(ctx context.Context, c credential) (proof, error) {
	if p.verifying.Enter(ctx) != nil {
		return proof{}, ErrTooMany // wait already, or the client has left
	}
	defer p.verifying.Leave()
	content := p.file.Get()
	hash, there := content.hashes[c.name]
	if !there {
		hash = content.nobody
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(c.password)) != nil || !there {
		return proof{}, ErrRefused
	}
	return proof{id: Identity{Name: c.name, By: ByPassword}, by: content}, nil
}
