// Package statefile keeps a small value in a file that is replaced as a whole: JSON, or a token that is made once.
package statefile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Read reads the file name of at most most bytes into v, a pointer. A file that is not
// there leaves v as it is and is no error. After an error v may be partly filled.
func Read(name string, most int64, v any) error {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Size() > most {
		return fmt.Errorf("%q has %d bytes, more than %d", name, info.Size(), most)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("read %q: %w", name, err)
	}
	return nil
}

// Write replaces the file name by v, as [Replace] does.
func Write(name string, v any) error {
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return Replace(name, text)
}

// Replace replaces the content of the file name. Neither a kill nor a loss of power leaves
// half of it: the new content is beside it, as name.tmp, until it is synced. What a kill
// leaves there, the next call replaces. Two calls for one name must not overlap.
func Replace(name string, text []byte) error {
	temporary := name + ".tmp"
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(temporary, name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return nil
}
