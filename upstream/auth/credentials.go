package auth

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"forebay/internal/registries"
	"forebay/internal/secret"
	"forebay/internal/wire"
)

// Credentials say who we are at a registry. They are one of: a user name with a password or
// with a file that holds the password; a docker config.json; an issuer; nothing.
type Credentials struct {
	// Match is a pattern of the repositories that they are for; "" means all.
	Match        string
	Username     string // "<token>" means that the password is an identity token
	Password     string
	PasswordFile string // read again when it changes; a line end after the password is dropped
	// DockerConfig is the path of a config.json, or of its folder, or of a Secret of Kubernetes
	// that holds one. Its credential helpers are run. A helper that fails fails the request: it
	// never means anonymous.
	DockerConfig string
	Issuer       Issuer // hands out user and password in place of all the others
}

// Format writes nothing of the credentials but the user name, for every verb.
func (c Credentials) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "credentials of "+c.Name())
}

// Name tells people which credentials they are.
func (c Credentials) Name() string { return cmp.Or(c.Username, c.DockerConfig, anonymousName) }

// Identity is who a request is made as. The zero value is anonymous.
type Identity struct {
	id            string // tells identities apart without giving them away; "" is anonymous
	user          string
	secret        string
	refresh       bool   // secret is an identity token, for the OAuth2 grant refresh_token
	registryToken string // a bearer token for the registry itself
	client        bool   // it is a client's own, whose name is told to nobody
}

const (
	anonymousName = "anonymous"
	tokenUser     = "<token>" // docker's user name for identity tokens
	// secretMax bounds a file with secrets. Cloud tokens have up to some 4 KiB, and a config.json
	// may have many.
	secretMax = 1 << 20
)

func newIdentity(user, secret, registryToken string, refresh bool) Identity {
	if user == "" && secret == "" && registryToken == "" {
		return Identity{}
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %t", user, secret, registryToken, refresh))
	return Identity{
		id: hex.EncodeToString(sum[:16]), user: user, secret: secret,
		refresh: refresh, registryToken: registryToken,
	}
}

// Anonymous reports whether nobody is named.
func (i Identity) Anonymous() bool { return i.id == "" }

// Name is for people: it is logged and shown.
func (i Identity) Name() string {
	switch {
	case i.Anonymous():
		return anonymousName
	case i.client:
		return "a client's login"
	}
	return cmp.Or(i.user, tokenUser)
}

// Format writes the name only, for every verb.
func (i Identity) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, i.Name()) }

// Source finds out who we are.
type Source interface {
	// Identity returns who to be now for a repository; "" is for none in particular. renew says
	// that its last identity was refused.
	Identity(ctx context.Context, repo string, renew bool) (Identity, error)
}

// NewSource returns who c says that we are at the registry of that name with those
// endpoints. Nothing is read before it is asked.
func NewSource(c Credentials, name string, endpoints []string, now func() time.Time) (Source, error) {
	if c.Issuer != nil {
		if c != (Credentials{Issuer: c.Issuer, Match: c.Match}) {
			return nil, errors.New("credentials: those that are handed out need no others")
		}
		return issuedSource{c.Issuer}, nil
	}
	switch {
	case c.DockerConfig != "" && (c.Username != "" || c.Password != "" || c.PasswordFile != ""):
		return nil, errors.New("credentials: give a user name or a docker config, not both")
	case c.Password != "" && c.PasswordFile != "":
		return nil, errors.New("credentials: give a password or a password file, not both")
	case c.DockerConfig != "":
		return newKeychainSource(c.DockerConfig, name, endpoints, now), nil
	case c.Username == "" && (c.Password != "" || c.PasswordFile != ""):
		return nil, errors.New("credentials: a password needs a user name")
	case c.Username != "" && c.Password == "" && c.PasswordFile == "":
		return nil, fmt.Errorf("credentials: user %s has no password", c.Username)
	}
	return &fixedSource{user: c.Username, secret: c.Password, file: c.PasswordFile}, nil
}

// fixedSource is a user name from the configuration, whose password may be in a file.
type fixedSource struct {
	user, secret string
	file         string

	mu    sync.Mutex
	stamp fileStamp // of the file when it was read
	last  Identity
}

// fileStamp tells versions of a file apart.
type fileStamp struct {
	modified time.Time
	size     int64
}

