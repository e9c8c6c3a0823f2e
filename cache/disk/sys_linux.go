package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// fdatasync waits until the bytes and the length of f are on the disk; the times of the
// file, which nobody needs, may follow later.
func fdatasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err != unix.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// startWriteBack asks the kernel to begin writing dirty pages now and does not wait.
func startWriteBack(f *os.File, off, n int64) error {
	err := unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
	// Some file systems (overlays, FUSE) do not offer it, and the final sync works without.
	if err == unix.ENOSYS || err == unix.ESPIPE || err == unix.EINVAL || err == unix.EOPNOTSUPP {
		return nil
	}
	return os.NewSyscallError("sync_file_range", err)
}
