package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"forebay/internal/logkey"
)

// lookEvery bounds how often handshakes look at the files of certificates.
const lookEvery = time.Second

// loaded is what files hold, read again when they change. What cannot be used is logged and what
// was before it kept, so that several files may be written one after the other.
type loaded[T any] struct {
	files []string
	load  func() (T, error)
	log   *zap.Logger

	mu      sync.Mutex
	current T             // guarded by mu
	seen    []os.FileInfo // guarded by mu; of the files when they were read last
	next    time.Time     // guarded by mu; the files are not looked at before
	failure string        // guarded by mu; why the last reading was of no use, empty if it was
}

func newLoaded[T any](files []string, load func() (T, error), log *zap.Logger) (*loaded[T], error) {
	l := &loaded[T]{files: files, load: load, log: log}
	seen, err := l.look()
	if err != nil {
		return nil, err
	}
	if l.current, err = load(); err != nil {
		return nil, err
	}
	l.seen = seen
	return l, nil
}

// get returns what the files hold now.
func (l *loaded[T]) get() T {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); !now.Before(l.next) {
		l.next = now.Add(lookEvery)
		l.refresh()
	}
	return l.current
}

// refresh reads the files if they changed, or if they were of no use the last time. l.mu is held.
func (l *loaded[T]) refresh() {
	seen, err := l.look()
	if err == nil {
		if l.failure == "" && slices.EqualFunc(seen, l.seen, same) {
			return
		}
		var fresh T
		if fresh, err = l.load(); err == nil {
			// The files' times are taken before the files are read, so that a change in between is
			// seen the next time.
			l.current, l.seen, l.failure = fresh, seen, ""
			l.log.Info("certificate reloaded", logkey.Path(l.files[0]))
			return
		}
	}
	if text := err.Error(); text != l.failure {
		l.failure = text
		l.log.Error("new certificate refused, the old one is kept", logkey.Path(l.files[0]), logkey.Err(err))
	}
}

func (l *loaded[T]) look() ([]os.FileInfo, error) {
	seen := make([]os.FileInfo, len(l.files))
	for i, name := range l.files {
		var err error
		if seen[i], err = os.Stat(name); err != nil {
			return nil, fmt.Errorf("read TLS certificate: %w", err)
		}
	}
	return seen, nil
}

// same reports whether a file is as it was: neither written to nor replaced, nor another
// one behind a symbolic link.
func same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// keyPair is a certificate and its key.
type keyPair struct{ *loaded[*tls.Certificate] }

func newKeyPair(certFile, keyFile string, log *zap.Logger) (keyPair, error) {
	l, err := newLoaded([]string{certFile, keyFile}, func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("read TLS certificate %q with key %q: %w", certFile, keyFile, err)
		}
		return &pair, nil
	}, log)
	return keyPair{l}, err
}

// get serves [tls.Config].
func (k keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return k.loaded.get(), nil }

// clientCAs is the configuration of TLS with those who sign certificates of clients.
type clientCAs struct{ *loaded[*tls.Config] }

func newClientCAs(file string, base *tls.Config, log *zap.Logger) (clientCAs, error) {
	l, err := newLoaded([]string{file}, func() (*tls.Config, error) {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read certificates of clients' authorities: %q holds no PEM certificate", file)
		}
		c := base.Clone()
		c.GetConfigForClient, c.ClientCAs, c.ClientAuth = nil, pool, tls.VerifyClientCertIfGiven
		return c, nil
	}, log)
	return clientCAs{l}, err
}

// config serves [tls.Config].
func (c clientCAs) config(*tls.ClientHelloInfo) (*tls.Config, error) { return c.get(), nil }
