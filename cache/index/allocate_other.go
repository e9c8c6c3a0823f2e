//go:build unix && !linux

package index

import "os"

func allocate(f *os.File, size int64) error { return fill(f, size) }
