package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"testing"
	"time"
)

// The packager writes scripts in any order; what comes after them is not touched.
func TestApkIsTheSameWhateverOrderItsScriptsHave(t *testing.T) {
	apk := func(names ...string) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		w := tar.NewWriter(z)
		for i, name := range names {
			if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(name)), ModTime: time.Unix(int64(i), 0)}); err != nil {
				t.Fatal(err)
			}
			w.Write([]byte(name))
		}
		w.Flush()
		z.Close()
		return append(b.Bytes(), "\x1f\x8bthe rest"...)
	}
	one, err := orderScripts(apk(".PKGINFO", ".post-install", ".pre-deinstall"), time.Unix(9, 0))
	if err != nil {
		t.Fatal(err)
	}
	two, err := orderScripts(apk(".PKGINFO", ".pre-deinstall", ".post-install"), time.Unix(9, 0))
	if err != nil || !bytes.Equal(one, two) || !bytes.HasSuffix(one, []byte("\x1f\x8bthe rest")) {
		t.Errorf("orderScripts gives %q and %q, %v", one, two, err)
	}
	if _, err := orderScripts(apk(".post-install", ".PKGINFO"), time.Unix(9, 0)); err == nil {
		t.Error("something else than a package is changed")
	}
}
