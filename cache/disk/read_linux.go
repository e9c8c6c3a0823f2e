package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

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
