package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

const lockName = "forebay.lock"

// lockFolder takes the lock of the folder. The kernel drops it when the process ends, so
// that a file left by a dead process locks nothing; the number in it is for people.
func lockFolder(root *os.Root) (*os.File, error) {
	f, err := root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	err = lock(f)
	if errors.Is(err, ErrLocked) {
		holder := lockHolder(f)
		_ = f.Close()
		return nil, fmt.Errorf("%w: %s holds %s", ErrLocked, holder, lockName)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock: %w", err)
	}
	_ = writeHolder(f) // for people: a full disk, which has no room for it, stops no start
	return f, nil
}

// AlsoLock makes another folder of the store ready, as that of its index, and locks it until Close.
func (s *Store) AlsoLock(dir string) error {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // only looked at
	own, ownErr := s.top.Stat()
	other, err := root.Stat(".")
	if err = errors.Join(ownErr, err); err != nil || os.SameFile(own, other) {
		return err
	}
	if s.also, err = lockFolder(root); err != nil {
		return fmt.Errorf("%q: %w", dir, err)
	}
	return nil
}

func writeHolder(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// lockHolder says who wrote the lock file, as far as it can be read.
func lockHolder(f *os.File) string {
	b, err := io.ReadAll(io.LimitReader(f, 32))
	pid, convErr := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || convErr != nil {
		return "an unknown process"
	}
	return fmt.Sprintf("process %d", pid)
}
