package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"syscall"

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
	// O_NONBLOCK: opening a pipe must not wait for its other end.
	fd, err := openat2(top, name, flag|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// statBeneath returns the size of what has the name, and whether that is a regular file, with the
// errors of openBeneath.
func statBeneath(top *os.File, name string) (size int64, regular bool, err error) {
	fd, err := openat2(top, name, unix.O_PATH)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, false, os.NewSyscallError("fstat", err)
	}
	return st.Size, st.Mode&unix.S_IFMT == unix.S_IFREG, nil
}

// renameBeneath renames a file below the folder top, with the errors of openBeneath.
func renameBeneath(top *os.File, from, to string) error {
	source, err := openat2(top, path.Dir(from), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(source) }()
	target, err := openat2(top, path.Dir(to), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(target) }()
	if err := unix.Renameat(source, path.Base(from), target, path.Base(to)); err != nil {
		return &os.LinkError{Op: "renameat", Old: from, New: to, Err: err}
	}
	return nil
}

// openat2 opens what is below the folder top, by no link.
func openat2(top *os.File, name string, flags int) (fd int, err error) {
	how := unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	conn, err := top.SyscallConn()
	if err != nil {
		return 0, err
	}
	if cerr := conn.Control(func(dir uintptr) { fd, err = unix.Openat2(int(dir), name, &how) }); cerr != nil {
		return 0, cerr
	}
	if err != nil {
		return 0, &os.PathError{Op: "openat2", Path: name, Err: err}
	}
	return fd, nil
}

// statBlock is the unit of st_blocks on Linux.
const statBlock = 512

// allocated returns the space that a file takes, which is less than its length if it has gaps.
func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Blocks) * statBlock
	}
	return info.Size()
}

// linked reports whether a file has more names than one.
func linked(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink > 1
}

// lock takes the lock of f, or returns [ErrLocked].
func lock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}

// linkInto gives an open file a name below the folder top, whatever names it has. The error is
// [ErrNoLink] where a link cannot be had and a copy can.
func linkInto(top, src *os.File, name string) error {
	err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", src.Fd()), int(top.Fd()), name, unix.AT_SYMLINK_FOLLOW)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EPERM), errors.Is(err, unix.EMLINK),
		errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%w: %w", ErrNoLink, err)
	}
	return &os.LinkError{Op: "link", Old: src.Name(), New: name, Err: err}
}

// Owner returns whose a folder is.
func Owner(dir string) (uid uint32, err error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, os.NewSyscallError("stat", err)
	}
	return st.Uid, nil
}

// Room returns the bytes that we may still use on the file system of a folder, and how many it has.
func Room(dir string) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	return sizes(&st)
}

// room is Room of an open folder.
func room(f *os.File) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, 0, err
	}
	return sizes(&st)
}

func sizes(st *unix.Statfs_t) (free, total uint64, err error) {
	block := uint64(st.Bsize)
	return uint64(st.Bavail) * block, uint64(st.Blocks) * block, nil
}

// Uncache asks the kernel to let go of what it keeps in memory of a file.
func Uncache(f *os.File) error {
	return os.NewSyscallError("fadvise64", unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}

// Classes of ioprio_set(2), which package unix does not have.
const (
	ioprioWhoProcess = 1
	ioprioClassIdle  = 3
	ioprioClassShift = 13
)

// IdleIO makes the calling thread read and write only when the disk has nothing else to
// do, where its scheduler knows of priorities. The caller has locked the thread.
func IdleIO() error {
	_, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioClassIdle<<ioprioClassShift)
	if errno != 0 {
		return os.NewSyscallError("ioprio_set", errno)
	}
	return nil
}
