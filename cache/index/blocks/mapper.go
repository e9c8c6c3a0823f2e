//go:build linux

package blocks

import (
	"os"
	"path/filepath"
	"strconv"
	"sync"
	_ "unsafe" // for go:linkname

	"golang.org/x/sys/unix"
)

// backings has the backing of each open database by its folder.
var backings sync.Map

// mapper is what x/sys/unix maps files with, as far as it is looked at here: what it points
// to begins so. The database has no seam for it. TestNoFileIsMappedWithoutBlocks of the index fails when
// files take another way.
//
//go:linkname mapper golang.org/x/sys/unix.mapper
var mapper *struct {
	sync.Mutex
	active map[*byte][]byte
	mmap   func(addr, length uintptr, prot, flags, fd int, offset int64) (uintptr, error)
	munmap func(addr uintptr, length uintptr) error
}

// seizeMapper has files of open databases go through their backing when they are mapped.
var seizeMapper = sync.OnceFunc(func() {
	mmap := mapper.mmap
	mapper.mmap = func(addr, length uintptr, prot, flags, fd int, offset int64) (uintptr, error) {
		if fd >= 0 && prot&unix.PROT_WRITE != 0 && flags&unix.MAP_SHARED != 0 {
			if err := backMapping(fd, int64(length)); err != nil {
				return 0, err
			}
		}
		return mmap(addr, length, prot, flags, fd, offset)
	}
})

func backMapping(fd int, length int64) error {
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return nil // without /proc there is only the guard
	}
	b, ok := backings.Load(filepath.Dir(name))
	if !ok {
		return nil
	}
	return b.(*Backing).mapped(fd, name, length)
}
