package index

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index/journal"
)

// A line that the journal accepts has a change that the index accepts.
func FuzzLinesHaveChanges(f *testing.F) {
	d := digest("a")
	for _, l := range [][]byte{
		journal.LinkLine(nginx, Manifest, d, Link{MediaType: "a/b; charset=x", Size: 5, At: at(1)}),
		journal.UnlinkLine(nginx, Blob, d, at(2)),
		journal.TagLine(nginx, "latest", Tag{Desc: v1.Descriptor{Digest: d}}),
		journal.UntagLine(nginx, "%", at(2)),
		journal.PinLine(Pin{Repo: nginx, Ref: "1", Platforms: []string{"linux/amd64", "linux/arm/v7"}, At: at(1)}),
		journal.UnpinLine(nginx, d.String(), at(2)),
	} {
		f.Add(l[9 : len(l)-1])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		// With the right checksum, which nothing would hit upon.
		l := fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)), b)
		_, err := journal.Read(bytes.NewReader(l), func(e journal.Entry) error {
			var batch Batch
			return change(e, &batch)
		})
		if err != nil {
			t.Errorf("line %q is accepted, its change is not: %v", l, err)
		}
	})
}
