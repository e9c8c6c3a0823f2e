package authn

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"forebay/internal/logkey"
)

const (
	lookEvery = time.Second // bounds how often a file is looked at
	fileMost  = 8 << 20
)

// file is the content of a file, read again when it changes. What cannot be used is logged and
// the content before it kept.
type file[T any] struct {
	name  string
	parse func(text []byte) (T, error)
	log   *zap.Logger

	mu      sync.Mutex
	content T           // guarded by mu
	seen    os.FileInfo // guarded by mu; of the file when it was read last
	next    time.Time   // guarded by mu; the file is not looked at before
	failure string      // guarded by mu; why the last reading was of no use
}

func newFile[T any](name string, parse func([]byte) (T, error), log *zap.Logger) (*file[T], error) {
	f := &file[T]{name: name, parse: parse, log: log}
	var err error
	f.content, f.seen, err = f.read()
	return f, err
}

// get returns the content, and whether it is another than the last time.
func (f *file[T]) get() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); !now.Before(f.next) {
		f.next = now.Add(lookEvery)
		f.refresh()
	}
	return f.content
}

// refresh reads the file if it changed, or if it was of no use the last time. f.mu is held.
func (f *file[T]) refresh() {
	info, err := os.Stat(f.name)
	if err == nil && f.failure == "" && os.SameFile(info, f.seen) && info.ModTime().Equal(f.seen.ModTime()) && info.Size() == f.seen.Size() {
		return
	}
	content, seen, err := f.read()
	if err == nil {
		f.content, f.seen, f.failure = content, seen, ""
		f.log.Info("credentials read again", logkey.Path(f.name))
		return
	}
	if text := err.Error(); text != f.failure {
		f.failure = text
		f.log.Error("new credentials refused, the old ones are kept", logkey.Path(f.name), logkey.Err(err))
	}
}

func (f *file[T]) read() (content T, seen os.FileInfo, err error) {
	in, err := os.Open(f.name)
	if err != nil {
		return content, nil, err
	}
	defer func() { _ = in.Close() }() // nothing was written
	if seen, err = in.Stat(); err != nil {
		return content, nil, err
	}
	text, err := io.ReadAll(io.LimitReader(in, fileMost+1))
	if err != nil {
		return content, nil, err
	}
	if len(text) > fileMost {
		return content, nil, fmt.Errorf("%q is larger than %d MiB", f.name, fileMost>>20)
	}
	if content, err = f.parse(text); err != nil {
		return content, nil, fmt.Errorf("%q: %w", f.name, err)
	}
	return content, seen, nil
}
