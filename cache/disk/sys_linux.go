package disk

import (
	"errors"
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

// File systems of which one call syncs everything, and says whether it worked: their magic
// numbers, as statfs(2) has them. Of others, as of FUSE, nobody knows what it does.
var syncedByCall = map[int64]bool{
	unix.EXT4_SUPER_MAGIC: true, unix.XFS_SUPER_MAGIC: true, unix.BTRFS_SUPER_MAGIC: true, unix.F2FS_SUPER_MAGIC: true,
	unix.TMPFS_MAGIC: true, unix.OVERLAYFS_SUPER_MAGIC: true,
}

// syncFileSystem waits until all of the file system of f is on the disk.
func syncFileSystem(f *os.File) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	if !syncedByCall[int64(st.Type)] {
		return errors.ErrUnsupported
	}
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}

// writeBackError waits until nothing of f is being written, and returns whether anything that
// was could not be. It makes nothing durable by itself.
func writeBackError(f *os.File) error {
	err := unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
	if err == unix.ENOSYS || err == unix.ESPIPE || err == unix.EINVAL || err == unix.EOPNOTSUPP {
		return fdatasync(f)
	}
	return os.NewSyscallError("sync_file_range", err)
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
