// Package journal keeps a text file of the links, tags, pins and decisions that an index was told
// of, so that they survive the loss of its database.
//
// It promises that a line is read as it was written or not at all. Lines that the disk did
// not take are not an error: the journal is to be rewritten then, see [Journal.Wasteful].
package journal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"forebay/cache/index/durable"
	"forebay/cache/index/row"
)

// The journal is a text file of one change a line, in the order of the changes:
//
//	forebay refs 1 <run>
//	<checksum> +link <upstream> <repository> <kind> <digest> <size> <ms> <media type>
//	<checksum> -link <upstream> <repository> <kind> <digest> <ms>
//	<checksum> +tag <upstream> <repository> <tag> <digest> <size> <ms> <media type>
//	<checksum> -tag <upstream> <repository> <tag> <ms>
//	<checksum> +was <upstream> <repository> <tag> <digest> <ms> <ms>
//	<checksum> +pin <upstream> <repository> <tag or digest> <ms> <platform,platform>
//	<checksum> -pin <upstream> <repository> <tag or digest> <ms>
//	<checksum> +decision <name> <ms> <text>
//	<checksum> -decision <name> <ms>
//
// Old removals have no time. Lines of kinds that this program does not know are whole as others are,
// and are passed over.
//
// A tag that moved has +was for what it pointed to before, with when that was seen first and last.
// The checksum is the CRC-32C of the rest of the line, in hexadecimal. The run is a random
// number that tells this file from one that was rewritten. The time is in milliseconds
// since 1970. Blanks, per cent signs and control characters in names are
// written as %XX; an empty text is a lone per cent sign. Lines that cannot be read, as a
// torn last one, are passed over.
const journalHeader = "forebay refs 1 "

const (
	// maxLine is more than any line of ours has.
	maxLine = 16 << 10
	// Slack is how far a journal may outgrow twice its live content before it is
	// rewritten, so that small ones are left alone.
	Slack = 1 << 20
)

// tmpSuffix is of the file that a rewrite makes.
const tmpSuffix = ".tmp"

// RemoveLeftovers removes what a rewrite left that was killed.
func RemoveLeftovers(path string) error { return durable.RemoveIfThere(path + tmpSuffix) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Journal appends lines. Its methods may be called concurrently, but for StartRewrite with
// Rewrite, which only one caller does, and Close.
type Journal struct {
	path  string
	fault durable.Fault

	mu        sync.Mutex
	f         *os.File // guarded by mu
	run       uint64   // guarded by mu; of the header; 0 if that was damaged
	size      int64    // guarded by mu; bytes in the file
	dirty     bool     // guarded by mu; written since the last sync
	spoiled   bool     // guarded by mu; lines are missing: it must be rewritten
	rewriting bool     // guarded by mu
	tail      []byte   // guarded by mu; appended since the rewrite began
	shipping  bool     // guarded by mu; removals behind shipped outlive a rewrite
	shipped   row.Mark // guarded by mu; see Shipped
	removals  int64    // guarded by mu; bytes of those that outlived one
}

// Open opens a journal, or makes one, and ends a torn last line. The error is [row.ErrNewer] when a
// newer program wrote it.
func Open(path string, fault durable.Fault) (*Journal, error) {
	f, err := fault.Create(path, os.O_RDWR|os.O_APPEND)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := &Journal{path: path, f: f, fault: fault}
	if err := j.begin(); err != nil {
		return nil, fmt.Errorf("open journal: %w", errors.Join(err, f.Close()))
	}
	return j, nil
}

// begin reads the header of an old file or writes that of a new one.
func (j *Journal) begin() error {
	info, err := j.f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%q is not a regular file", j.path)
	}
	if j.size = info.Size(); j.size == 0 {
		j.run = rand.Uint64()
		return j.write(header(j.run))
	}
	b := make([]byte, min(j.size, maxLine))
	if _, err := j.f.ReadAt(b, 0); err != nil {
		return err
	}
	first, _, _ := bytes.Cut(b, []byte{'\n'})
	if j.run, err = parseHeader(first); err != nil {
		return err
	}
	last := make([]byte, 1)
	if _, err := j.f.ReadAt(last, j.size-1); err != nil {
		return err
	}
	if last[0] == '\n' {
		return nil
	}
	return j.write([]byte("\n")) // ends a torn line, so that the next stands alone
}

