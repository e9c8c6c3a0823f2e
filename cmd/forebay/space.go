package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"forebay/config"
)

// maxBytes returns how much may be kept. "auto" depends on the size of the file system,
// of which others need a part.
func maxBytes(s config.Storage) (int64, error) {
	if s.MaxSize != 0 {
		return s.MaxSize, nil
	}
	total, err := fileSystemSize(s.Dir)
	if err != nil {
		return 0, err
	}
	return min(config.MaxSizeAuto, int64(float64(total)*config.MaxSizeShare)), nil
}

// minFree returns how many bytes of the file system are left free: a write to a mapped
// file of the index on a full disk would kill the process, so blobs must not take the last.
func minFree(s config.Storage) (int64, error) {
	if s.MinFree != 0 {
		return s.MinFree, nil
	}
	total, err := fileSystemSize(s.Dir)
	if err != nil {
		return 0, err
	}
	if least := int64(512 << 20); total > 10<<30 {
		return max(total/20, least), nil
	}
	return total / 20, nil
}

// fileSystemSize returns the size in bytes of the file system that holds dir, or will.
func fileSystemSize(dir string) (int64, error) {
	for !isFolder(dir) && filepath.Dir(dir) != dir {
		dir = filepath.Dir(dir)
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return 0, fmt.Errorf("size of the file system of %q: %w", dir, err)
	}
	return int64(stat.Blocks) * int64(stat.Bsize), nil
}

func isFolder(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// memoryShare is the part of a container's memory that Go may use before it collects
// harder. The rest is for stacks of the kernel and for pages mapped from the index.
const memoryShare = 0.8

// memoryLimit returns the limit for Go's memory that follows from the text of the
// control group's memory.max, or 0 for none.
func memoryLimit(memoryMax string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(memoryMax), 10, 64)
	if err != nil || n <= 0 { // "max"
		return 0
	}
	return int64(float64(n) * memoryShare)
}
