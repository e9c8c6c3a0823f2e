// Package reread keeps what files hold, and reads them again when they change.
//
// It promises that what is had from it was once whole and usable: a change that cannot be used is
// logged, once for each reason, and what was before it kept, so that several files may be written
// one after the other.
package reread

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"forebay/internal/logkey"
)

// Every bounds how often files are looked at, and with that how late a change is seen.
const Every = time.Second

// Files are files and what they hold. Its methods may be called concurrently.
type Files[T any] struct {
	names []string
	what  string
	load  func() (T, error)
	log   *zap.Logger

	mu      sync.Mutex
	current T             // guarded by mu
	seen    []os.FileInfo // guarded by mu; of the files when they were read last
	next    time.Time     // guarded by mu; the files are not looked at before
	failure string        // guarded by mu; why the last reading was of no use, empty if it was
}

// New reads the files of these names by load, whose errors name the file and nothing that is
// secret. what they hold is for the log: "certificate".
func New[T any](what string, log *zap.Logger, load func() (T, error), names ...string) (*Files[T], error) {
	f := &Files[T]{names: names, what: what, load: load, log: log}
	seen, err := f.look()
	if err != nil {
		return nil, err
	}
	if f.current, err = load(); err != nil {
		return nil, err
	}
	f.seen = seen
	return f, nil
}

// Get returns what the files hold now.
func (f *Files[T]) Get() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); !now.Before(f.next) {
		f.next = now.Add(Every)
		f.refresh()
	}
	return f.current
}

// refresh reads the files if they changed, or if they were of no use the last time. f.mu is held.
func (f *Files[T]) refresh() {
	seen, err := f.look()
	if err == nil {
		if f.failure == "" && slices.EqualFunc(seen, f.seen, same) {
			return
		}
		var fresh T
		if fresh, err = f.load(); err == nil {
			// The files' times are taken before the files are read, so that a change in between is
			// seen the next time.
			f.current, f.seen, f.failure = fresh, seen, ""
			f.log.Info(f.what+" reloaded", logkey.Path(f.names[0]))
			return
		}
	}
	if text := err.Error(); text != f.failure {
		f.failure = text
		f.log.Error("new "+f.what+" refused, the old one is kept", logkey.Path(f.names[0]), logkey.Err(err))
	}
}

func (f *Files[T]) look() ([]os.FileInfo, error) {
	seen := make([]os.FileInfo, len(f.names))
	for i, name := range f.names {
		var err error
		if seen[i], err = os.Stat(name); err != nil {
			return nil, fmt.Errorf("read %s: %w", f.what, err)
		}
	}
	return seen, nil
}

// same reports whether a file is as it was: neither written to nor replaced, nor another
// one behind a symbolic link.
func same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
