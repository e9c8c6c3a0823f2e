//go:build unix && !linux

package disk

import (
	"errors"
	"os"
)

// Uncache asks the kernel to let go of what it keeps in memory of a file.
func Uncache(*os.File) error { return errors.ErrUnsupported }

// IdleIO makes the calling thread read and write only when the disk has nothing else to do.
func IdleIO() error { return errors.ErrUnsupported }
