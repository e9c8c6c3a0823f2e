package store

import (
	"fmt"
	"forebay/cache/disk"
	"os"
	"path/filepath"
)

const (
	// Of what is kept when nobody says: an amount that is plenty for most, or a share of
	// the file system that leaves room for the rest.
	autoMost  = 100 << 30
	autoShare = 0.8
	// Of what is left free when nobody says: a twentieth of the file system, and of a large
	// one at least freeLeast.
	freeParts = 20
	freeLeast = 512 << 20
	freeLarge = 10 << 30
)

// AutoMaxBytes returns how much may be kept below dir when nobody says: it depends on the
// size of the file system.
func AutoMaxBytes(dir string) (int64, error) {
	total, err := fileSystemSize(dir)
	if err != nil {
		return 0, err
	}
	return min(autoMost, int64(float64(total)*autoShare)), nil
}

// AutoMinFree returns how many bytes of the file system of dir are left free when nobody
// says: a write to a mapped file of the index on a full disk would kill the process, so
// blobs must not take the last.
func AutoMinFree(dir string) (int64, error) {
	total, err := fileSystemSize(dir)
	if err != nil {
		return 0, err
	}
	if total > freeLarge {
		return max(total/freeParts, freeLeast), nil
	}
	return total / freeParts, nil
}

// fileSystemSize returns the size in bytes of the file system that holds dir, or will.
func fileSystemSize(dir string) (int64, error) {
	for !isFolder(dir) && filepath.Dir(dir) != dir {
		dir = filepath.Dir(dir)
	}
	_, total, err := disk.Room(dir)
	if err != nil {
		return 0, fmt.Errorf("size of the file system of %q: %w", dir, err)
	}
	return int64(total), nil
}

func isFolder(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}