// HeaderSize is the size of a journal without entries.
const HeaderSize = int64(len(journalHeader) + 16 + 1)

func header(run uint64) []byte { return fmt.Appendf(nil, "%s%016x\n", journalHeader, run) }

// parseHeader returns the run of a first line, 0 if it is damaged. The error is
// [row.ErrNewer] when a newer program wrote it.
func parseHeader(b []byte) (uint64, error) {
	f := strings.Fields(string(b))
	if len(f) < 3 || f[0] != "forebay" || f[1] != "refs" {
		return 0, nil
	}
	if v, err := strconv.Atoi(f[2]); err != nil || v > 1 {
		if err == nil {
			return 0, fmt.Errorf("%w: the journal has form %d, this program knows 1", row.ErrNewer, v)
		}
		return 0, nil
	}
	if len(f) != 4 {
		return 0, nil
	}
	run, err := strconv.ParseUint(f[3], 16, 64)
	if err != nil {
		return 0, nil
	}
	return run, nil
}

// Since calls fn for the sound lines from a position on and counts the others.
func (j *Journal) Since(off int64, fn func(Entry) error) (bad int, err error) {
	return readLines(io.NewSectionReader(j.f, off, j.At().Off-off), fn)
}

// At returns the end of the journal.
func (j *Journal) At() row.Mark {
	j.mu.Lock()
	defer j.mu.Unlock()
	return row.Mark{Run: j.run, Off: j.size}
}

// write appends b whole or, as far as the disk lets it, not at all.
func (j *Journal) write(b []byte) error {
	var n int
	err := j.fault.Before(durable.StepAppend, j.path)
	if err == nil {
		n, err = j.f.Write(b)
	}
	if err == nil {
		j.size += int64(n)
		j.dirty = true
		return nil
	}
	if n > 0 && j.f.Truncate(j.size) != nil {
		j.size += int64(n)
	}
	return err
}

// Append adds lines and returns the new end. When they cannot be written, the caller goes on
// and the journal is rewritten as soon as the disk allows.
func (j *Journal) Append(lines []byte) row.Mark {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(lines) == 0 {
		return row.Mark{Run: j.run, Off: j.size}
	}
	if j.rewriting {
		j.tail = append(j.tail, lines...)
	}
	if err := j.write(lines); err != nil {
		j.spoiled = true
	}
	return row.Mark{Run: j.run, Off: j.size}
}

// Spoil makes the next compaction rewrite the journal.
func (j *Journal) Spoil() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.spoiled = true
}

// Wasteful reports whether the file should be rewritten; live is how many of its bytes are
// not obsolete.
func (j *Journal) Wasteful(live int64) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.spoiled || j.size > 2*(live+j.removals)+Slack
}

// Sync makes what was appended survive a loss of power.
func (j *Journal) Sync() error {
	j.mu.Lock()
	f, dirty := j.f, j.dirty
	j.dirty = false
	j.mu.Unlock()
	if !dirty {
		return nil
	}
	if err := j.fault.Sync(f); err != nil { // not under the lock: updates go on
		j.mu.Lock()
		replaced := j.f != f
		j.spoiled = j.spoiled || !replaced
		j.dirty = true
		j.mu.Unlock()
		if replaced {
			return j.Sync() // rewritten meanwhile: what was appended is in the new file
		}
		return fmt.Errorf("sync journal: %w", err)
	}
	return nil
}

// Close syncs and closes the journal.
func (j *Journal) Close() error {
	return errors.Join(j.Sync(), j.f.Close())
}

// StartRewrite begins to gather what is appended meanwhile.
func (j *Journal) StartRewrite() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.rewriting, j.tail, j.spoiled = true, nil, false
}

