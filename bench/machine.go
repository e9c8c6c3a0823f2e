//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// describeRun says what was measured where, without which the numbers mean nothing.
func describeRun(ctx context.Context, b *bench) string {
	var text strings.Builder
	line := func(key, value string) { fmt.Fprintf(&text, "%-10s%s\n", key, value) }
	line("commit", output(ctx, "git", "describe", "--tags", "--always", "--dirty"))
	line("date", time.Now().UTC().Format("2006-01-02 15:04 MST"))
	line("machine", machine())
	line("programs", strings.Join([]string{
		runtime.Version(),
		strings.ReplaceAll(output(ctx, "nginx", "-v"), "nginx version: ", ""),
		firstWords(output(ctx, "curl", "--version"), 2),
		output(ctx, "sha256sum", "--version"),
	}, ", "))
	how := fmt.Sprintf("%d rounds, which took turns; medians (least–most)", b.rounds)
	if b.quick {
		how += "; QUICK: smaller blobs and fewer clients"
	}
	line("rounds", how)
	return text.String()
}

// output returns the first line that a program writes.
func output(ctx context.Context, program string, args ...string) string {
	if program == "nginx" {
		found, err := findNginx()
		if err != nil {
			return "no nginx"
		}
		program = found
	}
	text, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return "unknown"
	}
	first, _, _ := bytes.Cut(text, []byte("\n"))
	return string(first)
}

func firstWords(s string, n int) string {
	words := strings.Fields(s)
	return strings.Join(words[:min(n, len(words))], " ")
}

func machine() string {
	var info unix.Sysinfo_t
	var name unix.Utsname
	if unix.Sysinfo(&info) != nil || unix.Uname(&name) != nil {
		return "unknown"
	}
	return fmt.Sprintf("%d × %s, %s memory, Linux %s, files on %s", runtime.NumCPU(), processor(),
		humanize.IBytes(uint64(info.Totalram)*uint64(info.Unit)), unix.ByteSliceToString(name.Release[:]), fileSystem())
}

// processor returns the name of the processor.
func processor() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// fileSystem returns what the temporary folder is on.
func fileSystem() string {
	var stat unix.Statfs_t
	if unix.Statfs(os.TempDir(), &stat) != nil {
		return "unknown"
	}
	names := map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs"}
	if name, ok := names[int64(stat.Type)]; ok {
		return name
	}
	return fmt.Sprintf("file system %#x", stat.Type)
}
