package cachetest

import (
	"strings"
	"sync/atomic"
	"syscall"
)

// Disk fails changes of the disk on demand: its Fault is that of the options of a store.
// The zero value fails none.
type Disk struct {
	what  atomic.Value // string: steps that begin so fail
	cause atomic.Value // syscall.Errno
}

// Fail lets the steps fail that begin with what, all for "*" and none for "".
func (d *Disk) Fail(what string, cause syscall.Errno) {
	d.cause.Store(cause)
	d.what.Store(what)
}

// Fault returns why a step fails, or nil.
func (d *Disk) Fault(step, _ string) error {
	what, _ := d.what.Load().(string)
	if what == "" || what != "*" && !strings.HasPrefix(step, what) {
		return nil
	}
	return d.cause.Load().(syscall.Errno)
}
