//go:build unix

package terminal

import (
	"os"

	"golang.org/x/sys/unix"
)

// windowSize asks a terminal how large it is.
func windowSize(f *os.File) (columns, rows int, ok bool) {
	s, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || s.Col == 0 || s.Row == 0 {
		return 0, 0, false
	}
	return int(s.Col), int(s.Row), true
}
