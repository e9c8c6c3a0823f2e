package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// platform is one for which there is a program.
type platform struct {
	os, arch, variant string // variant is "v7" for arm
}

func (p platform) String() string { return strings.TrimSuffix(p.os+"/"+p.arch+"/"+p.variant, "/") }

// label is how files are named: linux_armv7.
func (p platform) label() string { return p.os + "_" + p.arch + p.variant }

// program is a platform with its binary.
type program struct {
	platform
	path string
}

// allPlatforms are all that there is a program for. Elsewhere than on Linux it has the operator's
// commands, and no serve.
func allPlatforms() []platform {
	return []platform{
		{"linux", "amd64", ""}, {"linux", "arm64", ""}, {"linux", "arm", "v7"},
		{"linux", "riscv64", ""}, {"linux", "ppc64le", ""}, {"linux", "s390x", ""},
		{"darwin", "amd64", ""}, {"darwin", "arm64", ""}, {"windows", "amd64", ""}, {"windows", "arm64", ""},
	}
}

func selectPlatforms(only string) ([]platform, error) {
	all := allPlatforms()
	if only == "" {
		return all, nil
	}
	var some []platform
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(all, func(p platform) bool { return p.String() == name })
		if i < 0 {
			return nil, fmt.Errorf("no platform %q among %v", name, all)
		}
		some = append(some, all[i])
	}
	return some, nil
}

// build makes the program of a platform, once.
func (r *release) build(ctx context.Context, p platform) (string, error) {
	name := filepath.Join(r.work, p.label(), "forebay")
	if p.os == "windows" {
		name += ".exe"
	}
	if _, err := os.Stat(name); err == nil {
		return name, nil
	}
	set := fmt.Sprintf("-s -w -X main.version=%s -X main.revision=%s -X main.date=%s", r.version, r.revision, r.made.Format(time.RFC3339))
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", set, "-o", name, "./cmd/forebay")
	cmd.Dir = r.source
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off", "CGO_ENABLED=0", "GOOS="+p.os, "GOARCH="+p.arch,
		"GOARM="+strings.TrimPrefix(p.variant, "v"), "GOAMD64=v1", "GOARM64=v8.0", "GOPPC64=power8", "GORISCV64=rva20u64", "GOEXPERIMENT=", "GOFIPS140=off")
	_, err := output(cmd)
	return name, err
}

// document is a file that goes along with the program.
type document struct {
	name string // where it is in a package: /usr/share/…
	path string
	gzip bool // compressed in packages, as Debian wants it
}

// documents lets the program of this machine write its manual pages and completions.
func (r *release) documents(ctx context.Context) ([]document, error) {
	here := platform{os: runtime.GOOS, arch: runtime.GOARCH}
	if here.arch == "arm" {
		here.variant = "v7"
	}
	program, err := r.build(ctx, here)
	if err != nil {
		return nil, err
	}
	pages := filepath.Join(r.work, "man")
	if err := os.Mkdir(pages, 0o755); err != nil {
		return nil, err
	}
	if _, err := output(exec.CommandContext(ctx, program, "man", pages)); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(pages)
	if err != nil {
		return nil, err
	}
	var all []document
	for _, e := range entries {
		section := strings.TrimPrefix(path.Ext(e.Name()), ".")
		all = append(all, document{name: "/usr/share/man/man" + section + "/" + e.Name(), path: filepath.Join(pages, e.Name()), gzip: true})
	}
	for shell, name := range map[string]string{
		"bash": "/usr/share/bash-completion/completions/forebay",
		"zsh":  "/usr/share/zsh/site-functions/_forebay",
		"fish": "/usr/share/fish/vendor_completions.d/forebay.fish",
	} {
		text, err := output(exec.CommandContext(ctx, program, "completion", shell))
		if err != nil {
			return nil, err
		}
		file := filepath.Join(r.work, "completion."+shell)
		if err := os.WriteFile(file, text, 0o644); err != nil {
			return nil, err
		}
		all = append(all, document{name: name, path: file})
	}
	for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md"} {
		all = append(all, document{name: "/usr/share/doc/forebay/" + name, path: filepath.Join(r.source, name)})
	}
	slices.SortFunc(all, func(a, b document) int { return strings.Compare(a.name, b.name) })
	return all, nil
}

// entry is a file of an archive.
type entry struct {
	name string
	path string
	mode os.FileMode
}

// archive packs the program of a platform with what goes along.
func (r *release) archive(p platform, binary string, docs []document) (err error) {
	top := "forebay_" + r.plain() + "_" + p.label() + "/"
	entries := []entry{{top + filepath.Base(binary), binary, 0o755}}
	for _, d := range docs {
		name := path.Base(d.name)
		switch {
		case strings.Contains(d.name, "/man/"):
			name = "man/" + name
		case strings.Contains(d.name, "complet") || strings.Contains(d.name, "site-functions"):
			name = "completions/" + name
			if name == "completions/forebay" {
				name += ".bash"
			}
		}
		entries = append(entries, entry{top + name, d.path, 0o644})
	}
	if p.os == "linux" {
		entries = append(entries, entry{top + "forebay.service", filepath.Join(r.source, "deploy", "forebay.service"), 0o644})
	}
	suffix, pack := ".tar.gz", r.tarball
	if p.os == "windows" {
		suffix, pack = ".zip", r.zipped
	}
	return create(r.file(p.label()+suffix), func(w io.Writer) error { return pack(w, entries) })
}

func (r *release) tarball(w io.Writer, entries []entry) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	for _, e := range entries {
		b, err := os.ReadFile(e.path)
		if err != nil {
			return err
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Size: int64(len(b)), Mode: int64(e.mode), ModTime: r.made, Format: tar.FormatPAX}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(b); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return z.Close()
}

func (r *release) zipped(w io.Writer, entries []entry) error {
	z := zip.NewWriter(w)
	for _, e := range entries {
		b, err := os.ReadFile(e.path)
		if err != nil {
			return err
		}
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Modified: r.made}
		h.SetMode(e.mode)
		f, err := z.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := f.Write(b); err != nil {
			return err
		}
	}
	return z.Close()
}

// create writes a file.
func create(name string, write func(io.Writer) error) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		f.Close()
		return fmt.Errorf("write %q: %w", name, err)
	}
	return f.Close()
}