// stampOf returns the version of a file; zero for one that cannot be looked at.
func stampOf(file string) fileStamp {
	info, err := os.Stat(file)
	if err != nil {
		return fileStamp{}
	}
	return fileStamp{modified: info.ModTime(), size: info.Size()}
}

func (s *fixedSource) Identity(_ context.Context, _ string, renew bool) (Identity, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == "" {
		if s.last.Anonymous() {
			s.last = newIdentity(s.user, s.secret, "", s.user == tokenUser)
		}
		return s.last, nil
	}
	info, err := os.Stat(s.file)
	if err != nil {
		return Identity{}, fmt.Errorf("password file: %w", err)
	}
	stamp := fileStamp{modified: info.ModTime(), size: info.Size()}
	if stamp == s.stamp && !renew {
		return s.last, nil
	}
	secret, err := readSecret(s.file)
	if err != nil {
		return Identity{}, err
	}
	s.stamp, s.last = stamp, newIdentity(s.user, secret, "", s.user == tokenUser)
	return s.last, nil
}

func readSecret(file string) (string, error) {
	text, err := readBounded(file)
	if err != nil {
		return "", fmt.Errorf("password file: %w", err)
	}
	line := secret.Line(text)
	if line == "" {
		return "", fmt.Errorf("password file %q is empty", file)
	}
	return line, nil
}

// readBounded reads a file with secrets.
func readBounded(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, secretMax+1))
	if err == nil && len(text) > secretMax {
		err = fmt.Errorf("%q has more than %d bytes", file, secretMax)
	}
	return text, err
}

const (
	// keychainFor is how long a helper's answer is used, since asking means to run a program.
	keychainFor = 5 * time.Minute
	// keychainAgain is the least time between two questions after a refusal or a failure.
	keychainAgain = 5 * time.Second
	// helperTimeout bounds the wait for a credential helper, which cannot be interrupted.
	helperTimeout = 10 * time.Second
)

// keychainSource is a docker config.json with its helpers.
type keychainSource struct {
	path  string
	names []string // of the registry, see registryNames
	now   func() time.Time

	mu      sync.Mutex
	running *keychainRun // a look-up in progress, or nil
	stamp   fileStamp    // of the file when it was looked at
	last    *keyring
	at      time.Time // when last was found
	err     error     // of the last look-up, if it went wrong
	errAt   time.Time
}

type keychainRun struct {
	done chan struct{}
	err  error
}

func newKeychainSource(path, name string, endpoints []string, now func() time.Time) *keychainSource {
	return &keychainSource{path: path, names: registryNames(name, endpoints), now: now}
}

func (s *keychainSource) Identity(ctx context.Context, repo string, renew bool) (Identity, error) {
	stamp := stampOf(registries.LoginFile(s.path))
	s.mu.Lock()
	if stamp != s.stamp { // which helpers are asked may have changed, too
		s.stamp, s.at, s.err = stamp, time.Time{}, nil
	}
	age := s.now().Sub(s.at)
	if !s.at.IsZero() && age < keychainFor && (!renew || age < keychainAgain) {
		defer s.mu.Unlock()
		return s.last.of(repo), nil
	}
	if s.err != nil && s.now().Sub(s.errAt) < keychainAgain {
		defer s.mu.Unlock()
		return Identity{}, s.err
	}
	run := s.running
	if run == nil {
		run = &keychainRun{done: make(chan struct{})}
		s.running = run
		go s.find(run) // ends with the helper; there is never a second one beside it
	}
	s.mu.Unlock()
	select {
	case <-run.done:
	case <-time.After(helperTimeout):
		return Identity{}, errors.New("docker config: the credential helper does not answer")
	case <-ctx.Done():
		return Identity{}, context.Cause(ctx)
	}
	if run.err != nil {
		return Identity{}, run.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last.of(repo), nil
}

// find reads the file and asks helpers once and tells all who wait for run.
func (s *keychainSource) find(run *keychainRun) {
	found, err := readKeyring(s.path, s.names)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.last, s.at, s.err = found, s.now(), nil
	} else {
		s.err, s.errAt = fmt.Errorf("docker config: %w", wire.RedactError(err)), s.now()
		run.err = s.err
	}
	s.running = nil
	close(run.done)
}
