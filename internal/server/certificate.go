package server

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"forebay/internal/logkey"
)

// lookEvery bounds how often handshakes look at the files of the certificate.
const lookEvery = time.Second

// keyPair is a certificate and its key in files, read again when they change. A new pair
// that cannot be used is logged and the old one kept, so that the two files may be
// written one after the other.
type keyPair struct {
	certFile, keyFile string
	log               *zap.Logger

	mu      sync.Mutex
	current *tls.Certificate // guarded by mu
	seen    [2]os.FileInfo   // guarded by mu; of the files when they were read last
	next    time.Time        // guarded by mu; the files are not looked at before
	failure string           // guarded by mu; why the last reading was of no use, empty if it was
}

func newKeyPair(certFile, keyFile string, log *zap.Logger) (*keyPair, error) {
	k := &keyPair{certFile: certFile, keyFile: keyFile, log: log}
	seen, err := k.look()
	if err != nil {
		return nil, err
	}
	if k.current, err = k.load(); err != nil {
		return nil, err
	}
	k.seen = seen
	return k, nil
}

// get serves [tls.Config].
func (k *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := time.Now(); !now.Before(k.next) {
		k.next = now.Add(lookEvery)
		k.refresh()
	}
	return k.current, nil
}

// refresh reads the files if they changed, or if they were of no use the last time. k.mu is held.
func (k *keyPair) refresh() {
	seen, err := k.look()
	if err == nil {
		if k.failure == "" && same(seen[0], k.seen[0]) && same(seen[1], k.seen[1]) {
			return
		}
		var fresh *tls.Certificate
		if fresh, err = k.load(); err == nil {
			// The files' times are taken before the files are read, so that a change in between is
			// seen the next time.
			k.current, k.seen, k.failure = fresh, seen, ""
			k.log.Info("certificate reloaded", logkey.Path(k.certFile))
			return
		}
	}
	if text := err.Error(); text != k.failure {
		k.failure = text
		k.log.Error("new certificate refused, the old one is kept", logkey.Path(k.certFile), logkey.Err(err))
	}
}

func (k *keyPair) look() (seen [2]os.FileInfo, err error) {
	for i, name := range []string{k.certFile, k.keyFile} {
		if seen[i], err = os.Stat(name); err != nil {
			return seen, fmt.Errorf("read TLS certificate: %w", err)
		}
	}
	return seen, nil
}

func (k *keyPair) load() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(k.certFile, k.keyFile)
	if err != nil {
		return nil, fmt.Errorf("read TLS certificate %q with key %q: %w", k.certFile, k.keyFile, err)
	}
	return &pair, nil
}

// same reports whether a file is as it was: neither written to nor replaced, nor another
// one behind a symbolic link.
func same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
