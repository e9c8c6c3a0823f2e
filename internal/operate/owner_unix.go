//go:build unix

package operate

import (
	"errors"
	"os"
	"syscall"
)

// keepOwner makes a file that is to replace another readable by the same users.
func keepOwner(f *os.File, replaced os.FileInfo) error {
	err := f.Chmod(replaced.Mode().Perm())
	if st, ok := replaced.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		err = errors.Join(err, f.Chown(int(st.Uid), int(st.Gid)))
	}
	return err
}
