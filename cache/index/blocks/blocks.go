// Package blocks gives the files of a database their blocks of the disk before they are mapped
// (docs/adr/0013).
//
// It promises that what the database writes into a mapping has its place on the disk, so
// that a full disk is an error or a wait, never the end of the process. It takes hold of how
// the whole process maps files: what it does not know it leaves alone.
package blocks

import (
	"errors"
	"time"
)

// TableRetry is how often a table that waits looks for room.
const TableRetry = 200 * time.Millisecond

// ErrUnwritable means that nothing can be recorded now: the disk of the database is full
// or cannot be written. What is recorded can still be read. It comes with ENOSPC,
// EROFS or what else the disk says.
var ErrUnwritable = errors.New("index cannot be written")
