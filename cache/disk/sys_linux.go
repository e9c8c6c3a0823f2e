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

// openBeneath opens a file below the folder top with one system call, and refuses links on
// the whole way; [os.Root] needs several calls for that. The file may be anything but a link.
// The error is ENOENT when nothing has the name. Any other error says only that [os.Root]
// must be used: there is a link, or openat2 is not offered (before Linux 5.6, in sandboxes).
func openBeneath(top *os.File, name string, flag int) (*os.File, error) {
	how := unix.OpenHow{
		// O_NONBLOCK: opening a pipe must not wait for its other end.
		Flags:   uint64(flag) | unix.O_CLOEXEC | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	conn, err := top.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var openErr error
	if err := conn.Control(func(dir uintptr) { fd, openErr = unix.Openat2(int(dir), name, &how) }); err != nil {
		return nil, err
	}
	if openErr != nil {
		return nil, &os.PathError{Op: "openat2", Path: name, Err: openErr}
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
