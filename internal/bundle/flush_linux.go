package bundle

import (
	"os"

	"golang.org/x/sys/unix"
)

// writeBack asks the kernel to begin writing the bytes [off, off+n) of f to the disk and
// does not wait, so that the sync at the end has little left to do. Where that does not
// work, as with pipes, nothing is lost but time.
func writeBack(f *os.File, off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}
