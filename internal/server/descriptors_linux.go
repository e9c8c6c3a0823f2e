package server

import (
	"math"
	"syscall"
)

// Descriptors returns how many files and connections this process may have open; 0 if nobody knows.
func Descriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(limit.Cur, math.MaxInt32))
}
