package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"google.golang.org/protobuf/proto"
)

// Badger ends the process when it meets certain damage in its tables, in a goroutine of its
// own, where nobody can recover. It also treats a damaged block as if its keys did not exist.
// So the files are checked before Badger opens them.

// verifyAll is the size up to which all tables are read at every start: well under 0.1 s.
// Larger ones are read when the process before did not end well, which is what a damaged
// table leads to; else only the index of each table is.
const verifyAll = 64 << 20

// verifyFiles returns [ErrDamaged] when the tables of a closed database are not whole.
func verifyFiles(dir string, afterCrash bool) error {
	if err := onlyFiles(dir); err != nil {
		return err
	}
	tables, err := listTables(dir)
	if err != nil {
		return err
	}
	var size int64
	for _, name := range tables {
		info, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if err != nil {
			return err
		}
		size += info.Size()
	}
	for _, name := range tables {
		if err := verifyTable(name, afterCrash || size <= verifyAll); err != nil {
			return causeOf(fmt.Errorf("table %q: %w", filepath.Base(name), err))
		}
	}
	return nil
}

// onlyFiles refuses folders, links and devices in the place of the database's files.
func onlyFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".sst", ".mem", ".vlog":
		case "":
			if e.Name() != strings.ToUpper(e.Name()) {
				continue // not Badger's, as the lost+found of a file system
			}
		default:
			continue
		}
		if !e.Type().IsRegular() {
			return fmt.Errorf("%w: %q is not a regular file", ErrDamaged, e.Name())
		}
	}
	return nil
}

// listTables returns the files that the database's manifest names. Others are left from a
// crash, and Badger removes them.
func listTables(dir string) (names []string, err error) {
	f, err := os.Open(filepath.Join(dir, badger.ManifestFilename))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	defer recoverDamage(&err)
	m, _, err := badger.ReplayManifestFile(f, 0, badger.DefaultOptions(dir))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	for id := range m.Tables {
		names = append(names, table.NewFilename(id, dir))
	}
	return names, nil
}

func recoverDamage(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: %v", ErrDamaged, r)
	}
}

// verifyTable checks the index of a table and, if deep, every block of it. From the end a
// table is: the checksum's length, the checksum, the index's length, the index, the
// blocks. A block ends in the same way with a checksum of all before it.
func verifyTable(name string, deep bool) (err error) {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	defer recoverDamage(&err)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	end, check, err := readChecksum(f, info.Size())
	if err != nil {
		return err
	}
	n, err := readLength(f, end)
	if err != nil {
		return err
	}
	raw, err := readPart(f, end-4-n, n)
	if err != nil {
		return err
	}
	if err := y.VerifyChecksum(raw, check); err != nil {
		return err
	}
	if !deep {
		return nil
	}
	return verifyBlocks(f, fb.GetRootAsTableIndex(raw, 0))
}

func verifyBlocks(f *os.File, index *fb.TableIndex) error {
	var at fb.BlockOffset
	for i := range index.OffsetsLength() {
		if !index.Offsets(&at, i) {
			return errors.New("index ends early")
		}
		block, err := readPart(f, int64(at.Offset()), int64(at.Len()))
		if err != nil {
			return err
		}
		n := int64(len(block))
		if n < 4 {
			return errors.New("block is too short")
		}
		end := n - 4 - int64(binary.BigEndian.Uint32(block[n-4:]))
		if end < 0 {
			return errors.New("block has no checksum")
		}
		var check pb.Checksum
		if err := proto.Unmarshal(block[end:n-4], &check); err != nil {
			return err
		}
		if err := y.VerifyChecksum(block[:end], &check); err != nil {
			return fmt.Errorf("block %d: %w", i, err)
		}
	}
	return nil
}

// readChecksum reads the checksum that ends at a position and returns where it begins.
func readChecksum(f *os.File, end int64) (int64, *pb.Checksum, error) {
	n, err := readLength(f, end)
	if err != nil {
		return 0, nil, err
	}
	b, err := readPart(f, end-4-n, n)
	if err != nil {
		return 0, nil, err
	}
	var check pb.Checksum
	if err := proto.Unmarshal(b, &check); err != nil {
		return 0, nil, err
	}
	return end - 4 - n, &check, nil
}

// readLength reads the length that ends at a position.
func readLength(f *os.File, end int64) (int64, error) {
	b, err := readPart(f, end-4, 4)
	if err != nil {
		return 0, err
	}
	return int64(binary.BigEndian.Uint32(b)), nil
}

func readPart(f *os.File, off, n int64) ([]byte, error) {
	// No part of a table is larger than a table can be (the memtable and what a
	// transaction adds to it), so that a damaged length takes no memory.
	if off < 0 || n < 0 || n > 64<<20 {
		return nil, errors.New("length cannot be")
	}
	b := make([]byte, n)
	if _, err := f.ReadAt(b, off); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return b, nil
}
