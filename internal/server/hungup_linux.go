package server

import (
	"net"

	"golang.org/x/sys/unix"
)

// tcpCloseWait is the state of a connection whose other side has sent its FIN, and that is open
// on this side (RFC 9293 section 3.3.2; TCP_CLOSE_WAIT in the kernel's tcp_states.h).
const tcpCloseWait = 8

// hungUp reports whether the client has closed its side before anything of it was read, as those
// do who ask for thousands of things and wait for none of them.
func hungUp(s stream) bool {
	c, is := s.(*net.TCPConn)
	if !is {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		gone = err == nil && info.State == tcpCloseWait
	})
	return err == nil && gone
}
