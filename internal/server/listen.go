package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
)

// Prefixes of addresses that are not HOST:PORT.
const (
	unixPrefix    = "unix:"    // the path of a socket
	systemdPrefix = "systemd:" // the FileDescriptorName of a socket that systemd hands over
)

// socketMode lets the group of the process connect, and nobody else.
const socketMode = 0o660

// listen opens the address of a listener.
func listen(addr string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(addr, unixPrefix); ok {
		return listenUnix(path)
	}
	if name, ok := strings.CutPrefix(addr, systemdPrefix); ok {
		return inherited(name)
	}
	return net.Listen("tcp", addr)
}

// listenUnix opens a Unix socket, in the place of one that a process which was killed has left.
func listenUnix(path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			_ = c.Close() // it was opened to be looked at
			return nil, fmt.Errorf("%s: another process listens there", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// inherited returns a socket of systemd (sd_listen_fds(3)).
func inherited(name string) (net.Listener, error) {
	named, err := activation.ListenersWithNames()
	if err != nil {
		return nil, err
	}
	for _, l := range named[name] {
		if l != nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("systemd has handed over no socket named %q: the unit needs a .socket with FileDescriptorName=%s", name, name)
}