// Rewrite replaces the file by what emit writes and by what was appended since
// StartRewrite. The old file stays in place when anything fails.
func (j *Journal) Rewrite(emit func(io.Writer) error) (err error) {
	tmp := j.path + tmpSuffix
	defer func() {
		j.mu.Lock()
		j.rewriting, j.tail = false, nil
		j.spoiled = j.spoiled || err != nil
		j.mu.Unlock()
		if err != nil {
			err = fmt.Errorf("rewrite journal: %w", errors.Join(err, durable.RemoveIfThere(tmp)))
		}
	}()
	if err := j.fault.RemoveIfThere(tmp); err != nil {
		return err
	}
	f, err := j.fault.Create(tmp, os.O_RDWR|os.O_EXCL|os.O_APPEND)
	if err != nil {
		return err
	}
	run := rand.Uint64()
	removals, err := j.unshippedRemovals()
	size := int64(0)
	if err == nil {
		size, err = writeLines(f, run, removals, emit)
	}
	if err == nil {
		err = j.fault.Sync(f)
	}
	if err == nil {
		err = j.swap(f, tmp, run, size, int64(len(removals)))
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return j.fault.SyncFolder(filepath.Dir(j.path))
}

func writeLines(f *os.File, run uint64, first []byte, emit func(io.Writer) error) (int64, error) {
	w := bufio.NewWriterSize(f, 64<<10)
	_, err := w.Write(append(header(run), first...))
	if err == nil {
		err = emit(w)
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// swap puts the new file in place of the old one.
func (j *Journal) swap(f *os.File, tmp string, run uint64, size, removals int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := f.Write(j.tail); err != nil {
		return err
	}
	if err := j.fault.Rename(tmp, j.path); err != nil {
		return err
	}
	_ = j.f.Close() // replaced: nothing in it matters any more
	j.f, j.run, j.size = f, run, size+int64(len(j.tail))
	j.dirty, j.spoiled, j.removals = true, false, removals
	return nil
}

// Read calls fn for every sound line of a journal, in order, and counts the others.
// The error is [row.ErrNewer] when a newer program wrote it, else fn's or the reader's.
func Read(r io.Reader, fn func(Entry) error) (bad int, err error) {
	in, err := body(r)
	if err != nil || in == nil {
		return 0, err
	}
	return readLines(in, fn)
}

// body passes over the header; nil when there is nothing else.
func body(r io.Reader) (*bufio.Reader, error) {
	in := bufio.NewReaderSize(r, maxLine)
	first, _ := in.Peek(len(journalHeader) + 32)
	first, _, _ = bytes.Cut(first, []byte{'\n'})
	run, err := parseHeader(first)
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	if run != 0 {
		if _, err := in.ReadSlice('\n'); err != nil {
			return nil, nil // there is only a torn header
		}
	}
	return in, nil
}

// readLines calls fn for what every sound line says that is of a known kind, and counts those that
// are not sound.
func readLines(r io.Reader, fn func(Entry) error) (bad int, err error) {
	return scan(bufio.NewReaderSize(r, maxLine), func(b []byte) (bool, error) {
		e, err := parseLine(b)
		if err != nil {
			return errors.Is(err, errUnknown), nil
		}
		return true, fn(e)
	})
}

// scan calls fn for every line that has an end, without it, and counts those of which fn says that
// they are not sound, and the others.
func scan(in *bufio.Reader, fn func([]byte) (sound bool, err error)) (bad int, err error) {
	for {
		b, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			err = skipLine(in)
			b = []byte("too long to be ours")
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return bad, fmt.Errorf("read journal: %w", err)
		}
		torn := err != nil
		if b = bytes.TrimSuffix(b, []byte{'\n'}); len(b) > 0 {
			sound := false
			if !torn {
				if sound, err = fn(b); err != nil {
					return bad, err
				}
			}
			if !sound {
				bad++
			}
		}
		if torn {
			return bad, nil
		}
	}
}

// skipLine reads to the end of a line that does not fit into the buffer.
func skipLine(in *bufio.Reader) error {
	for {
		_, err := in.ReadSlice('\n')
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}
