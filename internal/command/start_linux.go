package command

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ForgetStart takes out of the process's memory what of the program was mapped for its
// start: the beginnings of 400 packages, each with the 64 KiB around it. What is used again
// is mapped again from the kernel's page cache. A part that a debugger or a probe has
// changed is left as it is, since the file does not have the change.
func ForgetStart() {
	program, err := os.Executable()
	if err != nil {
		return // without /proc it all stays
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	for _, r := range unchanged(string(smaps), program) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, r[0], r[1]-r[0], unix.MADV_DONTNEED) // an advice
	}
}

// unchanged returns the addresses, first and behind the last, where file is mapped, not to
// be written, and differs nowhere from what is mapped. smaps is as of proc_pid_smaps(5).
func unchanged(smaps, file string) (ranges [][2]uintptr) {
	var r [2]uintptr
	ours := false
	for line := range strings.Lines(smaps) {
		fields := strings.Fields(line)
		switch {
		case len(fields) >= 5 && !strings.HasSuffix(fields[0], ":"):
			n, _ := fmt.Sscanf(fields[0], "%x-%x", &r[0], &r[1]) // n says all
			ours = n == 2 && !strings.Contains(fields[1], "w") && strings.Join(fields[5:], " ") == file
		case ours && len(fields) > 1 && fields[0] == "Anonymous:" && fields[1] == "0":
			ranges = append(ranges, r)
		}
	}
	return ranges
}
