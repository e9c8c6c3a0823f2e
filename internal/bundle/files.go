package bundle

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// Files reads several files as if they were one, and can seek in them.
type Files struct {
	files  []*os.File
	starts []int64 // where each begins
	size   int64
	at     int64
}

// Create makes a file that only its owner may read, or empties one. What it is for holds content of
// private repositories, or names them; who carries it on is given it by its owner.
func Create(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		// One that is left from before keeps its mode; file systems of removable disks have none.
		_ = f.Chmod(0o600)
	}
	return f, err
}

// OpenFiles opens files to be read as one. The caller closes them.
func OpenFiles(names []string) (_ *Files, err error) {
	f := &Files{}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	for _, name := range names {
		one, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		f.files = append(f.files, one)
		f.starts = append(f.starts, f.size)
		info, err := one.Stat()
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%q is not a regular file", name)
		}
		f.size += info.Size()
	}
	return f, nil
}

// Size returns how many bytes there are in all.
func (f *Files) Size() int64 { return f.size }

// Close closes the files.
func (f *Files) Close() error {
	var errs []error
	for _, one := range f.files {
		errs = append(errs, one.Close())
	}
	return errors.Join(errs...)
}

// find returns the file that has the byte at the offset, and where in it.
func (f *Files) find(off int64) (file *os.File, at, left int64) {
	for i := len(f.files) - 1; i >= 0; i-- {
		if off >= f.starts[i] {
			end := f.size
			if i+1 < len(f.starts) {
				end = f.starts[i+1]
			}
			return f.files[i], off - f.starts[i], end - off
		}
	}
	return nil, 0, 0
}

func (f *Files) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if f.at >= f.size {
		return 0, io.EOF
	}
	file, at, left := f.find(f.at)
	n, err := file.ReadAt(p[:min(int64(len(p)), left)], at)
	f.at += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	if n == 0 && errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // it has become shorter
	}
	return n, err
}

// Seek sets where to read next.
func (f *Files) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += f.at
	case io.SeekEnd:
		off += f.size
	}
	if off < 0 {
		return f.at, errors.New("seek before the start")
	}
	f.at = off
	return off, nil
}
