//go:build linux

package main

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// discard takes at most n bytes off a TCP connection without copying them anywhere, and
// returns how many; 0 is the end. read is the connection's syscall.RawConn.Read.
//
// With MSG_TRUNC the kernel only drops bytes (tcp(7)), so that the buffer is never
// written to and may be shorter than n. The wrappers of package unix take the length
// from the buffer, hence the bare system call.
func discard(read func(func(fd uintptr) bool) error, nothing []byte, n int64) (int64, error) {
	var got uintptr
	var failed syscall.Errno
	err := read(func(fd uintptr) bool {
		for {
			got, _, failed = unix.Syscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&nothing[0])),
				uintptr(n), unix.MSG_TRUNC|unix.MSG_DONTWAIT, 0, 0)
			if failed != unix.EINTR {
				return failed != unix.EAGAIN
			}
		}
	})
	if err != nil {
		return 0, err
	}
	if failed != 0 {
		return 0, failed
	}
	return int64(got), nil
}
