package bundle

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"

	"forebay/internal/wire"
)

// inventoryFormat is the first line of an inventory.
const inventoryFormat = "forebay-inventory/1"

// inventoryMost bounds an inventory: some ten million lines.
const inventoryMost = 1 << 30

// compressFrom is how large an inventory is compressed: smaller ones are read by people.
const compressFrom = 1 << 20

// Inventory writes what a side has: a line that names the form, then digest and size of
// each thing, sorted and without repetition. It is compressed by zstd when it is large.
func Inventory(w io.Writer, blobs []Blob) error {
	all := slices.Clone(blobs)
	slices.SortFunc(all, byDigest)
	all = slices.CompactFunc(all, func(a, b Blob) bool { return a.Digest == b.Digest })
	out := w
	var packed *zstd.Encoder
	if len(all)*80 > compressFrom {
		var err error
		if packed, err = newPacker(w); err != nil {
			return err
		}
		out = packed
	}
	b := bufio.NewWriter(out)
	fmt.Fprintln(b, inventoryFormat)
	for _, one := range all {
		fmt.Fprintf(b, "%s %d\n", one.Digest, one.Size)
	}
	err := b.Flush()
	if packed != nil {
		err = errors.Join(err, packed.Close())
	}
	return err
}

func byDigest(a, b Blob) int {
	if c := strings.Compare(a.Digest.Algorithm, b.Digest.Algorithm); c != 0 {
		return c
	}
	return strings.Compare(a.Digest.Hex, b.Digest.Hex)
}

// ReadInventory reads an inventory, compressed or not. Every error is an [ErrFormat] or r's.
func ReadInventory(r io.Reader) ([]Blob, error) {
	plain, done, err := unpacked(bufio.NewReader(r))
	if err != nil {
		return nil, fmt.Errorf("read inventory: %w", err)
	}
	defer done()
	blobs, err := readInventory(io.LimitReader(plain, inventoryMost))
	if err != nil {
		return nil, fmt.Errorf("read inventory: %w", err)
	}
	return blobs, nil
}

func readInventory(r io.Reader) ([]Blob, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1024)
	if !lines.Scan() || lines.Text() != inventoryFormat {
		if err := lines.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
			return nil, err
		}
		return nil, faultf("it does not begin with the line %s: make it with forebay inventory", inventoryFormat)
	}
	var blobs []Blob
	for n := 2; lines.Scan(); n++ {
		b, err := parseStored(lines.Bytes())
		if err != nil {
			return nil, faultf("line %d: %w", n, err)
		}
		if len(blobs) > 0 && byDigest(blobs[len(blobs)-1], b) >= 0 {
			return nil, faultf("line %d is not in order", n)
		}
		blobs = append(blobs, b)
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			return nil, faultf("a line is too long")
		}
		return nil, err
	}
	return blobs, nil
}

func parseStored(line []byte) (Blob, error) {
	digest, number, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return Blob{}, fmt.Errorf("%.80q is not DIGEST SIZE", line)
	}
	d, err := wire.ParseDigest(string(digest))
	if err != nil {
		return Blob{}, err
	}
	size, err := strconv.ParseInt(string(number), 10, 64)
	if err != nil || size < 0 || size > blobMost || strconv.FormatInt(size, 10) != string(number) {
		return Blob{}, fmt.Errorf("%.40q is no size", number)
	}
	return Blob{wire.Digest{Hash: d}, size}, nil
}

// set is content by digest.
type set map[v1.Hash]int64

func setOf(blobs []Blob) set {
	s := make(set, len(blobs))
	for _, b := range blobs {
		s[b.Digest.Hash] = b.Size
	}
	return s
}
