package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha1" //nolint:gosec // which apk compares files by
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
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

// Debian has no apk. What it would compare before it installs a package is compared here: the digest of all files
// with what describes them, that of each with its header, the scripts by their names, and where files go.
func checkAlpine(t *testing.T, name string) {
	apk, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	type part struct {
		files map[string][]byte
		modes map[string]int64
		sum   string // of it as it is compressed
	}
	var parts []part
	for rest := bytes.NewReader(apk); rest.Len() > 0; {
		from := len(apk) - rest.Len()
		z, err := gzip.NewReader(rest)
		if err != nil {
			t.Fatal(err)
		}
		z.Multistream(false)
		p := part{files: map[string][]byte{}, modes: map[string]int64{}}
		for files := tar.NewReader(z); ; {
			h, err := files.Next()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				break
			}
			text, err := io.ReadAll(files)
			if err != nil {
				t.Fatal(err)
			}
			p.files[h.Name], p.modes[h.Name] = text, h.Mode
			if want, got := h.PAXRecords["APK-TOOLS.checksum.SHA1"], fmt.Sprintf("%x", sha1.Sum(text)); len(parts) > 0 && h.Typeflag == tar.TypeReg && got != want {
				t.Errorf("%s has the sum %s, and its header says %q", h.Name, got, want)
			}
		}
		if _, err := io.Copy(io.Discard, z); err != nil {
			t.Fatal(err)
		}
		p.sum = fmt.Sprintf("%x", sha256.Sum256(apk[from:len(apk)-rest.Len()]))
		parts = append(parts, p)
	}
	if len(parts) != 2 { // the first would be a signature, which is beside our files instead
		t.Fatalf("it has %d parts, want what describes it and its files", len(parts))
	}
	about, files := parts[0], parts[1]
	described := string(about.files[".PKGINFO"])
	for _, want := range []string{"pkgname = forebay\n", "pkgver = 9.8.7_rc1", "arch = x86_64\n", "license = Apache-2.0\n", "datahash = " + files.sum + "\n"} {
		if !strings.Contains(described, want) {
			t.Errorf(".PKGINFO has no %q:\n%s", want, described)
		}
	}
	for script, template := range map[string]string{".post-install": "postinstall.sh", ".post-upgrade": "postinstall.sh", ".pre-deinstall": "preremove.sh", ".post-deinstall": "postremove.sh"} {
		want, err := templates.ReadFile("templates/" + template)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(about.files[script], want) || about.modes[script]&0o111 == 0 {
			t.Errorf("%s is not %s, or is none that can run (mode %o)", script, template, about.modes[script])
		}
	}
	for file, mode := range map[string]int64{
		"usr/bin/forebay": 0o755, "etc/init.d/forebay": 0o755, "etc/forebay/forebay.yaml": 0o644, "usr/share/man/man1/forebay-serve.1.gz": 0o644, "usr/share/bash-completion/completions/forebay": 0o644,
	} {
		if _, ok := files.files[file]; !ok || files.modes[file]&0o777 != mode {
			t.Errorf("%s is there: %t, with mode %o, want %o", file, ok, files.modes[file], mode)
		}
	}
	for file := range files.files {
		if strings.Contains(file, "systemd") {
			t.Errorf("%s is for systemd, which Alpine has not", file)
		}
	}
}
