package command

import (
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"forebay/internal/logkey"
)

// LimitMemory has garbage collected early, unless GOGC says how, and keeps Go's memory
// below the limit of the container, if there is one and GOMEMLIMIT does not say otherwise:
// the kernel would kill us rather than wait for the collector.
func LimitMemory(env []string, log *zap.Logger) {
	says := func(name string) bool {
		return slices.ContainsFunc(env, func(entry string) bool { return strings.HasPrefix(entry, name+"=") })
	}
	if !says("GOGC") {
		debug.SetGCPercent(garbage)
	}
	if says("GOMEMLIMIT") {
		return
	}
	text, err := os.ReadFile("/sys/fs/cgroup/memory.max")
	if err != nil {
		return // no container, or control groups of the first version
	}
	if limit := MemoryLimit(string(text)); limit > 0 {
		debug.SetMemoryLimit(limit)
		log.Info("memory limited", logkey.Bytes(limit))
	}
}

// garbage is how much of what is in use may be there as garbage, in percent. Of 28 MiB in
// use at rest and 45 under load, 21 are one table of the index, most of it never written:
// Go's own 100 would have as much garbage for it. See docs/benchmarks.md.
const garbage = 40

// memoryShare is the part of a container's memory that Go may use before it collects
// harder. The rest is for stacks of the kernel and for pages mapped from the index.
const memoryShare = 0.8

// MemoryLimit returns the limit for Go's memory that follows from the text of the
// control group's memory.max, or 0 for none.
func MemoryLimit(memoryMax string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(memoryMax), 10, 64)
	if err != nil || n <= 0 { // "max"
		return 0
	}
	return int64(float64(n) * memoryShare)
}
