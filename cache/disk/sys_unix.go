//go:build unix

package disk

import (
	"io/fs"
	"syscall"
)

// statBlock is the unit of st_blocks (POSIX leaves it open; Linux, macOS and the BSDs use 512).
const statBlock = 512

// allocated returns the space that a file takes, which is less than its length if it has gaps.
func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Blocks) * statBlock
	}
	return info.Size()
}
