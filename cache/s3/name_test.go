package s3

import (
	"strings"
	"testing"

	"forebay/test/storetest"
)

// Whatever stands in the bucket, a name is taken for a digest only if that digest has it.
func FuzzNamesOfObjects(f *testing.F) {
	hex := storetest.SHA256([]byte("x")).Hex
	for _, name := range []string{
		"a/blobs/sha256/" + hex[:2] + "/" + hex, "a/blobs/sha256/" + hex, "blobs/sha256/" + hex[:2] + "/" + hex, "a/blobs/sha256/00/" + hex,
		"a/blobs/sha256/" + hex[:2] + "/" + strings.ToUpper(hex), "a/blobs/../" + hex[:2] + "/" + hex, "a/blobs/check/x", "", "a/blobs/sha512/" + hex[:2] + "/" + hex,
	} {
		f.Add(name)
	}
	b := &Bucket{prefix: "a/blobs/"}
	f.Fuzz(func(t *testing.T, name string) {
		d, ok := b.digest(name)
		if !ok {
			return
		}
		if key, err := b.key(d); err != nil || key != name {
			t.Errorf("digest(%q) = %s, whose name is %q, %v", name, d, key, err)
		}
	})
}
